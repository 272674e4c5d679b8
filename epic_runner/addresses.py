"""Addresses of tenants' networks that span hosts, and of their bridges: pure functions.

Each tenant has a subnet of the site's pool; the lower half of it is for nodes, whose addresses the
store gives out and which keep them for life, the upper half for what the engine attaches itself.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable

from epic_runner.errors import EpicError, InputError

# Of the private addresses a part that few sites use, and neither Docker nor Kubernetes by default.
POOL = "10.112.0.0/12"
PREFIX = 21  # 512 tenants with 1,022 nodes each
# Beside it, so that a site has one range to leave alone: 10.108.0.0 to 10.127.255.255.
BRIDGE_POOL = "10.108.0.0/14"
BRIDGE_PREFIX = 23  # 512 tenants with 509 nodes on each host
# The network's own address and the engine's gateway.
RESERVED = 2


def pool() -> ipaddress.IPv4Network:
    """Return the addresses of all tenants: `EPIC_NETWORK_POOL`, else ours.

    Raises:
        InputError: It is no network, or too small for one tenant.
    """
    return _pool("EPIC_NETWORK_POOL", POOL, PREFIX)


def bridge_pool() -> ipaddress.IPv4Network:
    """Return the addresses of the bridges by which tenants get out: `EPIC_BRIDGE_POOL`, else ours.

    Raises:
        InputError: It is no network, or too small for one tenant.
    """
    return _pool("EPIC_BRIDGE_POOL", BRIDGE_POOL, BRIDGE_PREFIX)


def bridge_subnet(
    subnet: str, within: ipaddress.IPv4Network, bridges: ipaddress.IPv4Network
) -> str:
    """Return the addresses of a tenant's bridges, the same on every host.

    The first tenant of one pool has the first part of the other. Where there are fewer parts than
    tenants, or the tenant's subnet is of a pool of former times, each engine chooses.
    """
    number = (int(ipaddress.IPv4Network(subnet).network_address) - int(within.network_address)) >> (
        32 - PREFIX
    )
    if 0 <= number < 1 << (BRIDGE_PREFIX - bridges.prefixlen):
        first = int(bridges.network_address) + (number << (32 - BRIDGE_PREFIX))
        return f"{ipaddress.IPv4Address(first)}/{BRIDGE_PREFIX}"
    return ""


def _pool(variable: str, ours: str, prefix: int) -> ipaddress.IPv4Network:
    named = os.environ.get(variable, ours)
    try:
        found = ipaddress.IPv4Network(named)
    except ValueError as problem:
        raise InputError(f"{variable}: {problem}.", f"For example {ours}.") from problem
    if found.prefixlen > prefix:
        raise InputError(
            f"{variable} is {named}, and one tenant takes a /{prefix}.", f"For example {ours}."
        )
    return found


def next_subnet(taken: Iterable[str], within: ipaddress.IPv4Network) -> str:
    """Return the first subnet of a pool that no tenant has.

    Raises:
        EpicError: All are taken.
    """
    used = {ipaddress.IPv4Network(item) for item in taken}
    for subnet in within.subnets(new_prefix=PREFIX):
        if not any(subnet.overlaps(other) for other in used):
            return str(subnet)
    raise EpicError(
        f"All addresses of {within} belong to tenants.",
        "Remove a tenant, or name a larger EPIC_NETWORK_POOL.",
    )


def subnet_of(address: str) -> str:
    """Return the tenant's subnet that a node's address is of."""
    return str(ipaddress.IPv4Network(f"{address}/{PREFIX}", strict=False))


def of_nodes(subnet: str) -> ipaddress.IPv4Network:
    """Return the half of a tenant's subnet that its nodes have."""
    return next(ipaddress.IPv4Network(subnet).subnets())


def of_engine(subnet: str) -> ipaddress.IPv4Network:
    """Return the half of a tenant's subnet that the engine gives away."""
    return list(ipaddress.IPv4Network(subnet).subnets())[1]


def next_address(subnet: str, taken: set[str]) -> str:
    """Return the first address for a node that is free, and add it to `taken`.

    Raises:
        EpicError: The tenant has as many nodes as its subnet has addresses.
    """
    half = of_nodes(subnet)
    for number in range(RESERVED, half.num_addresses):
        address = str(half[number])
        if address not in taken:
            taken.add(address)
            return address
    raise EpicError(f"All addresses of {half} are taken by nodes of the tenant.")
