"""Addresses of tenants' networks that span hosts: pure functions.

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
# The network's own address and the engine's gateway.
RESERVED = 2


def pool() -> ipaddress.IPv4Network:
    """Return the addresses of all tenants: `EPIC_NETWORK_POOL`, else ours.

    Raises:
        InputError: It is no network, or too small for one tenant.
    """
    named = os.environ.get("EPIC_NETWORK_POOL", POOL)
    try:
        found = ipaddress.IPv4Network(named)
    except ValueError as problem:
        raise InputError(f"EPIC_NETWORK_POOL: {problem}.", f"For example {POOL}.") from problem
    if found.prefixlen > PREFIX:
        raise InputError(
            f"EPIC_NETWORK_POOL is {named}, and one tenant takes a /{PREFIX}.",
            f"For example {POOL}.",
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
