"""What the store hands out: plain, frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epic_runner.cluster import ClusterSpec, Node


@dataclass(frozen=True)
class TenantRecord:
    """A tenant.

    Attributes:
        document: The Tenant document as people wrote it.
        uids: The user id of each member.
        subnet: Its part of the site's addresses; None while no cluster has needed it.
    """

    name: str
    document: Mapping[str, Any]
    uids: Mapping[str, int]
    subnet: str | None = None

    @property
    def members(self) -> list[Mapping[str, Any]]:
        """The members as written: user, role, sudo, principal."""
        return list(self.document.get("members", []))

    @property
    def quota(self) -> Mapping[str, int | None]:
        """The limits; a limit that is absent or None does not bind."""
        return self.document.get("quota") or {}

    def default_user(self) -> str | None:
        """The first administrator, else the first member: who acts when nobody is named."""
        admins = [member for member in self.members if member["role"] == "admin"]
        return next((member["user"] for member in [*admins, *self.members]), None)


@dataclass(frozen=True)
class ClusterRecord:
    """A wanted cluster and its nodes.

    Attributes:
        id: The store's key; 0 for a cluster known from Docker's labels alone.
        owner: The member who launched it.
        wanted: `running`, `stopped`, or `absent` once a destroy has begun.
        leaving: Names (short) of nodes that a shrink has begun to remove.
        strays: Containers that Docker has and that are no nodes of it: of a lost store's time, or
            of a host that came back after its nodes were made anew elsewhere.
        lost: Nodes that were made anew elsewhere since their host was away. What is left of them
            may come back with it, so nobody gets their numbers and addresses.
    """

    id: int
    spec: ClusterSpec
    owner: str
    wanted: str
    nodes: tuple[Node, ...]
    leaving: frozenset[str] = frozenset()
    created_at: float = 0.0
    strays: tuple[Node, ...] = ()
    lost: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.spec.name

    @property
    def tenant(self) -> str:
        """The name of the tenant that the cluster belongs to."""
        return self.spec.tenant

    def staying(self) -> tuple[Node, ...]:
        """The nodes that are not on their way out."""
        return tuple(node for node in self.nodes if node.short_name not in self.leaving)


@dataclass(frozen=True)
class HostRecord:
    """What is remembered of a host.

    Attributes:
        facts: What `epic_host_facts` returned when it was last looked at; empty if it never was.
        checked_at: When that was, in seconds since the epoch; 0 if it never was.
        draining: Whether it takes no new nodes.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    checked_at: float = 0.0
    draining: bool = False


@dataclass(frozen=True)
class OperationRecord:
    """One change under way or past.

    Attributes:
        state: `running`, `done`, `failed` or `interrupted`.
        phase: The phase it is in or ended in, as shown to people.
        controller: The machine whose process `pid` runs it.
        started_at: Seconds since the epoch; so are the other times.
    """

    id: str
    tenant: str
    cluster: str
    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    user: str = ""
    state: str = "running"
    phase: str = ""
    error: str = ""
    controller: str = ""
    pid: int = 0
    pid_started: str = ""
    started_at: float = 0.0
    heartbeat_at: float = 0.0
    ended_at: float | None = None


@dataclass(frozen=True)
class NodeOutcome:
    """What one node has made of an action.

    Attributes:
        state: `waiting`, `running`, `done`, `failed`, `timed out`, `cancelled`, `skipped` where it
            was never begun, or `unknown` where the node or its host is gone: never a success.
        rc: The script's exit code; None where there is none.
        reason: Why there is no exit code, or what it means, in words.
        ended_at: Seconds since the epoch; None while it goes on.
        cut: The streams of which more came than is kept.
    """

    state: str = "waiting"
    rc: int | None = None
    reason: str = ""
    ended_at: float | None = None
    cut: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it by itself."""
        return self.state not in ("waiting", "running")


@dataclass(frozen=True)
class ActionRecord:
    """A script that was, or is, run on nodes of a cluster.

    Attributes:
        user: The member who acts.
        name: What people call it: the script's file, or the command.
        digest: The script's SHA-256, in hexadecimal.
        script: The script itself.
        options: How it is run: `arguments`, `environment`, `sudo`, `timeout_seconds`, `serial`,
            `on_failure`, and `again`, the id of the action that it repeats.
        nodes: What each node has made of it, by short name, in the order of the cluster's nodes.
        state: `running`, `done`, `failed`, `cancelled`, or `refused` before it began.
        reason: Why it was refused or failed as a whole.
        controller: The machine whose process `pid` drives it; without it, nodes go on alone.
    """

    id: str
    tenant: str
    cluster: str
    user: str
    name: str
    digest: str
    script: bytes
    options: Mapping[str, Any]
    nodes: Mapping[str, NodeOutcome]
    state: str = "running"
    reason: str = ""
    controller: str = ""
    pid: int = 0
    pid_started: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
