"""What a launch would do: the wanted cluster against the store, Docker and the quota."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from epic_runner import connections, docker_api, quota
from epic_runner.actions.due import container_ids, coverages
from epic_runner.cluster import ClusterSpec, Node
from epic_runner.errors import NotFound
from epic_runner.everywhere import ask_any
from epic_runner.hosts import Host
from epic_runner.lifecycle import grown
from epic_runner.output import bytes_text
from epic_runner.reservation import new_nodes
from epic_runner.store import ClusterRecord, Store, TenantRecord


@dataclass(frozen=True)
class Plan:
    """The nodes with what happens to each (create, start, keep), and the quota before and after.

    `quota` has for each kind: in use now, in use after, limit; as text. `actions` are those that
    the template declares, each with the nodes on which it would be run.
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


def make_plan(
    store: Store,
    hosts: Mapping[str, Host],
    spec: ClusterSpec,
    tenant_document: Mapping[str, Any] | None,
) -> Plan:
    """Work out what `launch` of the same files would do.

    Raises:
        QuotaExceeded: It would be refused.
        InputError: Likewise, since the existing cluster differs.
    """
    with store.read() as transaction:
        tenant = (
            TenantRecord(spec.tenant, tenant_document, {})
            if tenant_document is not None
            else transaction.tenant(spec.tenant)
        )
        clusters = transaction.clusters()
        try:
            cluster = transaction.find_cluster(spec.name, spec.tenant)
        except NotFound:
            cluster = ClusterRecord(0, spec, "", "running", ())
        history = transaction.declared_history(replace(cluster, spec=spec))
    connections.check(spec, clusters, connections.image_labels(hosts) if spec.connections else {})
    cluster = replace(cluster, spec=grown(cluster, spec))
    new = new_nodes(cluster, clusters, tenant, hosts)
    of_tenant = [other for other in clusters if other.tenant == spec.tenant]
    before = quota.usage_of(of_tenant)
    others = [other for other in of_tenant if other.id != cluster.id]
    after = quota.usage_of([*others, replace(cluster, nodes=(*cluster.nodes, *new))])
    live = _live(hosts, spec)
    nodes = [_planned(cluster, node, live.get(node.container)) for node in cluster.staying()]
    nodes += [_planned(cluster, node, None) for node in new]
    return Plan(
        tenant=spec.tenant,
        cluster=spec.name,
        app=f"{spec.app}@{spec.app_version}",
        nodes=tuple(nodes),
        quota={
            name: (
                _text(name, getattr(before, name)),
                _text(name, getattr(after, name)),
                "-" if tenant.quota.get(name) is None else _text(name, tenant.quota[name]),
            )
            for name in ("clusters", "nodes", "cores", "memory", "disk")
        },
        missing_images=_missing_images(hosts, cluster, [*cluster.nodes, *new]),
        actions=tuple(
            {
                "name": coverage.action.name,
                "sha256": coverage.action.digest,
                "sudo": coverage.action.sudo,
                "replay": coverage.action.replay,
                "nodes": list(coverage.due),
            }
            for coverage in coverages(
                replace(cluster, nodes=(*cluster.nodes, *new)),
                container_ids(cluster, live),
                history,
            )
        ),
    )


def _planned(
    cluster: ClusterRecord, node: Node, container: Mapping[str, Any] | None
) -> dict[str, str]:
    role = cluster.spec.role(node.role)
    state = container["State"] if container else None
    action, reason = {
        "running": ("keep", ""),
        None: ("create", "" if node not in cluster.nodes else "its container is missing"),
    }.get(state, ("start", f"its container is {state}"))
    return {
        "action": action,
        "name": node.short_name,
        "host": node.host,
        "image": role.image,
        "size": f"{role.size.cores} cores, {bytes_text(role.size.memory_bytes)}",
        "reason": reason,
    }


def _live(hosts: Mapping[str, Host], spec: ClusterSpec) -> dict[str, dict[str, Any]]:
    labels = {"epic.tenant": spec.tenant, "epic.cluster": spec.name}
    found = ask_any(hosts.values(), lambda host: docker_api.containers(host, labels))
    return {
        container["Names"][0].lstrip("/"): container
        for containers in found.values()
        for container in containers
    }


def _missing_images(
    hosts: Mapping[str, Host], cluster: ClusterRecord, nodes: list[Node]
) -> tuple[str, ...]:
    wanted = {(node.host, cluster.spec.role(node.role).image) for node in nodes}
    have = ask_any((hosts[name] for name in {host for host, _ in wanted}), docker_api.images)
    return tuple(
        sorted({image for host, image in wanted if host in have and image not in have[host]})
    )


def _text(name: str, amount: int | None) -> str:
    return bytes_text(amount or 0) if name in ("memory", "disk") else str(amount)
