"""How long a question to hosts may take: one deadline for all that it consists of.

A host that hangs does so in many places (the connection, the shared connection of an earlier
command, the engine, a node), and each has a time limit of its own. People wait for the sum.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

# What a host has for a question, from ssh's first packet to the answer's last byte. A host that is
# well takes a fraction of a second, and some seconds when it is overloaded.
ANSWER_SECONDS = 10.0

_end: ContextVar[float | None] = ContextVar("end", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound all that this thread asks of hosts meanwhile; of several bounds the nearest counts."""
    outer, end = _end.get(), time.monotonic() + seconds
    token = _end.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _end.reset(token)


def seconds_left() -> float | None:
    """Return the seconds until the deadline, 0 after it; None where there is none."""
    end = _end.get()
    return None if end is None else max(end - time.monotonic(), 0.0)
