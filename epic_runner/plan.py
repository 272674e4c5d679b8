"""What a launch would do: the wanted cluster against the store, Docker and the quota.

What becomes of nodes that are there is for the module epic_nodes to say, which decides it in a
launch as well: a play asks it, and it changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from epic_runner import connections, docker_api, quota, software
from epic_runner.actions.due import container_ids, coverages
from epic_runner.cluster import ClusterSpec, Node, RoleSpec
from epic_runner.errors import NotFound, OperationFailed
from epic_runner.events import Step
from epic_runner.everywhere import ask_any
from epic_runner.hosts import Host
from epic_runner.lifecycle import grown
from epic_runner.operations import new_id
from epic_runner.output import bytes_text
from epic_runner.reservation import new_nodes, other_ports, without_ports
from epic_runner.resources import home, private_directory
from epic_runner.runner import run_playbook
from epic_runner.site_inventory import site_inventory
from epic_runner.store import ClusterRecord, Store, TenantRecord
from epic_runner.store.store import new_uids

# What the module epic_nodes makes of a node, and what that is to people.
_ACTIONS = {
    "created": "create",
    "recreated": "recreate",
    "mended": "restart",
    "started": "start",
    "resumed": "start",
    "updated": "keep",
    "unchanged": "keep",
}
# How many files a reason names.
_NAMED_FILES = 3

# Asks the module epic_nodes: an inventory, and the hosts to ask; the steps by the nodes' names.
Comparison = Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Step]]


@dataclass(frozen=True)
class Plan:
    """The nodes with what happens to each, and the quota before and after.

    A node's `action` is `create`, `recreate` (its volume stays), `restart`, `start`, `keep`, or
    `unknown` where its host is silent. `quota` has for each kind: in use now, in use after, limit;
    as text. `actions` are those that the template declares, each with the nodes on which it would
    be run.
    """

    tenant: str
    cluster: str
    app: str
    nodes: tuple[dict[str, str], ...]
    quota: dict[str, tuple[str, str, str]]
    missing_images: tuple[str, ...]
    actions: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return asdict(self)


def compared(inventory: Mapping[str, Any], hosts: Collection[str]) -> dict[str, Step]:
    """Ask the module epic_nodes what it would do with the nodes on hosts.

    Args:
        inventory: The cluster's, as wanted.
        hosts: The names of the hosts.

    Returns:
        What it said of each node, by the nodes' short names.

    Raises:
        OperationFailed: It could not tell.
    """
    nodes = inventory["all"]["vars"]["epic_cluster"]["nodes"]
    asked = {node["short_name"] for node in nodes if node["host"] in hosts}
    found: dict[str, Step] = {}

    def note(step: Step) -> None:
        if step.node in asked and not step.failed:
            found[step.node] = step

    with tempfile.TemporaryDirectory(prefix="plan-", dir=private_directory(home())) as folder:
        try:
            run_playbook(
                "plan", inventory, Path(folder), operation=new_id(), listener=note, limit=hosts
            )
        except OperationFailed:
            # Images that are missing fail a launch as well, and the plan tells of them.
            if asked - found.keys():
                raise
    return found


def make_plan(
    store: Store,
    hosts: Mapping[str, Host],
    spec: ClusterSpec,
    tenant_document: Mapping[str, Any] | None,
    compare: Comparison = compared,
) -> Plan:
    """Work out what `launch` of the same files would do.

    Raises:
        QuotaExceeded: It would be refused.
        InputError: Likewise, since the existing cluster differs.
        OperationFailed: Hosts do not tell what they would do with nodes that they have.
    """
    with store.read() as transaction:
        known = {record.name: record for record in transaction.tenants()}
        tenant = (
            _applied(tenant_document, known.get(spec.tenant))
            if tenant_document is not None
            else transaction.tenant(spec.tenant)
        )
        clusters = transaction.clusters()
        try:
            cluster = transaction.find_cluster(spec.name, spec.tenant)
        except NotFound:
            cluster = ClusterRecord(0, spec, "", "running", ())
        history = transaction.declared_history(replace(cluster, spec=spec))
    labels = software.image_labels(hosts) if software.are_needed(spec) else {}
    software.check(spec, labels)
    connections.check(spec, clusters, labels)
    cluster = replace(cluster, spec=grown(cluster, spec), wanted="running")
    new = new_nodes(cluster, clusters, tenant, hosts)
    of_tenant = [other for other in clusters if other.tenant == spec.tenant]
    before = quota.usage_of(of_tenant)
    others = [other for other in of_tenant if other.id != cluster.id]
    cluster = _with_ports(cluster, clusters, tenant)
    cluster = replace(cluster, nodes=(*cluster.nodes, *new))
    after = quota.usage_of([*others, cluster])
    live, silent = _live(hosts, spec)
    connected = connections.connected(cluster.spec, clusters)
    planned = fates(
        cluster, hosts, new=new, live=live, silent=silent, compare=compare,
        inventory=lambda: site_inventory(cluster, tenant, hosts, connected),
    )  # fmt: skip
    # What is made anew has had none of the declared actions.
    made = {item["name"] for item in planned if item["action"] in ("create", "recreate")}
    ids = container_ids(cluster, live)
    return Plan(
        tenant=spec.tenant,
        cluster=spec.name,
        app=f"{spec.app}@{spec.app_version}",
        nodes=planned,
        quota={
            name: (
                _text(name, getattr(before, name)),
                _text(name, getattr(after, name)),
                "-" if tenant.quota.get(name) is None else _text(name, tenant.quota[name]),
            )
            for name in ("clusters", "nodes", "cores", "memory", "disk")
        },
        missing_images=_missing_images(hosts, cluster, cluster.nodes),
        actions=tuple(
            {
                "name": coverage.action.name,
                "sha256": coverage.action.digest,
                "sudo": coverage.action.sudo,
                "replay": coverage.action.replay,
                "nodes": list(coverage.due),
            }
            for coverage in coverages(
                cluster, {name: key for name, key in ids.items() if name not in made}, history
            )
        ),
    )


def fates(
    cluster: ClusterRecord,
    hosts: Mapping[str, Host],
    *,
    new: Collection[Node],
    live: Mapping[str, Mapping[str, Any]],
    silent: Container[str],
    inventory: Callable[[], Mapping[str, Any]],
    compare: Comparison,
) -> tuple[dict[str, str], ...]:
    """Return what happens to each node that stays or comes.

    Args:
        cluster: The cluster as wanted, with the nodes that it gets.
        hosts: All hosts by name.
        new: The nodes that it gets.
        live: Docker's summaries of its containers, by name.
        silent: The hosts that did not tell what they have.
        inventory: Makes its inventory, when there are nodes to compare.
        compare: Asks the module epic_nodes.
    """
    there = {node.host for node in cluster.staying() if node.container in live}
    steps: Mapping[str, Step] = {}
    wanted: dict[str, Mapping[str, Any]] = {}
    if there:
        described = inventory()
        nodes = described["all"]["vars"]["epic_cluster"]["nodes"]
        wanted = {item["short_name"]: item for item in nodes}
        steps = compare(described, there)
    found = []
    for node in cluster.staying():
        role, container = cluster.spec.role(node.role), live.get(node.container)
        action, reason = what_happens(container, steps.get(node.short_name), is_new=node in new)
        if node.host in silent and node not in new:
            action, reason = "unknown", f"host {node.host} does not answer"
        elif action == "recreate" and container:
            inspected = docker_api.inspect(hosts[node.host], container["Id"])
            reason = otherwise(inspected, role, wanted[node.short_name]["ports"]) or reason
        found.append(_described(role, node, action, reason))
    return tuple(found)


def _applied(document: Mapping[str, Any], known: TenantRecord | None) -> TenantRecord:
    """Return a tenant as it will be once its document is applied."""
    have = known or TenantRecord(document["name"], {}, {})
    return replace(have, document=document, uids={**have.uids, **new_uids(document, have.uids)})


def _with_ports(
    cluster: ClusterRecord, clusters: Sequence[ClusterRecord], tenant: TenantRecord
) -> ClusterRecord:
    """Return the cluster with ports for those of its nodes that a launch would give some."""
    names = () if tenant.subnet else without_ports(cluster)
    if not names:
        return cluster
    changed = {node.short_name: node for node in other_ports(cluster, names, clusters)}
    nodes = tuple(changed.get(node.short_name, node) for node in cluster.nodes)
    return replace(cluster, nodes=nodes)


def what_happens(
    container: Mapping[str, Any] | None, step: Step | None, *, is_new: bool
) -> tuple[str, str]:
    """Return what a launch does with a node, and why.

    Args:
        container: Docker's summary of its container; None where there is none.
        step: What the module epic_nodes said of it; None where it was not asked.
        is_new: Whether the launch adds the node.
    """
    if container is None:
        return "create", "" if is_new else "its container is missing"
    state = container["State"]
    action = _ACTIONS[step.message] if step else "keep"
    if action == "recreate":
        fine = state in ("running", "exited", "created", "paused")
        return action, "it was made with other settings" if fine else f"its container is {state}"
    if state != "running":
        return "start", f"its container is {state}"
    files = list(step.result.get("files", ())) if step and action == "restart" else []
    return action, f"its services read other files: {_named(files)}" if files else ""


def otherwise(
    inspected: Mapping[str, Any], role: RoleSpec, ports: Sequence[Mapping[str, Any]]
) -> str:
    """Return in what a node's container is not as wanted; empty where that is not to be seen.

    Args:
        inspected: All that Docker knows of the container.
        role: Its node role.
        ports: What it is to publish, each with `container_port` and `host_port`.
    """
    reasons = []
    image = inspected["Config"]["Image"]
    if image != role.image:
        reasons.append(f"its image is {image}")
    bindings = inspected["HostConfig"]["PortBindings"] or {}
    published = {
        int(port.partition("/")[0]): int(to[0]["HostPort"]) for port, to in bindings.items()
    }
    wanted = {port["container_port"]: port["host_port"] for port in ports}
    if published != wanted:
        missing = "publishes no ports" if not published else "publishes other ports"
        reasons.append(f"it {missing}" if wanted else "it publishes ports")
    return ", ".join(reasons)


def _named(files: Sequence[str]) -> str:
    more = len(files) - _NAMED_FILES
    named = ", ".join(files[:_NAMED_FILES])
    return f"{named} and {more} more" if more > 0 else named


def _described(role: RoleSpec, node: Node, action: str, reason: str) -> dict[str, str]:
    return {
        "action": action,
        "name": node.short_name,
        "host": node.host,
        "image": role.image,
        "size": f"{role.size.cores} cores, {bytes_text(role.size.memory_bytes)}",
        "reason": reason,
    }


def _live(
    hosts: Mapping[str, Host], spec: ClusterSpec
) -> tuple[dict[str, dict[str, Any]], Collection[str]]:
    """Return a cluster's containers by name, and the hosts that do not tell.

    Raises:
        DockerUnavailable: None of the hosts tells.
    """
    labels = {"epic.tenant": spec.tenant, "epic.cluster": spec.name}
    found = ask_any(hosts.values(), lambda host: docker_api.containers(host, labels))
    live = {
        container["Names"][0].lstrip("/"): container
        for containers in found.values()
        for container in containers
    }
    return live, hosts.keys() - found.keys()


def _missing_images(
    hosts: Mapping[str, Host], cluster: ClusterRecord, nodes: Sequence[Node]
) -> tuple[str, ...]:
    wanted = {(node.host, cluster.spec.role(node.role).image) for node in nodes}
    have = ask_any((hosts[name] for name in {host for host, _ in wanted}), docker_api.images)
    return tuple(
        sorted({image for host, image in wanted if host in have and image not in have[host]})
    )


def _text(name: str, amount: int | None) -> str:
    return bytes_text(amount or 0) if name in ("memory", "disk") else str(amount)
