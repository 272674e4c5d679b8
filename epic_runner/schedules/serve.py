"""The service that begins what is due, and looks after lifetimes.

Any number of them may serve one store: what is due is claimed in a transaction that excludes all
others, so it is begun once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from epic_runner.errors import StoreUnavailable
from epic_runner.operations import new_id
from epic_runner.processes import here, host_of
from epic_runner.schedules import drive
from epic_runner.schedules.decide import due
from epic_runner.store import RunRecord, ScheduleRecord, Store

# How often the store is asked for what is due: others may add schedules at any time.
PAUSE_SECONDS = 5.0

Say = Callable[[str], None]
Begin = Callable[[Store, RunRecord], None]


def tick(store: Store, say: Say, begin: Begin = drive.begin) -> None:
    """Begin what is due now, and record what never will be.

    Args:
        store: The store.
        say: Told of everything that is begun, or not.
        begin: Starts the process that drives a run.

    Raises:
        StoreUnavailable: The store is away.
    """
    dead = _dead(store)
    if any(run.controller != here() for run, _ in dead):
        # After an outage of the store nobody's heartbeat is fresh: the others get time for one.
        time.sleep(2 * drive.HEARTBEAT_SECONDS)
        dead = _dead(store)
    now = time.time()
    for run, schedule in dead:
        say(f"{_name(run)} was interrupted: its process on {host_of(run.controller)} is gone")
        drive.bury(store, run, schedule)
    with store.read() as transaction:
        # Most of the time there is nothing to write, and nobody is kept from writing.
        if not any(_claim(transaction, schedule, now) for schedule in transaction.schedules()):
            return
    begun = []
    with store.transaction() as transaction:
        for schedule in transaction.schedules():
            begun += _write(transaction, schedule, now, say)
    for run in begun:
        begin(store, run)


def serve(store: Store, say: Say, *, sweep_seconds: float | None) -> None:
    """Begin what is due, and sweep, until somebody interrupts.

    Runs and sweeps are processes of their own, which go on when this one ends.

    Args:
        store: The store.
        say: Told of everything that happens.
        sweep_seconds: How often lifetimes are looked after; None for never.
    """
    sweeping: subprocess.Popen[str] | None = None
    away = False
    while True:
        try:
            tick(store, say)
            if sweep_seconds is not None and is_sweep_due(store, sweep_seconds):
                if sweeping is not None and sweeping.poll() is not None:
                    sweeping = None
                sweeping = sweeping or begin_sweep()
            away = False
        except StoreUnavailable as problem:
            if not away:
                say(f"Waiting for the store: {problem.message}")
            away = True
        time.sleep(PAUSE_SECONDS)


def is_sweep_due(store: Store, every_seconds: float) -> bool:
    """Whether nobody, of all who sweep this store, has looked at clusters for so long."""
    with store.read() as transaction:
        clusters, uses = transaction.clusters(), transaction.uses()
    looks = [uses[item.id].looked_at if item.id in uses else 0.0 for item in clusters]
    return bool(looks) and time.time() - min(looks) >= every_seconds


def begin_sweep() -> subprocess.Popen[str]:
    """Start a sweep, whose output is this process's."""
    return subprocess.Popen(
        [sys.executable, "-m", "epic_runner", "lifetime", "sweep", "--output", "table"],
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _dead(store: Store) -> list[tuple[RunRecord, ScheduleRecord]]:
    """Return the runs that are recorded as running and that nobody drives."""
    now = time.time()
    with store.read() as transaction:
        return [
            (run, schedule)
            for schedule in transaction.schedules()
            for run in transaction.runs(schedule.tenant, schedule.name, is_open=True)
            if drive.is_dead(run, now)
        ]


def _claim(transaction: Any, schedule: Any, now: float) -> Any:
    runs = transaction.runs(schedule.tenant, schedule.name, is_open=True)
    found = due(schedule, runs, now)
    is_nothing = not (found.add or found.begin or found.drop)
    return None if is_nothing else found


def _write(transaction: Any, schedule: Any, now: float, say: Say) -> list[RunRecord]:
    """Record what is due of a schedule; return the runs that begin."""
    found = _claim(transaction, schedule, now)
    if found is None:
        return []
    begun = []
    for number, new in enumerate(found.add):
        run = replace(new, id=f"{new_id()}{number}")
        if run.state == "running":
            run = replace(run, **drive.driver())
            begun.append(run)
        say(f"{_name(run)} is {run.state}{f': {run.reason}' if run.reason else ''}")
        transaction.add_run(run)
    for key in found.drop:
        reason = "a newer run took its place"
        transaction.set_run(key, state="skipped", reason=reason, ended_at=now)
    if found.begin:
        run = transaction.run(found.begin)
        transaction.set_run(run.id, state="running", **drive.driver())
        say(f"{_name(run)} is running, which waited")
        begun.append(run)
    transaction.set_schedule(schedule.tenant, schedule.name, next_at=found.next_at)
    return begun


def _name(run: RunRecord) -> str:
    return f"{run.tenant}/{run.schedule} ({run.id})"
