"""The clusters that people want, as plain values: what every other module speaks of.

A `ClusterSpec` is a template made whole (app, image and size of every node role); `Node` is one
container of it with the host it was placed on. Both are made of data alone, so that the store,
the inventory and Docker's labels can each hold them and be rebuilt from one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """What a node may use: whole cores, and memory and disk in bytes (disk 0: not limited)."""

    cores: int
    memory_bytes: int
    disk_bytes: int = 0

    def times(self, count: int) -> Size:
        """Return the size of `count` such nodes together."""
        return Size(self.cores * count, self.memory_bytes * count, self.disk_bytes * count)

    def plus(self, other: Size) -> Size:
        """Return both sizes together."""
        return Size(
            self.cores + other.cores,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
        )


NOTHING = Size(0, 0, 0)


@dataclass(frozen=True)
class Endpoint:
    """An address of a service that people open.

    Attributes:
        name: Its name in the catalogue, such as `spark-master`.
        label: Its title for people.
        port: The port inside the node.
        path: The path to open, with a leading slash.
        token: Whether a secret token belongs in the address.
        keeps_path: Whether the service knows the path under which a gateway offers it.
    """

    name: str
    label: str
    port: int
    path: str = "/"
    token: bool = False
    keeps_path: bool = False


@dataclass(frozen=True)
class RoleSpec:
    """The nodes of one node role: how many, how large, of which image, running what.

    Attributes:
        name: The node role, such as `worker`.
        count: How many nodes.
        flavor: The name of the flavor that gave the size.
        size: What each node may use.
        image: The full image reference, such as `epic/spark:3.5.9-r1`.
        services: Services of each node, the app's own first.
        roles: The Ansible roles that configure these services, in the order of `services`.
        endpoints: The addresses that each node serves.
        minimum: The least count that the app allows (a shrink stops there).
        maximum: The most nodes that the app allows; None for no limit.
    """

    name: str
    count: int
    flavor: str
    size: Size
    image: str
    services: tuple[str, ...]
    roles: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True)
class ClusterSpec:
    """A template made whole: what `launch` brings into being.

    `app` is the catalogue entry's name and `app_version` the version of its software.
    `connections` are clusters of the same tenant that this one's notebooks and jobs may run on.
    """

    name: str
    tenant: str
    app: str
    app_version: str
    roles: tuple[RoleSpec, ...]
    connections: tuple[str, ...] = ()

    @property
    def node_count(self) -> int:
        """How many nodes the cluster has in all."""
        return sum(role.count for role in self.roles)

    @property
    def total(self) -> Size:
        """What all nodes may use together."""
        total = NOTHING
        for role in self.roles:
            total = total.plus(role.size.times(role.count))
        return total

    def role(self, name: str) -> RoleSpec:
        """Return the node role `name`; raises KeyError where there is none."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready data, the reverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClusterSpec:
        """Rebuild a spec from `as_dict`'s data (also after a trip through JSON)."""
        roles = tuple(
            RoleSpec(
                **{
                    **role,
                    "size": Size(**role["size"]),
                    "services": tuple(role["services"]),
                    "roles": tuple(role["roles"]),
                    "endpoints": tuple(Endpoint(**item) for item in role["endpoints"]),
                }
            )
            for role in data["roles"]
        )
        # Specs of clusters that an earlier version made know of no connections.
        connections = tuple(data.get("connections", ()))
        return cls(**{**data, "roles": roles, "connections": connections})


@dataclass(frozen=True)
class Node:
    """One container of a cluster.

    Attributes:
        cluster: The cluster's name.
        tenant: The tenant's name.
        role: The node role.
        index: Its number in the node role, from 1; never used again while the cluster lives.
        host: The Docker host it was placed on.
        ports: The host's loopback port of each endpoint, by the endpoint's name.
        address: Its address in the tenant's network; empty where the engine chooses one.
    """

    cluster: str
    tenant: str
    role: str
    index: int
    host: str
    ports: Mapping[str, int]
    address: str = ""

    @property
    def short_name(self) -> str:
        """The node's name within its cluster: `worker-2`."""
        return f"{self.role}-{self.index}"

    @property
    def name(self) -> str:
        """The node's host name: `lab-worker-2`."""
        return f"{self.cluster}-{self.short_name}"

    @property
    def container(self) -> str:
        """The container's name, unique on a host that tenants share."""
        return container_name(self.tenant, self.cluster, self.short_name)


def container_name(tenant: str, cluster: str, short_name: str) -> str:
    """Return the name of a node's container; a dot can be in none of the three parts."""
    return f"epic.{tenant}.{cluster}.{short_name}"


def split_name(name: str, tenant: str | None = None) -> tuple[str | None, str]:
    """Return tenant and cluster of `NAME` or `TENANT/NAME`; a tenant given beside it wins."""
    before, slash, after = name.partition("/")
    return (before, after) if slash and tenant is None else (tenant, name)


def newest_first(nodes: Iterable[Node], role: str) -> list[Node]:
    """Return the nodes of `role`, the one added last first: the order in which a shrink removes."""
    return sorted(
        (node for node in nodes if node.role == role), key=lambda node: node.index, reverse=True
    )
