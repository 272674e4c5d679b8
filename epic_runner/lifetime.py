"""When a cluster ends by itself: pure functions on its limits and on what was seen of its use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from epic_runner.activity import Activity
from epic_runner.cluster import Lifetime
from epic_runner.store import UseRecord

IDLE = "unused"
AGE = "its age"


@dataclass(frozen=True)
class End:
    """The end of a cluster that is foreseen now.

    Attributes:
        at: When, in seconds since the epoch.
        reason: The limit that it comes by: `unused` or `its age`.
        action: `stop` or `destroy`.
        warns: Whether it is so near that people are to be warned.
        due: Whether it has come.
    """

    at: float
    reason: str
    action: str
    warns: bool
    due: bool


def observed(use: UseRecord | None, activity: Activity, since: float, now: float) -> UseRecord:
    """Return what is known of a cluster's use after a look at it.

    Args:
        use: What was known before.
        activity: What the look showed.
        since: When it was launched or last started, which is activity as well.
        now: Seconds since the epoch.
    """
    use = use or UseRecord(since, "its launch")
    if since > use.active_at:
        use = replace(use, active_at=since, activity="its start")
    if activity.ago is not None and now - activity.ago > use.active_at:
        use = replace(use, active_at=now - activity.ago, activity=activity.what)
    return replace(use, looked_at=now)


def foreseen(
    limits: Lifetime | None, use: UseRecord, *, since: float, wanted: str, now: float
) -> End | None:
    """Return how a cluster ends if nobody uses it from now on; None where it does not by itself.

    Nothing ends without its warning having been out for as long as it should: where the warning
    comes late, since nobody looked, so does the end.

    Args:
        limits: Its limits.
        use: What is known of its use.
        since: When it was launched or last started.
        wanted: What is wanted of it. Of one that is stopped only its age can bring an end, and no
            other than its removal.
        now: Seconds since the epoch.
    """
    if limits is None or (wanted != "running" and limits.action == "stop"):
        return None
    ends = []
    if limits.max_age_seconds is not None:
        ends.append((since + limits.max_age_seconds, AGE))
    if limits.max_idle_seconds is not None and wanted != "stopped":
        ends.append((use.active_at + limits.max_idle_seconds, IDLE))
    if not ends:
        return None
    at, reason = min(ends)
    at = max(at, use.extended_until or 0.0)
    warns = now >= at - limits.warn_seconds
    if warns:
        at = max(at, (now if use.warned_at is None else use.warned_at) + limits.warn_seconds)
    due = warns and use.warned_at is not None and now >= at
    return End(at, reason, limits.action, warns, due)


def extended(use: UseRecord, end: End | None, by_seconds: int, now: float) -> UseRecord:
    """Return a cluster's record with its end put off by so long; warnings are taken back."""
    at = max(end.at, now) if end else now
    return replace(use, extended_until=at + by_seconds, warned_at=None)


def warned(use: UseRecord, end: End | None, now: float) -> UseRecord:
    """Return the record after people were told what there is to tell, if there is anything."""
    if end is None or not end.warns:
        return replace(use, warned_at=None)
    return use if use.warned_at is not None else replace(use, warned_at=now)
