"""A template made whole: against the catalogue of apps, the flavors and the tenant's quota."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from epic_runner.cluster import ClusterSpec, DeclaredAction, Endpoint, RoleSpec
from epic_runner.spec import checks
from epic_runner.spec.checks import Checked
from epic_runner.spec.models import (
    BUILTIN_FLAVORS,
    App,
    AppRole,
    AppService,
    Flavor,
    RoleRequest,
    Template,
    Tenant,
    check_name,
)
from epic_runner.spec.overrides import option_place
from epic_runner.spec.quantities import format_size
from epic_runner.spec.reader import MISTAKES_LIMIT, Place, Problem, quoted
from epic_runner.spec.scripts import ScriptError, declared

if TYPE_CHECKING:
    from epic_runner.catalog import Catalog
    from epic_runner.spec.load import Documents


@dataclass(frozen=True)
class Context:
    """What a template is checked against.

    Attributes:
        catalog: The apps.
        found: The documents read along with the template, by kind and name.
        known_flavors: Flavors from elsewhere; None if that is not known.
        known_tenants: Tenants from elsewhere; None if that is not known.
    """

    catalog: Catalog
    found: Mapping[tuple[str, str], Checked] = field(default_factory=dict)
    known_flavors: Mapping[str, Flavor] | None = None
    known_tenants: Mapping[str, Tenant] | None = None

    def names(self, kind: str) -> list[str]:
        """Return the names of the flavors or tenants that a template may speak of."""
        known = self.known_flavors if kind == "Flavor" else self.known_tenants
        names = [name for found_kind, name in self.found if found_kind == kind]
        return list(
            dict.fromkeys([*names, *(known or ()), *(BUILTIN_FLAVORS if kind == "Flavor" else ())])
        )

    def flavor(self, name: str) -> Flavor | None:
        """Return a flavor, that of a file before any other; None if it cannot be told."""
        checked = self.found.get(("Flavor", name))
        if checked is None:
            return (self.known_flavors or {}).get(name) or BUILTIN_FLAVORS.get(name)
        if checked.broken or not isinstance(checked.model, Flavor):
            return None
        return checked.model

    def tenant(self, name: str) -> Tenant | None:
        """Return a tenant, that of a file before any other; None if it cannot be told."""
        checked = self.found.get(("Tenant", name))
        if checked is None:
            return (self.known_tenants or {}).get(name)
        sound = isinstance(checked.model, Tenant) and checked.sound("quota")
        return checked.model if sound and isinstance(checked.model, Tenant) else None

    def members(self, name: str) -> list[str] | None:
        """Return the users of a tenant's members, likewise; None if they cannot be told."""
        checked = self.found.get(("Tenant", name))
        tenant = checked.model if checked else (self.known_tenants or {}).get(name)
        if not isinstance(tenant, Tenant) or (checked and not checked.sound("members")):
            return None
        return [member.user for member in tenant.members]


def resolve_cluster(
    documents: Documents,
    *,
    catalog: Catalog,
    name: str | None = None,
    tenant: str | None = None,
    template: str | None = None,
    known_flavors: Mapping[str, Flavor] | None = None,
    known_tenants: Mapping[str, Tenant] | None = None,
) -> ClusterSpec:
    """Return the cluster that a Template of `documents` describes.

    Args:
        documents: What was read.
        catalog: The apps.
        name: The cluster's name; the template's if None.
        tenant: The tenant's name (`--tenant`); the template's if None.
        template: The Template's name; the only one's if None.
        known_flavors: The flavors that were applied before; files go before them.
        known_tenants: The tenants that were applied before, likewise.

    Returns:
        The cluster, with every node role of the app in the app's order, those without a node too.

    Raises:
        InputErrors: The files do not hold exactly one such Template, or it cannot be launched as
            it is: each mistake with its place.
    """
    problems: list[Problem] = []
    templates = [
        item
        for (kind, own), item in documents.sources.items()
        if kind == "Template" and template in (None, own)
    ]
    if len(templates) != 1:
        names = ", ".join(documents.templates)
        message = (
            f"The files hold {len(templates)} Templates ({names}), but a cluster is made of one."
            if templates
            else "The files hold no Template."
        )
        place = templates[1].document.place(()) if templates else option_place("template")
        raise checks.input_errors([Problem(place, message)])
    if name is not None:
        problems += _option_problems("--name", name)
    if tenant is not None:
        problems += _option_problems("--tenant", tenant)
    context = Context(catalog, documents.sources, known_flavors or {}, known_tenants or {})
    cluster = check_template(
        context, templates[0], problems, name=name, tenant=tenant, launching=True
    )
    if problems or cluster is None:
        raise checks.input_errors(problems)
    return cluster


def draft_clusters(
    documents: Documents,
    *,
    catalog: Catalog,
    known_flavors: Mapping[str, Flavor] | None = None,
) -> dict[str, ClusterSpec]:
    """Return the cluster of each template of `documents` that `load_documents` found right.

    For showing what files amount to: the tenant may be the empty text, and a template with a
    flavor that is not known here is left out.
    """
    context = Context(catalog, documents.sources, known_flavors)
    clusters = {}
    for (kind, name), checked in documents.sources.items():
        cluster = check_template(context, checked, []) if kind == "Template" else None
        if cluster is not None:
            clusters[name] = cluster
    return clusters


def check_template(
    context: Context,
    checked: Checked,
    problems: list[Problem],
    *,
    name: str | None = None,
    tenant: str | None = None,
    launching: bool = False,
) -> ClusterSpec | None:
    """Check what a template asks for; what cannot be had is added to `problems`.

    Parts of it that are broken by themselves are left alone. Without `launching` a tenant may be
    missing, and the cluster's tenant is then the empty text.

    Returns:
        The cluster, or None if anything of it cannot be told.
    """
    template = checked.model
    if not isinstance(template, Template) or len(checked.broken) > MISTAKES_LIMIT:
        return None
    attempt = _Attempt(context, checked, template, problems)
    asked_tenant = attempt.tenant(tenant, required=launching)
    app = attempt.app()
    actions = attempt.actions(app)
    if app is None:
        attempt.flavors()
        return None
    roles, whole = attempt.roles(app)
    cluster = ClusterSpec(
        name=name or template.name,
        tenant=tenant or template.tenant or "",
        app=app.name,
        app_version=app.version,
        roles=roles,
        connections=template.connections.clusters,
        lifetime=template.lifetime.limits,
        actions=actions,
    )
    attempt.connections(cluster)
    if whole and cluster.node_count == 0:
        attempt.problem(("roles",), "The cluster would have no nodes.", "Raise a count.")
    elif asked_tenant is not None:
        attempt.quota(cluster, asked_tenant, whole=whole)
    return cluster if whole and not attempt.failed and not checked.broken else None


@dataclass
class _Attempt:
    """One template on its way to a cluster."""

    context: Context
    checked: Checked
    template: Template
    problems: list[Problem]
    failed: bool = False

    def problem(
        self,
        path: tuple[str | int, ...],
        message: str,
        hint: str | None = None,
        place: Place | None = None,
    ) -> None:
        self.failed = True
        self.problems.append(Problem(place or self.checked.document.place(path), message, hint))

    def tenant(self, option: str | None, *, required: bool) -> Tenant | None:
        name = option or self.template.tenant
        place = option_place("--tenant") if option else None
        if not option and not self.checked.sound("tenant"):
            return None
        if name is None:
            if required:
                self.problem(
                    (), "The template names no tenant.", "Add tenant: NAME, or give --tenant NAME."
                )
            return None
        tenant = self.context.tenant(name)
        names = self.context.names("Tenant")
        if name not in names and self.context.known_tenants is not None:
            self.problem(
                ("tenant",),
                f"There is no tenant {quoted(name)}.",
                checks.suggestion(name, names)
                or "Add a document of kind: Tenant, or apply one with `epic-run tenant apply`.",
                place,
            )
        if self.context.members(name) == []:
            found = self.context.found.get(("Tenant", name))
            if found is not None:
                written = ("members",) in found.document.places
                place = found.document.place(("members",) if written else ("name",))
            self.problem(
                ("tenant",),
                f"The tenant {name} has no members, so nobody could own the cluster.",
                "Add `members: [{user: ada, role: admin}]` to the Tenant document.",
                place,
            )
        return tenant

    def app(self) -> App | None:
        if not self.checked.sound("app"):
            return None
        catalog, template = self.context.catalog, self.template
        app = catalog.get(template.app_name)
        if app is None:
            names = [entry.name for entry in catalog.launchable]
            self.problem(
                ("app",),
                f"There is no app {quoted(template.app_name)}.",
                checks.one_of(template.app_name, names),
            )
            return None
        if not app.launchable:
            self.problem(
                ("app",),
                f"The app {app.name} has no node roles, so it cannot be launched by itself.",
                self._launchable_hint(app),
            )
            return None
        if template.app_version not in (None, app.version):
            self.problem(
                ("app",),
                f"The catalogue has {app.name} {app.version}, not {template.app_version}.",
                f"Write app: {app.name}, or app: {app.name}@{app.version}.",
            )
        return app

    def _launchable_hint(self, app: App) -> str | None:
        for parent in reversed(self.context.catalog.chain(app)):
            if parent.launchable and app.services:
                services = ", ".join(app.services)
                return f"Write app: {parent.name}, and services: [{services}] in a node role."
        names = [entry.name for entry in self.context.catalog.launchable]
        return f"There is: {', '.join(names)}." if names else None

    def roles(self, app: App) -> tuple[tuple[RoleSpec, ...], bool]:
        """Return the app's node roles as the template wants them, and whether these are all.

        Those with mistakes are left out.
        """
        unknown = [name for name in self.template.roles if name not in app.roles]
        for name in unknown:
            self.problem(
                ("roles", name),
                f"roles.{name} is not a node role of the app {app.name}.",
                checks.one_of(name, list(app.roles)),
            )
            self._flavor(name, self.template.roles[name])
        found = []
        for name, entry in app.roles.items():
            # One left out may well be the one whose name is wrong: nothing is said of it.
            if unknown and name not in self.template.roles:
                continue
            known = len(self.problems)
            role = self._role(app, name, entry)
            if role is not None and len(self.problems) == known:
                found.append(role)
        return tuple(found), len(found) == len(app.roles) and not unknown

    def _role(self, app: App, name: str, entry: AppRole) -> RoleSpec | None:
        request = self.template.roles.get(name)
        if request is None:
            if not self.checked.sound("roles", name):
                return None
            request = RoleRequest(count=entry.min)
        count = max(1, entry.min) if request.count is None else request.count
        if self.checked.sound("roles", name, "count"):
            self._check_count(app, name, entry, count)
        flavor = self._flavor(name, request)
        services = self._services(app, name, entry, request)
        if flavor is None or services is None:
            return None
        extra = {key: item for key, item in services.items() if key not in entry.services}
        self._check_memory(app, name, entry, flavor, services)
        try:
            image = self.context.catalog.image_for(app, services)
        except LookupError:
            self.problem(
                ("roles", name, "services"),
                f"roles.{name}.services: no one image offers {', '.join(extra)} together.",
                "Ask for some of them in another node role.",
            )
            return None
        return RoleSpec(
            name=name,
            count=count,
            flavor=flavor.name,
            size=flavor.size,
            image=image.reference,
            services=tuple(services),
            roles=tuple(dict.fromkeys(service.role for service in services.values())),
            endpoints=tuple(
                Endpoint(item.name, item.label, item.port, item.path, item.token, item.keeps_path)
                for service in services.values()
                for item in service.endpoints
            ),
            minimum=entry.min,
            maximum=entry.max,
        )

    def _check_count(self, app: App, name: str, entry: AppRole, count: int) -> None:
        path = ("roles", name, "count")
        if count < entry.min:
            self.problem(
                path, f"roles.{name}.count must be at least {entry.min} in {app.name}, not {count}."
            )
        elif entry.max is not None and count > entry.max:
            self.problem(
                path, f"roles.{name}.count must be at most {entry.max} in {app.name}, not {count}."
            )

    def flavors(self) -> None:
        """Check only that the flavors exist, where nothing is known of the app."""
        for name, request in self.template.roles.items():
            self._flavor(name, request)

    def _flavor(self, name: str, request: RoleRequest) -> Flavor | None:
        path = ("roles", name, "flavor")
        if not self.checked.sound(*path):
            return None
        names = self.context.names("Flavor")
        if request.flavor not in names and self.context.known_flavors is not None:
            self.problem(
                path,
                f"There is no flavor {quoted(request.flavor)}.",
                checks.one_of(request.flavor, names),
            )
        return self.context.flavor(request.flavor)

    def _services(
        self, app: App, name: str, entry: AppRole, request: RoleRequest
    ) -> dict[str, AppService] | None:
        """Return the services of each node, the app's own first; None after a mistake."""
        offered = self.context.catalog.offered(app)
        limited = _limited(app, entry)
        free = [key for key in offered if key not in entry.services and key not in limited]
        path = ("roles", name, "services")
        sound = self.checked.sound(*path)
        places = [(*path, index) for index in self.checked.kept(*path)]
        wanted = dict(zip(request.services, places, strict=False))
        for service, place in wanted.items():
            if service not in offered:
                self.problem(
                    place,
                    f"No image for {app.name} offers the service {quoted(service)}.",
                    checks.one_of(service, free),
                )
            elif service in limited:
                role = limited[service]
                self.problem(
                    place,
                    f"roles.{name} cannot run {service}: it is what makes a node a {role}, of "
                    f"which {app.name} has at most {app.roles[role].max}.",
                    "Leave it out.",
                )
        if not sound or not wanted.keys() <= offered.keys() - limited.keys():
            return None
        return {key: offered[key] for key in dict.fromkeys((*entry.services, *wanted))}

    def _check_memory(
        self,
        app: App,
        name: str,
        entry: AppRole,
        flavor: Flavor,
        services: Mapping[str, AppService],
    ) -> None:
        needs = {name: entry.memory or 0}
        for key, service in services.items():
            if key not in entry.services:
                beside = [
                    size for other, size in service.memory_beside.items() if other in services
                ]
                needs[key] = (service.memory or 0) + sum(beside)
        need = sum(needs.values())
        if flavor.memory >= need:
            return
        parts = [f"{format_size(size)} for {key}" for key, size in needs.items() if size]
        listed = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        fitting = [
            other.name
            for key in self.context.names("Flavor")
            if (other := self.context.flavor(key)) is not None and other.memory >= need
        ]
        self.problem(
            ("roles", name, "flavor"),
            f"roles.{name} needs at least {format_size(need)} of memory{listed} in {app.name}, "
            f"but the flavor {flavor.name} has {format_size(flavor.memory)}.",
            f"Flavors with enough: {', '.join(fitting)}." if fitting else "Define a larger flavor.",
        )

    def connections(self, cluster: ClusterSpec) -> None:
        """Refuse a connection of a cluster with itself; whether others exist is not known here."""
        path = ("connections", "clusters")
        if cluster.name in cluster.connections and self.checked.sound(*path):
            self.problem(
                (*path, cluster.connections.index(cluster.name)),
                f"connections.clusters names {cluster.name} itself.",
                "Its notebooks run on it anyway: leave it out.",
            )

    def actions(self, app: App | None) -> tuple[DeclaredAction, ...]:
        """Return the actions with their scripts, as far as these can be read.

        Without an app nothing is said of their node roles.
        """
        found = []
        kept = self.checked.kept("actions")
        for index, action in zip(kept, self.template.actions, strict=False):
            path = ("actions", index)
            positions = self.checked.kept(*path, "roles")
            for position, role in zip(positions, action.roles, strict=False):
                if app is not None and role not in app.roles:
                    self.problem(
                        (*path, "roles", position),
                        f"actions[{index}].roles: {role} is not a node role of {app.name}.",
                        checks.one_of(role, list(app.roles)),
                    )
            try:
                found.append(declared(action, self.checked.document.source.folder))
            except ScriptError as error:
                key = "command" if action.run is None else "run"
                self.problem((*path, key), f"actions[{index}].{key}: {error.message}", error.hint)
        return tuple(found)

    def quota(self, cluster: ClusterSpec, tenant: Tenant, *, whole: bool) -> None:
        """Refuse a cluster that the tenant's quota could not hold even if nothing else ran.

        One that is not `whole`, since some node roles have mistakes, needs that much at least.
        """
        total, quota = cluster.total, tenant.quota
        figures = (
            ("cores", total.cores, quota.cores, _plain("cores")),
            ("memory", total.memory_bytes, quota.memory, _in_bytes("memory")),
            ("disk", total.disk_bytes, quota.disk, _in_bytes("disk")),
            ("nodes", cluster.node_count, quota.nodes, _plain("nodes")),
        )
        for key, wanted, limit, text in figures:
            if limit is not None and wanted > limit:
                self.problem(
                    (),
                    f"The cluster needs {'' if whole else 'at least '}{text(wanted)}, "
                    f"but the quota of the tenant {tenant.name} is {text(limit).split()[0]}.",
                    f"Ask for fewer or smaller nodes, or raise quota.{key} of the tenant.",
                )
        if quota.clusters == 0:
            self.problem(
                (),
                f"The quota of the tenant {tenant.name} allows no clusters.",
                "Raise quota.clusters of the tenant.",
            )


def _limited(app: App, entry: AppRole) -> dict[str, str]:
    """Return the services that the node role `entry` cannot have more, each with its node role.

    They come with a node role of which the app has only so many: where the app itself does not
    give them, they would make more of it.
    """
    return {
        service: name
        for name, other in app.roles.items()
        if other.max is not None
        for service in other.services
        if service not in entry.services
    }


def _plain(unit: str) -> Callable[[int], str]:
    return lambda count: f"{count} {unit}"


def _in_bytes(unit: str) -> Callable[[int], str]:
    return lambda count: f"{format_size(count)} of {unit}"


def _option_problems(option: str, value: str) -> list[Problem]:
    try:
        check_name(value)
    except PydanticCustomError as error:
        context: Mapping[str, Any] = error.context or {}
        message = f"{quoted(value)} {context['message']}."
        return [Problem(option_place(option), message, context["hint"])]
    return []
