"""What is known of the use of clusters, and how they end: reading it, and writing it down."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from epic_runner.activity import Activity, Report, assess, look
from epic_runner.errors import NotFound
from epic_runner.hosts import Host
from epic_runner.lifetime import End, extended, foreseen, observed
from epic_runner.output import duration_text
from epic_runner.store import ClusterRecord, Store, UseRecord
from epic_runner.store.store import Transaction

# Changes that somebody makes who uses the cluster; its end is none.
USING = ("launch", "expand", "shrink", "start", "restart", "repair", "move")


@dataclass(frozen=True)
class Standing:
    """What is known of a cluster's use, and how it ends.

    Attributes:
        cluster: The cluster.
        since: When it was launched or last started; all times are seconds since the epoch.
        use: What is known of its use.
        end: Its end, as far as one is foreseen.
        doubt: What could not be asked, and therefore counts as use; empty if there is nothing.
        seen_at: When a look was last written down, or when it began to be due.
    """

    cluster: ClusterRecord
    since: float
    use: UseRecord
    end: End | None
    doubt: str = ""
    seen_at: float = 0.0

    def as_dict(self, now: float) -> dict[str, Any]:
        """Return it as JSON-ready data; ages and what is left are in seconds."""
        is_known = self.use.looked_at > 0
        return {
            "tenant": self.cluster.tenant,
            "name": self.cluster.name,
            "wanted": self.cluster.wanted,
            "age_seconds": round(now - self.since),
            "idle_seconds": round(max(now - self.use.active_at, 0)) if is_known else None,
            "last_use": self.use.activity if is_known else "",
            "looked_at": self.use.looked_at or None,
            "ends_at": self.end.at if self.end else None,
            "ends_in_seconds": round(max(self.end.at - now, 0)) if self.end else None,
            "ends_by": self.end.reason if self.end else "",
            "action": self.end.action if self.end else "",
            "warned": self.use.warned_at is not None,
            "extended_until": self.use.extended_until,
            "doubt": self.doubt,
        }


def standings(store: Store, clusters: Iterable[ClusterRecord] | None = None) -> list[Standing]:
    """Return what is known of clusters (all by default) without asking anything but the store."""
    now = time.time()
    with store.read() as transaction:
        return read_standings(transaction, clusters, {}, now)


def glance(store: Store, cluster: ClusterRecord, hosts: Mapping[str, Host]) -> Standing:
    """Look at one cluster now; nothing is written down."""
    with store.read() as transaction:
        watched = [cluster, *connected_to(cluster, transaction.clusters())]
    activity = activities_of([cluster], look(running(watched), hosts))
    with store.read() as transaction:
        return read_standings(transaction, [cluster], activity, time.time())[0]


def extend(store: Store, name: str, by_seconds: int, tenant: str | None = None) -> Standing:
    """Put off the end of a cluster; warnings are taken back.

    Raises:
        NotFound: There is no such cluster.
    """
    now = time.time()
    with store.transaction() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        [standing] = read_standings(transaction, [cluster], {}, now)
        transaction.put_use(cluster.id, extended(standing.use, standing.end, by_seconds, now))
        return read_standings(transaction, [cluster], {}, now)[0]


def touch(store: Store, cluster: ClusterRecord, what: str) -> None:
    """Write down that a cluster was used just now, by something that leaves no trace in it."""
    with store.transaction() as transaction:
        try:
            cluster = transaction.find_cluster(cluster.name, cluster.tenant)
        except NotFound:
            return
        [standing] = read_standings(transaction, [cluster], {}, time.time())
        use = observed(standing.use, Activity(0.0, what), standing.since, time.time())
        # Nobody looked at anything else.
        transaction.put_use(cluster.id, replace(use, looked_at=standing.use.looked_at))


def ending_text(standing: Standing, now: float) -> str:
    """Return how a cluster ends, for people; empty where it does not."""
    end = standing.end
    if end is None:
        return ""
    verb = {"stop": "stops", "destroy": "is destroyed"}[end.action]
    return f"{verb} in {duration_text(max(end.at - now, 0))} ({end.reason})"


def running(clusters: Iterable[ClusterRecord]) -> list[ClusterRecord]:
    """Return the clusters that are meant to run: in others nothing is to be asked."""
    return [cluster for cluster in clusters if cluster.wanted == "running"]


def connected_to(cluster: ClusterRecord, clusters: Iterable[ClusterRecord]) -> list[ClusterRecord]:
    """Return the clusters whose notebooks and jobs may run on this one."""
    return [
        other
        for other in clusters
        if other.tenant == cluster.tenant and cluster.name in other.spec.connections
    ]


def activities_of(
    clusters: Iterable[ClusterRecord], reports: Mapping[tuple[str, str], Mapping[str, Report]]
) -> dict[int, Activity]:
    """Return what running clusters are used for, by key, from what nodes of all of them told."""
    drivers: dict[tuple[str, str], frozenset[str]] = {
        key: frozenset().union(*(report.known for report in of_cluster.values()))
        for key, of_cluster in reports.items()
    }
    return {
        cluster.id: assess(
            reports.get((cluster.tenant, cluster.name), {}),
            {
                app
                for (tenant, _), apps in drivers.items()
                if tenant == cluster.tenant
                for app in apps
            },
        )
        for cluster in running(clusters)
    }


def read_standings(
    transaction: Transaction,
    clusters: Iterable[ClusterRecord] | None,
    activities: Mapping[int, Activity],
    now: float,
) -> list[Standing]:
    """Return what the store knows of clusters (all if None), with what looks at them showed.

    Args:
        transaction: Where to read; nothing is written.
        clusters: The clusters.
        activities: What those that were looked at are used for, by key.
        now: Seconds since the epoch.
    """
    uses = transaction.uses()
    starts = transaction.last_starts()
    changes = transaction.last_operations(USING)
    found = []
    for cluster in transaction.clusters() if clusters is None else clusters:
        key = (cluster.tenant, cluster.name)
        # Of an earlier cluster of this name nothing counts.
        since = max(cluster.created_at, starts.get(key, 0.0))
        changed = max(cluster.created_at, changes.get(key, 0.0))
        use = uses.get(cluster.id)
        activity = activities.get(cluster.id)
        looked_at = use.looked_at if use else 0.0
        use = observed(use, Activity(now - changed, "a change to it"), since, now)
        if activity is not None:
            use = observed(use, activity, since, now)
        else:
            use = replace(use, looked_at=looked_at)
        end = foreseen(cluster.spec.lifetime, use, since=since, wanted=cluster.wanted, now=now)
        doubt = activity.what if activity and activity.doubtful else ""
        found.append(Standing(cluster, since, use, end, doubt, max(looked_at, since)))
    return found
