"""Which node has had which declared action, and which has to get it: pure functions.

A node has had an action when it went well in the very container that the node is now. So one that
was made anew has had nothing, whatever its volume keeps, and one that was only restarted has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epic_runner.cluster import CONTINUE, DeclaredAction, Node
from epic_runner.output import shortened
from epic_runner.store.records import (
    ClusterRecord,
    DeclaredHistory,
    DeclaredRun,
    NodeOutcome,
)


@dataclass(frozen=True)
class Had:
    """What became of a declared action in the container that a node is now.

    Attributes:
        action: The id of the action that it was.
        outcome: What the node made of it.
        started_at: Seconds since the epoch.
    """

    action: str
    outcome: NodeOutcome
    started_at: float


def had(key: str, node: str, container: str | None, runs: Iterable[DeclaredRun]) -> Had | None:
    """Return how a declared action went in a node's present container.

    That it went well once counts for more than what came later; of others the last one counts.

    Args:
        key: The action's key.
        node: The node's short name.
        container: The id of its container; None where there is none.
        runs: All runs of the cluster's declared actions, the oldest first.
    """
    found = [
        Had(run.action, run.nodes[node], run.started_at)
        for run in runs
        if run.declared == key
        and container is not None
        and run.containers.get(node) == container
        and node in run.nodes
    ]
    well = [item for item in found if item.outcome.state == "done"]
    return next(reversed(well or found), None)


def is_for(action: DeclaredAction, node: Node) -> bool:
    """Whether a node is of a node role that gets an action."""
    return not action.roles or node.role in action.roles


def due(
    action: DeclaredAction,
    nodes: Iterable[Node],
    containers: Mapping[str, str],
    history: DeclaredHistory,
) -> list[str]:
    """Return the short names of the nodes that have to get an action.

    Until all nodes have had it together once, each has to. From then on, nodes that come later get
    only what is to be replayed.

    Args:
        action: The declared action.
        nodes: The cluster's nodes, in their order.
        containers: The id of each node's container, by its short name.
        history: What was run of the cluster's declared actions.
    """
    if action.key in history.done and not action.replay:
        return []
    found = []
    for node in nodes:
        name = node.short_name
        last = had(action.key, name, containers.get(name), history.runs)
        if is_for(action, node) and not (last and last.outcome.state == "done"):
            found.append(name)
    return found


def awaited(cluster: ClusterRecord, history: DeclaredHistory) -> tuple[str, ...]:
    """Return the names of the declared actions before whose end nobody uses a cluster.

    One that all nodes have had together once holds up nothing any more, whatever a node that comes
    later still lacks.
    """
    return tuple(
        shortened(action.name)
        for action in cluster.spec.actions
        if action.on_failure != CONTINUE and action.key not in history.done
    )


@dataclass(frozen=True)
class Coverage:
    """How far one declared action has covered the nodes of a cluster.

    Attributes:
        action: The action.
        nodes: The nodes of the node roles that it is for, in their order.
        had: What became of it on each node on which it was begun.
        due: The nodes that have yet to get it, in their order.
    """

    action: DeclaredAction
    nodes: tuple[str, ...]
    had: Mapping[str, Had]
    due: tuple[str, ...]

    def trouble(self, node: str) -> str:
        """Return why a node is not ready because of the action; empty where it is."""
        if node not in self.due:
            return ""
        last = self.had.get(node)
        if last is None:
            return f"{shortened(self.action.name)} has not been run"
        return f"{shortened(self.action.name)}: {how(last.outcome)}"

    @property
    def holds_up(self) -> bool:
        """Whether a node without it is none that people may use."""
        return self.action.on_failure != CONTINUE


def coverages(
    cluster: ClusterRecord, containers: Mapping[str, str], history: DeclaredHistory
) -> tuple[Coverage, ...]:
    """Return how far each declared action has covered the nodes of its cluster."""
    nodes: Sequence[Node] = cluster.staying()
    return tuple(
        Coverage(
            action,
            tuple(node.short_name for node in nodes if is_for(action, node)),
            {
                node.short_name: last
                for node in nodes
                if (
                    last := had(
                        action.key,
                        node.short_name,
                        containers.get(node.short_name),
                        history.runs,
                    )
                )
            },
            tuple(due(action, nodes, containers, history)),
        )
        for action in cluster.spec.actions
    )


def container_ids(cluster: ClusterRecord, live: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the ids of nodes' containers by short name, of Docker's summaries by name."""
    return {
        node.short_name: str(live[node.container]["Id"])
        for node in cluster.nodes
        if node.container in live
    }


def how(outcome: NodeOutcome) -> str:
    """Return in words how a script ended on a node."""
    code = "" if outcome.rc in (None, 0) else f" with exit code {outcome.rc}"
    return f"{outcome.state}{code}" + (f": {outcome.reason}" if outcome.reason else "")
