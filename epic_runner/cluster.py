"""The clusters that people want, as plain values: what every other module speaks of.

A `ClusterSpec` is a template made whole (app, image and size of every node role); `Node` is one
container of it with the host it was placed on. Both are made of data alone, so that the store,
the inventory and Docker's labels can each hold them and be rebuilt from one another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# What a failure of an action comes to: those behind it are left alone, or not.
CONTINUE, STOP = "continue", "stop"


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
class Lifetime:
    """When a cluster ends by itself, and how.

    Attributes:
        max_idle_seconds: How long it may go unused; None for no limit.
        max_age_seconds: How long it may run since its launch or last start; None for no limit.
        action: `stop` or `destroy`.
        warn_seconds: How long before its end people are warned.
    """

    max_idle_seconds: int | None = None
    max_age_seconds: int | None = None
    action: str = "stop"
    warn_seconds: int = 0


@dataclass(frozen=True)
class DeclaredAction:
    """A script that the nodes of a cluster get before it is of use.

    Attributes:
        name: What people call it: the script's file, or the command.
        digest: The script's SHA-256, in hexadecimal.
        roles: The node roles that get it; all of them if empty.
        arguments: What the script gets on its command line.
        environment: Variables beside those that tell it where it is.
        sudo: Whether it runs as root, on behalf of the member.
        replay: Whether nodes get it that are made after the cluster: added, or made anew.
        timeout_seconds: After how long a node ends it; 0 for never.
        on_failure: `stop`, where the launch fails if it failed on a node, or `continue`.
        user: The member who launched it, and as whom it runs; empty before that.
        script: The script itself, as it was read. The store has it; a spec that comes from there
            or from a label has none.
    """

    name: str
    digest: str
    roles: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    sudo: bool = False
    replay: bool = False
    timeout_seconds: int = 0
    on_failure: str = STOP
    user: str = ""
    script: bytes = field(default=b"", compare=False, repr=False)

    @property
    def key(self) -> str:
        """What tells it from others: a hash of the script and of all that it is given."""
        given = [self.digest, self.arguments, sorted(self.environment.items()), self.sudo]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()


@dataclass(frozen=True)
class ClusterSpec:
    """A template made whole: what `launch` brings into being.

    `app` is the catalogue entry's name and `app_version` the version of its software.
    `connections` are clusters of the same tenant that this one's notebooks and jobs may run on.
    `lifetime` is None for a cluster that lasts until somebody ends it.
    `actions` are run on the nodes, one after the other, before the cluster is of use.
    """

    name: str
    tenant: str
    app: str
    app_version: str
    roles: tuple[RoleSpec, ...]
    connections: tuple[str, ...] = ()
    lifetime: Lifetime | None = None
    actions: tuple[DeclaredAction, ...] = ()

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
        """Return the spec as JSON-ready data, the reverse of `from_dict`; without scripts."""
        data = asdict(self)
        for action in data["actions"]:
            del action["script"]
        return data

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
        # Specs of clusters that an earlier version made know of none of these.
        connections = tuple(data.get("connections", ()))
        limits = data.get("lifetime")
        lifetime = Lifetime(**limits) if limits else None
        actions = tuple(
            DeclaredAction(
                **{
                    **action,
                    "roles": tuple(action["roles"]),
                    "arguments": tuple(action["arguments"]),
                }
            )
            for action in data.get("actions", ())
        )
        later = {"connections": connections, "lifetime": lifetime, "actions": actions}
        return cls(**{**data, "roles": roles, **later})


@dataclass(frozen=True)
class Node:
    """One container of a cluster.

    Attributes:
        cluster: The cluster's name.
        tenant: The tenant's name.
        role: The node role.
        index: Its number in the node role, from 1, above those of all nodes that were there when it
            was added; it keeps it whatever becomes of its container.
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
