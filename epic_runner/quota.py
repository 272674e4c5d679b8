"""What tenants and hosts have promised away, and whether more fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from epic_runner.cluster import NOTHING, Size
from epic_runner.errors import QuotaExceeded
from epic_runner.output import bytes_text
from epic_runner.store.records import ClusterRecord, TenantRecord


@dataclass(frozen=True)
class Usage:
    """What a tenant's clusters have reserved together."""

    clusters: int
    nodes: int
    cores: int
    memory: int
    disk: int


def usage_of(clusters: Iterable[ClusterRecord]) -> Usage:
    """Add up what clusters have reserved; stopped ones keep their reservation."""
    total, nodes, count = NOTHING, 0, 0
    for cluster in clusters:
        count += 1
        for node in cluster.nodes:
            nodes += 1
            total = total.plus(cluster.spec.role(node.role).size)
    return Usage(count, nodes, total.cores, total.memory_bytes, total.disk_bytes)


def used_by_host(clusters: Iterable[ClusterRecord]) -> dict[str, Size]:
    """Add up what nodes use on each host."""
    used: dict[str, Size] = {}
    for cluster in clusters:
        for node in cluster.nodes:
            size = cluster.spec.role(node.role).size
            used[node.host] = used.get(node.host, NOTHING).plus(size)
    return used


def check(tenant: TenantRecord, usage: Usage) -> None:
    """Refuse a usage above the tenant's quota.

    Args:
        tenant: Whose quota holds.
        usage: What the tenant would use with the new nodes.

    Raises:
        QuotaExceeded: Some limit is too small; the message gives each one with its figures.
    """
    over = [
        f"{name}: {_text(name, getattr(usage, name))} of {_text(name, limit)}"
        for name, limit in _limits(tenant.quota).items()
        if getattr(usage, name) > limit
    ]
    if over:
        raise QuotaExceeded(
            f"The quota of tenant {tenant.name} does not hold this. Needed in all: "
            f"{', '.join(over)}.",
            f"epic-run tenant show {tenant.name} shows what is in use; an administrator can "
            "raise the quota in the Tenant document.",
        )


def _limits(quota: Mapping[str, int | None]) -> dict[str, int]:
    return {name: limit for name, limit in quota.items() if limit is not None}


def _text(name: str, amount: int) -> str:
    return bytes_text(amount) if name in ("memory", "disk") else str(amount)
