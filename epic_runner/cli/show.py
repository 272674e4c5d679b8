"""What several verbs print about a cluster."""

from __future__ import annotations

from typing import Any

import click

from epic_runner import docker_api
from epic_runner.everywhere import ask_any
from epic_runner.gateway.site import behind, folder, load
from epic_runner.output import table
from epic_runner.site import site_hosts
from epic_runner.status import (
    ClusterStatus,
    EndpointStatus,
    endpoints,
    published_ports,
    way_to,
)
from epic_runner.store import ClusterRecord, Store

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
    if status.endpoints and status.wanted == "running":
        click.echo()
        for item in status.endpoints:
            click.echo(f"{item.label:<14} {item.url}")
    operation = status.operation
    if operation and operation["state"] != "done":
        click.echo()
        click.echo(
            f"The last operation, {operation['verb']}, is {operation['state']}"
            + (f" in phase {operation['phase']!r}" if operation["phase"] else "")
            + (f": {operation['error']}" if operation["error"] else ".")
        )
    _print_hint(next_step(status) or status.way)


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
    warned = [node.name for node in status.nodes if node.warning]
    if warned and not status.strays and all(node.state == "ready" for node in status.nodes):
        return (
            f"epic-run shell {status.name} {warned[0]} -- du -xh --max-depth=2 /data tells where."
        )
    if status.troubles and not status.strays and all(n.state == "ready" for n in status.nodes):
        return f"start or launch it, or launch {status.name} without the connection."
    return f"epic-run {'stop' if status.wanted == 'stopped' else 'repair'} {status.name}"
