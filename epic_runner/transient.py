"""Jobs on clusters of their own: made for the job, and removed after it, whatever happens.

One process makes the cluster, starts the job, follows it, brings home what it printed and made, and
removes the cluster. A shell of a megabyte waits beside it: when that process is gone before the
cluster is, the shell becomes one that finishes the rest, and the job goes on meanwhile. If both are
gone, after a restart of the machine, the next `epic-run run`, `list` or `job list` starts one
(`sweep`). Which job is whose is in the store, so nobody finishes what another one is at.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epic_runner import docker_api, docker_exec, following, jobs, lifecycle, logs, tracking
from epic_runner.actions.request import refusal
from epic_runner.archives import unpacked
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import EpicError, InputError, NotFound
from epic_runner.lifecycle import Context
from epic_runner.operations import pruned, settled
from epic_runner.processes import CANCELLED, controller, detached, drives, here, is_ours
from epic_runner.programs import JobRequest
from epic_runner.resources import home, private_directory
from epic_runner.spec.jobs import version_refusal
from epic_runner.store import ClusterRecord, JobRecord, NodeOutcome, Store, TenantRecord
from epic_runner.store.store import Transaction

# Of how many transient jobs EPIC_HOME/jobs keeps what they printed and made.
KEPT = 100
# What a job makes beyond this belongs into the tenant's storage.
LARGEST_OUTPUT_BYTES = 256 * 2**20
# How many last lines of each service are kept.
SERVICE_LINES = 2000
# How long the host of a job may be silent, as one is that is rebooted: its cluster goes after that.
AWAY_SECONDS = 900.0
# How long whoever takes over waits for the end of the process before it.
LAST_BREATH_SECONDS = 10.0
# The length of a cluster's name: the job's, a dash and some letters.
_LONGEST_NAME, _LETTERS = 32, 6

# Waits until its input ends, then becomes the command behind it, unless it was told that all is
# over.
_GUARD = 'read -r word; [ "$word" = over ] || exec "$@"'


@dataclass(frozen=True)
class JobPlan:
    """A Job document made whole.

    Attributes:
        name: The job's name.
        request: What to run.
        tenant: The tenant, where it is named.
        user: As which member; the tenant's first administrator if None.
        cluster: The cluster that is there; None where one is made.
        spec: The cluster to make, under the template's name yet; None where one is there.
        tenant_document: The Tenant document to apply first.
        flavors: Flavor documents to apply first.
        keep: Whether the cluster that was made stays.
        spark_version: The Spark that it needs; any if None.
    """

    name: str
    request: JobRequest
    tenant: str | None = None
    user: str | None = None
    cluster: str | None = None
    spec: ClusterSpec | None = None
    tenant_document: Mapping[str, Any] | None = None
    flavors: Sequence[Mapping[str, Any]] = ()
    keep: bool = False
    spark_version: str | None = None


@dataclass(frozen=True)
class Audience:
    """Who watches a job.

    Attributes:
        recorded: Called with the job's record before anything is made.
        started: Called with the job's record just before it is started on its cluster.
        write: Called with what it prints, and whether that was on stderr.
        ended: Called with the record of the job that is over, before its cluster is removed.
        silent: Called with what is wrong while its host does not answer.
    """

    recorded: Callable[[JobRecord], None] = lambda _job: None
    started: Callable[[JobRecord], None] = lambda _job: None
    write: docker_exec.Write = lambda _data, _is_error: None
    ended: Callable[[JobRecord], None] = lambda _job: None
    silent: Callable[[str], None] = lambda _why: None


NOBODY = Audience()


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job.

    Attributes:
        job: Its record.
        folder: What it printed and made, on this machine; None where that is on its node.
        left: Why its cluster could not be removed yet; empty where nothing is left to do.
    """

    job: JobRecord
    folder: Path | None = None
    left: str = ""

    @property
    def exit_code(self) -> int:
        """The job's exit code; 130 if it was cancelled, and 1 if it left none."""
        if self.job.state == "cancelled":
            return CANCELLED
        return 1 if self.job.rc is None else self.job.rc


def job_folder(key: str) -> Path:
    """Return where what a job printed and made is kept on this machine."""
    return home() / "jobs" / key


def run_job(
    context: Context, plan: JobPlan, *, keep: bool = False, audience: Audience = NOBODY
) -> JobOutcome:
    """Run a job to its end, on the cluster that it names or on one made for it.

    Args:
        context: The store, the hosts, and who is told of the steps of changes.
        plan: The job.
        keep: Whether a cluster that is made for it stays, whatever the plan says.
        audience: Who watches the job itself.

    Raises:
        InputError: It cannot run as it is; what was made for it is gone again.
        EpicError: Its cluster or its start failed, likewise.
        KeyboardInterrupt: People ended it; so have its processes and its cluster by then.
    """
    jobs.check(plan.request)
    sweep(context.store)
    if plan.spec is None:
        return JobOutcome(_run_there(context, plan, audience))
    if unfit := version_refusal(plan.spark_version, plan.spec.app, plan.spec.app_version):
        raise InputError(*unfit)
    with context.store.transaction() as transaction:
        tenant = _tenant(transaction, plan, plan.spec.tenant)
        user = plan.user or tenant.default_user() or ""
        job = _record(plan, tenant.name, user, keep=keep or plan.keep)
        # A tenant that is not known yet has no members; the launch tells that.
        reason = refusal(tenant, user, sudo=False, asker=context.asker) if tenant.document else ""
        if reason:
            job = replace(
                job, state="refused", reason=reason, ended_at=job.started_at, is_settled=True
            )
        transaction.add_job(job)
    if reason:
        raise InputError(reason, "Nothing was made for the job.")
    audience.recorded(job)
    with _guarded(context.store, job.id) as guard:
        run = _Run(context, job, audience)
        try:
            if run.make(plan):
                run.follow()
        except BaseException as problem:
            run.give_up(problem)
            raise
        finally:
            left = run.wind_up()
            if not left:
                guard.is_over = True
    with context.store.read() as transaction:
        return JobOutcome(transaction.job(job.id), job_folder(job.id), left)


def finish(context: Context, key: str) -> None:
    """Finish what a process that is gone has left of a transient job; nothing if others do.

    A job that runs goes on to its end first.
    """
    end = time.monotonic() + LAST_BREATH_SECONDS
    with context.store.read() as transaction:
        job = transaction.job(key)
    while is_driven(job) and time.monotonic() < end:
        time.sleep(0.1)
    pid, since = controller().split(":")[-2:]
    with context.store.transaction() as transaction:
        job = transaction.job(key)
        if job.is_settled or is_driven(job):
            return
        transaction.set_job(key, controller=here(), pid=int(pid), pid_started=since)
    run = _Run(context, replace(job, pid=int(pid)), NOBODY)
    try:
        if not job.node or (job.state == "starting" and not run.has_begun()):
            run.give_up(EpicError("epic-run was ended before the job had begun"))
        elif not job.is_over:
            run.follow()
    finally:
        run.wind_up()


def sweep(store: Store) -> list[JobRecord]:
    """Start what finishes transient jobs that nobody drives any more; return these.

    Those of other machines' controllers are theirs to finish.
    """
    with store.read() as transaction:
        unsettled = transaction.jobs(only_unsettled=True)
    abandoned = [job for job in unsettled if is_ours(job.controller) and not is_driven(job)]
    for job in abandoned:
        detached(["job", "finish", job.id], _log(job.id))
    return abandoned


def is_driven(job: JobRecord) -> bool:
    """Whether the process of this machine that drives a transient job lives."""
    return drives(job.controller, job.pid, job.pid_started)


def cluster_name(job: str) -> str:
    """Return a name for a job's own cluster that no other one has."""
    return f"{job[: _LONGEST_NAME - _LETTERS - 1].rstrip('-')}-{uuid.uuid4().hex[:_LETTERS]}"


def _tenant(transaction: Transaction, plan: JobPlan, name: str) -> TenantRecord:
    """Return a job's tenant as it will be; one with an empty document where it is not known."""
    if plan.tenant_document is not None:
        return TenantRecord(name, plan.tenant_document, {})
    found = [record for record in transaction.tenants() if record.name == name]
    return found[0] if found else TenantRecord(name, {}, {})


def _record(plan: JobPlan, tenant: str, user: str, *, keep: bool) -> JobRecord:
    made = jobs.new_record(plan.request, tenant=tenant, cluster=cluster_name(plan.name), user=user)
    pid, since = controller().split(":")[-2:]
    return replace(
        made, state="waiting", is_transient=True, is_settled=False, controller=here(),
        pid=int(pid), pid_started=since, options={**made.options, "keep": keep},
    )  # fmt: skip


def _run_there(context: Context, plan: JobPlan, audience: Audience) -> JobRecord:
    """Run a job on a cluster that is there; return its record."""
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(str(plan.cluster), plan.tenant)
    spec = cluster.spec
    if unfit := version_refusal(plan.spark_version, spec.app, spec.app_version):
        raise InputError(*unfit)
    followings: list[tracking.Following] = []

    def announce(job: JobRecord) -> None:
        audience.recorded(job)
        audience.started(job)
        followings.append(tracking.Following(context, job, audience.write))

    try:
        jobs.start(
            context, cluster.name, plan.request, tenant=cluster.tenant, user=plan.user,
            announce=announce,
        )  # fmt: skip
        job = followings[0].result()
    except KeyboardInterrupt:
        for following in followings:
            tracking.cancel(context, following.job)
        raise
    audience.ended(job)
    return job


@dataclass
class _Guard:
    """What waits for this process's end; told that all is over, it ends itself."""

    is_over: bool = False


@contextlib.contextmanager
def _guarded(store: Store, key: str) -> Iterator[_Guard]:
    """Have another process finish a job if this one ends, however, before it is over."""
    process = detached(["job", "finish", key], _log(key), before=["sh", "-c", _GUARD, "sh"])
    guard = _Guard()
    try:
        yield guard
    finally:
        if not guard.is_over:
            # This process may live long, and has given it up.
            with contextlib.suppress(EpicError), store.transaction() as transaction:
                transaction.set_job(key, pid=0, pid_started="")
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        with contextlib.suppress(BrokenPipeError):
            if guard.is_over:
                process.stdin.write(b"over\n")
            process.stdin.close()
        if guard.is_over:
            process.wait()


def _log(key: str) -> Path:
    return private_directory(job_folder(key)) / "epic-run.log"


class _Run:
    """A transient job from its cluster's making to its removal."""

    def __init__(self, context: Context, job: JobRecord, audience: Audience) -> None:
        self._context = context
        self._audience = audience
        self._job = job
        self._folder = private_directory(job_folder(job.id))
        self._following: tracking.Following | None = None

    def make(self, plan: JobPlan) -> bool:
        """Make the cluster, and start the job on it; False if it was cancelled meanwhile."""
        assert plan.spec is not None  # noqa: S101 - for the type checker: it has no other
        lifecycle.launch(
            self._context,
            replace(plan.spec, name=self._job.cluster),
            tenant_document=plan.tenant_document,
            flavors=plan.flavors,
            user=plan.user,
        )
        try:
            self._job = jobs.start(
                self._context, self._job.cluster, plan.request, tenant=self._job.tenant,
                user=plan.user, record=self._job, announce=self._announce,
            )  # fmt: skip
        except jobs.Cancelled:
            self._end(NodeOutcome("cancelled", None, "it had not begun", time.time()))
            return False
        return True

    def _end(self, outcome: NodeOutcome) -> None:
        self._job = tracking.close(self._context.store, self._job.id, lambda _job: outcome)
        self._audience.ended(self._job)

    def _announce(self, job: JobRecord) -> None:
        self._job = job
        self._audience.started(job)
        self._follow()

    def _follow(self) -> tracking.Following:
        """Begin to follow where what is kept already ends."""
        files = [self._folder / name for name in ("stdout", "stderr")]
        for file in files:
            file.touch(mode=0o600)
        counts = [file.stat().st_size for file in files]

        def write(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
            with files[is_error].open("ab") as kept:
                kept.write(data)
            self._audience.write(data, is_error)

        self._following = tracking.Following(
            self._context, self._job, write, *counts,
            patience_seconds=AWAY_SECONDS, silent=self._audience.silent,
        )  # fmt: skip
        return self._following

    def has_begun(self) -> bool:
        """Whether the job's node knows of it."""
        try:
            host, node = tracking.place(self._context, self._job)
            return following.show(host, node.container, self._job.id) is not None
        except EpicError:
            return False

    def follow(self) -> None:
        """Wait for the job's end, and record it."""
        self._job = (self._following or self._follow()).result()
        self._audience.ended(self._job)

    def give_up(self, problem: BaseException) -> None:
        """End the job if it runs, and record why it did not come to its end."""
        now = time.time()
        if isinstance(problem, KeyboardInterrupt):
            if self._following is not None:
                with contextlib.suppress(EpicError):
                    tracking.cancel(self._context, self._job)
                self._following.wait(tracking.PATIENCE_SECONDS)
            outcome = NodeOutcome("cancelled", None, "it was interrupted", now)
        else:
            reason = str(getattr(problem, "message", problem) or type(problem).__name__)
            outcome = NodeOutcome("failed", None, reason, now)
        self._end(outcome)

    def wind_up(self) -> str:
        """Bring home what is of use, and remove the cluster; return why that failed, or nothing."""
        try:
            with self._context.store.read() as transaction:
                cluster = transaction.find_cluster(self._job.cluster, self._job.tenant)
        except NotFound:
            self._settle()
            return ""
        self._bring_home(cluster)
        if not self._job.options.get("keep"):
            try:
                lifecycle.destroy(self._context, cluster.name, cluster.tenant)
            except NotFound:
                pass
            except EpicError as problem:
                return problem.message
        self._settle()
        return ""

    def _settle(self) -> None:
        settled(
            self._context.store,
            lambda transaction: transaction.set_job(self._job.id, is_settled=True),
            self._context.listener,
        )
        pruned(home() / "jobs", KEPT)

    def _bring_home(self, cluster: ClusterRecord) -> None:
        """Keep what the job made, and the last lines of the services."""
        hosts = self._context.hosts
        with contextlib.suppress(EpicError, OSError):
            for tail in logs.tails(hosts, logs.sources(cluster), SERVICE_LINES):
                place = private_directory(self._folder / "services" / tail.source.node.short_name)
                text = "".join(f"{line}\n" for line in tail.lines)
                (place / f"{tail.source.service}.log").write_text(text, encoding="utf-8")
        try:
            host, node = tracking.place(self._context, self._job)
            path = f"/data/jobs/{self._job.id}.files/output"
            code, text = docker_exec.output_of(host, node.container, ["du", "-sb", path])
            size = int(text.split()[0]) if code == 0 else 0
            if size > LARGEST_OUTPUT_BYTES:
                self._note(f"what it made has {size} bytes, too many to bring home")
            elif size:
                data = docker_api.read_archive(host, node.container, path)
                unpacked(data or b"", self._folder)
        except (EpicError, OSError, ValueError) as problem:
            if self._job.node:
                self._note(f"what it made could not be brought home: {problem}")

    def _note(self, what: str) -> None:
        with self._context.store.transaction() as transaction:
            reason = "; ".join(
                part for part in (transaction.job(self._job.id).reason, what) if part
            )
            transaction.set_job(self._job.id, reason=reason)
