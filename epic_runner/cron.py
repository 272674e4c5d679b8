"""When a cron line is due: minutes of a time zone, daylight saving time included.

Clocks that change are handled as Debian's cron does (and so `cronsim`, which does the reckoning):
a time that is skipped in spring is made up for at once, and one that comes twice in autumn counts
once; lines whose hours are a `*` go by the clock on the wall, every hour that there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS: Final = 5
# Times that were missed are counted up to here: a year of every quarter of an hour.
MOST_TIMES: Final = 35_136


def check_line(line: str) -> str:
    """Return a cron line in its five fields; raises ValueError whose message reads on."""
    from cronsim import CronSim, CronSimError

    fields = WORDS.get(line.strip().lower(), line).split()
    if len(fields) != FIELDS:
        raise ValueError(
            "must be a cron line of five fields (minute, hour, day, month, weekday), or @hourly, "
            "@daily, @weekly, @monthly, @yearly"
        )
    text = " ".join(fields)
    try:
        CronSim(text, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as problem:
        raise ValueError(f"is no cron line: {str(problem).lower()}") from None
    return text


def check_zone(name: str) -> str:
    """Return the name of a time zone; raises ValueError whose message reads on."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError("must be a time zone such as Europe/Berlin or UTC") from None
    return name


def local_zone() -> str:
    """Return the name of this machine's time zone; `UTC` where it has none that is known."""
    named = os.environ.get("TZ", "").lstrip(":")
    link = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    for name in (named, link):
        if name:
            try:
                return check_zone(name)
            except ValueError:
                continue
    return "UTC"


def following(line: str, zone: str, after: float) -> Iterator[float]:
    """Go through the times at which a line is due, from the first one after `after`.

    Args:
        line: Five fields, as `check_line` returns them.
        zone: The name of a time zone.
        after: Seconds since the epoch.
    """
    from cronsim import CronSim

    for moment in CronSim(line, datetime.fromtimestamp(after, ZoneInfo(zone))):
        yield moment.timestamp()


def next_time(line: str, zone: str, after: float) -> float:
    """Return the first time after `after` at which a line is due."""
    return next(following(line, zone, after))


def times_between(line: str, zone: str, first: float, last: float) -> list[float]:
    """Return the times from `first`, one of them, to `last`; no more than `MOST_TIMES`."""
    found = [first]
    for moment in following(line, zone, first):
        if moment > last or len(found) >= MOST_TIMES:
            break
        found.append(moment)
    return found
