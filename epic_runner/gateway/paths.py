"""Addresses behind the gateway: pure functions, stable for as long as a cluster lives.

An endpoint is at `/TENANT/CLUSTER/NODE/ENDPOINT/`, such as `/analytics/lab/master-1/spark-master/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from epic_runner.cluster import ClusterSpec, Endpoint, Node

# The scripts of Spark's pages look for these segments in their address to learn where they are.
_MISLEADING = frozenset({"history", "proxy"})

EVERYBODY = "*"

# The endpoint of every node that no app declares: its SSH server, and the port where that waits.
SSH = "ssh"
SSH_PORT = 22


def segment(name: str) -> str:
    """Return the segment that stands for a tenant or cluster of this name."""
    return f"{name}." if name in _MISLEADING else name


def cluster_prefix(tenant: str, cluster: str) -> str:
    """Return the path below which all endpoints of a cluster are, without a slash at its end."""
    return f"/{segment(tenant)}/{segment(cluster)}"


def cluster_of(path: str) -> str:
    """Return the path of the cluster to which an endpoint's path belongs."""
    return "/".join(path.split("/")[:3])


def endpoint_prefix(node: Node, endpoint: str) -> str:
    """Return the path of an endpoint, without a slash at its end."""
    return f"{cluster_prefix(node.tenant, node.cluster)}/{node.short_name}/{endpoint}"


def endpoints(spec: ClusterSpec, nodes: tuple[Node, ...]) -> Iterator[tuple[Node, Endpoint]]:
    """Go through the endpoints of nodes; a node of a role that is gone has none."""
    roles = {role.name: role for role in spec.roles}
    for node in nodes:
        if node.role in roles:
            for endpoint in roles[node.role].endpoints:
                yield node, endpoint


def routes(
    spec: ClusterSpec, nodes: tuple[Node, ...], owner: str, since: float = 0.0
) -> list[dict[str, Any]]:
    """Return the routes to the endpoints of nodes, as the role `gateway` takes them.

    What is opened with the cluster's token acts as its owner, so it is for the owner alone. Every
    node's SSH server is for all members, whom it knows by their certificates.

    Args:
        spec: The cluster.
        nodes: Its nodes.
        owner: The member who owns it.
        since: When its tenant was made, in seconds since the epoch. Sessions that are older were
            for another tenant of that name.
    """
    return [
        *(
            {
                "path": endpoint_prefix(node, endpoint.name),
                "container": node.container,
                "port": endpoint.port,
                "mode": "keep" if endpoint.keeps_path else "strip",
                "member": owner if endpoint.token else EVERYBODY,
                "since": int(since),
            }
            for node, endpoint in endpoints(spec, nodes)
        ),
        *(
            {
                "path": endpoint_prefix(node, SSH),
                "container": node.container,
                "port": SSH_PORT,
                "mode": SSH,
                "member": EVERYBODY,
                "since": int(since),
            }
            for node in nodes
        ),
    ]
