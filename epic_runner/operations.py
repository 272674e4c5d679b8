"""Operations: every change is one, held by one controller, seen by all, resumable by the next.

An operation holds its cluster by its row in the store, from the transaction that reserves what it
needs until it ends. A controller that dies leaves the row behind: the next one finds that the
process is gone (or, for another machine's, that its heartbeat stopped), marks it interrupted, ends
what it left running, and goes on from what Docker shows.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from epic_runner.errors import ClusterBusy, EpicError, StoreUnavailable
from epic_runner.events import Listener, Step
from epic_runner.processes import controller, end_leftovers, here, host_of, started
from epic_runner.resources import home
from epic_runner.store import OperationRecord, RunRecord, Store
from epic_runner.store.store import Transaction

HEARTBEAT_SECONDS = 2.0
# Another machine's controller counts as dead after this long without a heartbeat; clocks of
# controllers that share a store have to agree better than this.
STALE_SECONDS = 30.0
# How many operations keep their folder of inventory, output and events.
KEPT_DIRECTORIES = 50
# How long an operation whose work is done waits for a store that is away, to record its result.
PATIENCE_SECONDS = 600.0
PATIENCE_PAUSE_SECONDS = 1.0

Prepared = TypeVar("Prepared")
Settled = TypeVar("Settled")


def new_id(now: float | None = None) -> str:
    """Return an id for what begins `now`, an operation, action, job or run; ids sort by time."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + uuid.uuid4().hex[:8]


@dataclass(frozen=True)
class Running(Generic[Prepared]):
    """An operation under way: its record, what was prepared, and where its files go."""

    record: OperationRecord
    prepared: Prepared
    listener: Listener
    store: Store

    @property
    def directory(self) -> Path:
        """The operation's own folder for inventories, output and events."""
        return operation_directory(self.record.id)

    def settle(self, change: Callable[[Transaction], Settled]) -> Settled:
        """Write to the store what the operation has come to, once the store takes it.

        Hosts have changed by then: a database that restarts must not make that undone work.

        Args:
            change: Writes; it may be called again when its transaction was not finished.

        Raises:
            StoreUnavailable: The store was away for `PATIENCE_SECONDS`.
        """
        return settled(self.store, change, self.listener)


def settled(
    store: Store,
    change: Callable[[Transaction], Settled],
    listener: Listener,
    patience_seconds: float | None = None,
) -> Settled:
    """Write to the store; wait for it (for `PATIENCE_SECONDS`), and tell the listener so."""
    end = time.monotonic() + (PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
    told = False
    while True:
        try:
            with store.transaction() as transaction:
                return change(transaction)
        except StoreUnavailable as problem:
            if time.monotonic() > end:
                raise
            if not told:
                told = True
                listener(Step("Record the result", "store", f"waiting: {problem.message}"))
        time.sleep(PATIENCE_PAUSE_SECONDS)


def operation_directory(operation: str) -> Path:
    """Return the folder of an operation."""
    return home() / "operations" / operation


@contextmanager
def operate(
    store: Store,
    *,
    tenant: str,
    cluster: str,
    verb: str,
    arguments: Mapping[str, Any],
    user: str,
    prepare: Callable[[Transaction], Prepared],
    listener: Listener,
) -> Iterator[Running[Prepared]]:
    """Hold a cluster for an operation, and record how it ends.

    Args:
        store: The store.
        tenant: The cluster's tenant.
        cluster: The cluster's name; it need not exist yet.
        verb: What is done, as on the command line.
        arguments: With what arguments; the same verb with the same ones resumes.
        user: Who acts.
        prepare: Reserves what is needed, in the same transaction that takes hold; what it
            raises leaves no trace.
        listener: Told of every step, after it was recorded.

    Raises:
        ClusterBusy: Another live operation holds the cluster.
    """
    record = _new_record(tenant, cluster, verb, arguments, user)
    _give_silent_controllers_time(store, record)
    with store.transaction() as transaction:
        # What a dead controller left running ends before its operation is marked as over: whoever
        # is killed right here leaves it to the next one.
        for dead in _take_over(transaction, record):
            end_leftovers(dead.id, controller(dead.pid, dead.pid_started, dead.controller))
        prepared = prepare(transaction)
        transaction.add_operation(record)
    recorder = _Recorder(store, record, listener)
    try:
        yield Running(record, prepared, recorder.step, store)
    except (KeyboardInterrupt, StoreUnavailable) as problem:
        # Who wants to leave, or has waited for the store already, does not wait once more: the
        # next one finds that this process is gone.
        state, error = "failed", str(problem)
        if isinstance(problem, KeyboardInterrupt):
            state, error = "interrupted", "It was interrupted from the keyboard or by a signal."
        with contextlib.suppress(EpicError):
            recorder.end(state, error, patience_seconds=0)
        raise
    except BaseException as problem:
        # A store that fails as well must not hide what went wrong first.
        with contextlib.suppress(EpicError):
            recorder.end("failed", in_words(problem))
        raise
    else:
        try:
            recorder.end("done", "")
        except StoreUnavailable as problem:
            raise StoreUnavailable(
                f"The {verb} is done, but could not be recorded. {problem.message}", problem.hint
            ) from problem
    finally:
        recorder.stop()
        pruned(home() / "operations", KEPT_DIRECTORIES)


def in_words(problem: BaseException) -> str:
    """Return why an operation failed, in words for people where there are any."""
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.strerror}{f': {problem.filename}' if problem.filename else ''}."
    return str(getattr(problem, "message", repr(problem)))


def is_alive(record: OperationRecord | RunRecord, now: float) -> bool:
    """Whether the controller of a running operation, or of a schedule's run, still lives.

    A process of this machine is looked up by its id and start time; of another machine, or of this
    one in another container or before its last start, only the heartbeat tells. `now` is in seconds
    since the epoch.
    """
    if record.state != "running":
        return False
    if record.controller == here():
        return started(record.pid) == record.pid_started
    return now - record.heartbeat_at < STALE_SECONDS


def _new_record(
    tenant: str, cluster: str, verb: str, arguments: Mapping[str, Any], user: str
) -> OperationRecord:
    now = time.time()
    return OperationRecord(
        id=new_id(now),
        tenant=tenant,
        cluster=cluster,
        verb=verb,
        arguments=dict(arguments),
        user=user or account(),
        controller=here(),
        pid=os.getpid(),
        pid_started=started(os.getpid()),
        started_at=now,
        heartbeat_at=now,
    )


def account() -> str:
    """Return the account that runs this process; its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _give_silent_controllers_time(store: Store, record: OperationRecord) -> None:
    """Wait for another heartbeat of controllers elsewhere that seem dead.

    After an outage of the store nobody's heartbeat is fresh, and whoever comes first must not take
    over what others are at.
    """
    with store.read() as transaction:
        silent = [
            other
            for name in (record.cluster, "")
            for other in transaction.operations(record.tenant, name)
            if other.state == "running" and other.controller != here()
            if not is_alive(other, time.time())
        ]
    if silent:
        time.sleep(2 * HEARTBEAT_SECONDS)


def _take_over(transaction: Transaction, record: OperationRecord) -> list[OperationRecord]:
    """Mark dead operations of the cluster as interrupted; refuse when one lives.

    An operation on the tenant itself, held under the name of no cluster, keeps all others away.
    """
    dead = []
    now = time.time()
    names = {record.cluster, ""}
    for other in (item for name in names for item in transaction.operations(record.tenant, name)):
        if other.state != "running":
            continue
        if is_alive(other, now):
            busy = other.cluster or (f"Tenant {other.tenant}" if other.tenant else "The site")
            look = f"; epic-run status {busy} shows how far it is" if other.cluster else ""
            raise ClusterBusy(
                f"{busy} is busy: {other.user} runs {other.verb} on it since "
                f"{time.strftime('%H:%M:%S', time.localtime(other.started_at))} "
                f"(process {other.pid} on {host_of(other.controller)}, "
                f"phase: {other.phase or 'start'}).",
                f"Wait until it ends{look}.",
            )
        transaction.set_operation(
            other.id, state="interrupted", error="Its controller died.", ended_at=now
        )
        dead.append(other)
    return dead


class _Recorder:
    """Writes an operation's steps and heartbeat to the store, without holding up the play."""

    def __init__(self, store: Store, record: OperationRecord, listener: Listener) -> None:
        self._store = store
        self._operation = record.id
        self._tenant = record.tenant
        self._cluster = record.cluster
        self._listener = listener
        self._steps: list[Step] = []
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def step(self, step: Step) -> None:
        with self._guard:
            self._steps.append(step)
        self._tell(step)

    def _tell(self, step: Step) -> None:
        # A reader who has left (head, say) must not cut the work off half-way.
        with contextlib.suppress(BrokenPipeError):
            self._listener(replace(step, tenant=self._tenant, cluster=self._cluster))

    def end(self, state: str, error: str, patience_seconds: float | None = None) -> None:
        self.stop()
        ended_at = time.time()
        settled(
            self._store,
            lambda transaction: self._add(transaction, state=state, error=error, ended_at=ended_at),
            self._tell,
            patience_seconds,
        )

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            # A store that is locked or full for a while: what there is to tell is told later.
            with contextlib.suppress(EpicError):
                self._write()

    def _write(self) -> None:
        with self._store.transaction() as transaction:
            written = self._add(transaction)
        with self._guard:
            del self._steps[:written]

    def _add(self, transaction: Transaction, **values: Any) -> int:
        with self._guard:
            steps = list(self._steps)
        if steps:
            values["phase"] = steps[-1].phase
        for step in steps:
            transaction.add_event(self._operation, step.phase, step.node, step.message)
        transaction.set_operation(self._operation, heartbeat_at=time.time(), **values)
        return len(steps)


def pruned(folder: Path, keep: int) -> None:
    """Remove all but the newest so many folders of one; their names begin with the time."""
    import shutil

    if not folder.is_dir():
        return
    for old in sorted(path for path in folder.iterdir())[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
