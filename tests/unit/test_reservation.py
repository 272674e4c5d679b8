"""Reservation: numbers, hosts and ports of new nodes, within quota, or nothing at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import GIB, NOTEBOOK, PAGE, host, node, record, spec, tenant

from epic_runner import ports, quota, reservation
from epic_runner.cluster import Node, newest_first
from epic_runner.errors import EpicError, InputError, QuotaExceeded
from epic_runner.reservation import missing_nodes, new_nodes, other_ports

HOSTS = {"local": host()}


@pytest.fixture(autouse=True)
def _no_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = ports.choose
    monkeypatch.setattr(
        reservation.ports,
        "choose",
        lambda endpoints, taken, free=lambda _: True: choose(endpoints, taken, free),
    )


@given(
    st.integers(0, 8),
    st.sets(st.integers(1, 12), max_size=8),
    st.sets(st.integers(1, 12), max_size=4),
)
def test_new_numbers_are_above_all_that_are_there(count, have, leaving) -> None:
    of = spec(count)
    names = [f"worker-{index}" for index in sorted(have)]
    cluster = record(
        of, "master-1", *names, leaving=tuple(f"worker-{index}" for index in leaving & have)
    )
    missing = [(role.name, index) for role, index in missing_nodes(cluster)]
    assert all(name == "worker" for name, _ in missing)
    new = [index for _, index in missing]
    assert len(new) == max(0, count - len(have - leaving))
    assert not set(new) & have  # nor the number of one that is still leaving
    first = max(have, default=0) + 1
    assert new == list(range(first, first + len(new)))


def test_a_shrink_removes_the_newest_also_where_an_older_one_has_left_a_gap() -> None:
    # worker-1 was made anew on another host as worker-3.
    cluster = record(spec(3), "master-1", "worker-2", "worker-3")
    [added] = new_nodes(cluster, [cluster], tenant(), HOSTS)
    after = [*cluster.nodes, added]
    assert newest_first(after, "worker")[0] == added
    assert added.short_name == "worker-4"


@given(st.integers(1, 6), st.integers(1, 6))
def test_reserving_twice_is_reserving_once(first, second) -> None:
    cluster = record(spec(first))
    cluster = replace(cluster, nodes=new_nodes(cluster, [], tenant(), HOSTS))
    assert new_nodes(cluster, [cluster], tenant(), HOSTS) == ()
    grown = replace(cluster, spec=spec(max(first, second)))
    assert len(new_nodes(grown, [cluster], tenant(), HOSTS)) == max(0, second - first)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_the_quota_is_never_exceeded(nodes, cores, gib) -> None:
    limits = {"nodes": nodes, "cores": cores, "memory": gib * GIB}
    other = record(spec(2, name="other"), "master-1", "worker-1", "worker-2", key=2)
    foreign = record(spec(9, tenant="away"), *(f"worker-{n}" for n in range(1, 10)), key=3)
    cluster = record(spec(3))
    if min(nodes, cores, gib) < 7:
        with pytest.raises(QuotaExceeded, match=r"7g? of"):
            new_nodes(cluster, [other, foreign], tenant(limits), HOSTS)
    else:
        new = new_nodes(cluster, [other, foreign], tenant(limits), HOSTS)
        usage = quota.usage_of([other, replace(cluster, nodes=new)])
        assert (usage.nodes, usage.cores, usage.memory) == (7, 7, 7 * GIB)


def test_a_tenant_without_quota_is_limited_by_its_hosts() -> None:
    with pytest.raises(QuotaExceeded, match="No host has room"):
        new_nodes(record(spec(100)), [], tenant(), HOSTS)


def test_stopped_clusters_keep_what_they_reserved() -> None:
    stopped = record(spec(2, name="other"), "master-1", "worker-1", key=2, wanted="stopped")
    with pytest.raises(QuotaExceeded, match="clusters: 2 of 1"):
        new_nodes(record(spec(1)), [stopped], tenant({"clusters": 1}), HOSTS)


def test_every_endpoint_has_a_port_of_its_own() -> None:
    of = spec(1, endpoints=(PAGE, NOTEBOOK))
    first = replace(record(of), nodes=new_nodes(record(of), [], tenant(), HOSTS))
    second = record(replace(of, name="two"), key=2)
    nodes = [*first.nodes, *new_nodes(second, [first], tenant(), HOSTS)]
    taken = [port for item in nodes for port in item.ports.values()]
    assert len(taken) == len(set(taken)) == 4


def test_a_port_that_a_program_has_is_passed_over() -> None:
    taken = {ports.FIRST}
    chosen = ports.choose([PAGE], taken, lambda port: port != ports.FIRST + 1)
    assert chosen == {"spark-master": ports.FIRST + 2}
    assert ports.FIRST + 2 in taken
    with pytest.raises(EpicError, match="All loopback ports"):
        ports.choose([PAGE], set(), lambda _: False)


def test_a_site_may_have_ports_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_PORTS", "21000-21001")
    taken: set[int] = set()
    assert ports.choose([PAGE], taken, lambda _: True) == {"spark-master": 21000}
    assert ports.choose([PAGE], taken, lambda _: True) == {"spark-master": 21001}
    with pytest.raises(EpicError, match="from 21000 to 21001 are taken"):
        ports.choose([PAGE], taken, lambda _: True)


@pytest.mark.parametrize("text", ["21000", "21001-21000", "0-5", "1-99999", "a-b", "-5"])
def test_what_is_no_range_of_ports_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_PORTS", text)
    with pytest.raises(InputError, match=f"EPIC_PORTS={text} is no range"):
        ports.span()


def test_other_ports_are_neither_the_old_ones_nor_anybody_elses() -> None:
    of = spec(1)
    cluster = record(of, "master-1", "worker-1")
    foreign = replace(
        record(spec(1, name="two"), key=2),
        nodes=(node(of, "master-1", {"spark-master": 20001}),),
    )
    changed = other_ports(cluster, {"master-1"}, [cluster, foreign])
    assert [item.short_name for item in changed] == ["master-1"]
    assert changed[0].ports == {"spark-master": 20002}


@given(st.lists(st.integers(1, 30), unique=True))
def test_the_newest_leave_first(indexes) -> None:
    nodes = [Node("lab", "work", "worker", index, "local", {}) for index in indexes]
    nodes.append(Node("lab", "work", "master", 99, "local", {}))
    leaving = newest_first(nodes, "worker")
    assert [item.index for item in leaving] == sorted(indexes, reverse=True)


def test_a_quota_that_was_lowered_stops_growth_and_starts_but_no_mending() -> None:
    cluster = record(spec(1), "master-1", "worker-1")
    below = tenant({"nodes": 1})
    assert new_nodes(cluster, [cluster], below, HOSTS, mending=True) == ()
    with pytest.raises(QuotaExceeded, match="nodes: 2 of 1"):
        new_nodes(cluster, [cluster], below, HOSTS)
    with pytest.raises(QuotaExceeded, match="nodes: 3 of 1"):
        new_nodes(replace(cluster, spec=spec(2)), [cluster], below, HOSTS, mending=True)


def test_what_may_come_back_with_a_lost_host_keeps_its_number_and_its_address() -> None:
    of = spec(2)
    gone = replace(node(of, "worker-2"), host="away", address="10.112.0.2")
    cluster = replace(record(of, "master-1", "worker-1"), lost=(gone,))
    of_tenant = replace(tenant(), subnet="10.112.0.0/21")
    [new] = new_nodes(cluster, [cluster], of_tenant, HOSTS)
    assert (new.short_name, new.address) == ("worker-3", "10.112.0.3")
    # It takes no room, and does not count against the quota.
    [other] = new_nodes(replace(cluster, id=2, lost=()), [cluster], of_tenant, HOSTS)
    assert (other.short_name, other.address) == ("worker-2", "10.112.0.3")
