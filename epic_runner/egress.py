"""The way out of tenants' networks: what each may reach, as the hosts' firewalls take it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from epic_runner.addresses import bridge_pool, bridge_subnet, pool
from epic_runner.errors import InputError
from epic_runner.hosts import Host
from epic_runner.mirrors import package_mirrors
from epic_runner.resources import content_root
from epic_runner.spec.destinations import (
    WORDS,
    Destination,
    DestinationError,
    is_network,
    parse_destination,
)
from epic_runner.store.records import TenantRecord

CLOSED_VARIABLE: Final = "EPIC_EGRESS_CLOSED"


@dataclass(frozen=True)
class WaysOut:
    """What is the same for all tenants of a site.

    Attributes:
        image: The reference of the firewall's image.
        mirrors: Where packages come from.
        closed: Networks that no tenant may reach, whatever its list says.
    """

    image: str
    mirrors: tuple[Destination, ...] = ()
    closed: tuple[str, ...] = ()


def load() -> WaysOut:
    """Return what this site says of ways out.

    Raises:
        InputError: A variable holds what it cannot mean.
    """
    closed = []
    for item in filter(
        None, (part.strip() for part in os.environ.get(CLOSED_VARIABLE, "").split(","))
    ):
        try:
            found = parse_destination(item)
        except DestinationError as problem:
            raise InputError(
                f"{CLOSED_VARIABLE}: {item} {problem.message}.", problem.hint
            ) from problem
        if found.port or not is_network(found.to):
            raise InputError(
                f"{CLOSED_VARIABLE}: {item} is not a network.", "For example 192.0.2.0/24."
            )
        closed.append(found.to)
    return WaysOut(firewall_image(), package_mirrors(), tuple(closed))


def firewall_image() -> str:
    """Return the reference of the firewall's image."""
    text = (content_root() / "images" / "firewall" / "app.yml").read_text(encoding="utf-8")
    app = yaml.safe_load(text)
    return f"{app['image']}:{app['version']}-r{app['revision']}"


def allowed(document: Mapping[str, Any], mirrors: Iterable[Destination]) -> list[Destination]:
    """Return what a tenant's document opens."""
    items = (document.get("egress") or {"allow": WORDS})["allow"]
    found: list[Destination] = []
    for item in items:
        if item == "packages":
            found += mirrors
        elif item not in WORDS:
            found.append(parse_destination(item))
    return list(dict.fromkeys(found))


def still_open(closed: Iterable[str], addresses: Iterable[str]) -> list[str]:
    """Return those addresses that networks which are closed to tenants do not hold."""
    networks = [ipaddress.IPv4Network(item) for item in closed]
    return sorted(
        address
        for address in set(addresses)
        if not any(ipaddress.IPv4Address(address) in network for network in networks)
    )


def way_out(
    tenant: TenantRecord, hosts: Mapping[str, Host], site: WaysOut, network: str
) -> dict[str, Any]:
    """Return the bridge by which a tenant's nodes get out, and its rules; empty without one.

    On one host that bridge is the tenant's network itself, and has rules also where nothing is
    open. Where the network spans hosts there is one beside it, for tenants that may reach anything.

    Args:
        tenant: The tenant.
        hosts: All hosts, which are closed to it.
        site: What is the same for all tenants.
        network: The name of its bridge.
    """
    open_to = allowed(tenant.document, site.mirrors)
    addresses = {address for host in hosts.values() for address in host.addresses}
    wanted: dict[str, Any] = {
        "network": network,
        "image": site.image,
        "allow": [{"to": item.to, "port": item.port} for item in open_to],
        "closed": sorted({*site.closed, *addresses}),
    }
    if tenant.subnet is None:
        return wanted
    if not open_to:
        return {}
    known = [host.mtu for host in hosts.values() if host.mtu]
    wanted["closed"] = sorted({*wanted["closed"], str(pool()), str(bridge_pool())})
    subnet = bridge_subnet(tenant.subnet, pool(), bridge_pool())
    return {
        **wanted,
        "subnet": subnet,
        # The engine tells of one that it has chosen itself.
        "gateway": str(ipaddress.IPv4Network(subnet)[1]) if subnet else "",
        "mtu": min(known) if known else 0,
    }
