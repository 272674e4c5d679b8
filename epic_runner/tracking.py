"""What becomes of jobs: their nodes are asked, and what they tell is written down.

A job goes on in its node whoever watches it, so whoever wants to know asks there. A node that is
gone, or knows nothing of its job, makes it `lost`; a host that does not answer leaves it `unknown`
for the time being, which is not recorded. Neither is ever taken for a success.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from epic_runner import docker_exec, following, spark_apps, ssh
from epic_runner.actions import decide
from epic_runner.actions.request import OUTPUT_BYTES
from epic_runner.cluster import Node
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound, OperationFailed
from epic_runner.everywhere import ask_all
from epic_runner.following import Ended, Follower, Seen
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context
from epic_runner.operations import settled
from epic_runner.store import ClusterRecord, JobRecord, NodeOutcome, Store
from epic_runner.store.store import Transaction

# How long a job may take from its record to its start: a play on a busy machine.
STARTING_SECONDS = 300.0
# How long a cancelled job is looked for whose start was cut off, and may reach its node yet.
PATIENCE_SECONDS = 2.0
# Exit code of `epic-job`: there is no such job.
_NO_SUCH_JOB = 3


@dataclass(frozen=True)
class _Told:
    """What a node told of a job: how it ended, or None while it goes on; or why nobody knows."""

    outcome: NodeOutcome | None = None
    applications: tuple[str, ...] = ()
    silence: str = ""


class Following:
    """Follows a job beside its start: its output is seen at once, also while Ansible tidies up.

    Args:
        context: The store and the hosts.
        job: The job.
        write: Takes what it prints.
        stdout: How many bytes of stdout are known already.
        stderr: How many of stderr.
        patience_seconds: For how long its host may be silent.
        silent: Told of why it is, when that takes longer than a moment.
    """

    def __init__(
        self,
        context: Context,
        job: JobRecord,
        write: docker_exec.Write,
        stdout: int = 0,
        stderr: int = 0,
        *,
        patience_seconds: float = following.RECONNECT_SECONDS,
        silent: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self.job = job
        self._store = context.store
        self._reach, self._node = way(context, job)
        self._seen = Seen(write, stdout, stderr)
        self._follower = Follower(
            self._reach, self._node.container, job.id, self._seen,
            patience_seconds=patience_seconds, silent=silent,
        )  # fmt: skip
        self._follower.start()

    def wait(self, seconds: float) -> None:
        """Wait for the end of what it prints, but not for ever."""
        self._follower.join(seconds)

    def result(self) -> JobRecord:
        """Wait for the job's end, and record it.

        Raises:
            DockerUnavailable: Docker stayed away.
        """
        ended = self._follower.result()
        found = spark_apps.ids(self._reach(), self._node, self.job.id)
        return followed(self._store, self.job, ended, self._seen.counts, found)


def followed(
    store: Store, job: JobRecord, ended: Ended, counts: tuple[int, int], applications: Sequence[str]
) -> JobRecord:
    """Record how a job ended that was followed to its end; return it.

    Args:
        store: The store.
        job: The job.
        ended: How it ended.
        counts: How many bytes of stdout and stderr it printed.
        applications: Spark's ids of the applications that it was.
    """
    now = time.time()

    def find(current: JobRecord) -> NodeOutcome:
        found = decide.outcome(
            ended,
            seconds=now - current.started_at,
            timeout_seconds=timeout_of(current),
            cancelled=current.state == "cancelling",
            now=now,
        )
        return replace(found, cut=decide.cut(counts, OUTPUT_BYTES))

    return close(store, job.id, find, applications)


def close(
    store: Store,
    key: str,
    find: Callable[[JobRecord], NodeOutcome],
    applications: Sequence[str] = (),
) -> JobRecord:
    """Record how a job ended, unless somebody else has; return it.

    Args:
        store: The store.
        key: The job's id.
        find: Tells how it ended from its record as it is then.
        applications: Spark's ids of the applications that it was.
    """

    def change(transaction: Transaction) -> JobRecord:
        job = transaction.job(key)
        if applications:
            transaction.set_job(key, applications=tuple(applications))
        if not job.is_over:
            found = find(job)
            if job.state == "cancelling" and found.state == "failed":
                # Whoever asked its node before it was cancelled saw processes end by a signal.
                found = replace(found, state="cancelled", reason="")
            transaction.set_job(
                key,
                state="lost" if found.state == "unknown" else found.state,
                rc=found.rc, reason=found.reason, ended_at=found.ended_at, cut=found.cut,
            )  # fmt: skip
        return transaction.job(key)

    return settled(store, change, lambda _step: None)


def settle(context: Context, job: JobRecord) -> JobRecord:
    """Find out how a job goes on; return it as it is now."""
    return settle_all(context, [job])[0]


def settle_all(context: Context, jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """Find out how jobs go on, all hosts at once; return them as they are now."""
    # Before a job has a node, only the process that makes its cluster knows of it.
    open_ = [job for job in jobs if not job.is_over and job.node]
    clusters = _clusters(context.store, open_)
    by_host: dict[str, list[tuple[JobRecord, Node]]] = {}
    told: dict[str, _Told] = {}
    for job in open_:
        node = node_of(clusters.get((job.tenant, job.cluster)), job)
        if node is None:
            told[job.id] = _Told(_lost("its node is gone, with what it knew of the job"))
        elif node.host not in context.hosts:
            told[job.id] = _Told(silence=f"its host {node.host} is none of the site's")
        else:
            by_host.setdefault(node.host, []).append((job, node))
    answers, silent = ask_all(
        (context.hosts[name] for name in by_host),
        lambda host: {
            job.id: _ask(ssh.nearby(host), node, job) for job, node in by_host[host.name]
        },
    )
    for answer in answers.values():
        told |= answer
    told |= {job.id: _Told(silence=why) for name, why in silent.items() for job, _ in by_host[name]}
    return [_settled(context.store, job, told.get(job.id)) for job in jobs]


def _settled(store: Store, job: JobRecord, told: _Told | None) -> JobRecord:
    if told is None:
        return job
    if told.silence:
        return replace(job, state="unknown", reason=told.silence)
    if told.outcome is not None:
        outcome = told.outcome
        return close(store, job.id, lambda _job: outcome, told.applications)
    return job


def _ask(host: Host, node: Node, job: JobRecord) -> _Told:
    try:
        told = following.show(host, node.container, job.id)
    except DockerUnavailable:
        raise
    except EpicError as problem:  # it does not run
        rc = following.result(host, node.container, job.id)
        if rc is None:
            return _Told(silence=problem.message)
        told = {"state": "done", "rc": rc, "created": job.started_at, "ended": None, "cut": []}
    if told is None and time.time() - job.started_at < STARTING_SECONDS:
        return _Told()
    found = decide.shown(
        told, timeout_seconds=timeout_of(job), now=time.time(), cancelled=job.state == "cancelling"
    )
    if found is None:
        return _Told()
    return _Told(found, spark_apps.ids(host, node, job.id))


def cancel(context: Context, job: JobRecord) -> JobRecord:
    """End a job with all its processes; return it as it is then.

    One that waits for its cluster is kept from starting when that is there.

    Raises:
        InputError: It is over, or its node is gone.
        EpicError: It could not be ended.
    """
    if job.node:
        place(context, job)  # One that cannot be reached is not marked, since it goes on.
    with context.store.transaction() as transaction:
        job = transaction.job(job.id)
        if job.is_over:
            raise InputError(f"The job {job.id} is over: {job.state}.")
        transaction.set_job(job.id, state="cancelling")
    if not job.node:
        # Who makes its cluster looks at this before the job is started.
        return replace(job, state="cancelling")
    host, node = place(context, job)
    end_in_node(host, node, job.id)
    told = following.show(host, node.container, job.id)
    now = time.time()
    never = NodeOutcome("cancelled", None, "it had not begun", now)
    found = decide.shown(told, timeout_seconds=0, now=now, cancelled=True) if told else never
    if found is None:
        raise OperationFailed(f"The job {job.id} goes on, though all its processes were ended.")
    return close(context.store, job.id, lambda _job: found, spark_apps.ids(host, node, job.id))


def end_in_node(
    host: Host, node: Node, key: str, *, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """End a job's processes: TERM, and KILL five seconds later.

    A start that was cut off may reach the node a moment later: for so long an unknown job is
    looked for.

    Raises:
        EpicError: The job could not be ended.
    """
    end = time.monotonic() + patience_seconds
    while True:
        code, text = docker_exec.output_of(host, node.container, ["epic-job", "cancel", key])
        if code == 0:
            return
        if code != _NO_SUCH_JOB:
            raise OperationFailed(f"The job {key} could not be cancelled: {text.strip()}")
        if time.monotonic() > end:
            return
        time.sleep(0.2)


def place(context: Context, job: JobRecord) -> tuple[Host, Node]:
    """Return where a job's driver runs, the host by its forwarded socket.

    Raises:
        NotFound: The node is gone, or has not been chosen yet.
        DockerUnavailable: Its host cannot be reached.
    """
    reach, node = way(context, job)
    return reach(), node


def way(context: Context, job: JobRecord) -> tuple[Callable[[], Host], Node]:
    """Return what finds the way to the host of a job's driver, whenever it is called; and its node.

    The way may end, with its ssh; who follows a job for hours has to find another one.

    Raises:
        NotFound: The node is gone, or has not been chosen yet.
    """
    node = node_of(_clusters(context.store, [job]).get((job.tenant, job.cluster)), job)
    if node is None or node.host not in context.hosts:
        raise NotFound(
            f"The job {job.id} has not begun yet: its cluster is being made."
            if not job.node
            else f"The node of the job {job.id} is gone, with what it knew of the job."
        )
    return functools.partial(ssh.nearby, context.hosts[node.host]), node


def node_of(cluster: ClusterRecord | None, job: JobRecord) -> Node | None:
    """Return the node of a job in its cluster; None if it has left, or the cluster is another."""
    if cluster is None or (not job.is_transient and job.started_at < cluster.created_at):
        return None
    return next((node for node in cluster.nodes if node.short_name == job.node), None)


def timeout_of(job: JobRecord) -> int:
    """Return after how many seconds a job's node ends it; 0 for never."""
    return int(job.options.get("timeout_seconds", 0))


def _lost(why: str) -> NodeOutcome:
    return NodeOutcome("lost", None, why, time.time())


def _clusters(store: Store, jobs: Iterable[JobRecord]) -> Mapping[tuple[str, str], ClusterRecord]:
    found = {}
    with store.read() as transaction:
        for tenant, name in {(job.tenant, job.cluster) for job in jobs}:
            with contextlib.suppress(NotFound):
                found[tenant, name] = transaction.find_cluster(name, tenant)
    return found
