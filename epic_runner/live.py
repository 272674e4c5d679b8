"""The clusters and nodes that live now, as groups and hosts of an Ansible inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epic_runner import docker_api
from epic_runner.everywhere import ask_all, ask_any
from epic_runner.hosts import Host
from epic_runner.inventory import group_name, node_variables
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
    for cluster in clusters:
        prefix = f"{cluster.tenant}-" if uses[cluster.name] > 1 else ""
        group = group_name(f"{prefix}{cluster.name}")
        found.group(group_name(f"tenant_{cluster.tenant}")).groups.append(group)
        found.group(group)
        for node in cluster.staying():
            if node.container not in running:
                continue
            role = f"{group}_{group_name(node.role)}"
            if role not in found.group(group).groups:
                found.group(group).groups.append(role)
            found.group(role).hosts.append(f"{prefix}{node.name}")
            found.variables[f"{prefix}{node.name}"] = node_variables(
                node, hosts[node.host], sockets.get(node.host, "")
            )
    return found
