"""Which host each new node goes to: a pure function of capacity, use and wishes.

A node goes where it fits, and of all such hosts to the one that

1. holds fewest of the cluster's masters, and for a master fewest of its nodes at all: the loss of
   one host then costs a cluster its master or some of its workers, not both;
2. lies in the rack with fewest of the cluster's nodes, then holds fewest of them itself;
3. has the most free memory, then the first name: the same question always has the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import groupby

from epic_runner.cluster import NOTHING, Size
from epic_runner.errors import QuotaExceeded
from epic_runner.hosts import Host
from epic_runner.output import bytes_text

# A refusal lists this many hosts, the roomiest first; a thousand would hide the reason.
HOSTS_IN_REFUSAL = 8


@dataclass(frozen=True)
class Wish:
    """A node to be placed.

    Attributes:
        name: Its short name.
        size: What it may use.
        apart: Whether it is a master, and keeps away from the cluster's other nodes if it can.
    """

    name: str
    size: Size
    apart: bool = False


@dataclass(frozen=True)
class Placed:
    """A node that the cluster has already: its host, and whether it is a master."""

    host: str
    apart: bool = False


@dataclass
class _Slot:
    """A host while nodes are being placed.

    Attributes:
        used: What nodes of all clusters use, those placed so far included.
        nodes: How many nodes of this cluster it holds.
        masters: How many of them are masters.
    """

    host: Host
    used: Size
    nodes: int = 0
    masters: int = 0

    def rank(self, *, apart: bool) -> tuple[int, int]:
        """Return how unwelcome a node is here for the cluster's own sake, least first."""
        return (self.masters, self.nodes if apart else 0)

    def order(self) -> tuple[int, int, str]:
        """Return the slot's place among those of its rank and rack, first the best."""
        return (self.nodes, -_free_memory(self.host, self.used), self.host.name)


@dataclass
class _Rack:
    """The slots of one rack that are of one rank, and may hold a node of the size in hand."""

    nodes: int
    queue: list[tuple[tuple[int, int, str], _Slot]] = field(default_factory=list)


def place(
    wishes: Sequence[Wish],
    hosts: Iterable[Host],
    used: Mapping[str, Size],
    present: Iterable[Placed] = (),
) -> list[str]:
    """Return a host for each wish, in their order.

    With h hosts and n wishes of s sizes in a row it takes in the order of s·h·log h + n·log h.

    Args:
        wishes: The new nodes of one cluster.
        hosts: All hosts; those that are being drained take none.
        used: What nodes of all clusters use, by host.
        present: The nodes that the cluster has.

    Raises:
        QuotaExceeded: A node fits on no host; the message says what each host lacks.
    """
    slots = {host.name: _Slot(host, used.get(host.name, NOTHING)) for host in hosts}
    racks = dict.fromkeys((slot.host.rack for slot in slots.values()), 0)
    for node in present:
        if slot := slots.get(node.host):
            racks[slot.host.rack] += 1
            _count(slot, apart=node.apart)
    chosen: list[str] = []
    for (size, apart), alike in groupby(wishes, key=lambda wish: (wish.size, wish.apart)):
        choice = _Choice(slots.values(), racks, size, apart=apart)
        for wish in alike:
            slot = choice.take()
            if slot is None:
                raise _refusal(wish, slots.values(), len(wishes))
            chosen.append(slot.host.name)
    return chosen


class _Choice:
    """The best host for one node after the other, all of one size.

    Slots wait in a queue for each rack, racks in a queue for each rank. A slot that has taken a
    node goes back to where it now belongs; one that a node no longer fits on is dropped, since use
    only grows.
    """

    def __init__(
        self, slots: Iterable[_Slot], racks: dict[str, int], size: Size, *, apart: bool
    ) -> None:
        self._size, self._apart, self._counts = size, apart, racks
        self._ranks: dict[tuple[int, int], dict[str, _Rack]] = {}
        self._queues: dict[tuple[int, int], list[tuple[int, tuple[int, int, str], str]]] = {}
        for slot in slots:
            if lack(slot.host, slot.used, size) is None:
                rack = self._rack(slot)
                rack.queue.append((slot.order(), slot))
        for rank, found in self._ranks.items():
            for rack in found.values():
                heapify(rack.queue)
            self._queues[rank] = [
                (rack.nodes, rack.queue[0][0], name) for name, rack in found.items()
            ]
            heapify(self._queues[rank])

    def take(self) -> _Slot | None:
        """Return the best slot, with the node counted in; None where none has room."""
        while self._ranks:
            rank = min(self._ranks)
            slot = self._first(rank)
            if slot is None:
                del self._ranks[rank], self._queues[rank]
                continue
            slot.used = slot.used.plus(self._size)
            _count(slot, apart=self._apart)
            self._counts[slot.host.rack] += 1
            if lack(slot.host, slot.used, self._size) is None:
                rack = self._rack(slot)
                heappush(rack.queue, (slot.order(), slot))
                self._announce(slot.rank(apart=self._apart), slot.host.rack)
            if rank in self._ranks:
                self._announce(rank, slot.host.rack)
            return slot
        return None

    def _rack(self, slot: _Slot) -> _Rack:
        found = self._ranks.setdefault(slot.rank(apart=self._apart), {})
        return found.setdefault(slot.host.rack, _Rack(self._counts[slot.host.rack]))

    def _announce(self, rank: tuple[int, int], name: str) -> None:
        """Put a rack into its rank's queue as it is now; what is there of it is out of date."""
        rack = self._ranks[rank].get(name)
        if rack and rack.queue:
            rack.nodes = self._counts[name]
            heappush(self._queues.setdefault(rank, []), (rack.nodes, rack.queue[0][0], name))

    def _first(self, rank: tuple[int, int]) -> _Slot | None:
        """Take the best slot of a rank out of its queue."""
        queue = self._queues.get(rank, [])
        while queue:
            nodes, order, name = heappop(queue)
            rack = self._ranks[rank][name]
            if not rack.queue or rack.queue[0][0] != order:
                continue
            if self._counts[name] != nodes:
                # Nodes came to this rack through another rank.
                self._announce(rank, name)
                continue
            return heappop(rack.queue)[1]
        return None


def _count(slot: _Slot, *, apart: bool) -> None:
    slot.nodes += 1
    slot.masters += apart


def lack(host: Host, used: Size, wanted: Size) -> str | None:
    """Return what `host` lacks for a node of size `wanted`, None when it fits."""
    if host.draining or not host.checked:
        return "it is being drained" if host.draining else "epic-run host prepare never saw it"
    if wanted.cores > host.cores:
        return f"it has {host.cores} cores, a node of {wanted.cores} is larger than the machine"
    promised = int(host.cores * host.cpu_overcommit)
    if wanted.cores > promised - used.cores:
        return f"{max(promised - used.cores, 0)} of its {promised} cores are free"
    if wanted.memory_bytes > _free_memory(host, used):
        return _shortage("memory", host.memory_bytes * host.memory_overcommit, used.memory_bytes)
    disk = host.disk_bytes * host.disk_overcommit
    if host.disk_bytes and wanted.disk_bytes > int(disk) - used.disk_bytes:
        return _shortage("disk", disk, used.disk_bytes)
    return None


def _shortage(what: str, total: float, used: int) -> str:
    free = bytes_text(max(int(total) - used, 0))
    return f"{free} of its {bytes_text(int(total))} {what} is free"


def _free_memory(host: Host, used: Size) -> int:
    return int(host.memory_bytes * host.memory_overcommit) - used.memory_bytes


def _refusal(wish: Wish, slots: Iterable[_Slot], count: int) -> QuotaExceeded:
    size = f"{wish.size.cores} cores and {bytes_text(wish.size.memory_bytes)} memory"
    if wish.size.disk_bytes:
        size = (
            f"{wish.size.cores} cores, {bytes_text(wish.size.memory_bytes)} memory and "
            f"{bytes_text(wish.size.disk_bytes)} disk"
        )
    roomiest = sorted(slots, key=lambda slot: (-_free_memory(slot.host, slot.used), slot.host.name))
    reasons = "; ".join(
        f"{slot.host.name}: {lack(slot.host, slot.used, wish.size)}"
        for slot in roomiest[:HOSTS_IN_REFUSAL]
    )
    more = len(roomiest) - HOSTS_IN_REFUSAL
    return QuotaExceeded(
        f"No host has room for {wish.name} ({size}), one of {count} new nodes. {reasons}"
        f"{f'; and {more} more hosts' if more > 0 else ''}.",
        "Choose a smaller flavor or fewer nodes, or stop and destroy what is not needed: "
        "epic-run list",
    )
