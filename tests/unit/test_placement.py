"""Placement: every node on a host that has room, spread, and always the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import GIB, host

from epic_runner.cluster import NOTHING, Size
from epic_runner.errors import QuotaExceeded
from epic_runner.placement import Wish, lack, place

sizes = st.builds(Size, st.integers(1, 16), st.integers(1, 32).map(lambda gib: gib * GIB))
hosts_ = st.lists(
    st.tuples(st.integers(1, 32), st.integers(1, 64), st.floats(1, 8), st.floats(0.5, 2)),
    min_size=1,
    max_size=5,
).map(
    lambda items: [
        host(f"h{number}", cores, gib * GIB, cpu_overcommit=cpu, memory_overcommit=memory)
        for number, (cores, gib, cpu, memory) in enumerate(items)
    ]
)
wishes_ = st.lists(sizes, max_size=12).map(
    lambda items: [Wish(f"worker-{number}", size) for number, size in enumerate(items, 1)]
)


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


def test_a_refusal_says_what_each_host_lacks() -> None:
    hosts = [host("a", cores=2), host("b", cores=8, memory=GIB)]
    with pytest.raises(QuotaExceeded) as refusal:
        place([Wish("worker-1", Size(4, 2 * GIB))], hosts, {})
    assert "a: it has 2 cores, a node of 4 is larger than the machine" in refusal.value.message
    assert "b: 1g of its 1g memory is free" in refusal.value.message
    assert refusal.value.hint
