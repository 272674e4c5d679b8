"""What a shell is told to complete arguments with: files, and the names that the store knows.

A person waits at the keyboard, so no host is asked, and neither Docker nor Ansible. A store that is
not there, or does not tell in a moment, has no names: completing makes and changes nothing, and
never fails.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    import click

    from epic_runner.store import ClusterRecord, ScheduleRecord
    from epic_runner.store.store import Transaction

    Items = list[CompletionItem[str]]
    Completer = Callable[[click.Context, click.Parameter, str], Items]
    # What has names in the store, by what was given before, and the beginning of the wanted one.
    Names = Callable[[Transaction, Mapping[str, Any], str], Iterable[str]]

# A store on a server that is down is not waited for.
LOOK_SECONDS = 2.0
# So many jobs and actions are told of, the newest first.
NEWEST = 100


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Leave it to the shell, which knows files best."""
    return [CompletionItem(incomplete, type="file")]


def listed_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Complete the first file of a list with commas; shells know none behind a comma."""
    return [] if "," in incomplete else files(context, parameter, incomplete)


def apps(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Return the apps of the catalogue by their folders, without reading them."""
    from epic_runner.catalog import APP_FILE
    from epic_runner.resources import content_root

    paths = sorted((content_root() / "images").glob(f"*/{APP_FILE}"))
    return _beginning(incomplete, (path.parent.name for path in paths))


def _beginning(incomplete: str, names: Iterable[str]) -> Items:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _known(names: Names) -> Completer:
    """Make a completer of what reads names from the store."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> Items:
        return _beginning(incomplete, _seen(names, _given(context), incomplete))

    return complete


def _given(context: click.Context) -> dict[str, Any]:
    """Return what stands on the line already.

    click reads no arguments where the last word is an option that still lacks its value.
    """
    given = dict(context.params)
    arguments = (item for item in context.command.params if item.param_type_name == "argument")
    first = next((item.name for item in arguments), None)
    if context.args and first and not given.get(first):
        given[first] = context.args[0]
    return given


def _seen(names: Names, given: Mapping[str, Any], incomplete: str) -> list[str]:
    """Return names of the store, none where it does not tell in a moment."""
    found: list[str] = []

    def look() -> None:
        from epic_runner.store import Store

        # Whatever is amiss is told by the verb itself, when it is called.
        with contextlib.suppress(Exception), Store(as_it_is=True).read() as transaction:
            found.extend(names(transaction, given, incomplete))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(LOOK_SECONDS)
    return [*found]


def _called(items: Iterable[ClusterRecord | ScheduleRecord], incomplete: str) -> list[str]:
    """Return what people call things by: with their tenant where the name alone is not enough."""
    items = [*items]
    count = Counter(item.name for item in items)
    return [
        f"{item.tenant}/{item.name}" if "/" in incomplete or count[item.name] > 1 else item.name
        for item in items
    ]


def _cluster(seen: Transaction, given: Mapping[str, Any]) -> ClusterRecord | None:
    name = given.get("cluster")
    return seen.find_cluster(name, given.get("tenant")) if name else None


def _chosen(seen: Transaction, given: Mapping[str, Any]) -> list[ClusterRecord]:
    """Return the cluster that was named, or all that it can be."""
    cluster = _cluster(seen, given)
    return [cluster] if cluster else seen.clusters(given.get("tenant"))


@_known
def clusters(seen: Transaction, given: Mapping[str, Any], incomplete: str) -> list[str]:
    """Return clusters, those of `--tenant` where it is given."""
    return _called(seen.clusters(given.get("tenant")), incomplete)


@_known
def connected(seen: Transaction, given: Mapping[str, Any], _: str) -> tuple[str, ...]:
    """Return the clusters that the named one is connected to."""
    cluster = _cluster(seen, given)
    return cluster.spec.connections if cluster else ()


@_known
def schedules(seen: Transaction, given: Mapping[str, Any], incomplete: str) -> list[str]:
    """Return schedules, those of `--tenant` where it is given."""
    return _called(seen.schedules(given.get("tenant")), incomplete)


@_known
def tenants(seen: Transaction, _: Mapping[str, Any], __: str) -> list[str]:
    """Return tenants."""
    return [tenant.name for tenant in seen.tenants()]


@_known
def members(seen: Transaction, given: Mapping[str, Any], _: str) -> list[str]:
    """Return the members of the tenant that is meant, of all where nothing tells which."""
    cluster = _cluster(seen, given)
    name = cluster.tenant if cluster else given.get("tenant")
    found = [seen.tenant(name)] if name else seen.tenants()
    return [member["user"] for tenant in found for member in tenant.members]


@_known
def roles(seen: Transaction, given: Mapping[str, Any], _: str) -> list[str]:
    """Return the node roles of the named cluster."""
    return [role.name for cluster in _chosen(seen, given) for role in cluster.spec.roles]


@_known
def services(seen: Transaction, given: Mapping[str, Any], _: str) -> list[str]:
    """Return the services of the named cluster."""
    found = [role for cluster in _chosen(seen, given) for role in cluster.spec.roles]
    return [name for role in found for name in role.services]


@_known
def nodes(seen: Transaction, given: Mapping[str, Any], _: str) -> list[str]:
    """Return the nodes of the named cluster, or those that the named action is for."""
    # What stands behind the dashes is for the node, which has names of its own.
    if isinstance(given.get("command"), tuple):
        return []
    if given.get("key"):
        return [*seen.action(given["key"]).nodes]
    return [node.short_name for cluster in _chosen(seen, given) for node in cluster.nodes]


@_known
def jobs(seen: Transaction, _: Mapping[str, Any], __: str) -> list[str]:
    """Return the ids of the newest jobs."""
    return [job.id for job in seen.jobs(limit=NEWEST)]


@_known
def actions(seen: Transaction, _: Mapping[str, Any], __: str) -> list[str]:
    """Return the ids of the newest actions of all clusters."""
    found = [
        action.id
        for cluster in seen.clusters()
        for action in seen.actions(cluster.tenant, cluster.name, limit=NEWEST)
    ]
    # They begin with the time.
    return sorted(found, reverse=True)[:NEWEST]


@_known
def hosts(seen: Transaction, _: Mapping[str, Any], __: str) -> list[str]:
    """Return hosts: those of the inventory as it was last read, and what is remembered of others.

    Reading an inventory takes Ansible.
    """
    from epic_runner.host_inventory import inventory_path, remembered

    path = inventory_path()
    return [*(remembered(path) if path else ("local",)), *seen.hosts()]
