"""Builds images, parents first, and skips those whose inputs have not changed."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

from epic_runner.catalog import Catalog, load_catalog
from epic_runner.errors import EpicError, NotFound
from epic_runner.images import inputs, rootfs, sbom
from epic_runner.resources import content_root
from epic_runner.spec.checks import one_of
from epic_runner.spec.models import App

LABEL_LOCK: Final = "epic.lock"
LABEL_LOCKED: Final = "epic.locked"
LABEL_PARENT: Final = "epic.parent"
LABEL_PARENTS: Final = "epic.parents"
LABEL_SBOM: Final = "epic.sbom"

# Where an image keeps what is known of it: facts, Debian packages, its bill of materials.
FACTS_FOLDER: Final = "/usr/share/epic"

LAST_LINES: Final = 15

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What the engine says about its own doings.
_CHATTER: Final = (" ---> ", "Removing intermediate container", "Successfully ")
_STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)$", re.DOTALL)

# What a failing step says, and what to do about it; the first that is found counts.
_HINTS: Final = (
    (
        r"CERTIFICATE_VERIFY_FAILED|SSL certificate problem|certificate signed by unknown",
        (
            "Put the certificate authority of your site into /usr/local/share/ca-certificates "
            "(*.crt), or name its file in EPIC_CA_BUNDLE."
        ),
    ),
    (
        r"Could not resolve|Temporary failure (in name resolution|resolving)|Name or service not",
        (
            "Containers have no working DNS. Behind a proxy set http_proxy and https_proxy; "
            "else see epic-run doctor."
        ),
    ),
    (
        r"Connection timed out|Connection refused|Network is unreachable|Could not connect",
        (
            "The build cannot reach its package mirrors. Behind a proxy set http_proxy and "
            "https_proxy."
        ),
    ),
    (r"No space left on device", "Make room: docker system prune removes what nothing uses."),
    (
        r"DO NOT MATCH THE HASHES|did NOT match|WARNING: 1 computed checksum",
        "A download is not what was locked. Try again; if it stays, do not use that mirror.",
    ),
)


class BuildFailed(EpicError):
    """A step of a build failed."""


@dataclass(frozen=True)
class BuildLine:
    """One line about a build under way.

    Attributes:
        image: The app whose image is built.
        kind: `note`: what the builder does; `step`: a step of the Dockerfile begins; `output`:
            what the step printed; `warning`: something a person should know.
        text: The line.
    """

    image: str
    kind: Literal["note", "step", "output", "warning"]
    text: str


@dataclass(frozen=True)
class ImageFacts:
    """What the Docker engine knows of an image.

    Attributes:
        id: Its id, `sha256:…`.
        size: Bytes on disk, its parents' included.
        created: When it was made, in ISO 8601.
        labels: Its labels.
    """

    id: str
    size: int
    created: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class BuiltImage:
    """The outcome for one image.

    Attributes:
        app: The app's name.
        reference: The image's reference, `epic/spark:3.5.9-r1`.
        id: Its id.
        size: Bytes on disk, its parents' included.
        lock: The hash over its inputs.
        built: Whether it was built now, rather than found fresh.
        seconds: How long that took.
        drift: Locked Debian packages that are not served any more, as NAME=VERSION.
    """

    app: str
    reference: str
    id: str
    size: int
    lock: str
    built: bool
    seconds: float
    drift: tuple[str, ...] = ()


class BuildEngine(rootfs.ParentEngine, Protocol):
    """What building needs of a Docker engine."""

    def alone(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Keep other builds of this machine out; `waiting` is called if one is at work."""

    def facts(self, reference: str) -> ImageFacts | None:
        """Return what is known of an image, or None if there is no such image."""

    def build(
        self,
        context: IO[bytes],
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        tag: str | None,
        fresh: bool,
        host_network: bool,
    ) -> Iterator[Mapping[str, Any]]:
        """Build, and yield the engine's messages; `fresh` does without its cache of steps."""

    def read_folder(self, image: str, folder: str) -> dict[str, bytes]:
        """Return the files below a folder of an image by their paths relative to it."""

    def run_program(
        self, image: str, program: Path, target: str, arguments: Sequence[str], result: str
    ) -> bytes:
        """Run a program of this machine in an image, at `target`, and return the file `result`."""

    def remove(self, image: str) -> None:
        """Remove an image that nothing uses; do nothing otherwise."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        force: Build what was asked for even if it is fresh, without the engine's cache of steps.
        relock: Install the Debian packages that the mirror serves now and write them into the lock
            files of what was asked for; implies `force`.
        base: An image of Debian 12 to build the base on, instead of the one its Dockerfile names.
        environ: The environment: proxies and `EPIC_CA_BUNDLE`.
    """

    force: bool = False
    relock: bool = False
    base: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def forces(self) -> bool:
        """Whether what was asked for is built in any case."""
        return self.force or self.relock


@dataclass(frozen=True)
class Plan:
    """What building one image starts from.

    Attributes:
        app: The app.
        files: The files that decide its content, site certificates included.
        lock: The hash over them and the parent's lock.
    """

    app: App
    files: tuple[inputs.ContextFile, ...]
    lock: str


def make_plans(catalog: Catalog, environ: Mapping[str, str] = os.environ) -> dict[str, Plan]:
    """Return what each image of the catalogue is made of, parents before their children.

    Raises:
        EpicError: A file cannot be read.
    """
    plans: dict[str, Plan] = {}
    for app in catalog:
        files = inputs.folder_files(catalog.folder(app))
        if app.parent is None:
            files += inputs.site_certificates(environ)
        parent_lock = "" if app.parent is None else plans[app.parent].lock
        plans[app.name] = Plan(app, files, inputs.lock_of(app, files, parent_lock))
    return plans


def choose(catalog: Catalog, names: Sequence[str]) -> tuple[App, ...]:
    """Return the apps `names`, or all if there are none, parents first.

    Raises:
        NotFound: There is no such app.
    """
    for name in names:
        if catalog.get(name) is None:
            raise NotFound(f'There is no image "{name}".', one_of(name, list(catalog.apps)))
    return tuple(app for app in catalog if not names or app.name in names)


def is_fresh(
    app: App, lock: str, catalog: Catalog, facts: Callable[[str], ImageFacts | None]
) -> bool:
    """Tell whether an image is what a build would make now.

    Its inputs must be the same, and it must stand on the parent that is there; a parent that is not
    there (its image came from a registry by itself) is none to compare with.
    """
    own = facts(app.reference)
    if own is None or own.labels.get(LABEL_LOCK) != lock:
        return False
    if app.parent is None:
        return True
    parent = facts(catalog.apps[app.parent].reference)
    return parent is None or own.labels.get(LABEL_PARENT, parent.id) == parent.id


def build(
    names: Sequence[str],
    *,
    docker_client: BuildEngine,
    on_line: Callable[[BuildLine], None] = lambda _: None,
    catalog: Catalog | None = None,
    options: BuildOptions | None = None,
) -> list[BuiltImage]:
    """Build images, and those of their parents that they need, unless they are fresh.

    Args:
        names: Apps; all of the catalogue if empty.
        docker_client: The Docker engine, as `epic_runner.docker_build.connect` returns it.
        on_line: Told what happens.
        catalog: The apps; those that come with epic-runner if None.
        options: How to build.

    Returns:
        One entry for each image that was asked for or had to be built, parents first.

    Raises:
        NotFound: There is no such app.
        BuildFailed: A step failed; the message carries its last lines.
        EpicError: The base cannot be had, or a file cannot be read or written.
    """
    if catalog is None:
        catalog = load_catalog(content_root() / "images")
    return _Run(catalog, docker_client, on_line, options or BuildOptions()).run(names)


class _Run:
    """One call of `build`."""

    def __init__(
        self,
        catalog: Catalog,
        engine: BuildEngine,
        on_line: Callable[[BuildLine], None],
        options: BuildOptions,
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._on_line = on_line
        self._options = options
        self._plans = make_plans(catalog, options.environ)

    def run(self, names: Sequence[str]) -> list[BuiltImage]:
        wanted = choose(self._catalog, names)
        if not self._todo(wanted):
            return [self._found(app) for app in wanted]

        def waiting() -> None:
            self._tell(wanted[0], "note", "another build is at work: waiting for it")

        with self._engine.alone(waiting):
            # The other build may have done the work.
            return self._build_all(wanted)

    def _build_all(self, wanted: Sequence[App]) -> list[BuiltImage]:
        todo = self._todo(wanted)
        outcome = []
        for app in self._catalog:
            # A parent that was built anew makes its children stale.
            if app.name in todo or (app in wanted and not self._fresh(app)):
                outcome.append(self._build(app, forced=app in wanted and self._options.forces))
            elif app in wanted:
                outcome.append(self._found(app))
        return outcome

    def _fresh(self, app: App) -> bool:
        lock = self._plans[app.name].lock
        return is_fresh(app, lock, self._catalog, self._engine.facts)

    def _todo(self, wanted: Sequence[App]) -> set[str]:
        """Return the names of what has to be built: stale images and their stale parents."""
        todo: set[str] = set()
        for app in wanted:
            if self._fresh(app) and not self._options.forces:
                continue
            todo.add(app.name)
            todo |= {link.name for link in self._catalog.chain(app)[:-1] if not self._fresh(link)}
        return todo

    def _found(self, app: App) -> BuiltImage:
        facts = self._engine.facts(app.reference)
        if facts is None:
            raise BuildFailed(f"{app.reference} vanished while it was looked at.")
        return BuiltImage(
            app=app.name,
            reference=app.reference,
            id=facts.id,
            size=facts.size,
            lock=self._plans[app.name].lock,
            built=False,
            seconds=0.0,
        )

    def _build(self, app: App, *, forced: bool) -> BuiltImage:
        began = time.monotonic()
        before = self._engine.facts(app.reference)
        parent = self._parent(app)
        raw = self._steps(app, parent, forced=forced)
        about = self._engine.read_folder(raw, FACTS_FOLDER)
        drift = _lines(about.get(f"apt/{app.name}.drift"))
        if forced and self._options.relock:
            self._write_lock(app, about)
        for pin in drift:
            self._tell(app, "warning", f"{pin} is not served any more; took the version that is")
        self._finish(app, parent, raw, about)
        if before is not None:
            self._engine.remove(before.id)
        return replace(self._found(app), built=True, seconds=time.monotonic() - began, drift=drift)

    def _tell(
        self, app: App, kind: Literal["note", "step", "output", "warning"], text: str
    ) -> None:
        self._on_line(BuildLine(app.name, kind, text))

    def _parent(self, app: App) -> str:
        if app.parent is not None:
            return self._catalog.apps[app.parent].reference
        files = self._plans[app.name].files
        return rootfs.get_parent(
            self._options.base or rootfs.default_parent(files),
            self._engine,
            lambda text: self._tell(app, "note", text),
            exactly=self._options.base is not None,
        )

    def _steps(self, app: App, parent: str, *, forced: bool) -> str:
        """Carry out the Dockerfile; return the id of the image that came out."""
        files = self._plans[app.name].files
        if forced and self._options.relock:
            files = tuple(
                replace(file, data=b"") if file.path == inputs.APT_LOCK else file for file in files
            )
        folders = [inputs.SITE_CA_FOLDER] if app.parent is None else []
        proxies = inputs.proxy_arguments(self._options.environ)
        messages = self._engine.build(
            inputs.context(files, folders),
            arguments={"PARENT_IMAGE": parent, **proxies},
            labels={},
            tag=None,
            fresh=forced,
            host_network=inputs.proxy_on_this_host(proxies),
        )
        return self._follow(app, messages)

    def _finish(self, app: App, parent: str, raw: str, about: Mapping[str, bytes]) -> None:
        """Add the bill of materials and the labels, and give the image its name."""
        bill = self._bill(app, raw)
        dockerfile = f"FROM {raw}\n"
        files = []
        if bill is not None:
            files.append(inputs.ContextFile("sbom.json", bill))
            dockerfile += f"COPY sbom.json {sbom.SBOM_PATH}\n"
        files.append(inputs.ContextFile("Dockerfile", dockerfile.encode()))
        messages = self._engine.build(
            inputs.context(files),
            arguments={},
            labels=self._labels(app, parent, about, has_bill=bill is not None),
            tag=app.reference,
            fresh=False,
            host_network=False,
        )
        self._follow(app, messages, quiet=True)

    def _bill(self, app: App, raw: str) -> bytes | None:
        program = sbom.syft()
        if program is None:
            self._tell(
                app, "warning", "syft is not installed (pip install 'epic-runner[build]'): "
                "the image gets no bill of materials"
            )  # fmt: skip
            return None
        self._tell(app, "note", "listing what is inside (SBOM)")
        return self._engine.run_program(
            raw,
            program,
            sbom.SCAN_PROGRAM,
            sbom.scan_command(app.image, app.tag),
            sbom.SCAN_RESULT,
        )

    def _labels(
        self, app: App, parent: str, about: Mapping[str, bytes], *, has_bill: bool
    ) -> dict[str, str]:
        facts = dict(line.split("=", 1) for line in _lines(about.get("facts")) if "=" in line)
        below = self._engine.facts(parent)
        # An image is as locked as everything in it.
        locked = not _lines(about.get(f"apt/{app.name}.drift")) and (
            app.parent is None or below is None or below.labels.get(LABEL_LOCKED) == "true"
        )
        return {
            "epic.app": app.name,
            "epic.version": app.version,
            "epic.revision": str(app.revision),
            "epic.python": facts.get("python", ""),
            "epic.java": facts.get("java", ""),
            LABEL_LOCK: self._plans[app.name].lock,
            LABEL_LOCKED: str(locked).lower(),
            LABEL_PARENT: "" if below is None else below.id,
            # What the parent is by now, not what the catalogue says of it: it may be an older one.
            LABEL_PARENTS: "" if below is None else line_of(below.labels),
            LABEL_SBOM: sbom.SBOM_PATH if has_bill else "",
        }

    def _write_lock(self, app: App, about: Mapping[str, bytes]) -> None:
        """Write what was installed into the app's lock file."""
        path = self._catalog.folder(app) / inputs.APT_LOCK
        try:
            path.write_bytes(about[f"apt/{app.name}.lock"])
        except OSError as error:
            raise EpicError(f"{path}: {error.strerror}.") from error
        self._tell(app, "note", f"wrote {path}")
        self._plans = make_plans(self._catalog, self._options.environ)

    def _follow(
        self, app: App, messages: Iterator[Mapping[str, Any]], *, quiet: bool = False
    ) -> str:
        """Pass on a build's messages; return the image's id.

        Raises:
            BuildFailed: A step failed.
        """
        step = "the build"
        last: deque[str] = deque(maxlen=LAST_LINES)
        image = ""
        for message in messages:
            if "error" in message:
                raise _failure(app, step, [*last, str(message["error"])])
            image = str(message.get("aux", {}).get("ID", image))
            text = _CONTROL.sub("", str(message.get("stream", ""))).rstrip()
            found = _STEP.match(text)
            if found:
                step = f"step {found[1]} of {found[2]} ({_shortened(found[3])})"
                last.clear()
                if not quiet:
                    self._tell(app, "step", f"{found[1]}/{found[2]} {_shortened(found[3])}")
                continue
            for line in text.splitlines():
                if line.strip() and not line.startswith(_CHATTER):
                    last.append(line)
                    if not quiet:
                        self._tell(app, "output", line)
        if not image:
            raise _failure(app, step, [*last, "the engine ended the build without a result"])
        return image


def _failure(app: App, step: str, last: Sequence[str]) -> BuildFailed:
    text = "\n".join(last)
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), None)
    # The engine repeats the whole command in its verdict.
    lines = [_shortened(line, 200) for line in last]
    return BuildFailed(
        f"{app.reference}: {step} failed; its last lines:\n  " + "\n  ".join(lines),
        hint or f"All it printed: epic-run image build {app.name} --verbose",
    )


def _shortened(text: str, length: int = 100) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def line_of(labels: Mapping[str, str]) -> str:
    """Return an image and those below it as words NAME=VERSION, by its labels."""
    # The one that the base is built on is none of ours.
    own = [f"{labels['epic.app']}={labels['epic.version']}"] if "epic.app" in labels else []
    return " ".join([*labels.get(LABEL_PARENTS, "").split(), *own])


def _lines(data: bytes | None) -> tuple[str, ...]:
    return tuple((data or b"").decode("utf-8", "replace").split("\n")[:-1]) if data else ()
