"""Placement: every node on a host that has room, spread, and always the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import GIB, host

from epic_runner.cluster import NOTHING, Size
from epic_runner.errors import QuotaExceeded
from epic_runner.placement import Placed, Wish, lack, place

sizes = st.builds(Size, st.integers(1, 16), st.integers(1, 32).map(lambda gib: gib * GIB))
hosts_ = st.lists(
    st.tuples(st.integers(1, 32), st.integers(1, 64), st.floats(1, 8), st.floats(0.5, 2)),
    min_size=1,
    max_size=5,
).map(
    lambda items: [
        host(
            f"h{number}",
            cores,
            gib * GIB,
            cpu_overcommit=cpu,
            memory_overcommit=memory,
            rack=f"r{number % 2}",
            disk_bytes=gib * 4 * GIB,
        )
        for number, (cores, gib, cpu, memory) in enumerate(items)
    ]
)
wishes_ = st.lists(st.tuples(sizes, st.booleans()), max_size=12).map(
    lambda items: [
        Wish(f"worker-{number}", size, apart) for number, (size, apart) in enumerate(items, 1)
    ]
)


def one_by_one(wishes, hosts, used, present):
    """Place as the rules are written, looking at every host for every node."""
    load = {item.name: used.get(item.name, NOTHING) for item in hosts}
    here = list(present)
    rack = {item.name: item.rack for item in hosts}

    def unwelcome(item, wish):
        nodes = [node for node in here if node.host == item.name]
        free = int(item.memory_bytes * item.memory_overcommit) - load[item.name].memory_bytes
        return (
            sum(node.apart for node in nodes),
            len(nodes) if wish.apart else 0,
            sum(rack.get(node.host) == item.rack for node in here),
            len(nodes),
            -free,
            item.name,
        )

    for wish in wishes:
        fitting = [item for item in hosts if lack(item, load[item.name], wish.size) is None]
        if not fitting:
            return None
        best = min(fitting, key=lambda item: unwelcome(item, wish))
        load[best.name] = load[best.name].plus(wish.size)
        here.append(Placed(best.name, wish.apart))
    return [node.host for node in here[len(list(present)) :]]


@given(wishes_, hosts_, st.dictionaries(st.sampled_from(["h0", "h1", "h2"]), sizes))
def test_no_host_is_ever_given_more_than_it_has(wishes, hosts, used) -> None:
    try:
        chosen = place(wishes, hosts, used)
    except QuotaExceeded:
        return
    assert len(chosen) == len(wishes)
    load = {item.name: used.get(item.name, NOTHING) for item in hosts}
    for wish, name in zip(wishes, chosen, strict=True):
        load[name] = load[name].plus(wish.size)
    for item in hosts:
        if item.name in chosen:
            assert load[item.name].cores <= item.cores * item.cpu_overcommit
            assert load[item.name].memory_bytes <= item.memory_bytes * item.memory_overcommit


@given(wishes_, hosts_)
def test_the_same_question_has_the_same_answer_in_any_order_of_hosts(wishes, hosts) -> None:
    def answer(given_hosts):
        try:
            return place(wishes, given_hosts, {})
        except QuotaExceeded as refusal:
            return refusal.message

    assert answer(hosts) == answer(list(reversed(hosts)))


@given(sizes, hosts_)
def test_a_node_is_refused_only_when_it_fits_nowhere(size, hosts) -> None:
    fits = [item for item in hosts if lack(item, NOTHING, size) is None]
    if fits:
        assert place([Wish("master-1", size)], hosts, {})[0] in {item.name for item in fits}
    else:
        with pytest.raises(QuotaExceeded, match="No host has room for master-1"):
            place([Wish("master-1", size)], hosts, {})


def test_nodes_spread_over_equal_hosts() -> None:
    hosts = [host("a"), host("b"), host("c")]
    wishes = [Wish(f"worker-{number}", Size(1, GIB)) for number in range(6)]
    assert place(wishes, hosts, {}) == ["a", "b", "c", "a", "b", "c"]


placed_ = st.lists(
    st.builds(Placed, st.sampled_from(["h0", "h1", "h2", "gone"]), st.booleans()), max_size=4
)


@given(wishes_, hosts_, st.dictionaries(st.sampled_from(["h0", "h1", "h2"]), sizes), placed_)
def test_queues_choose_what_a_look_at_every_host_would(wishes, hosts, used, present) -> None:
    expected = one_by_one(wishes, hosts, used, present)
    if expected is None:
        with pytest.raises(QuotaExceeded):
            place(wishes, hosts, used, present)
    else:
        assert place(wishes, hosts, used, present) == expected


def test_masters_keep_apart_from_each_other_and_from_workers_where_they_can() -> None:
    hosts = [host(name) for name in "abcd"]
    masters = [Wish(f"master-{number}", Size(1, GIB), apart=True) for number in (1, 2)]
    workers = [Wish(f"worker-{number}", Size(1, GIB)) for number in range(1, 5)]
    assert place([*masters, *workers], hosts, {}) == ["a", "b", "c", "d", "c", "d"]
    assert place([*masters, *workers], hosts[:1], {}) == ["a"] * 6


def test_an_expand_goes_on_where_the_launch_left_off() -> None:
    hosts = [host(name) for name in "abc"]
    present = [Placed("a", apart=True), Placed("b")]
    worker = Wish("worker-2", Size(1, GIB))
    assert place([worker], hosts, {}, present) == ["c"]


def test_nodes_spread_over_racks_before_hosts() -> None:
    hosts = [host("a", rack="1"), host("b", rack="1"), host("c", rack="1"), host("d", rack="2")]
    wishes = [Wish(f"worker-{number}", Size(1, GIB)) for number in range(4)]
    assert place(wishes, hosts, {}) == ["a", "d", "b", "d"]


def test_a_draining_host_and_one_without_disk_take_nothing() -> None:
    hosts = [host("a", draining=True), host("b", disk_bytes=GIB)]
    with pytest.raises(QuotaExceeded) as refusal:
        place([Wish("worker-1", Size(1, GIB, 2 * GIB))], hosts, {})
    assert "a: it is being drained" in refusal.value.message
    assert "b: 1g of its 1g disk is free" in refusal.value.message


def test_a_refusal_of_many_hosts_names_the_roomiest() -> None:
    hosts = [host(f"h{number:02}", memory=number * GIB) for number in range(1, 31)]
    with pytest.raises(QuotaExceeded) as refusal:
        place([Wish("worker-1", Size(1, 64 * GIB))], hosts, {})
    assert "h30: 30g of its 30g memory is free" in refusal.value.message
    assert "and 22 more hosts" in refusal.value.message


def test_a_refusal_says_what_each_host_lacks() -> None:
    hosts = [host("a", cores=2), host("b", cores=8, memory=GIB)]
    with pytest.raises(QuotaExceeded) as refusal:
        place([Wish("worker-1", Size(4, 2 * GIB))], hosts, {})
    assert "a: it has 2 cores, a node of 4 is larger than the machine" in refusal.value.message
    assert "b: 1g of its 1g memory is free" in refusal.value.message
    assert refusal.value.hint
