"""The clusters and nodes that live now, as groups and hosts of an Ansible inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epic_runner import docker_api
from epic_runner.everywhere import ask_all, ask_any
from epic_runner.hosts import Host
from epic_runner.inventory import FIXED_GROUPS, free_group, node_variables
from epic_runner.site import site_hosts
from epic_runner.ssh import forwarded_engine
from epic_runner.store import ClusterRecord, Store


@dataclass
class Group:
    """A group's members: other groups, and hosts."""

    groups: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


@dataclass
class LiveInventory:
    """Groups by name, and each host's variables."""

    groups: dict[str, Group] = field(default_factory=dict)
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def group(self, name: str) -> Group:
        """Return the group of a name, made at the first asking."""
        return self.groups.setdefault(name, Group())


def live_inventory(tenant: str | None = None) -> LiveInventory:
    """Return what runs now, of one tenant or of all."""
    store = Store()
    hosts = site_hosts(store)
    with store.read() as transaction:
        clusters = transaction.clusters(tenant)
    found = ask_any(
        hosts.values(), lambda host: docker_api.containers(host, {"epic.cluster": None})
    )
    running = {
        container["Names"][0].lstrip("/")
        for containers in found.values()
        for container in containers
        if container["State"] == "running"
    }
    used = {node.host for cluster in clusters for node in cluster.nodes}
    # A host that was silent once is not waited for again.
    remote = [hosts[name] for name in found if name in used and not hosts[name].is_local]
    sockets, _ = ask_all(remote, forwarded_engine)
    return arrange(clusters, hosts, running, sockets)


def arrange(
    clusters: Iterable[ClusterRecord],
    hosts: Mapping[str, Host],
    running: set[str],
    sockets: Mapping[str, str],
) -> LiveInventory:
    """Arrange clusters as groups: a pure function, of which `live_inventory` is the edge.

    Args:
        clusters: The clusters of the store.
        hosts: All Docker hosts by name.
        running: The names of running containers.
        sockets: Sockets of this machine that lead to other hosts' engines, by host.
    """
    clusters = list(clusters)
    uses = Counter(cluster.name for cluster in clusters)
    found = LiveInventory()
    for name, host in hosts.items():
        found.group("docker_hosts").hosts.append(name)
        found.variables[name] = dict(host.variables)
    # The names that people know come first: a cluster's own before another's node roles.
    taken = {*FIXED_GROUPS}
    of_tenant = {
        name: free_group(f"tenant_{name}", taken)
        for name in dict.fromkeys(cluster.tenant for cluster in clusters)
    }
    prefixes = [f"{item.tenant}-" if uses[item.name] > 1 else "" for item in clusters]
    of_cluster = [
        free_group(f"{prefix}{cluster.name}", taken)
        for prefix, cluster in zip(prefixes, clusters, strict=True)
    ]
    for cluster, prefix, group in zip(clusters, prefixes, of_cluster, strict=True):
        found.group(of_tenant[cluster.tenant]).groups.append(group)
        found.group(group)
        of_role: dict[str, str] = {}
        for node in cluster.staying():
            if node.container not in running:
                continue
            if node.role not in of_role:
                of_role[node.role] = free_group(f"{group}_{node.role}", taken)
                found.group(group).groups.append(of_role[node.role])
            found.group(of_role[node.role]).hosts.append(f"{prefix}{node.name}")
            found.variables[f"{prefix}{node.name}"] = node_variables(
                node, hosts[node.host], sockets.get(node.host, "")
            )
    return found
