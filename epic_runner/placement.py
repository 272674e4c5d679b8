"""Which host each new node goes to: a pure function of capacity, use and wishes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from epic_runner.cluster import NOTHING, Size
from epic_runner.errors import QuotaExceeded
from epic_runner.hosts import Host
from epic_runner.output import bytes_text


@dataclass(frozen=True)
class Wish:
    """A node to be placed: its short name and its size."""

    name: str
    size: Size


def place(wishes: Sequence[Wish], hosts: Iterable[Host], used: Mapping[str, Size]) -> list[str]:
    """Return a host for each wish, in their order.

    Each node goes to the host with the most free memory that holds it, so that nodes spread;
    equal hosts are taken by name, so that the same question always has the same answer.

    Args:
        wishes: The new nodes.
        hosts: All hosts.
        used: What nodes already use, by host.

    Raises:
        QuotaExceeded: A node fits on no host; the message says what each host lacks.
    """
    load = {host.name: used.get(host.name, NOTHING) for host in hosts}
    by_name = {host.name: host for host in hosts}
    chosen: list[str] = []
    for wish in wishes:
        fitting = [
            host for host in by_name.values() if lack(host, load[host.name], wish.size) is None
        ]
        if not fitting:
            raise _refusal(wish, by_name.values(), load, len(wishes))
        best = min(fitting, key=lambda host: (-_free_memory(host, load[host.name]), host.name))
        load[best.name] = load[best.name].plus(wish.size)
        chosen.append(best.name)
    return chosen


def lack(host: Host, used: Size, wanted: Size) -> str | None:
    """Return what `host` lacks for a node of size `wanted`, None when it fits."""
    if wanted.cores > host.cores:
        return f"it has {host.cores} cores, a node of {wanted.cores} is larger than the machine"
    cores = int(host.cores * host.cpu_overcommit) - used.cores
    if wanted.cores > cores:
        return f"{max(cores, 0)} of its {int(host.cores * host.cpu_overcommit)} cores are free"
    if wanted.memory_bytes > _free_memory(host, used):
        total = bytes_text(int(host.memory_bytes * host.memory_overcommit))
        free = bytes_text(max(_free_memory(host, used), 0))
        return f"{free} of its {total} memory is free"
    return None


def _free_memory(host: Host, used: Size) -> int:
    return int(host.memory_bytes * host.memory_overcommit) - used.memory_bytes


def _refusal(
    wish: Wish, hosts: Iterable[Host], load: Mapping[str, Size], count: int
) -> QuotaExceeded:
    size = f"{wish.size.cores} cores and {bytes_text(wish.size.memory_bytes)} memory"
    reasons = "; ".join(
        f"{host.name}: {lack(host, load[host.name], wish.size)}"
        for host in sorted(hosts, key=lambda host: host.name)
    )
    return QuotaExceeded(
        f"No host has room for {wish.name} ({size}), one of {count} new nodes. {reasons}.",
        "Choose a smaller flavor or fewer nodes, or stop and destroy what is not needed: "
        "epic-run list",
    )
