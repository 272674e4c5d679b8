"""Lifetimes: what counts as use, and when a cluster ends, from data alone."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import NOTEBOOK, PAGE, node, record, role, spec
from spec_samples import load_text, sample_catalog

from epic_runner import export, node_activity
from epic_runner.activity import Activity, Report, addresses, assess
from epic_runner.catalog import load_catalog
from epic_runner.cluster import ClusterSpec, Lifetime
from epic_runner.lifetime import extended, foreseen, observed, warned
from epic_runner.node_activity import Sign, applications, drivers, jobs, kernels, sessions, work
from epic_runner.operations import OperationRecord
from epic_runner.resources import content_root
from epic_runner.schedules.serve import is_sweep_due
from epic_runner.spec.load import load_documents
from epic_runner.spec.resolve import resolve_cluster
from epic_runner.standing import extend, read_standings, standings, touch
from epic_runner.store import Store, UseRecord
from epic_runner.sweeping import _written

HOUR = 3600
DAY = 24 * HOUR
LIMITS = Lifetime(2 * HOUR, 7 * DAY, "stop", 900)
LAUNCHED = 1_000_000.0


def end_of(
    limits: Lifetime | None = LIMITS, *, active: float = 0, at: float = 0, wanted: str = "running",
    **use: Any,
) -> Any:  # fmt: skip
    """Return the end that is foreseen `at` seconds after the launch; last used after `active`."""
    record = UseRecord(LAUNCHED + active, "x", LAUNCHED + at, **use)
    return foreseen(limits, record, since=LAUNCHED, wanted=wanted, now=LAUNCHED + at)


# -- when it ends ----------------------------------------------------------------------------


def test_the_nearer_of_both_limits_ends_a_cluster() -> None:
    end = end_of(active=HOUR, at=HOUR)
    assert (end.at - LAUNCHED, end.reason, end.action) == (3 * HOUR, "unused", "stop")
    late = 7 * DAY - HOUR
    end = end_of(active=late, at=late)
    assert (end.at - LAUNCHED, end.reason) == (7 * DAY, "its age")


def test_a_cluster_without_limits_lasts() -> None:
    assert end_of(None) is None
    assert end_of(Lifetime(None, None, "destroy", 900), at=400 * DAY) is None


def test_a_stopped_cluster_ends_by_its_age_alone_and_only_where_it_is_to_be_destroyed() -> None:
    assert end_of(at=30 * DAY, wanted="stopped") is None
    destroyed = replace(LIMITS, action="destroy")
    end = end_of(destroyed, at=3 * HOUR, wanted="stopped")
    assert (end.at - LAUNCHED, end.reason, end.due) == (7 * DAY, "its age", False)
    # A removal that was cut off is finished.
    assert end_of(destroyed, at=3 * HOUR, wanted="absent", warned_at=LAUNCHED).due


def test_nothing_ends_before_its_warning_was_out_for_as_long_as_promised() -> None:
    assert not end_of(at=2 * HOUR - 901).warns
    end = end_of(at=2 * HOUR - 900)
    assert (end.warns, end.due, end.at - LAUNCHED) == (True, False, 2 * HOUR)
    # Nobody looked for a day: the warning comes first, and the end when it has been out.
    late = end_of(at=DAY)
    assert (late.warns, late.due, late.at - LAUNCHED) == (True, False, DAY + 900)
    assert not end_of(at=DAY + 899, warned_at=LAUNCHED + DAY).due
    assert end_of(at=DAY + 900, warned_at=LAUNCHED + DAY).due


def test_use_after_the_warning_takes_it_back() -> None:
    use = UseRecord(LAUNCHED, "x", LAUNCHED, warned_at=LAUNCHED + 2 * HOUR - 900)
    now = LAUNCHED + 2 * HOUR - 10
    used = observed(use, Activity(30.0, "a notebook"), LAUNCHED, now)
    end = foreseen(LIMITS, used, since=LAUNCHED, wanted="running", now=now)
    assert end is not None
    assert not end.warns
    assert warned(used, end, now).warned_at is None


def test_an_extension_counts_from_the_foreseen_end_and_takes_the_warning_back() -> None:
    now = LAUNCHED + 2 * HOUR - 60
    use = UseRecord(LAUNCHED, "x", now, warned_at=now - 840)
    end = foreseen(LIMITS, use, since=LAUNCHED, wanted="running", now=now)
    longer = extended(use, end, 4 * HOUR, now)
    after = foreseen(LIMITS, longer, since=LAUNCHED, wanted="running", now=now)
    assert after is not None
    assert (after.at - LAUNCHED, after.warns, longer.warned_at) == (6 * HOUR, False, None)


@given(
    idle=st.none() | st.integers(2, 10 * DAY), age=st.none() | st.integers(2, 10 * DAY),
    active=st.integers(0, 10 * DAY), later=st.integers(0, 10 * DAY),
)  # fmt: skip
def test_no_cluster_is_due_that_is_within_its_limits(idle, age, active, later) -> None:
    limits = Lifetime(idle, age, "stop", min(idle or DAY, age or DAY) // 2)
    at = active + later
    end = end_of(limits, active=active, at=at, warned_at=LAUNCHED)
    within = (idle is None or later < idle) and (age is None or at < age)
    if within:
        assert end is None or not end.due
    else:
        assert end.at >= LAUNCHED + limits.warn_seconds


def test_a_start_is_the_first_use_and_what_is_older_is_forgotten() -> None:
    old = UseRecord(LAUNCHED - DAY, "a notebook", LAUNCHED - DAY)
    seen = observed(old, Activity(3 * HOUR, "a job"), LAUNCHED, LAUNCHED + HOUR)
    assert (seen.active_at, seen.activity) == (LAUNCHED, "its start")
    assert observed(None, Activity(None), LAUNCHED, LAUNCHED + HOUR).active_at == LAUNCHED


# -- what nodes tell -------------------------------------------------------------------------


def test_what_runs_now_goes_before_what_ended() -> None:
    reports = {
        "master-1": Report(signs=(("a notebook", 300.0),)),
        "worker-1": Report(signs=(("the job 1", 20.0),)),
    }
    assert assess(reports) == Activity(20.0, "the job 1")
    assert assess({}) == Activity(None)


def test_when_in_doubt_a_cluster_is_in_use() -> None:
    reports = {
        "master-1": Report(signs=(("a notebook", 300.0),)),
        "worker-1": Report(doubts=("host-2 does not answer",)),
    }
    assert assess(reports) == Activity(0.0, "worker-1: host-2 does not answer", doubtful=True)
    busy = {**reports, "master-1": Report(signs=(("a notebook", 0.0),))}
    assert assess(busy) == Activity(0.0, "a notebook")


@pytest.mark.parametrize(
    ("app", "is_used"),
    [
        ({"cores": 2, "state": "RUNNING"}, True),
        ({"cores": 0, "state": "WAITING"}, True),
        ({"cores": 0, "state": "RUNNING"}, False),
    ],
)
def test_an_application_whose_driver_is_unknown_counts_by_its_cores(app, is_used) -> None:
    active = ({"id": "app-1", "name": "etl", **app},)
    assert (assess({"master-1": Report(active=active)}).ago == 0) is is_used
    # Its driver, here or on a connected cluster, tells itself.
    known = {"master-1": Report(active=active), "worker-1": Report(known=frozenset({"app-1"}))}
    assert assess(known).ago is None
    assert assess({"master-1": Report(active=active)}, ["app-1"]).ago is None


def test_services_are_asked_with_and_without_the_path_of_a_gateway() -> None:
    cluster = record(spec(endpoints=(PAGE, replace(NOTEBOOK, keeps_path=True))), "master-1")
    assert addresses(cluster, cluster.nodes[0]) == {
        "spark-master": ["http://localhost:8080/json/"],
        "jupyter": [
            "http://localhost:8888/api/kernels",
            "http://localhost:8888/work/lab/master-1/jupyter/api/kernels",
        ],
    }
    assert addresses(record(spec(), "worker-1"), node(spec(), "worker-1")) == {}


def process(pid: int, name: str, parent: int = 0, **values: Any) -> node_activity.Process:
    fields = {"group": pid, "session": pid, "terminal": 0, "foreground": -1, "uid": 20000, **values}
    return node_activity.Process(pid, name, parent, **fields)


def whats(signs: list[Sign]) -> list[str]:
    assert all(sign.ago == 0 for sign in signs)
    return [sign.what for sign in signs]


INIT = process(1, "s6-svscan", uid=0)
LAB = process(10, "jupyter-lab", 1)


@pytest.mark.parametrize(
    ("found", "idle", "who"),
    [
        # A login by docker or ssh counts, at its prompt too, unless it was left behind.
        ([process(50, "bash", 0, terminal=8, foreground=50)], 60.0, ["a shell of 20000"]),
        ([process(50, "bash", 0, terminal=8, foreground=50)], 2 * DAY, []),
        ([process(50, "bash", 0, terminal=8, foreground=60)], 2 * DAY, ["a shell of 20000"]),
        ([process(50, "rsync", 0)], 0.0, ["a command of 20000"]),
        ([process(50, "sshd", 9)], 0.0, ["an SSH session of 20000"]),
        # A terminal of JupyterLab, or of a tmux that was detached, only while something runs there.
        ([LAB, process(50, "bash", 10, terminal=8, foreground=50)], 60.0, []),
        ([LAB, process(50, "bash", 10, terminal=8, foreground=61)], 60.0, ["a terminal of 20000"]),
        (
            [process(9, "tmux: server", 1), process(50, "bash", 9, terminal=8, foreground=50)],
            9.0,
            [],
        ),
        # The questions of epic-run itself, and what a member has left running in the background.
        ([process(50, "python3", 0, uid=0)], 0.0, []),
        ([process(50, "sleep", 1)], 0.0, []),
    ],
)  # fmt: skip
def test_who_is_logged_in(found, idle, who, monkeypatch) -> None:
    monkeypatch.setattr(node_activity, "name_of", str)
    known = {item.pid: item for item in [INIT, *found]}
    assert whats(sessions(known, {8: idle})) == who


def test_a_driver_counts_unless_a_notebook_holds_it(monkeypatch) -> None:
    monkeypatch.setattr(node_activity, "name_of", str)
    line = b"java\0-cp\0/opt/spark\0org.apache.spark.deploy.SparkSubmit\0pyspark-shell\0"
    kernel = process(20, "python3", 10)
    of_notebook = process(21, "java", 20, command=line)
    left = process(30, "java", 1, command=line)
    executor = process(31, "java", 1, command=b"java\0org.apache.spark.executor.X\0")
    known = {item.pid: item for item in (INIT, LAB, kernel, of_notebook, left, executor)}
    assert whats(drivers(known)) == ["a Spark application of 20000"]
    assert drivers({item.pid: item for item in (INIT, LAB, kernel, of_notebook)}) == []


def test_a_name_with_a_parenthesis_does_not_confuse_the_reading_of_proc() -> None:
    text = "52 (a) b (c) S 1 50 49 34816 50 4194560 1 2 3"
    found = node_activity.parse_stat(text, 20001)
    assert (found.name, found.parent, found.group, found.session) == ("a) b (c", 1, 50, 49)
    assert (found.terminal, found.foreground, found.uid) == (34816, 50, 20001)


NOW = 1_740_825_000.0  # 2025-03-01 10:30 UTC


def test_jobs_count_while_they_run_and_from_their_end() -> None:
    def line(**values: Any) -> str:
        return json.dumps({"id": "1", "user": "ada", "created": NOW - 5, "ended": None, **values})

    found = jobs(
        [
            line(state="running"),
            line(state="done", ended=NOW - 90),
            line(state="vanished"),
            line(state="starting"),
            line(state="starting", created=NOW - DAY),
        ],
        NOW,
    )
    assert [sign.ago for sign in found] == [0.0, 90.0, 0.0]


def test_a_kernel_counts_while_it_is_busy_and_from_when_it_last_was() -> None:
    answer = [
        {"execution_state": "busy", "last_activity": "2025-03-01T09:00:00.000000Z"},
        {"execution_state": "idle", "last_activity": "2025-03-01T10:29:00.500000Z"},
        {"execution_state": "starting", "last_activity": "2025-03-01T10:00:00Z"},
    ]
    assert [sign.ago for sign in kernels(answer, NOW)] == [0.0, 59.5, 1800.0]


def test_the_master_tells_what_ended_and_leaves_what_goes_on_to_its_driver() -> None:
    answer = {
        "activedrivers": [{"id": "driver-1"}],
        "completedapps": [{"name": "etl", "starttime": (NOW - 100) * 1000, "duration": 40_000}],
        "activeapps": [{"id": "app-2", "name": "x", "user": "ada", "cores": 1, "state": "RUNNING"}],
    }
    signs, active = applications(answer, NOW)
    assert signs == [Sign("the driver driver-1"), Sign("the Spark application etl", 60.0)]
    assert [app["id"] for app in active] == ["app-2"]


def test_a_driver_tells_by_its_jobs_whether_it_works() -> None:
    done = [{"completionTime": "2025-03-01T10:29:00.000GMT"}, {"completionTime": None}, {}]
    assert work("x", [{"jobId": 3}], done, NOW)[0].ago == 0
    assert work("x", [], done, NOW) == [Sign("the Spark application x", 60.0)]
    assert work("x", [], [], NOW) == []


# -- the YAML, the spec and back ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        ("{max_idle: 2h, max_age: 7d}", Lifetime(2 * HOUR, 7 * DAY, "stop", 900)),
        ("{max_idle: 10m, action: destroy}", Lifetime(600, None, "destroy", 300)),
        ("{max_age: 1d, warn: 1h}", Lifetime(None, DAY, "stop", HOUR)),
        ("{}", None),
        ("{action: destroy}", None),
    ],
)
def test_a_template_gives_its_lifetime_and_export_gives_it_back(written, limits, tmp_path) -> None:
    template = "kind: Template\nname: lab\ntenant: t\napp: spark\nlifetime: {}\n"
    tenant = "---\nkind: Tenant\nname: t\nmembers: [{user: ada}]\n"
    catalog = sample_catalog(tmp_path / "images")
    text = template.replace("{}", written) + tenant
    cluster = resolve_cluster(load_text(tmp_path, text, catalog=catalog), catalog=catalog)
    assert cluster.lifetime == limits
    assert ClusterSpec.from_dict(json.loads(json.dumps(cluster.as_dict()))) == cluster
    back = tmp_path / "back.yml"
    back.write_text(export.as_yaml(export.documents(record(cluster), catalog)))
    documents = load_documents([back])
    assert documents.templates["lab"].lifetime.limits == limits


def test_a_spec_of_an_earlier_version_has_no_lifetime() -> None:
    data = spec().as_dict()
    del data["lifetime"]
    assert ClusterSpec.from_dict(data) == spec()


def test_the_catalogue_has_every_service_that_is_asked() -> None:
    names = {
        endpoint.name
        for app in load_catalog(content_root() / "images")
        for service in app.services.values()
        for endpoint in service.endpoints
    }
    assert {"jupyter", "spark-master"} <= names


# -- the store -------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path):
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


def launched(store: Store, limits: Lifetime | None = LIMITS) -> int:
    of = replace(spec(), lifetime=limits, roles=(role("master", 1),))
    with store.transaction() as transaction:
        return transaction.add_cluster(of, "ada", ())


def test_a_look_is_written_down_and_a_shell_that_is_gone_as_well(store: Store) -> None:
    key = launched(store)
    [standing] = standings(store)
    now = time.time()
    assert standing.as_dict(now)["idle_seconds"] is None
    with store.transaction() as transaction:
        transaction.put_use(key, UseRecord(now - 5000, "a job", now - 5))
    [standing] = standings(store)
    # Its launch, a moment ago, is later than what was seen.
    assert standing.use.activity == "its start"
    touch(store, standing.cluster, "a shell of ada")
    [standing] = standings(store)
    assert standing.use.activity == "a shell of ada"
    assert standing.use.looked_at == pytest.approx(now - 5)
    with store.transaction() as transaction:
        transaction.remove_cluster(key)
    touch(store, standing.cluster, "a shell of ada")
    assert standings(store) == []


def test_an_operation_is_use_and_a_stop_is_none(store: Store) -> None:
    launched(store)
    now = time.time()
    for verb, at in (("expand", now + 50), ("stop", now + 90), ("start", now + 20)):
        with store.transaction() as transaction:
            transaction.add_operation(
                OperationRecord(verb, "work", "lab", verb, started_at=at, ended_at=at, state="done")
            )
    with store.read() as transaction:
        [standing] = read_standings(transaction, None, {}, now + 100)
    assert standing.use.active_at == now + 50
    assert standing.since == now + 20


@pytest.mark.parametrize(
    ("verbs", "since"),
    [
        (["launch", "launch", "repair"], 0),
        (["launch", "stop", "start", "launch"], 3),
        (["launch", "stop", "launch", "launch"], 3),
        (["launch", "stop", "repair", "launch"], 3),
        (["launch", "restart", "launch"], 2),
        (["stop", "launch", "stop"], 0),
    ],
)
def test_a_cluster_is_as_old_as_its_last_start_whatever_verb_that_was(
    store: Store, verbs: list[str], since: int
) -> None:
    launched(store)
    now = time.time()
    for place, verb in enumerate(verbs, 1):
        at = now + place
        with store.transaction() as transaction:
            transaction.add_operation(
                OperationRecord(
                    f"{place}", "work", "lab", verb, started_at=at, ended_at=at, state="done"
                )
            )
    with store.read() as transaction:
        [standing] = read_standings(transaction, None, {}, now + 100)
    assert standing.since == (now + since if since else standing.cluster.created_at)


@pytest.mark.parametrize("wanted", ["running", "stopped", "absent"])
def test_a_sweep_leaves_its_mark_on_every_cluster(store: Store, wanted: str) -> None:
    key = launched(store)
    with store.transaction() as transaction:
        transaction.set_cluster(key, wanted=wanted)
        _written(transaction, transaction.clusters(), {}, warn=True)
    assert not is_sweep_due(store, 60)


def test_an_extension_meanwhile_is_not_lost_by_a_sweep(store: Store) -> None:
    limits = Lifetime(2, None, "stop", 1)
    key = launched(store, limits)
    with store.transaction() as transaction:
        before = transaction.clusters()
    extended_standing = extend(store, "lab", HOUR)
    with store.transaction() as transaction:
        [after] = _written(transaction, before, {key: Activity(None)}, warn=True)
    assert after.use.extended_until == extended_standing.use.extended_until
    assert after.end is not None
    assert after.end.at == pytest.approx(time.time() + HOUR + 2, abs=10)
