"""Addresses of tenants and nodes in networks that span hosts."""

from __future__ import annotations

import ipaddress

import pytest

from epic_runner.addresses import POOL, next_address, next_subnet, of_engine, of_nodes, pool
from epic_runner.errors import EpicError, InputError

WHOLE = ipaddress.IPv4Network(POOL)


def test_each_tenant_has_a_subnet_of_its_own() -> None:
    taken: list[str] = []
    for _ in range(20):
        taken.append(next_subnet(taken, WHOLE))
    networks = [ipaddress.IPv4Network(item) for item in taken]
    assert all(network.subnet_of(WHOLE) for network in networks)
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)


def test_a_subnet_that_was_left_is_given_again() -> None:
    taken = [next_subnet([], WHOLE)]
    assert next_subnet(["10.112.8.0/21"], WHOLE) == taken[0]


def test_subnets_of_an_earlier_pool_are_kept_clear_of() -> None:
    assert next_subnet(["10.112.0.0/20"], WHOLE) == "10.112.16.0/21"


def test_a_pool_that_is_used_up_is_told() -> None:
    with pytest.raises(EpicError, match="belong to tenants"):
        next_subnet(["10.1.0.0/21"], ipaddress.IPv4Network("10.1.0.0/21"))


def test_nodes_and_engine_share_a_subnet_without_meeting() -> None:
    assert not of_nodes("10.112.0.0/21").overlaps(of_engine("10.112.0.0/21"))
    taken: set[str] = set()
    first = [next_address("10.112.0.0/21", taken) for _ in range(3)]
    assert first == ["10.112.0.2", "10.112.0.3", "10.112.0.4"]
    taken.remove("10.112.0.3")
    assert next_address("10.112.0.0/21", taken) == "10.112.0.3"


def test_a_tenant_has_room_for_a_thousand_nodes() -> None:
    taken: set[str] = set()
    for _ in range(1022):
        assert ipaddress.IPv4Address(next_address("10.112.0.0/21", taken)) in of_nodes(
            "10.112.0.0/21"
        )
    with pytest.raises(EpicError, match="taken by nodes"):
        next_address("10.112.0.0/21", taken)


@pytest.mark.parametrize("value", ["10.0.0.0/24", "ten", "10.0.0.1/8"])
def test_a_pool_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EPIC_NETWORK_POOL", value)
    with pytest.raises(InputError, match="EPIC_NETWORK_POOL"):
        pool()
