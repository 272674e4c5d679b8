"""What a launch, an expand or a shrink makes of a cluster's wishes: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import GIB, document, host, node, record, role, spec, tenant

from epic_runner import lifecycle
from epic_runner.cluster import ClusterSpec, Size, split_name
from epic_runner.errors import InputError
from epic_runner.lifecycle import (
    Context,
    _concerned,
    acting_user,
    grown,
    left_behind,
    resized,
    unfinished,
)
from epic_runner.store import ClusterRecord, Store, TenantRecord
from epic_runner.store.store import Transaction


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_launch_never_asks_for_fewer_nodes_than_there_are(have, wanted) -> None:
    after = grown(record(spec(have)), spec(wanted))
    assert after.role("worker").count == max(have, wanted)
    assert after.role("master").count == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(spec(), app="mesos"), "app spark@3.5.9 is not mesos@3.5.9"),
        (replace(spec(), app_version="4.0"), "not spark@4.0"),
        (replace(spec(), roles=spec().roles[:1]), "its node roles are others"),
        (spec(size=Size(2, GIB), flavor="big"), "master has flavor tiny, not big"),
        (spec(services=("spark-master", "jupyter")), "not spark-master, jupyter"),
    ],
)
def test_a_cluster_that_differs_in_more_than_counts_is_refused(
    other: ClusterSpec, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        grown(record(spec()), other)
    assert said in refused.value.message
    assert "--name" in (refused.value.hint or "")


def test_a_half_destroyed_cluster_has_to_be_destroyed_first() -> None:
    with pytest.raises(InputError, match="half destroyed"):
        grown(record(spec(), wanted="absent"), spec())


@given(st.integers(1, 9), st.integers(-9, 9))
def test_counts_stay_within_the_limits_of_the_app(count, by) -> None:
    of = replace(spec(), roles=(role("worker", count, minimum=2, maximum=7),))
    if 2 <= count + by <= 7:
        assert resized(of, "worker", by).role("worker").count == count + by
    else:
        with pytest.raises(InputError, match=r"at least 2|at most 7"):
            resized(of, "worker", by)


def test_a_node_role_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match="it has master, worker"):
        resized(spec(), "gateway", 1)


def test_only_members_act() -> None:
    assert acting_user(tenant(), None) == "ada"
    assert acting_user(tenant(), "bob") == "bob"
    with pytest.raises(InputError, match="eve is not a member of tenant work"):
        acting_user(tenant(), "eve")
    with pytest.raises(InputError, match="has no members"):
        acting_user(TenantRecord("work", {}, {}), None)


def test_a_name_may_carry_its_tenant() -> None:
    assert split_name("lab") == (None, "lab")
    assert split_name("work/lab") == ("work", "lab")
    assert split_name("lab", "work") == ("work", "lab")


@given(st.integers(0, 30))
def test_a_spec_survives_a_trip_through_json(workers) -> None:
    import json

    of = spec(workers)
    assert ClusterSpec.from_dict(json.loads(json.dumps(of.as_dict()))) == of


def test_a_shrink_concerns_the_hosts_of_leaving_nodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    of = spec(2)
    nodes = tuple(
        replace(node(of, name), host=f"host-{number}")
        for number, name in enumerate(("master-1", "worker-1", "worker-2"), 1)
    )
    cluster = replace(record(of, leaving=("worker-2",)), nodes=nodes)
    assert list(_concerned(cluster, "shrink")) == ["host-3"]
    assert list(_concerned(cluster, "stop")) == []
    stray = replace(nodes[1], host="host-9")
    assert list(_concerned(replace(cluster, strays=(stray,)), "shrink")) == ["host-3", "host-9"]


def test_a_destroy_that_missed_hosts_says_how_it_is_finished() -> None:
    said = unfinished(record(spec()), ["h2", "h1"])
    assert said.startswith("epic-run destroy work/lab --yes finishes it when h1 and h2 are back;")
    assert said.endswith("epic-run host drain h1 --lost and epic-run host drain h2 --lost does.")
    assert "epic-run destroy work/lab --yes" in left_behind(record(spec()))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    made = Store(f"sqlite:///{tmp_path}/store.db")
    with made.transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.add_cluster(
            spec(1), "ada", [node(spec(), "master-1"), node(spec(), "worker-1")]
        )
    yield made
    made.close()


def test_a_launch_of_images_that_do_not_fit_together_makes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = spec(1, name="new", image="epic/jupyter:1")
    labels = {
        "epic/jupyter:1": {"epic.java": "21"},
        wanted.role("worker").image: {"epic.java": "17"},
    }
    monkeypatch.setattr(lifecycle.software, "image_labels", lambda _: labels)
    with pytest.raises(InputError, match="would not fit together: master has Java 21"):
        lifecycle.launch(Context(store, {"local": host()}), wanted)
    with store.read() as transaction:
        assert [cluster.name for cluster in transaction.clusters()] == ["lab"]
        assert transaction.count_operations() == 0


def destroyed(
    store: Store, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Transaction], object]
) -> tuple[set[str], frozenset[str]]:
    """Destroy a cluster that changes once it was looked at; return the nodes and hosts that go."""
    doomed, seen = lifecycle.doomed, []

    def looked_at(*arguments: Any) -> ClusterRecord:
        found = doomed(*arguments)
        with store.transaction() as transaction:
            meanwhile(transaction)
        return found

    def hosts_with(_hosts: object, tenant: str, name: str) -> tuple[frozenset[str], frozenset[str]]:
        with store.read() as transaction:
            [operation] = transaction.operations(tenant, name)
        assert operation.state == "running"  # nobody can add anything to the hosts any more
        return frozenset({"h2"}), frozenset()

    def play(_context: Context, running: Any, verb: str) -> None:
        assert verb == "destroy"
        names = {item.short_name for item in running.prepared.cluster.nodes}
        seen.append((names, running.prepared.also))

    monkeypatch.setattr(lifecycle, "doomed", looked_at)
    monkeypatch.setattr(lifecycle.recovery, "hosts_with", hosts_with)
    monkeypatch.setattr(lifecycle, "_play", play)
    lifecycle.destroy(Context(store, {"local": host()}), "lab")
    with store.read() as transaction:
        assert transaction.clusters() == []
    [gone] = seen
    return gone


def test_a_destroy_takes_nodes_that_came_before_it_held_the_cluster(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expand(transaction: Transaction) -> None:
        cluster = transaction.find_cluster("lab")
        transaction.add_nodes(cluster.id, [node(spec(), "worker-2")])

    gone = destroyed(store, monkeypatch, expand)
    assert gone == ({"master-1", "worker-1", "worker-2"}, {"h2"})


def test_a_destroy_takes_the_cluster_that_has_the_name_by_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_anew(transaction: Transaction) -> None:
        transaction.remove_cluster(transaction.find_cluster("lab").id)
        other = transaction.add_cluster(spec(2, name="other"), "ada", [])
        transaction.add_cluster(spec(1), "ada", [node(spec(), "master-1")])
        transaction.remove_cluster(other)

    assert destroyed(store, monkeypatch, make_anew) == ({"master-1"}, {"h2"})


def test_a_destroy_of_what_somebody_else_has_destroyed_is_no_failure(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def destroy(transaction: Transaction) -> None:
        transaction.remove_cluster(transaction.find_cluster("lab").id)

    names, _ = destroyed(store, monkeypatch, destroy)
    assert names == {"master-1", "worker-1"}
