"""The hosts of this site: the inventory, and what the store remembers of each."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from epic_runner.errors import InputError
from epic_runner.host_inventory import Entry, inventory_path, read_inventory
from epic_runner.hosts import CPU_OVERCOMMIT, Host, local_host, refuse_storage
from epic_runner.spec.quantities import parse_size
from epic_runner.store import HostRecord, Store


def site_hosts(store: Store) -> dict[str, Host]:
    """Return all hosts by name: those of the inventory, else this machine.

    A host that has left the inventory while clusters have nodes on it is still among them, takes
    no new ones, and is asked under its bare name.
    """
    path = inventory_path()
    with store.read() as transaction:
        known = transaction.hosts()
        used = {node.host for cluster in transaction.clusters() for node in cluster.nodes}
    entries = read_inventory(path) if path else {}
    return arrange(entries, known, used)


def arrange(
    entries: Mapping[str, Entry], known: Mapping[str, HostRecord], used: Iterable[str]
) -> dict[str, Host]:
    """Return the hosts by name: a pure function, but for what this machine is.

    Args:
        entries: The inventory's hosts; none where there is no inventory.
        known: What the store remembers of hosts.
        used: The hosts that clusters have nodes on.
    """
    hosts = {
        name: described(entry, known.get(name, HostRecord(name))) for name, entry in entries.items()
    }
    if not hosts:
        host = local_host()
        hosts[host.name] = replace(host, draining=known.get(host.name, HostRecord("")).draining)
    for name in sorted({*used} - hosts.keys()):
        gone = local_host() if name == "local" else Host(name, 0, 0)
        hosts[name] = replace(gone, draining=True)
    return hosts


def described(entry: Entry, record: HostRecord) -> Host:
    """Return a host of the inventory with its capacity: what people say of it, else its facts.

    Raises:
        InputError: A variable of ours says what it cannot mean.
    """
    facts, variables = record.facts, entry.variables
    refuse_storage(f"epic_storage of host {entry.name}", variables.get("epic_storage"))
    if variables.get("ansible_connection") == "local" and not facts:
        local = local_host()
        facts = {"cores": local.cores, "memory_bytes": local.memory_bytes}
    return Host(
        name=entry.name,
        cores=int(_number(entry, "epic_cores", facts.get("cores", 0))),
        memory_bytes=_bytes(entry, "epic_memory", facts.get("memory_bytes", 0)),
        disk_bytes=_bytes(entry, "epic_disk", facts.get("disk_bytes", 0)),
        cpu_overcommit=_number(entry, "epic_cpu_overcommit", CPU_OVERCOMMIT),
        memory_overcommit=_number(entry, "epic_memory_overcommit", 1.0),
        disk_overcommit=_number(entry, "epic_disk_overcommit", 1.0),
        rack=str(variables.get("epic_rack", entry.group)),
        draining=record.draining,
        checked=bool(facts),
        mtu=int(facts.get("mtu") or 0),
        addresses=_addresses(entry, facts),
        manager=facts.get("swarm", {}).get("role") == "manager",
        variables=variables,
    )


def _addresses(entry: Entry, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a host's addresses: what it says itself, and how others and people reach it."""
    found = set(facts.get("addresses", ()))
    for name in ("epic_address", "ansible_host"):
        with suppress(ValueError):
            found.add(str(ipaddress.IPv4Address(entry.variables.get(name, ""))))
    return tuple(sorted(found))


def is_spread(hosts: Mapping[str, Host]) -> bool:
    """Whether tenants' networks span hosts; else each is a bridge of the one host there is."""
    return any(not host.is_local for host in hosts.values())


def chosen(hosts: Mapping[str, Host], names: Iterable[str]) -> dict[str, Host]:
    """Return the hosts that people named, all of them where they named none.

    Raises:
        InputError: There is no host of a name.
    """
    names = [*names]
    unknown = [name for name in names if name not in hosts]
    if unknown:
        from epic_runner.spec.checks import one_of

        raise InputError(f"There is no host {unknown[0]}.", one_of(unknown[0], list(hosts)))
    return {name: hosts[name] for name in names} or dict(hosts)


def _number(entry: Entry, name: str, otherwise: float) -> float:
    value = entry.variables.get(name, otherwise)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if number < 0:
        raise InputError(
            f"Host {entry.name} of the inventory has {name}: {value!r}, which is no number."
        )
    return number


def _bytes(entry: Entry, name: str, otherwise: int) -> int:
    value = entry.variables.get(name)
    if value is None:
        return int(otherwise)
    try:
        return parse_size(value)
    except ValueError as problem:
        raise InputError(
            f"Host {entry.name} of the inventory has {name}: {value!r}: {problem}."
        ) from problem
