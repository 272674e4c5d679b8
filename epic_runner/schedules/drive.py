"""One run of a schedule: a process of its own, which runs the job and records how it ended.

It outlives the service that began it, and a job that kills its process harms no other one: the
job itself is `epic-run run` in yet another process, of files that are written from the store.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from epic_runner.errors import InputError, NotFound, StoreUnavailable
from epic_runner.operations import is_alive, new_id, settled
from epic_runner.processes import (
    CANCELLED,
    detached,
    ending_with_this_process,
    here,
    host_of,
    started,
)
from epic_runner.resources import home, private_directory
from epic_runner.schedules.decide import outdated, retry
from epic_runner.store import RunRecord, ScheduleRecord, Store

HEARTBEAT_SECONDS = 5.0
JOB_FILE = "job.yml"
LOG_FILE = "output.log"
# What the driver itself says: nothing, or why it failed.
DRIVER_LOG = "driver.log"

Write = Callable[[bytes], None]


def folder_of(run: str) -> Path:
    """Return the folder of a run: its files, and its output."""
    return home() / "schedules" / run


def begin(store: Store, run: RunRecord) -> None:
    """Start a process that drives a run which was recorded as running; it outlives this one."""
    log = private_directory(folder_of(run.id)) / DRIVER_LOG
    process = detached(["schedule", "drive", run.id], log)
    # At once: this process may end before that one gets to it, and the run would look dead.
    with store.transaction() as transaction:
        transaction.set_run(run.id, **driver(process.pid))


def command(schedule: ScheduleRecord) -> list[str]:
    """Return the command that runs a schedule's job, in the run's folder."""
    return [sys.executable, "-m", "epic_runner", "run", JOB_FILE, "--tenant", schedule.tenant]


def driver(pid: int | None = None) -> dict[str, Any]:
    """Return what a run's record says of its driver: a process of this machine, or this one."""
    pid = os.getpid() if pid is None else pid
    return {
        "controller": here(),
        "pid": pid,
        "pid_started": started(pid),
        "heartbeat_at": time.time(),
    }


def drive(store: Store, key: str, write: Write = lambda _piece: None) -> RunRecord:
    """Drive a run to its end, and return its record.

    Ctrl-C and SIGTERM are for the job, which cancels; the run then ends as cancelled.

    Args:
        store: The store.
        key: The run, which is recorded as running.
        write: Takes the job's output as well.

    Raises:
        NotFound: The run, or its schedule, is gone.
        InputError: It is not recorded as running.
    """
    with store.transaction() as transaction:
        run = transaction.run(key)
        if run.state != "running":
            raise InputError(f"The run {key} is {run.state}: there is nothing to drive.")
        schedule = transaction.find_schedule(run.schedule, run.tenant)
        files = transaction.schedule_files(run.tenant, run.schedule)
        run = replace(run, log=str(folder_of(key) / LOG_FILE), started_at=time.time(), **driver())
        transaction.set_run(key, **_changes(run))
    with _heart(store, key):
        try:
            ended = _run(schedule, run, files, write)
        except OSError as problem:
            reason = f"{problem.strerror}: {problem.filename}"
            ended = replace(run, state="failed", reason=reason, ended_at=time.time())
    finish(store, schedule, ended)
    return ended


def finish(store: Store, schedule: ScheduleRecord, run: RunRecord) -> None:
    """Record how a run ended, and plan its repetition where the policy wants one.

    Who comes first says how it ended: of two services that see its driver dead, or of one and the
    driver itself.
    """

    def change(transaction: Any) -> list[str]:
        with contextlib.suppress(NotFound):  # the schedule was removed meanwhile
            if transaction.run(run.id).is_over:
                return []
        transaction.set_run(run.id, **_changes(run))
        again = retry(schedule, run, time.time())
        names = {(item.tenant, item.name) for item in transaction.schedules(run.tenant)}
        if again is not None and (run.tenant, run.schedule) in names:
            transaction.add_run(replace(again, id=new_id()))
        old = outdated(transaction.runs(run.tenant, run.schedule))
        transaction.forget_runs(old)
        return old

    # What was run must not be lost by a store that is away for a while.
    import shutil

    for old in settled(store, change, lambda _step: None):
        shutil.rmtree(folder_of(old), ignore_errors=True)


def bury(store: Store, run: RunRecord, schedule: ScheduleRecord) -> None:
    """Record a run whose controller is dead as interrupted."""
    reason = f"the process that drove it on {host_of(run.controller)} is gone"
    finish(
        store,
        schedule,
        replace(run, state="interrupted", reason=reason, ended_at=time.time()),
    )


def is_dead(run: RunRecord, now: float) -> bool:
    """Whether a run is recorded as running and nobody drives it."""
    return run.state == "running" and not is_alive(run, now)


def _run(
    schedule: ScheduleRecord, run: RunRecord, files: dict[str, bytes], write: Write
) -> RunRecord:
    folder = private_directory(folder_of(run.id))
    (folder / JOB_FILE).write_text(
        yaml.safe_dump_all(list(schedule.documents), sort_keys=False), encoding="utf-8"
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    # It acts as the member whom the schedule names, whoever runs the service.
    hidden = ("EPIC_OUTPUT", "EPIC_USER")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONUNBUFFERED"] = "1"
    with (
        (folder / LOG_FILE).open("wb", buffering=0) as log,
        subprocess.Popen(
            # A run whose driver is killed counts as interrupted: the job must not go on beside the
            # one that takes its place.
            ending_with_this_process(command(schedule)),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        rc, cancelled = _watched(process, log.write, write)
    state = "cancelled" if cancelled or rc == CANCELLED else "failed" if rc else "done"
    reason = _last_words(folder / LOG_FILE) if state == "failed" else ""
    return replace(run, state=state, rc=rc, reason=reason, ended_at=time.time())


def _watched(
    process: subprocess.Popen[bytes], keep: Callable[[bytes], Any], write: Write
) -> tuple[int, bool]:
    """Wait for a job's end; return its exit code, and whether it was cancelled."""
    cancelled = False
    while True:
        try:
            _copy(process, keep, write)
            return process.wait(), cancelled
        except KeyboardInterrupt:
            # Once is enough: the job cleans up behind itself.
            if not cancelled:
                process.terminate()
            cancelled = True


def _copy(process: subprocess.Popen[bytes], keep: Callable[[bytes], Any], write: Write) -> None:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    while piece := os.read(process.stdout.fileno(), 1 << 16):
        keep(piece)
        write(piece)


def _last_words(log: Path) -> str:
    """Return the last error that a run's output tells, else its last line."""
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
        told = [line for line in lines if line.startswith("Error:")] or [
            line for line in lines if line.strip()
        ]
        return told[-1][:500] if told else ""
    return ""


def _changes(run: RunRecord) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(run).items()
        if name not in ("id", "tenant", "schedule", "cause", "attempt", "planned_at")
    }


@contextlib.contextmanager
def _heart(store: Store, key: str) -> Any:
    """Show that the run is driven, for as long as it is."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(StoreUnavailable), store.transaction() as transaction:
                transaction.set_run(key, heartbeat_at=time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
