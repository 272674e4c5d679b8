"""Declared actions: what is read of a template, which node has to get which, what is told."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, node, record, spec, tenant
from spec_samples import LAB, load_text, mistakes_in, sample_catalog

from epic_runner.actions.declared import admitted
from epic_runner.actions.due import awaited, coverages, due, had
from epic_runner.cluster import CONTINUE, ClusterSpec, DeclaredAction
from epic_runner.errors import InputError
from epic_runner.export import as_yaml, documents
from epic_runner.lifecycle import Context
from epic_runner.spec.quantities import format_duration, parse_duration
from epic_runner.spec.resolve import resolve_cluster
from epic_runner.status import NodeStatus, action_status, with_actions
from epic_runner.store import ActionRecord, DeclaredHistory, DeclaredRun, NodeOutcome, Store

SCRIPT = "#!/bin/sh\necho ä \\\n  done\n"


def action(name: str = "it", **values: Any) -> DeclaredAction:
    return DeclaredAction(name, hashlib.sha256(name.encode()).hexdigest(), **values)


def run(of: DeclaredAction, containers: dict[str, str], state: str = "done") -> DeclaredRun:
    outcome = NodeOutcome(state, 0 if state == "done" else 3)
    return DeclaredRun("a-1", of.key, dict.fromkeys(containers, outcome), containers, 1.0)


# -- what is read ------------------------------------------------------------------------------


def read(folder: Path, actions: str, script: str | bytes | None = SCRIPT) -> ClusterSpec:
    if script is not None:
        data = script if isinstance(script, bytes) else script.encode()
        (folder / "scripts").mkdir(exist_ok=True)
        (folder / "scripts" / "install.sh").write_bytes(data)
    catalog = sample_catalog(folder / "images")
    found = load_text(folder, f"{LAB}actions:\n{actions}", catalog=catalog)
    return resolve_cluster(found, catalog=catalog)


def test_a_script_is_read_from_beside_its_file_and_stays_out_of_the_spec(tmp_path: Path) -> None:
    cluster = read(
        tmp_path,
        "  - {run: scripts/install.sh, args: [a], env: {A: '1'}, roles: [worker], sudo: true,"
        " replay: true, timeout: 10m, on_failure: continue}\n  - {command: 'df  -h'}\n",
    )
    first, second = cluster.actions
    assert (first.name, first.script) == ("install.sh", SCRIPT.encode())
    assert first.digest == hashlib.sha256(SCRIPT.encode()).hexdigest()
    assert (first.timeout_seconds, first.on_failure, first.roles) == (600, CONTINUE, ("worker",))
    assert (second.name, second.script, second.on_failure) == ("df -h", b"df  -h", "stop")
    again = ClusterSpec.from_dict(cluster.as_dict())
    assert again == cluster
    assert again.actions[0].script == b""
    assert "script" not in cluster.as_dict()["actions"][0]


@pytest.mark.parametrize(
    ("actions", "mistake"),
    [
        ("  - {run: scripts/none.sh}", "lab.yml:20: actions[0].run: There is no file"),
        ("  - {sudo: true}", "actions[0] must have either run, a file, or command"),
        ("  - {run: a, command: b}", "actions[0] must have either run, a file, or command"),
        ("  - {command: x, roles: [wurker]}", "wurker is not a node role of spark. | Did you mean"),
        ("  - {command: x, timeout: soon}", "actions[0].timeout must be a duration"),
        ("  - {command: x, env: {A-B: c}}", 'env holds "A-B", which is no name of a variable'),
        ("  - {command: x, args: [1]}", "actions[0].args[0] must be text, not 1. | Put it in"),
        ("  - {command: ' '}", "actions[0].command:  is empty."),
        ("  - {command: '#!python'}", "#!python is no path of an interpreter."),
        ("  - {comand: x}", 'actions[0].comand is not a known key. | Did you mean "command"?'),
    ],
)  # fmt: skip
def test_a_mistake_in_an_action_is_told_with_its_line(
    tmp_path: Path, actions: str, mistake: str
) -> None:
    catalog = sample_catalog(tmp_path / "images")
    found = mistakes_in(tmp_path, f"{LAB}actions:\n{actions}\n", catalog=catalog)
    assert any(mistake in line for line in found), found


def test_a_script_that_could_not_be_written_into_a_template_is_refused(tmp_path: Path) -> None:
    for content, message in ((b"\xff\n", "is no text in UTF-8"), (b"x" * 300_000, "may have 26")):
        with pytest.raises(InputError, match=message):
            read(tmp_path, "  - {run: scripts/install.sh}\n", content)


@given(st.integers(min_value=1, max_value=366 * 86400))
def test_a_duration_is_read_back_as_it_was(seconds: int) -> None:
    try:
        assert parse_duration(format_duration(seconds)) == seconds
    except ValueError as problem:
        pytest.fail(str(problem))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=80)


@given(texts.filter(lambda text: text.strip() and not text.startswith("#!")))
def test_a_script_comes_back_from_an_export_byte_for_byte(script: str) -> None:
    declared = replace(action(), digest=hashlib.sha256(script.encode()).hexdigest())
    cluster = record(replace(spec(), actions=(declared,)), "master-1")
    items = documents(
        cluster, sample_catalog(Path("/nonexistent")), {declared.key: script.encode()}
    )
    (written,) = [*yaml.safe_load_all(as_yaml(items))][-1]["actions"]
    assert written == {"name": "it", "command": script}


def test_an_export_without_the_scripts_is_refused() -> None:
    cluster = record(replace(spec(), actions=(action(),)), "master-1")
    with pytest.raises(InputError, match="is not known any more"):
        documents(cluster, sample_catalog(Path("/nonexistent")))


# -- which node gets which ---------------------------------------------------------------------


def test_an_action_is_another_one_when_its_script_or_what_it_is_given_changes() -> None:
    one = action()
    others = [
        action("other"),
        action(arguments=("a",)),
        action(environment={"A": "b"}),
        action(sudo=True),
    ]
    assert len({item.key for item in [one, *others]}) == len(others) + 1
    same = action(roles=("worker",), replay=True, timeout_seconds=9, on_failure=CONTINUE, user="a")
    assert same.key == one.key


LIVES = {"master-1": "m", "worker-1": "w", "worker-2": "v"}


@pytest.mark.parametrize(
    ("values", "runs", "is_done", "expected"),
    [
        # Nobody has had it.
        ({}, [], False, ["master-1", "worker-1", "worker-2"]),
        ({"roles": ("worker",)}, [], False, ["worker-1", "worker-2"]),
        # The launch failed half-way: those that have had it are left alone.
        ({}, [({"master-1": "m", "worker-1": "w"}, "done"), ({"worker-2": "v"}, "failed")], False,
         ["worker-2"]),
        # It is over; worker-2 came later, or was made anew.
        ({}, [({"master-1": "m", "worker-1": "w", "worker-2": "old"}, "done")], True, []),
        ({"replay": True}, [({"master-1": "m", "worker-1": "w", "worker-2": "old"}, "done")], True,
         ["worker-2"]),
        # A later failure takes nothing back.
        ({"replay": True}, [(LIVES, "done"), (LIVES, "failed")], True, []),
        # What is unknown is never a success.
        ({}, [(LIVES, "unknown")], False, ["master-1", "worker-1", "worker-2"]),
    ],
)  # fmt: skip
def test_nodes_get_what_they_lack(
    *,
    values: dict[str, Any],
    runs: list[tuple[dict[str, str], str]],
    is_done: bool,
    expected: list[str],
) -> None:
    wanted = action(**values)
    nodes = [node(spec(), name) for name in LIVES]
    history = DeclaredHistory(
        tuple(run(wanted, *one) for one in runs), frozenset([wanted.key] if is_done else [])
    )
    assert due(wanted, nodes, LIVES, history) == expected


containers = st.dictionaries(
    st.sampled_from(["master-1", "worker-1", "worker-2"]), st.sampled_from("ab"), min_size=1
)


@given(
    runs=st.lists(
        st.tuples(containers, st.sampled_from(["done", "failed", "unknown"])), max_size=6
    ),
    now=containers,
    replay=st.booleans(),
    is_done=st.booleans(),
)
def test_no_node_gets_an_action_twice_in_one_container(
    runs: list[tuple[dict[str, str], str]],
    now: dict[str, str],
    *,
    replay: bool,
    is_done: bool,
) -> None:
    wanted = action(replay=replay)
    history = DeclaredHistory(
        tuple(run(wanted, *one) for one in runs), frozenset([wanted.key] if is_done else [])
    )
    nodes = [node(spec(), name) for name in now]
    waiting = due(wanted, nodes, now, history)
    well = {(n, c) for of, state in runs if state == "done" for n, c in of.items()}
    assert not well & {(name, now[name]) for name in waiting}
    # All that wait having had it, nobody waits any more.
    after = replace(history, runs=(*history.runs, run(wanted, {n: now[n] for n in waiting})))
    assert due(wanted, nodes, now, after) == []
    # Other actions' runs count for nothing.
    assert due(action("other"), nodes, now, replace(history, done=frozenset())) == list(now)


def test_what_was_had_is_told_of_the_present_container_alone() -> None:
    wanted = action()
    runs = [run(wanted, {"worker-1": "old"}), run(wanted, {"worker-1": "new"}, "failed")]
    found = had(wanted.key, "worker-1", "new", runs)
    assert found
    assert found.outcome.state == "failed"
    assert had(wanted.key, "worker-1", None, runs) is None
    assert had(wanted.key, "worker-2", "new", runs) is None


# -- what is told ------------------------------------------------------------------------------


def ready(name: str = "worker-1") -> NodeStatus:
    return NodeStatus(name, "worker", "local", "c", "ready")


@pytest.mark.parametrize(
    ("on_failure", "busy", "state", "warned"),
    [
        ("stop", True, "configuring", False),
        ("stop", False, "error", False),
        (CONTINUE, True, "configuring", False),
        (CONTINUE, False, "ready", True),
    ],
)
def test_a_node_without_its_actions_is_not_ready_unless_failures_are_put_up_with(
    *,
    on_failure: str,
    busy: bool,
    state: str,
    warned: bool,
) -> None:
    wanted = action(on_failure=on_failure)
    cluster = record(replace(spec(), actions=(wanted,)), "master-1", "worker-1")
    history = DeclaredHistory((run(wanted, {"worker-1": "w"}, "failed"),))
    stand = coverages(cluster, {"master-1": "m", "worker-1": "w"}, history)
    found = with_actions(ready(), stand, busy=busy)
    assert (found.state, bool(found.warning)) == (state, warned)
    assert "it: failed with exit code 3" in found.reason + found.warning
    assert action_status(stand[0]).nodes["master-1"] == {"state": "due"}
    well = replace(history, runs=(*history.runs, run(wanted, {"worker-1": "w"})))
    assert with_actions(ready(), coverages(cluster, {"worker-1": "w"}, well), busy=busy) == ready()


def test_a_cluster_is_of_use_once_all_nodes_have_had_what_is_not_put_up_with() -> None:
    first, lax = action(), action("lax", on_failure=CONTINUE)
    cluster = record(replace(spec(), actions=(first, lax)), "master-1", "worker-1")
    assert awaited(cluster, DeclaredHistory()) == ("it",)
    assert awaited(cluster, DeclaredHistory((run(first, {"worker-1": "w"}),))) == ("it",)
    assert awaited(cluster, DeclaredHistory((), frozenset({first.key}))) == ()


def test_a_node_that_came_later_is_ready_without_what_is_not_replayed() -> None:
    wanted = action()
    cluster = record(replace(spec(), actions=(wanted,)), "master-1", "worker-1")
    history = DeclaredHistory((run(wanted, {"master-1": "m"}),), frozenset([wanted.key]))
    stand = coverages(cluster, {"master-1": "m", "worker-1": "new"}, history)
    assert with_actions(ready(), stand, busy=False) == ready()
    states = {name: told["state"] for name, told in action_status(stand[0]).nodes.items()}
    assert states == {"master-1": "done", "worker-1": "passed over"}


# -- who may, and what is kept -----------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = Store(f"sqlite:///{tmp_path}/store.db")
    yield made
    made.close()


def test_actions_run_as_who_launches_and_an_attempt_of_who_may_not_is_kept(store: Store) -> None:
    context = Context(store, {"local": host()})
    wanted = replace(spec(), actions=(action(sudo=True, script=b"id"),))
    people = tenant().document
    assert admitted(context, wanted, people, None).actions[0].user == "ada"
    with pytest.raises(InputError, match="it is refused: bob may not become root"):
        admitted(context, wanted, people, "bob")
    with store.read() as transaction:
        (kept,) = transaction.actions("work", "lab")
    assert (kept.user, kept.state, kept.script) == ("bob", "refused", b"id")


def test_of_declared_actions_the_store_keeps_scripts_and_runs_as_long_as_the_cluster(
    store: Store,
) -> None:
    first, second = action("a", script=b"1"), action("b", script=b"2")
    wanted = replace(spec(), actions=(first, second))
    with store.transaction() as transaction:
        key = transaction.add_cluster(wanted, "ada", ())
        cluster = transaction.find_cluster("lab", "work")
        transaction.declare(cluster, wanted.actions)
        transaction.set_declared_done(key, first.key)
        transaction.declare(cluster, (first,))
        transaction.add_action(
            ActionRecord(
                "x-1", "work", "lab", "ada", "a", first.digest, b"1", {},
                {"master-1": NodeOutcome("done", 0)}, started_at=cluster.created_at + 1,
                declared=first.key, containers={"master-1": "m"},
            )
        )  # fmt: skip
        assert transaction.declared_scripts(key) == {first.key: b"1"}
        history = transaction.declared_history(cluster)
        assert history.done == {first.key}
        assert [item.containers for item in history.runs] == [{"master-1": "m"}]
        transaction.remove_cluster(key)
        assert transaction.declared_scripts(key) == {}
    # Who declares nothing is asked nothing.
    with store.read() as transaction:
        assert transaction.declared_history(record(spec())) == DeclaredHistory()
