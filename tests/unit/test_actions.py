"""Actions: what is refused, who is reached when, how nodes' ends are read, what is shown."""

from __future__ import annotations

import base64
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, node, record, spec, tenant

from epic_runner.actions import decide, drive, starting
from epic_runner.actions.printing import LONGEST_LINE_BYTES, Lines, harmless
from epic_runner.actions.request import ActionRequest, check, chosen, refusal
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound
from epic_runner.following import Ended, Follower, Seen
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.lifecycle import Context
from epic_runner.scripts import LARGEST_BYTES
from epic_runner.spec.quantities import parse_duration
from epic_runner.store import NodeOutcome, Store

ROOT = Path(__file__).resolve().parents[2]
found = importlib.util.spec_from_file_location(
    "action_filters", ROOT / "filter_plugins" / "actions.py"
)
assert found
assert found.loader
filters = importlib.util.module_from_spec(found)
found.loader.exec_module(filters)

LAB = spec()


def request(script: bytes = b"true", **values: Any) -> ActionRequest:
    return ActionRequest(values.pop("name", "it.sh"), script, **values)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(b" \n"), "is empty"),
        (request(b"x" * (LARGEST_BYTES + 1)), "a script may have 1048576"),
        (request(b"#!/bin/bash\r\necho\r\n"), "ends as on Windows"),
        (request(b"#!python3\n"), "is no path of an interpreter"),
        (request(environment={"A-B": ""}), "no name of an environment variable"),
    ],
)
def test_a_script_that_could_run_nowhere_is_refused(asked: ActionRequest, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(asked)


def test_who_is_no_member_or_may_not_become_root_is_refused() -> None:
    people = tenant()
    assert "eve is not a member" in refusal(people, "eve", sudo=False)
    members = {member["user"]: bool(member.get("sudo")) for member in people.members}
    for user, may in members.items():
        assert refusal(people, user, sudo=False) == ""
        assert bool(refusal(people, user, sudo=True)) is not may


def test_nodes_are_chosen_by_role_and_by_either_of_their_names() -> None:
    cluster = record(LAB, "master-1", "worker-1", "worker-2")

    def names(*roles: str, nodes: tuple[str, ...] = ()) -> list[str]:
        return [item.short_name for item in chosen(cluster, roles, nodes)]

    assert names() == ["master-1", "worker-1", "worker-2"]
    assert names("worker") == ["worker-1", "worker-2"]
    assert names(nodes=("lab-worker-2", "master-1")) == ["master-1", "worker-2"]
    assert names("master", nodes=("worker-1",)) == ["master-1", "worker-1"]
    with pytest.raises(NotFound, match="no node role boss"):
        names("boss")
    with pytest.raises(NotFound, match="no node worker-9"):
        names(nodes=("worker-9",))


def test_a_refused_action_is_recorded_and_reaches_no_node(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    with store.transaction() as transaction:
        transaction.apply_tenant(tenant().document)
        transaction.add_cluster(LAB, "ada", [node(LAB, "master-1")])
    with pytest.raises(InputError, match="eve is not a member"):
        drive.begin(Context(store, {"local": host()}), "lab", request(), user="eve")
    with store.read() as transaction:
        (kept,) = transaction.actions(LAB.tenant, "lab")
    store.close()
    assert (kept.user, kept.state, kept.nodes["master-1"].state) == ("eve", "refused", "waiting")


@given(st.text(max_size=60))
def test_a_script_has_a_plain_name_in_its_node(name: str) -> None:
    plain = request(name=name).file_name
    assert plain
    assert not {"/", " ", "\0"} & set(plain)
    assert not plain.startswith((".", "-"))


def test_an_action_can_be_asked_for_again_from_its_record() -> None:
    asked = request(arguments=("a", "b"), environment={"A": "1"}, sudo=True, serial=2)
    assert ActionRequest.of(asked.name, asked.script, asked.options()) == asked


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2H", 7200), ("7d", 604800)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "1.5h", "2 h", "400d", "1w", 90, None, True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"must be a duration|longer than a year"):
        parse_duration(text)


# -- decisions ---------------------------------------------------------------------------------


@given(st.lists(st.integers(), max_size=30), st.integers(min_value=0, max_value=12))
def test_batches_hold_every_node_once_and_in_order(nodes: list[int], serial: int) -> None:
    groups = decide.batches(nodes, serial)
    assert [item for group in groups for item in group] == nodes
    assert all(0 < len(group) <= (serial or len(nodes)) for group in groups)


@pytest.mark.parametrize(
    ("ended", "values", "state"),
    [
        (Ended("done", 0), {}, "done"),
        (Ended("done", 3), {}, "failed"),
        (Ended("done", 124), {"timeout_seconds": 5, "seconds": 5.2}, "timed out"),
        (Ended("done", 124), {"timeout_seconds": 5, "seconds": 1.0}, "failed"),
        (Ended("done", 143), {"cancelled": True}, "cancelled"),
        (Ended("vanished"), {}, "unknown"),
        (Ended("vanished"), {"cancelled": True}, "cancelled"),
    ],
)
def test_how_a_node_ended(ended: Ended, values: dict[str, Any], state: str) -> None:
    given_ = {"seconds": 1.0, "timeout_seconds": 0, "cancelled": False, "now": 9.0, **values}
    assert decide.outcome(ended, **given_).state == state


@pytest.mark.parametrize(
    ("rc", "state"),
    [(137, "unknown"), (143, "unknown"), (1, "failed"), (starting.NO_ENGINE, "failed")],
)
def test_a_start_that_ended_with_its_node_is_unknown_and_a_refused_one_failed(
    rc: int, state: str
) -> None:
    assert decide.not_started(rc, b"so it\nis not running\n", now=1.0).state == state


def test_a_node_that_was_made_anew_is_unknown_and_never_a_success() -> None:
    assert decide.shown(None, timeout_seconds=0, now=1.0) == NodeOutcome(
        "unknown", None, "its node knows nothing of it: it was made anew", 1.0
    )
    told = {"state": "running", "rc": None, "created": 1.0, "ended": None, "cut": []}
    assert decide.shown(told, timeout_seconds=0, now=1.0) is None
    cut = decide.shown(
        {**told, "state": "done", "rc": 0, "ended": 3.0, "cut": ["stdout"]},
        timeout_seconds=0,
        now=9.0,
    )
    assert cut == NodeOutcome("done", 0, "", 3.0, ("stdout",))


@pytest.mark.parametrize(
    ("states", "overall"),
    [
        (["done", "done"], "done"),
        (["done", "running"], "running"),
        (["failed", "waiting"], "running"),
        (["done", "unknown"], "failed"),
        (["done", "timed out"], "failed"),
        (["done", "failed", "skipped"], "failed"),
        (["done", "cancelled", "skipped"], "cancelled"),
    ],
)
def test_the_state_of_an_action_follows_from_its_nodes(states: list[str], overall: str) -> None:
    nodes = {str(number): NodeOutcome(state) for number, state in enumerate(states)}
    assert decide.overall(nodes) == overall
    bad = {str(n) for n, state in enumerate(states) if state not in ("done", "running", "waiting")}
    assert set(decide.failed_nodes(nodes)) == bad


@pytest.mark.parametrize(
    ("counts", "streams"),
    [
        ((9, 9), ()),
        ((10, 0), ("stdout",)),
        ((0, 10), ("stderr",)),
        ((10, 10), ("stdout", "stderr")),
    ],
)
def test_a_stream_at_its_limit_is_told_as_cut(
    counts: tuple[int, int], streams: tuple[str, ...]
) -> None:
    assert decide.cut(counts, 10) == streams


# -- following ---------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=12),
    st.integers(min_value=1, max_value=9),
)
def test_a_stream_is_passed_on_whole_and_its_last_line_taken_off(
    printed: list[tuple[bytes, bool]], size: int
) -> None:
    """Also where the script prints null characters, and the last line comes in pieces."""
    streams = {False: b"", True: b""}
    for data, is_error in printed:
        streams[is_error] += data
    trailer = f"\0done 7 {len(streams[False])} {len(streams[True])}\n".encode()
    came = {False: b"", True: b""}

    def write(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        came[is_error] += data

    seen = Seen(write)
    for is_error, whole in ((False, streams[False]), (True, streams[True] + trailer)):
        for start in range(0, len(whole), size):
            seen.take(whole[start : start + size], is_error)
    assert seen.ended() == Ended("done", 7)
    assert came == streams


def test_a_stream_that_was_cut_short_is_not_taken_for_whole() -> None:
    pieces: list[bytes] = []
    seen = Seen(lambda data, _is_error: pieces.append(data))
    seen.take(b"half", is_error=False)
    seen.take(b"\0done 0 8 0\n", is_error=True)
    assert seen.ended() is None
    assert seen.counts == (4, 0)
    seen.take(b"rest", is_error=False)
    seen.take(b"\0done 0 8 0\n", is_error=True)
    assert seen.ended() == Ended("done", 0)
    assert b"".join(pieces) == b"halfrest"


def test_what_only_looks_like_the_last_line_is_the_scripts_own() -> None:
    pieces: list[bytes] = []
    seen = Seen(lambda data, _is_error: pieces.append(data))
    seen.take(b"x\0don", is_error=True)
    assert seen.ended() is None
    assert b"".join(pieces) == b"x\0don"
    assert seen.counts == (0, 5)


def test_who_follows_is_told_of_a_long_silence_once_and_gives_up_when_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away() -> Host:
        raise DockerUnavailable("host-2 does not answer")

    monkeypatch.setattr("epic_runner.following.RECONNECT_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("epic_runner.following.MOMENT_SECONDS", 0.05)
    told: list[str] = []
    seen = Seen(lambda _data, _is_error: None)
    follower = Follower(away, "c", "a1", seen, patience_seconds=0.2, silent=told.append)
    follower.start()
    with pytest.raises(DockerUnavailable):
        follower.result()
    assert told == ["host-2 does not answer"]


def test_a_follower_finds_another_way_when_the_one_it_had_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Pouring:
        def __init__(self, of: Host, *_: object) -> None:
            if of.name == "old":
                raise DockerUnavailable("refused")

        def pour(self, write: Any) -> None:
            write(b"\0done 3 0 0\n", is_error=True)

    monkeypatch.setattr("epic_runner.docker_exec.Pouring", Pouring)
    monkeypatch.setattr("epic_runner.following.RECONNECT_PAUSE_SECONDS", 0)
    seen = Seen(lambda _data, _is_error: None)
    ways = iter([host("old"), host("new")])
    follower = Follower(lambda: next(ways), "c", "a1", seen)
    follower.start()
    assert follower.result() == Ended("done", 3)


# -- what is shown -----------------------------------------------------------------------------


def shown(*pieces: tuple[str, bytes, bool], is_terminal: bool = False) -> dict[bool, bytes]:
    came = {False: b"", True: b""}

    def put(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        came[is_error] += data

    lines = Lines(3, (is_terminal, is_terminal), put)
    for piece in pieces:
        lines.piece(*piece)
    for name in dict.fromkeys(piece[0] for piece in pieces):
        lines.end(name)
    return came


def test_lines_stand_whole_behind_their_nodes_on_their_streams() -> None:
    came = shown(("a", b"one\ntw", False), ("b", b"x\n", True), ("a", b"o\nend", False))
    assert came == {False: b"a   | one\na   | two\na   | end\n", True: b"b   | x\n"}


def test_a_line_without_end_is_shown_in_pieces() -> None:
    came = shown(("a", b"x" * (LONGEST_LINE_BYTES + 1), False), ("a", b"y\n", False))
    assert came[False].count(b"a   | ") == 2


def test_a_terminal_sees_no_control_characters_but_colours() -> None:
    assert harmless(b"\x1b[31mred\x1b[0m\tok\r") == b"\x1b[31mred\x1b[0m\tok"
    assert harmless(b"\x1b[2J\x07\x00\x7f") == b"^[[2J^G^@^?"
    came = shown(("a", b"\x1b]0;title\x07\n", False), is_terminal=True)
    assert came[False] == b"a   | ^[]0;title^G\n"
    assert shown(("a", b"\x07\xff\n", False))[False] == b"a   | \x07\xff\n"


# -- what is run -------------------------------------------------------------------------------


def wanted(script: bytes, **values: Any) -> dict[str, Any]:
    return {
        "id": "a1", "user": "ada", "uid": 20000, "name": "it.sh", "arguments": ["x", 2],
        "script": base64.b64encode(script).decode(), "environment": {"A": "1"}, "sudo": False,
        "timeout_seconds": 0, "limit_bytes": 0, "follow_milliseconds": 400,
        "wait": False, **values,
    }  # fmt: skip


def commands(script: bytes = b"true", **values: Any) -> list[dict[str, Any]]:
    nodes = [{"short_name": "worker-2", "container": "c", "role": "worker", "index": 2}]
    return list(filters.action_commands(nodes, wanted(script, **values)))


def test_a_script_goes_to_its_node_beside_the_command_line() -> None:
    (command,) = commands()
    words = command["command"]
    assert words[:7] == ["epic-job", "start", "a1", "--user", "ada", "--follow", "400"]
    assert words[7:9] == ["--most", "16384"]
    assert words[-3:] == ["--", "x", "2"]
    assert "EPIC_NODE=worker-2" in words
    assert "A=1" in words
    assert command["environment"] == {"EPIC_SCRIPT": base64.b64encode(b"true").decode()}
    assert "files" not in command


def test_a_script_that_is_too_long_for_an_environment_goes_as_a_file() -> None:
    (command,) = commands(b"#" * 100_000, sudo=True, timeout_seconds=9)
    path = "/data/jobs/a1.files/it.sh"
    assert command["files"][path]["mode"] == "0500"
    assert command["files"][path]["uid"] == 0
    words = command["command"]
    assert words[-4:] == ["--", path, "x", "2"]
    assert {"--sudo", "--timeout", "9"} <= set(words)
    assert "environment" not in command


def test_a_play_that_waits_sees_the_end_of_a_script_however_much_it_prints() -> None:
    (command,) = commands(wait=True)
    assert "--wait" in command["command"]
    assert "--wait" not in commands()[0]["command"]


def test_a_node_keeps_as_much_whether_a_play_or_an_engine_starts_the_script() -> None:
    defaults = yaml.safe_load((ROOT / "roles/action/defaults/main.yml").read_text("utf-8"))
    assert defaults["action_keep"] == starting.JOBS_KEPT


def test_a_script_learns_of_its_cluster_the_same_from_a_play_and_without_one() -> None:
    cluster = record(LAB, "master-1", "worker-1")
    inventory = cluster_inventory(cluster, tenant(), {"local": host()}, secrets="")
    told = filters.surroundings(inventory["all"]["vars"]["epic_cluster"])
    assert told == drive.environment(cluster, request())
    assert told["EPIC_MASTER"] == "spark://lab-master-1:7077"
    assert told["EPIC_NODES"] == "lab-master-1 lab-worker-1"
    assert told["EPIC_APP"] == "spark@3.5.9"


def test_nodes_on_which_a_script_failed_are_told_with_their_last_words() -> None:
    def told(rc: int, stderr: bytes) -> dict[str, Any]:
        return {"rc": rc, "stdout": "", "stderr": base64.b64encode(stderr).decode()}

    assert filters.action_failures(
        {
            "a": told(0, b"fine\n\0done 0 0 5\n"),
            "b": told(0, b"no\n\0done 4 0 3\n"),
            "c": told(3, b"epic-job: the job a1 exists already\n"),
            "d": told(0, b"\0running 0 0 0\n"),
        }
    ) == ["b: exit code 4: no", "c: it could not be started: epic-job: the job a1 exists already",
          "d: running"]  # fmt: skip


def test_a_start_tells_of_each_node_and_of_hosts_that_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a script that is too long for an environment, the content goes in by the input."""
    content = b"#" * 100_000
    given: dict[str, bytes] = {}

    def nearby(of: Host) -> Host:
        if of.name == "away":
            raise DockerUnavailable("no way there")
        return of

    def stream(_of: Host, container: str, words: list[str], write: Any, **more: Any) -> int:
        if container.endswith("2"):
            raise EpicError("it is not running")
        if container.endswith("3"):
            raise DockerUnavailable("it broke off")
        given[container] = more["stdin"].read()
        assert words[0] == "bash"
        # What older jobs and actions have left goes first.
        assert words[words.index("epic-job") - 1] == str(starting.JOBS_KEPT)
        assert words[-4:] == ["--", "/data/jobs/a1.files/it.sh", "x", "2"]
        write(b"out", False)  # noqa: FBT003 - the callback's form
        write(b"err", True)  # noqa: FBT003
        return 0

    monkeypatch.setattr("epic_runner.ssh.nearby", nearby)
    monkeypatch.setattr("epic_runner.docker_exec.stream", stream)
    nodes = [node(LAB, f"worker-{number}") for number in (1, 2, 3)]
    nodes.append(replace(node(LAB, "worker-4"), host="away"))
    went: dict[str, starting.Start] = {}
    silent = starting.start(
        {"local": host(), "away": host("away")}, nodes, wanted(content), went.update
    )
    assert silent == {"worker-3": "it broke off", "worker-4": "no way there"}
    assert went == {
        "worker-1": starting.Start(0, b"out", b"err"),
        "worker-2": starting.Start(255, b"", b"it is not running"),
    }
    assert given == {nodes[0].container: content}
