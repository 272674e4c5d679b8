"""What is due of a schedule, and what becomes of it: pure functions.

A time counts as missed when it is more than `LATE_SECONDS` ago when somebody comes to run it: its
server was down, or the store. Of all missed times at most one run is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from epic_runner.cron import next_time, times_between
from epic_runner.store import RunRecord, ScheduleRecord

LATE_SECONDS = 300.0

# How many runs of a schedule are remembered, and how many keep their folder.
KEPT_RUNS = 100


@dataclass(frozen=True)
class Due:
    """What is to be written down of a schedule, and begun.

    Attributes:
        add: Runs to record, without their ids and controllers; those that are `running` begin.
        begin: The id of a waiting run that begins.
        drop: Waiting runs, by id, in whose place another one comes.
        next_at: When the schedule is due next.
    """

    add: tuple[RunRecord, ...] = ()
    begin: str | None = None
    drop: tuple[str, ...] = ()
    next_at: float | None = None


def due(schedule: ScheduleRecord, open_runs: Sequence[RunRecord], now: float) -> Due:
    """Return what is due of a schedule.

    Args:
        schedule: The schedule.
        open_runs: Its runs that are not over; those whose controller died are.
        now: Seconds since the epoch.
    """
    if schedule.state != "active":
        return Due()
    busy = any(run.state == "running" for run in open_runs)
    waiting = [run for run in open_runs if run.state == "waiting"]
    found = Due(next_at=schedule.next_at)
    if schedule.next_at is not None and schedule.next_at <= now:
        found = _by_the_clock(schedule, waiting, now, busy=busy)
        waiting = [run for run in waiting if run.id not in found.drop]
        busy = busy or any(run.state == "running" for run in found.add)
    ready = [run for run in waiting if run.planned_at <= now]
    if ready and not busy:
        return replace(found, begin=min(ready, key=lambda run: run.planned_at).id)
    return found


def _by_the_clock(
    schedule: ScheduleRecord, waiting: Iterable[RunRecord], now: float, *, busy: bool
) -> Due:
    timing = schedule.timing
    assert schedule.next_at is not None  # noqa: S101 - for the type checker
    times = times_between(timing.cron, timing.timezone, schedule.next_at, now)
    next_at = next_time(timing.cron, timing.timezone, now)
    last, earlier = times[-1], times[:-1]
    late = now - last > LATE_SECONDS
    passed = list(times) if late and timing.missed == "skip" else earlier
    noted = [_never(schedule, passed[-1], "missed", _missed_text(passed))] if passed else []
    if late and timing.missed == "skip":
        return Due(tuple(noted), next_at=next_at)
    run = RunRecord(
        "", schedule.tenant, schedule.name, "missed" if late else "schedule", last, "running"
    )
    # What was to be tried again later gives way; what waits for its turn keeps it.
    retries = tuple(item.id for item in waiting if item.cause == "retry")
    queued = any(item.cause != "retry" for item in waiting)
    if not busy and not queued:
        return Due((*noted, run), drop=retries, next_at=next_at)
    if timing.overlap == "queue" and not queued:
        return Due((*noted, replace(run, state="waiting")), drop=retries, next_at=next_at)
    why = "another run waits already" if queued else "the run before it goes on"
    return Due((*noted, _never(schedule, last, "skipped", why)), next_at=next_at)


def retry(schedule: ScheduleRecord, run: RunRecord, now: float) -> RunRecord | None:
    """Return the run that tries a failed one again; None where the policy has no more."""
    if run.state not in ("failed", "interrupted") or run.attempt > schedule.timing.retries:
        return None
    planned_at = now + schedule.timing.retry_after_seconds
    return RunRecord(
        "", run.tenant, run.schedule, "retry", planned_at, "waiting", attempt=run.attempt + 1
    )


def outdated(runs: Sequence[RunRecord]) -> list[str]:
    """Return the ids of runs, the newest first, that are no longer remembered."""
    return [run.id for run in [item for item in runs if item.is_over][KEPT_RUNS:]]


def _never(schedule: ScheduleRecord, planned_at: float, state: str, reason: str) -> RunRecord:
    return RunRecord(
        "", schedule.tenant, schedule.name, "schedule", planned_at, state, reason=reason,
        ended_at=planned_at,
    )  # fmt: skip


def _missed_text(times: Sequence[float]) -> str:
    return "nobody was there to run it" + (f", {len(times)} times" if len(times) > 1 else "")
