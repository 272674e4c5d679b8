"""Looking after the lifetimes of clusters: who uses them, whom to warn, what to end.

A sweep asks all nodes what they are used for, writes down what it saw, warns, and ends what is due
after another look at it, so that whoever comes at the last moment keeps the cluster. `lifetime`
decides, `activity` asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from epic_runner import lifecycle
from epic_runner.activity import Activity, look
from epic_runner.docker_exec import output_of
from epic_runner.errors import ClusterBusy, EpicError, NotFound
from epic_runner.everywhere import ask_all
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context
from epic_runner.lifetime import IDLE, foreseen, warned
from epic_runner.output import duration_text
from epic_runner.standing import (
    Standing,
    activities_of,
    connected_to,
    ending_text,
    read_standings,
    running,
)
from epic_runner.store import ClusterRecord
from epic_runner.store.store import Transaction

# Writes a line to every terminal of a node, as wall does.
_TELL = 'for t in /dev/pts/[0-9]*; do printf "\\r\\n%s\\r\\n" "$1" >"$t"; done 2>/dev/null; exit 0'

Say = Callable[[str], None]


@dataclass(frozen=True)
class Swept:
    """What a sweep made of a cluster.

    The outcome is `kept`, `warned`, `stopped`, `destroyed`, `busy` or `failed`.
    """

    standing: Standing
    outcome: str
    reason: str = ""


def check(context: Context, only: ClusterRecord | None = None) -> list[Standing]:
    """Look at clusters (all, or one), and write down what was seen."""
    with context.store.read() as transaction:
        clusters = transaction.clusters()
    chosen = [item for item in clusters if only is None or item.id == only.id]
    watched = chosen if only is None else [*chosen, *connected_to(only, clusters)]
    activities = activities_of(chosen, look(running(watched), context.hosts))
    with context.store.transaction() as transaction:
        return _written(transaction, chosen, activities, warn=False)


def sweep(context: Context, say: Say) -> list[Swept]:
    """Look at all clusters, warn of ends that are near, and end what is due.

    Args:
        context: The store and the hosts.
        say: Told of every warning and end.

    Raises:
        StoreUnavailable: The store is away. What fails on a cluster only concerns that one.
    """
    with context.store.read() as transaction:
        clusters = transaction.clusters()
        before = transaction.uses()
    activities = activities_of(clusters, look(running(clusters), context.hosts))
    with context.store.transaction() as transaction:
        found = _written(transaction, clusters, activities, warn=True)
    swept = []
    for standing in found:
        earlier = before.get(standing.cluster.id)
        if standing.end and standing.end.due:
            swept.append(_end(context, standing, say))
        elif standing.use.warned_at is not None and (earlier is None or not earlier.warned_at):
            _warn(context, standing, say)
            swept.append(Swept(standing, "warned"))
        else:
            swept.append(Swept(standing, "kept", standing.doubt))
    return swept


def _written(
    transaction: Transaction,
    clusters: Iterable[ClusterRecord],
    activities: Mapping[int, Activity],
    *,
    warn: bool,
) -> list[Standing]:
    """Write down what was seen of clusters that are still there; return it with their ends."""
    now = time.time()
    wanted = {cluster.id for cluster in clusters}
    # As they are now: one may have been stopped, or been given another lifetime, meanwhile.
    there = [cluster for cluster in transaction.clusters() if cluster.id in wanted]
    found = []
    for standing in read_standings(transaction, there, activities, now):
        # Of one that does not run there is nothing to ask, but somebody was there.
        use = replace(standing.use, looked_at=now)
        use = warned(use, standing.end, now) if warn else use
        transaction.put_use(standing.cluster.id, use)
        end = foreseen(
            standing.cluster.spec.lifetime,
            use,
            since=standing.since,
            wanted=standing.cluster.wanted,
            now=now,
        )
        # A warning that is given only now has not been out yet.
        found.append(replace(standing, use=use, end=end))
    return found


def _warn(context: Context, standing: Standing, say: Say) -> None:
    cluster = standing.cluster
    message = (
        f"The cluster {cluster.tenant}/{cluster.name} {ending_text(standing, time.time())}. "
        f"To keep it: epic-run extend {cluster.tenant}/{cluster.name}"
    )
    say(f"Warning: {message}")
    nodes = [node for node in cluster.nodes if cluster.wanted == "running"]
    hosts = {node.host for node in nodes} & context.hosts.keys()

    def tell(host: Host) -> None:
        for node in nodes:
            if node.host == host.name:
                output_of(host, node.container, ["bash", "-c", _TELL, "bash", message])

    # Who sits before a terminal of a node that cannot be reached sees nothing anyway.
    ask_all((context.hosts[name] for name in hosts), tell)


def _end(context: Context, standing: Standing, say: Say) -> Swept:
    """End a cluster, if it still is to end when it is looked at once more."""
    cluster = standing.cluster
    name = f"{cluster.tenant}/{cluster.name}"
    looked = check(context, cluster)
    if not looked:
        return Swept(standing, "kept", "it is gone")
    now_standing = looked[0]
    end = now_standing.end
    if end is None or not end.due:
        return Swept(now_standing, "kept", "it is in use again")
    try:
        if end.action == "destroy":
            lifecycle.destroy(context, name)
        else:
            lifecycle.stop(context, name)
    except (ClusterBusy, NotFound) as problem:
        return Swept(now_standing, "busy", problem.message)
    except EpicError as problem:
        say(f"Error: {name} could not be ended: {problem.message}")
        return Swept(now_standing, "failed", problem.message)
    outcome = "destroyed" if end.action == "destroy" else "stopped"
    say(f"{name} is {outcome}: {_because(now_standing)}")
    return Swept(now_standing, outcome, _because(now_standing))


def _because(standing: Standing) -> str:
    now = time.time()
    if standing.end and standing.end.reason == IDLE:
        idle = duration_text(now - standing.use.active_at)
        return f"it was not used for {idle} (last: {standing.use.activity})"
    return f"it ran for {duration_text(now - standing.since)}"
