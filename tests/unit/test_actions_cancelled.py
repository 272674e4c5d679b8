"""Actions that somebody cancels while another process drives them: what begins, what is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from life_samples import known, node, spec

from epic_runner import following, tracking
from epic_runner.actions import drive, starting
from epic_runner.actions.request import ActionRequest
from epic_runner.cluster import Node
from epic_runner.errors import DockerUnavailable, InputError, NotFound
from epic_runner.following import Ended
from epic_runner.lifecycle import Context
from epic_runner.store import ActionRecord, NodeOutcome

LAB = spec(workers=2)
NAMES = ["master-1", "worker-1", "worker-2"]
RUNNING = starting.Start(0, b"", b"\0running 0 0 0\n")
DONE = starting.Start(0, b"", b"\0done 0 0 0\n")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with known(tmp_path, LAB, *NAMES) as made:
        yield made


class Nodes:
    """Nodes that begin what they are told to, and tell what was ended on them.

    Args:
        before: Called with the names of nodes before they begin.
        start: How the start goes on each.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        before: Callable[[list[str]], Any] = lambda _names: None,
        start: starting.Start = DONE,
    ) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._before, self._start = before, start
        monkeypatch.setattr(starting, "start", self._begin)
        monkeypatch.setattr(tracking, "end_in_node", self._end)
        monkeypatch.setattr(drive, "Follower", _Signalled)

    def _begin(
        self, _hosts: object, nodes: Sequence[Node], _action: object, started: Callable[..., None]
    ) -> Mapping[str, str]:
        names = [item.short_name for item in nodes]
        self._before(names)
        self.begun += names
        started(dict.fromkeys(names, self._start))
        return {}

    def _end(self, _host: object, of: Node, _key: str) -> None:
        self.ended.append(of.short_name)


class _Signalled:
    """Follows a script that is ended by a signal."""

    def __init__(self, _reach: object, _container: object, _key: object, _seen: object, over: Any):
        self.start = over

    def result(self) -> Ended:
        return Ended("done", 143)


def begun(context: Context, **values: Any) -> ActionRecord:
    return drive.begin(context, "lab", ActionRequest("it.sh", b"true", **values))


def states(action: ActionRecord) -> list[str]:
    return [outcome.state for outcome in action.nodes.values()]


def test_nodes_whose_turn_is_to_come_never_get_what_was_cancelled(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = begun(context, serial=1)

    def cancel(names: list[str]) -> None:
        if names == ["worker-1"]:
            drive.cancel(context, action)

    nodes = Nodes(monkeypatch, cancel)
    over = drive.drive(context, action)
    assert nodes.begun == ["master-1", "worker-1"]
    assert (over.state, states(over)) == ("cancelled", ["done", "cancelled", "skipped"])


def test_what_was_cancelled_before_the_first_node_begins_begins_nowhere(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = begun(context)
    drive.cancel(context, action)
    nodes = Nodes(monkeypatch)
    over = drive.drive(context, action)
    assert nodes.begun == []
    assert (over.state, states(over)) == ("cancelled", ["skipped"] * 3)


def test_a_script_that_comes_to_its_node_behind_the_cancelling_is_ended_there(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = begun(context)
    nodes = Nodes(monkeypatch, lambda _names: drive.cancel(context, action), RUNNING)
    over = drive.drive(context, action)
    # Once by who cancels, when nothing is there yet, and once by who drives.
    assert nodes.ended == [*NAMES, *NAMES]
    assert (over.state, states(over)) == ("cancelled", ["cancelled"] * 3)


def test_a_node_that_cannot_be_asked_is_unknown_and_can_be_tried_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = begun(context)
    with context.store.transaction() as transaction:
        transaction.set_action(action.id, dict.fromkeys(NAMES, NodeOutcome("running")))
    silent = True

    def end(_host: object, of: Node, _key: str) -> None:
        if silent and of.short_name == "worker-2":
            raise DockerUnavailable("host-2 does not answer")

    monkeypatch.setattr(tracking, "end_in_node", end)
    over = drive.cancel(context, action)
    assert states(over) == ["cancelled", "cancelled", "unknown"]
    assert over.nodes["worker-2"].reason == "host-2 does not answer"
    silent = False
    over = drive.cancel(context, over)
    assert (over.state, states(over)) == ("cancelled", ["cancelled"] * 3)
    with pytest.raises(InputError, match="is over: cancelled"):
        drive.cancel(context, over)


def test_who_follows_what_is_printed_waits_for_a_nodes_turn(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = begun(context, serial=1)
    answers: list[Exception | None] = [NotFound("nothing of it"), NotFound("nothing yet"), None]

    def read(*_: object, **__: object) -> None:
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(following, "read_output", read)
    monkeypatch.setattr(drive, "TURN_PAUSE_SECONDS", 0)
    worker = node(LAB, "worker-2")
    drive.read_output(context, action, worker, lambda _data, _is_error: None, follow=True)
    assert answers == []
    answers = [NotFound("nothing of it")]
    with pytest.raises(NotFound):
        drive.read_output(context, action, worker, lambda _data, _is_error: None, follow=False)
