"""The catalogue of apps: every `images/NAME/app.yml`, checked as a whole.

An app's image is built on its parent's, so the catalogue is a forest. A node role that asks for a
service beyond its app's gets the image of a descendant that offers it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epic_runner.spec import checks, reader
from epic_runner.spec.models import App, AppService
from epic_runner.spec.reader import Problem, quoted

APP_FILE = "app.yml"


@dataclass(frozen=True)
class Catalog:
    """All apps by name, parents before their children.

    Attributes:
        apps: The entries.
        folders: The folder of each app, where its Dockerfile is.
    """

    apps: Mapping[str, App]
    folders: Mapping[str, Path] = field(default_factory=dict)

    def __iter__(self) -> Iterator[App]:
        """Go through the apps, parents before their children."""
        return iter(self.apps.values())

    def get(self, name: str) -> App | None:
        """Return the app `name`, or None."""
        return self.apps.get(name)

    def folder(self, app: App) -> Path:
        """Return the folder that holds the app's Dockerfile and app.yml."""
        return self.folders[app.name]

    @property
    def launchable(self) -> tuple[App, ...]:
        """The apps that a template can be made of."""
        return tuple(app for app in self if app.launchable)

    def chain(self, app: App) -> tuple[App, ...]:
        """Return the apps whose images make up `app`'s, the base first and `app` last."""
        chain = [app]
        while chain[-1].parent is not None:
            chain.append(self.apps[chain[-1].parent])
        return tuple(reversed(chain))

    def descendants(self, app: App) -> tuple[App, ...]:
        """Return `app` and all apps built on it, the nearest first, then by name."""
        below = [(len(self.chain(other)), other.name, other) for other in self]
        return tuple(
            other
            for _, _, other in sorted(below, key=lambda item: item[:2])
            if app.name in {link.name for link in self.chain(other)}
        )

    def services(self, app: App) -> dict[str, AppService]:
        """Return every service that `app`'s own image can run, its parents' first."""
        return {
            name: service for link in self.chain(app) for name, service in link.services.items()
        }

    def offered(self, app: App) -> dict[str, AppService]:
        """Return every service that a node of `app` can have, in its image or a descendant's."""
        return {
            name: service
            for other in self.descendants(app)
            for name, service in self.services(other).items()
        }

    def service(self, app: App, name: str) -> AppService:
        """Return the service `name` of `app`, its parents or its descendants.

        Raises:
            KeyError: None of them has it.
        """
        return self.offered(app)[name]

    def image_for(self, app: App, services: Collection[str]) -> App:
        """Return the app whose image a node of `app` with `services` runs.

        It is the shallowest one, from `app` down, that offers all of them; of two equally near,
        the first by name.

        Raises:
            LookupError: No single image offers all of them.
        """
        for other in self.descendants(app):
            if set(services) <= self.services(other).keys():
                return other
        raise LookupError(f"no image below {app.name} offers {', '.join(sorted(services))}")


def load_catalog(images: Path) -> Catalog:
    """Read every app of the folder `images` and check them together.

    Raises:
        InputErrors: The mistakes of all files.
    """
    problems: list[Problem] = []
    found: dict[str, tuple[checks.Checked, Path]] = {}
    paths = sorted(images.glob(f"*/{APP_FILE}"))
    for number, path in enumerate(paths):
        checked = _read_app(path, number, problems)
        if checked is not None:
            found[_app(checked).name] = (checked, path.parent)
    apps = {name: checked for name, (checked, _) in found.items()}
    ordered = _parents_first(apps, {path.parent.name for path in paths}, problems)
    catalog = Catalog(
        {name: _app(apps[name]) for name in ordered},
        {name: found[name][1] for name in ordered},
    )
    for name in ordered:
        _check_app(catalog, apps[name], problems)
    if problems:
        raise checks.input_errors(problems)
    return catalog


def _read_app(path: Path, number: int, problems: list[Problem]) -> checks.Checked | None:
    """Return the one app of a file; None if it holds something else."""
    try:
        documents = reader.read(reader.read_file(str(path), number), problems)
    except OSError as error:
        problems.append(reader.unreadable(str(path), number, error))
        return None
    if len(documents) > 1:
        problems.append(Problem(documents[1].place(()), "The file must hold one app only."))
    checked = checks.check(documents[0], problems) if documents else None
    if checked is None:
        return None
    if not isinstance(checked.model, App):
        if checked.kind != "App":
            place = checked.document.place(("kind",))
            problems.append(Problem(place, f"An app is wanted here, not a {checked.kind}."))
        return None
    folder = path.parent.name
    if checked.model.name == folder:
        return checked
    if checked.sound("name"):
        place = checked.document.place(("name",))
        message = f"name must be that of the folder, {quoted(folder)}."
        problems.append(Problem(place, message))
    return None


def _app(checked: checks.Checked) -> App:
    assert isinstance(checked.model, App)  # noqa: S101 - for the type checker: chosen so above
    return checked.model


def _parents_first(
    apps: Mapping[str, checks.Checked], folders: Collection[str], problems: list[Problem]
) -> list[str]:
    """Return the names of the apps whose parents are all there, parents first.

    Nothing is said of a parent whose file is there, among `folders`, but could not be read.
    """
    ordered: list[str] = []
    waiting = dict(apps)
    while waiting:
        ready = [
            name
            for name, checked in waiting.items()
            if _app(checked).parent is None or _app(checked).parent in ordered
        ]
        if not ready:
            break
        ordered += ready
        for name in ready:
            del waiting[name]
    for checked in waiting.values():
        parent = str(_app(checked).parent)
        place = checked.document.place(("parent",))
        if not checked.sound("parent"):
            continue
        if parent not in folders:
            hint = checks.one_of(parent, [name for name in apps if name != _app(checked).name])
            problems.append(Problem(place, f'There is no app "{parent}" to be the parent.', hint))
        elif _in_circle(apps, _app(checked)):
            problems.append(Problem(place, "The app is its own ancestor by this parent."))
    return ordered


def _in_circle(apps: Mapping[str, checks.Checked], app: App) -> bool:
    seen = {app.name}
    parent = app.parent
    while parent is not None and parent in apps and parent not in seen:
        seen.add(parent)
        parent = _app(apps[parent]).parent
    return parent == app.name


def _check_app(catalog: Catalog, checked: checks.Checked, problems: list[Problem]) -> None:
    """Check an app against its parents: services, endpoints and node roles."""
    app = _app(checked)
    inherited = {name: link.name for link in catalog.chain(app)[:-1] for name in link.services}
    problems += [
        Problem(
            checked.document.place(("services", name)),
            f"services.{name} is a service of the parent {inherited[name]} already.",
        )
        for name in app.services
        if name in inherited
    ]
    problems += _endpoint_problems(catalog, checked)
    # A service that has mistakes of its own is there all the same.
    written = checked.document.data.get("services")
    own = written if isinstance(written, dict) else {}
    known = list(dict.fromkeys([*catalog.services(app), *own]))
    problems += [
        Problem(
            checked.document.place(("services", name, "memory_beside", other)),
            f'There is no service "{other}" in this app or its parents.',
            checks.one_of(other, known),
        )
        for name, service in app.services.items()
        for other in service.memory_beside
        if other not in known
    ]
    for name in app.roles:
        problems += _role_problems(checked, name, known)


def _endpoint_problems(catalog: Catalog, checked: checks.Checked) -> Iterator[Problem]:
    """Yield endpoints whose port or name is taken in the same image, and probes of no endpoint."""
    app = _app(checked)
    ports: dict[int, str] = {}
    names: dict[str, str] = {}
    for link in catalog.chain(app):
        for service_name, service in link.services.items():
            for index, endpoint in enumerate(service.endpoints):
                path = ("services", service_name, "endpoints", index)
                if link is app and endpoint.port in ports:
                    other = ports[endpoint.port]
                    yield Problem(
                        checked.document.place((*path, "port")),
                        f"Port {endpoint.port} belongs to the service {other} already.",
                    )
                if link is app and endpoint.name in names:
                    yield Problem(
                        checked.document.place((*path, "name")),
                        f"The service {names[endpoint.name]} has an endpoint named "
                        f'"{endpoint.name}" already.',
                    )
                ports.setdefault(endpoint.port, service_name)
                names.setdefault(endpoint.name, service_name)
    for service_name, service in app.services.items():
        if service.probe is not None and service.probe.endpoint not in names:
            yield Problem(
                checked.document.place(("services", service_name, "probe", "endpoint")),
                f'There is no endpoint "{service.probe.endpoint}" in this app or its parents.',
                checks.one_of(service.probe.endpoint, list(names)),
            )


def _role_problems(checked: checks.Checked, name: str, known: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with a node role, given the services that are known."""
    role = _app(checked).roles[name]
    place = checked.document.place
    if role.max is not None and role.max < role.min:
        yield Problem(
            place(("roles", name, "max")), f"roles.{name}.max is less than its min, {role.min}."
        )
    for index, service in enumerate(role.services):
        if service not in known:
            yield Problem(
                place(("roles", name, "services", index)),
                f'roles.{name} runs "{service}", which is no service of this app or its parents.',
                checks.one_of(service, known),
            )
