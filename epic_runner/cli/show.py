"""What several verbs print about a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from epic_runner import docker_api
from epic_runner.cli.common import when
from epic_runner.everywhere import ask_any
from epic_runner.gateway.site import behind, folder, load
from epic_runner.output import duration_text, shortened, table
from epic_runner.site import site_hosts
from epic_runner.standing import Standing, ending_text
from epic_runner.status import (
    ClusterStatus,
    EndpointStatus,
    endpoints,
    published_ports,
    way_to,
)
from epic_runner.store import ClusterRecord, Store

# A cluster that ends by itself and that nobody has looked at for so long will not end.
UNWATCHED_SECONDS = 900.0

COLOURS = {"green": "green", "yellow": "yellow", "red": "red"}


def result(cluster: ClusterRecord, verb: str) -> dict[str, Any]:
    """Return what a verb has done, for programs."""
    return {
        "verb": verb,
        "cluster": cluster.name,
        "tenant": cluster.tenant,
        "owner": cluster.owner,
        "nodes": [node.short_name for node in cluster.staying()],
        "endpoints": [
            {"name": item.name, "node": item.node, "url": item.url} for item in addresses(cluster)
        ],
    }


def addresses(cluster: ClusterRecord) -> tuple[EndpointStatus, ...]:
    """Return where a cluster is reached, by its gateway where it has one."""
    # Where there never was a gateway, there is nothing to ask Docker for.
    if not cluster.nodes or not folder().exists():
        return endpoints(cluster, with_token=True)
    hosts = site_hosts(Store())
    labels = {"epic.tenant": cluster.tenant, "epic.cluster": cluster.name}
    used = [hosts[name] for name in {node.host for node in cluster.nodes} if name in hosts]
    found = ask_any(used, lambda host: docker_api.containers(host, labels))
    return endpoints(
        cluster,
        with_token=True,
        gateway=behind(cluster.tenant, cluster.name, hosts),
        published=published_ports(item for items in found.values() for item in items),
    )


def print_endpoints(cluster: ClusterRecord) -> None:
    """Print that a cluster is ready, and where."""
    click.secho(f"{cluster.name} is ready.", bold=True)
    found = addresses(cluster)
    for item in found:
        click.echo(f"  {item.label:<14} {item.url}")
    _print_hint(way_to(cluster, found, load()))


def print_status(status: ClusterStatus) -> None:
    """Print all there is to know of a cluster now."""
    health = click.style(status.health, fg=COLOURS[status.health], bold=True)
    because = f": {status.reason}" if status.reason else ""
    click.echo(
        f"{status.tenant}/{status.name}  {status.app}  owner {status.owner}  {health}{because}"
    )
    rows = [
        (node.name, node.state, node.host, node.reason or node.warning) for node in status.nodes
    ]
    click.echo()
    click.echo(table(["NODE", "STATE", "HOST", "REASON"], rows))
    if status.actions:
        click.echo()
        click.echo(table(["ACTION", "SHA256", "STATE", "ENDED", "NODES"], _actions(status)))
    if status.endpoints and status.wanted == "running":
        click.echo()
        for item in status.endpoints:
            click.echo(f"{item.label:<14} {item.url}")
    if status.awaits and status.wanted == "running":
        click.echo()
        click.echo(f"Its addresses are told when these are done: {', '.join(status.awaits)}.")
    operation = status.operation
    if operation and operation["state"] != "done":
        click.echo()
        click.echo(
            f"The last operation, {operation['verb']}, is {operation['state']}"
            + _where(operation)
            + (f": {operation['error']}" if operation["error"] else ".")
        )
    _print_hint(next_step(status) or status.way)


def print_use(standing: Standing) -> None:
    """Print how old a cluster is, whether it is used, and when it ends by itself."""
    now, use = time.time(), standing.use
    parts = [f"running for {duration_text(now - standing.since)}"]
    if standing.cluster.wanted == "running" and use.looked_at:
        idle = duration_text(max(now - use.active_at, 0))
        parts.append(f"unused for {idle} (last: {use.activity})")
    if ending := ending_text(standing, now):
        parts.append(ending)
    if standing.cluster.wanted == "running" or ending:
        click.echo()
        click.secho(", ".join(parts), fg="yellow" if use.warned_at else None)
    if standing.end is None:
        return
    name = standing.cluster.name
    if use.warned_at:
        _print_hint(f"epic-run extend {name} keeps it longer.")
    elif now - standing.seen_at > UNWATCHED_SECONDS:
        _print_hint("nobody looks after lifetimes: epic-run schedule serve does.")


def _actions(status: ClusterStatus) -> list[tuple[str, str, str, str, str]]:
    """Return a row for all nodes on which a declared action was one run, with one end."""
    rows: dict[tuple[str, str, str, str | None], tuple[str, list[str]]] = {}
    for position, action in enumerate(status.actions):
        for node, told in action.nodes.items():
            key = (f"{position}", action.sha256, told["state"], told.get("action"))
            ended = told.get("ended_at")
            rows.setdefault(key, (when(ended) if ended else "", []))[1].append(node)
    return [
        (shortened(status.actions[int(position)].name), digest[:12], state, at, ", ".join(nodes))
        for (position, digest, state, _), (at, nodes) in rows.items()
    ]


def _where(operation: Mapping[str, Any]) -> str:
    """Return the phase that an operation is in, unless its error begins with that."""
    phase, error = operation["phase"], operation["error"] or ""
    return f" in phase {phase!r}" if phase and not error.startswith(f"{phase}: ") else ""


def _print_hint(hint: str) -> None:
    if hint:
        click.echo(click.style("Hint: ", fg="cyan") + f" {hint}")


def next_step(status: ClusterStatus) -> str | None:
    """Return the command that brings a cluster to what is wanted; None when it is there."""
    state = status.operation["state"] if status.operation else "done"
    if state == "running":
        return None
    if status.wanted == "absent":
        return f"epic-run destroy {status.name} --yes"
    if status.health == "green":
        return None
    if status.silent:
        # A repair goes on without them, or waits in vain.
        return f"epic-run doctor tells what is wrong with {' and '.join(status.silent)}."
    if not status.strays and all(node.state == "ready" for node in status.nodes):
        step = _beside_nodes(status)
        if step is not None:
            return step
    return f"epic-run {_mending(status)} {status.name}"


def _mending(status: ClusterStatus) -> str:
    """Return the verb that mends nodes which are not as wanted."""
    if status.wanted == "running":
        return "repair"
    # What a stopped cluster lacks is made by its start.
    late = {node.state for node in status.nodes} - {"stopped", "pending"}
    return "stop" if late else "start"


def _beside_nodes(status: ClusterStatus) -> str | None:
    """Return what to do where all nodes are ready, and something else is amiss."""
    warned = [node.name for node in status.nodes if node.warning]
    if warned:
        return (
            f"epic-run shell {status.name} {warned[0]} -- du -xh --max-depth=2 /data tells where."
        )
    if status.troubles:
        return f"start or launch it, or launch {status.name} without the connection."
    return "epic-run gateway status tells what to do." if status.gateway_away else None
