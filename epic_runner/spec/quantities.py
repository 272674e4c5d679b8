"""Sizes (`512m`, `8g`) and durations (`90s`, `7d`) as people write them, in bytes and seconds."""

from __future__ import annotations

import re
from typing import Final

UNITS: Final = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SMALLEST: Final = 2**20
LARGEST: Final = 2**60
PATTERN: Final = r"^[1-9][0-9]{0,18}[kmgtKMGT]?$"

_SIZE = re.compile(r"([1-9][0-9]{0,18})([kmgt]?)", re.ASCII)
_LOOSE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(i?b|b|ytes)?\s*", re.ASCII)
_TOO_SMALL = "is less than 1 MiB"
_TOO_LARGE = "is larger than 1 EiB (1048576t)"
_FORM = "must be a size such as 512m, 8g or 1t"

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_SECONDS: Final = 366 * 86400
DURATION_PATTERN: Final = r"^[1-9][0-9]{0,8}[smhdSMHD]$"
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)


class SizeError(ValueError):
    """A size that cannot be taken; `message` reads on from the key's name, `hint` may be None."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_size(value: object) -> int:
    """Return the bytes that a size means: `512m` is 512 * 2**20 (binary multiples).

    A bare number counts bytes. Fewer than 1 MiB is no size that any node could use, but a unit
    that was forgotten, so it is refused.

    Raises:
        SizeError: `value` is no such size, or is out of range (1 MiB to 1 EiB).
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise SizeError(_FORM)
    if isinstance(value, int) and value > LARGEST:
        # Not left to the text below: Python refuses to write out the very longest numbers.
        raise SizeError(_TOO_LARGE)
    if isinstance(value, int) and value <= 0:
        raise SizeError(_TOO_SMALL)
    text = str(value).lower()
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SizeError(_FORM, _meant(text))
    count = int(match[1]) * UNITS.get(match[2], 1)
    if count < SMALLEST:
        forgotten = not match[2] and count < UNITS["k"]
        raise SizeError(_TOO_SMALL, f'Did you mean "{count}g"?' if forgotten else None)
    if count > LARGEST:
        raise SizeError(_TOO_LARGE)
    return count


def parse_duration(value: object) -> int:
    """Return the seconds that a duration means: `90s`, `15m`, `2h`, `7d`.

    Raises:
        ValueError: `value` is no such duration, or is longer than a year. The message reads on from
            the key's name.
    """
    match = _DURATION.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration such as 90s, 15m, 2h or 7d")
    seconds = int(match[1]) * SECONDS[match[2]]
    if seconds > LONGEST_SECONDS:
        raise ValueError("is longer than a year (366d)")
    return seconds


def format_duration(seconds: int) -> str:
    """Return seconds in the largest unit that expresses them exactly, for `parse_duration`."""
    unit = next(unit for unit, size in reversed(SECONDS.items()) if seconds % size == 0)
    return f"{seconds // SECONDS[unit]}{unit}"


def format_size(count: int) -> str:
    """Return `count` bytes in the largest unit that expresses them exactly.

    The exact reverse of `parse_size`, for what people will read back in; for glances,
    `epic_runner.output.bytes_text` rounds.
    """
    for unit, factor in reversed(UNITS.items()):
        if count >= factor and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def _meant(text: str) -> str | None:
    """Return a hint for sizes in other notations: `4 GB`, `1.5g`, `2GiB`."""
    match = _LOOSE.fullmatch(text[:40].lower())
    if match is None:
        return None
    count = round(float(match[1]) * UNITS.get(match[2], 1))
    if not match[2] or not SMALLEST <= count <= LARGEST:
        return None
    # 1.1g is no whole number of megabytes: suggest the nearest.
    whole = count if count % SMALLEST == 0 else round(count / SMALLEST) * SMALLEST
    return f'Did you mean "{format_size(whole)}"?'
