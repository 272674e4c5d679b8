"""What new nodes a cluster gets, and whether tenant and hosts have room for them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from epic_runner import ports, quota
from epic_runner.addresses import next_address
from epic_runner.cluster import Node, RoleSpec
from epic_runner.hosts import Host
from epic_runner.placement import Placed, Wish, place
from epic_runner.store import ClusterRecord, TenantRecord


def missing_nodes(cluster: ClusterRecord) -> list[tuple[RoleSpec, int]]:
    """Return role and number of each node that the spec asks for and the store does not have.

    Numbers go on above the highest one, also where a gap is below it: so the newest node has the
    highest, by which a shrink knows it.
    """
    missing = []
    for role in cluster.spec.roles:
        # What is left of a lost node keeps its number and its address as long as it may come back.
        known = (*cluster.nodes, *cluster.lost)
        highest = max((node.index for node in known if node.role == role.name), default=0)
        staying = sum(node.role == role.name for node in cluster.staying())
        missing += [(role, highest + number) for number in range(1, role.count - staying + 1)]
    return missing


def apart(role: RoleSpec) -> bool:
    """Tell whether a node role is one of masters: an app caps their number, and no other."""
    return role.maximum is not None


def new_nodes(
    cluster: ClusterRecord,
    clusters: Iterable[ClusterRecord],
    tenant: TenantRecord,
    hosts: Mapping[str, Host],
    *,
    mending: bool = False,
) -> tuple[Node, ...]:
    """Return the nodes that the cluster's spec asks for beyond those it has, placed.

    Args:
        cluster: The cluster with the spec as wanted; its nodes are those it has.
        clusters: All clusters of the store, this one among them or not.
        tenant: Its tenant; with a subnet, nodes get addresses of it and publish nothing, since
            a network that spans hosts has no way to a host.
        hosts: All hosts by name.
        mending: Whether what runs is mended: a quota that was lowered keeps nobody from that, only
            from starting clusters and from more nodes.

    Raises:
        QuotaExceeded: Tenant or hosts have no room.
    """
    missing = missing_nodes(cluster)
    others = [other for other in clusters if other.id != cluster.id]
    everyone = [*others, cluster]
    wishes = [Wish(f"{role.name}-{index}", role.size, apart(role)) for role, index in missing]
    present = [Placed(node.host, apart(cluster.spec.role(node.role))) for node in cluster.nodes]
    chosen = place(wishes, hosts.values(), quota.used_by_host(everyone), present)
    taken = {port for other in everyone for node in other.nodes for port in node.ports.values()}
    addressed = {
        node.address
        for other in everyone
        if other.tenant == tenant.name
        for node in (*other.nodes, *other.lost)
    }
    nodes = tuple(
        Node(
            cluster=cluster.name,
            tenant=cluster.tenant,
            role=role.name,
            index=index,
            host=host,
            ports={} if tenant.subnet else ports.choose(role.endpoints, taken),
            address=next_address(tenant.subnet, addressed) if tenant.subnet else "",
        )
        for (role, index), host in zip(missing, chosen, strict=True)
    )
    # Nodes on their way out are not counted: others may take their places already.
    after = replace(cluster, nodes=(*cluster.staying(), *nodes))
    of_tenant = [other for other in others if other.tenant == tenant.name]
    if nodes or not mending:
        quota.check(tenant, quota.usage_of([*of_tenant, after]))
    return nodes


def without_ports(cluster: ClusterRecord) -> frozenset[str]:
    """Return the short names of nodes that have no port for one of their endpoints.

    Those have none that were recovered from containers behind a gateway, which publish nothing.
    """
    return frozenset(
        node.short_name
        for node in cluster.staying()
        if any(item.name not in node.ports for item in cluster.spec.role(node.role).endpoints)
    )


def other_ports(
    cluster: ClusterRecord, names: Container[str], clusters: Iterable[ClusterRecord]
) -> tuple[Node, ...]:
    """Return nodes of a cluster with other ports, since they have none or programs have theirs.

    Args:
        cluster: The cluster.
        names: The short names of the nodes.
        clusters: All clusters of the store, this one among them.
    """
    taken = {port for other in clusters for node in other.nodes for port in node.ports.values()}
    return tuple(
        replace(node, ports=ports.choose(cluster.spec.role(node.role).endpoints, taken))
        for node in cluster.nodes
        if node.short_name in names
    )
