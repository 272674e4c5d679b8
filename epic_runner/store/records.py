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
    created_at: float = 0.0

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

    def why_not_for(self, user: str, asker: str | None) -> str:
        """Return why somebody may not act for a member; empty if that is allowed.

        Administrators of the tenant may, and who runs the controller: no asker at all.
        """
        if asker in (None, user):
            return ""
        found = next((member for member in self.members if member["user"] == asker), None)
        if found is None:
            return f"{asker} is not a member of tenant {self.name}."
        if found.get("role") != "admin":
            return f"{asker} is no administrator of tenant {self.name}, and may not act for {user}."
        return ""


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
class UseRecord:
    """What is remembered of a cluster's use.

    Attributes:
        active_at: When it was last in use, as far as is known; all times are seconds since the
            epoch.
        activity: What it was used for then.
        looked_at: When somebody last looked; 0 if nobody ever did.
        warned_at: When people were warned of its end; None where they were not, or it was put off.
        extended_until: The time before which it does not end; None if nobody asked for one.
    """

    active_at: float
    activity: str = ""
    looked_at: float = 0.0
    warned_at: float | None = None
    extended_until: float | None = None


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
            `on_failure`, and `again`, the id of the action that it repeats; of a playbook,
            `playbook` is true.
        nodes: What each node has made of it, by short name, in the order of the cluster's nodes.
        state: `running`, `cancelling`, `done`, `failed`, `cancelled`, or `refused` before it began.
        reason: Why it was refused or failed as a whole.
        controller: The machine whose process `pid` drives it; without it, nodes go on alone.
        declared: The key of the declared action that it is (`DeclaredAction.key`), or empty.
        containers: Of a declared one, the id of the container in which each node got it.
        asked_by: Who asked for it, where that is not the member who acts: another member, or an
            account of the controller.
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
    declared: str = ""
    containers: Mapping[str, str] | None = None
    asked_by: str = ""

    @property
    def is_play(self) -> bool:
        """Whether it is a playbook, whose options and output are nobody's but its caller's."""
        return bool(self.options.get("playbook"))

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is to come any more."""
        return self.state not in ("running", "cancelling")


@dataclass(frozen=True)
class Timing:
    """When a job runs by the clock, and by what policy.

    Attributes:
        cron: Five fields: minute, hour, day, month, weekday.
        timezone: The time zone whose clock they mean.
        overlap: `skip` or `queue`: what becomes of a run that is due while one goes on.
        missed: `run_once` or `skip`: what becomes of times at which nobody was there to run it.
        retries: How often a run that failed is tried again.
        retry_after_seconds: How long after its end.
    """

    cron: str
    timezone: str
    overlap: str = "skip"
    missed: str = "run_once"
    retries: int = 0
    retry_after_seconds: int = 300


@dataclass(frozen=True)
class ScheduleRecord:
    """A job that is run by the clock.

    Attributes:
        user: The member as whom it runs.
        timing: When, and by what policy.
        documents: The job and what it needs, as people wrote it; files are by their names alone.
        state: `active` or `paused`.
        next_at: When it is due next, in seconds since the epoch; None while it is paused.
    """

    tenant: str
    name: str
    user: str
    timing: Timing
    documents: tuple[Mapping[str, Any], ...]
    state: str = "active"
    next_at: float | None = None
    created_at: float = 0.0


@dataclass(frozen=True)
class RunRecord:
    """One run of a schedule, or a time at which there was none.

    Attributes:
        cause: `schedule`, `missed` for one that makes up for times that passed, `retry` or `asked`.
        attempt: Which try it is, from 1.
        planned_at: When it was to begin, in seconds since the epoch, as the other times are.
        state: `waiting`, `running`, `done`, `failed`, `cancelled`, `interrupted` where its
            controller died, or `skipped` or `missed` where it never began.
        rc: The job's exit code; None without one.
        reason: Why it is not done, in words.
        log: The file of its output on its controller.
        controller: The machine whose process `pid` drives it.
    """

    id: str
    tenant: str
    schedule: str
    cause: str
    planned_at: float
    state: str
    attempt: int = 1
    rc: int | None = None
    reason: str = ""
    log: str = ""
    controller: str = ""
    pid: int = 0
    pid_started: str = ""
    heartbeat_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state not in ("waiting", "running")


@dataclass(frozen=True)
class JobRecord:
    """A program that was, or is, run on a cluster.

    Attributes:
        node: The short name of the node where its driver runs; empty before that is known.
        host: That node's host.
        user: The member who acts.
        name: What people call it: the Job's name, the application's, or the file's.
        file: What is run.
        digest: The SHA-256 of a file that was brought along, in hexadecimal; empty for others.
        options: How it is run: `arguments`, `conf`, `py_files`, `class`, `environment`, `on`,
            `timeout_seconds`; what is secret by its name is left out.
        state: `waiting` for its cluster, `starting`, `running`, `cancelling`, `done`, `failed`,
            `timed out`, `cancelled`, `refused` before it began, or `lost` where its node is gone:
            never a success. `unknown`, where a host does not tell, is never recorded.
        rc: Its exit code; None where there is none.
        reason: Why there is no exit code, or what it means, in words.
        cut: The streams of which more came than is kept.
        applications: Spark's ids of the applications that it has been, the last one last.
        stages: How many of the last one's stages were in which state when they were last asked for.
        is_transient: Whether its cluster was made for it.
        is_settled: Whether nothing is left to do for it: no cluster has to be removed.
        controller: The machine whose process `pid` makes and removes its cluster.
        started_at: Seconds since the epoch; so is `ended_at`, None while it goes on.
    """

    id: str
    tenant: str
    cluster: str
    user: str
    name: str
    file: str
    node: str = ""
    host: str = ""
    digest: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    state: str = "starting"
    rc: int | None = None
    reason: str = ""
    cut: tuple[str, ...] = ()
    applications: tuple[str, ...] = ()
    stages: Mapping[str, int] = field(default_factory=dict)
    is_transient: bool = False
    is_settled: bool = True
    controller: str = ""
    pid: int = 0
    pid_started: str = ""
    started_at: float = 0.0
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of the program."""
        return self.state not in ("waiting", "starting", "running", "cancelling", "unknown")


@dataclass(frozen=True)
class DeclaredRun:
    """One run of a declared action, as far as it tells which nodes have had that.

    Attributes:
        action: The id of the action that it was.
        declared: The declared action's key.
        nodes: What each node has made of it, by short name.
        containers: The id of the container in which each node got it.
        started_at: Seconds since the epoch.
    """

    action: str
    declared: str
    nodes: Mapping[str, NodeOutcome]
    containers: Mapping[str, str]
    started_at: float


@dataclass(frozen=True)
class DeclaredHistory:
    """What was run of a cluster's declared actions.

    Attributes:
        runs: The runs, the oldest first.
        done: The keys of the actions that all nodes have had together once.
    """

    runs: tuple[DeclaredRun, ...] = ()
    done: frozenset[str] = frozenset()
