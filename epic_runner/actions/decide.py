"""What is decided of an action on its way: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from epic_runner.following import Ended
from epic_runner.store.records import NodeOutcome

Item = TypeVar("Item")

# What `timeout` ends with, when what it sent first was enough and when it was not.
_TIMED_OUT = (124, 137)
# What a node's epic-job ends with when output did not fit on the disk, which sysexits.h has for the
# like, and, as shells, when a command is not there or is none.
_TELLING = {
    74: "reading or writing failed: is the disk of its node full?",
    126: "its interpreter cannot be run",
    127: "a command or its interpreter is not there",
}
_SIGNALLED = 128
# In place of an exit code, where a node's engine did not run the command at all.
NO_ENGINE = 255


def batches(items: Sequence[Item], serial: int) -> list[list[Item]]:
    """Return the items in groups of `serial`, or all in one if that is 0."""
    size = serial or max(len(items), 1)
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def outcome(
    ended: Ended, *, seconds: float, timeout_seconds: int, cancelled: bool, now: float
) -> NodeOutcome:
    """Return what a node has made of an action that its follower saw end.

    Args:
        ended: How the script ended.
        seconds: How long it ran, as far as is known.
        timeout_seconds: Its limit; 0 for none.
        cancelled: Whether people ended it.
        now: Seconds since the epoch.
    """
    rc = ended.rc
    if rc is None:
        reason = "it left no result: its node was stopped or restarted"
        return NodeOutcome("cancelled" if cancelled else "unknown", None, reason, now)
    if rc == 0:
        return NodeOutcome("done", 0, "", now)
    if cancelled:
        return NodeOutcome("cancelled", rc, "", now)
    if timeout_seconds and rc in _TIMED_OUT and seconds >= timeout_seconds:
        return NodeOutcome("timed out", rc, f"it took longer than {timeout_seconds} s", now)
    reason = _TELLING.get(rc, f"signal {rc - _SIGNALLED}" if rc > _SIGNALLED else "")
    return NodeOutcome("failed", rc, reason, now)


def not_started(rc: int, stderr: bytes, *, now: float) -> NodeOutcome:
    """Return what a node has made of an action whose start did not come to its end there.

    Args:
        rc: The exit code of the start; `NO_ENGINE` where there was none.
        stderr: What it said.
        now: Seconds since the epoch.
    """
    if _SIGNALLED < rc < NO_ENGINE:
        # With its node, say: the script may have begun, and done something.
        reason = "it left no result: its node was stopped while it began"
        return NodeOutcome("unknown", None, reason, now)
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    reason = f"it could not be started: {lines[-1] if lines else rc}"
    return NodeOutcome("failed", None, reason, now)


def cut(counts: tuple[int, int], limit_bytes: int) -> tuple[str, ...]:
    """Return the streams, of stdout and stderr, that have come to the limit of what is kept."""
    named = zip(("stdout", "stderr"), counts, strict=True)
    return tuple(name for name, count in named if count >= limit_bytes)


def shown(
    told: Mapping[str, Any] | None, *, timeout_seconds: int, now: float, cancelled: bool = False
) -> NodeOutcome | None:
    """Return what a node that was asked later tells of an action or job; None while it goes on.

    Args:
        told: What `epic-job show` printed; None where the node knows nothing of it.
        timeout_seconds: The action's limit; 0 for none.
        now: Seconds since the epoch.
        cancelled: Whether people ended it.
    """
    if told is None:
        return NodeOutcome("unknown", None, "its node knows nothing of it: it was made anew", now)
    if told["state"] in ("running", "starting"):
        return None
    ended_at = float(told["ended"] or now)
    found = outcome(
        Ended(told["state"], told["rc"]),
        seconds=ended_at - float(told["created"]),
        timeout_seconds=timeout_seconds,
        cancelled=cancelled,
        now=ended_at,
    )
    return replace(found, cut=tuple(told["cut"]))


def overall(nodes: Mapping[str, NodeOutcome]) -> str:
    """Return the state of an action: `running`, `done`, `cancelled` or `failed`."""
    states = {node.state for node in nodes.values()}
    if states & {"running", "waiting"}:
        return "running"
    if states <= {"done"}:
        return "done"
    return "cancelled" if states <= {"done", "cancelled", "skipped"} else "failed"


def failed_nodes(nodes: Mapping[str, NodeOutcome]) -> list[str]:
    """Return the nodes on which an action is over and did not end well."""
    return [name for name, node in nodes.items() if node.is_over and node.state != "done"]


def summary(nodes: Mapping[str, NodeOutcome]) -> str:
    """Return how many nodes are in which state, in words: `3 done, 1 failed`."""
    states = [node.state for node in nodes.values()]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def first_words(nodes: Iterable[str], most: int = 3) -> str:
    """Return some names for a sentence, and how many more there are."""
    names = [*nodes]
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
