"""`epic-run host`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from epic_runner import hosting
from epic_runner.cli import completing
from epic_runner.cli.common import acting
from epic_runner.gateway import site
from epic_runner.hosting import Finding, HostState
from epic_runner.output import bytes_text, counted, emit, output_option, table


@click.group()
def host() -> None:
    """Prepare, check, list, drain and remove Docker hosts.

    The hosts are those of an Ansible inventory: hosts.yml under EPIC_HOME, or what EPIC_INVENTORY
    names, with the group docker_hosts. Without one, this machine is the only host.

    \b
    Examples:
      EPIC_INVENTORY=hosts.yml epic-run host prepare
      epic-run host list
    """


@host.command()
@output_option
def prepare(output: str) -> None:
    """Make all hosts ready: Docker, kernel settings, one swarm for the networks between them.

    What is there already is used as it is; again, it changes nothing.

    \b
    Examples:
      epic-run host prepare
    """
    with acting(output) as context:
        found = hosting.prepare(context)
        states = hosting.states(context)
    _tell(found, f"Ready: {counted(len(states), 'host')}.", output)


@host.command()
@click.argument("names", nargs=-1, metavar="[HOST]...", shell_complete=completing.hosts)
@output_option
def check(names: Sequence[str], output: str) -> None:
    """Look at hosts: reach, versions, clocks, ports between them, packet sizes, disk.

    Exits with 1 where something has to be mended. What is seen is remembered for placing nodes.

    \b
    Examples:
      epic-run host check
      epic-run host check host-1 host-2 --output json
    """
    with acting(output) as context:
        found = hosting.check(context, names)
    _tell(found, "All is well.", output)


@host.command("list")
@output_option
def list_(output: str) -> None:
    """List hosts: capacity, what is promised to nodes, what is free.

    Cores, memory and disk are what may be promised in all, overcommit included. Disk is enforced
    where the host can keep a node to its flavor's, and watched elsewhere.

    \b
    Examples:
      epic-run host list
    """
    with acting("json") as context:
        states = hosting.states(context)
    heads = ["HOST", "RACK", "STATE", "NODES", "CORES", "MEMORY", "DISK", "DOCKER"]
    emit(
        [_as_dict(item) for item in states],
        lambda: click.echo(table(heads, [_row(item) for item in states])),
        output,
    )


@host.command()
@click.argument("name", metavar="HOST", shell_complete=completing.hosts)
@click.option("--lost", is_flag=True, help="The machine is gone: make its nodes anew elsewhere.")
@click.option("--undo", is_flag=True, help="Let the host take new nodes again.")
@output_option
def drain(name: str, *, lost: bool, undo: bool, output: str) -> None:
    """Move what can move off a host, and let it take no new nodes.

    Workers move: a new one is made elsewhere, then the old one hands over its work and leaves. A
    master stays, for its homes are on this host; destroy its cluster, or take the host for lost.

    \b
    Examples:
      epic-run host drain host-3
      epic-run host drain host-3 --lost
      epic-run host drain host-3 --undo
    """
    with acting(output) as context:
        if undo:
            back, left = hosting.undrain(context, name), []
        else:
            back, left = hosting.Returned(), hosting.drain(context, name, lost=lost)

    def human() -> None:
        if undo:
            for cluster in back.cleaned:
                click.echo(f"What was left of {cluster} was removed; its volumes are kept.")
            for cluster in back.unknown:
                click.echo(
                    f"It has something of {cluster}, which nobody here knows: epic-run destroy "
                    f"{cluster} --yes removes it, epic-run repair {cluster} brings it back."
                )
            if back.gateway:
                click.echo("A gateway that the site does not have any more was removed.")
            click.echo(f"{name} takes new nodes again.")
            return
        click.echo(f"{name} takes no new nodes.")
        for node in left:
            click.echo(f"  stays: {node}")
        gateway = site.load()
        if gateway is not None and gateway.host == name:
            click.echo(
                click.style("Hint: ", fg="cyan") + "The gateway was there: epic-run gateway down "
                "--lost, then epic-run gateway up --host OTHER makes another one."
            )

    data = {"host": name, "draining": not undo, "left": left, **asdict(back)}
    emit(data, human, output)


@host.command()
@click.argument("name", metavar="HOST", shell_complete=completing.hosts)
@output_option
def remove(name: str, output: str) -> None:
    """Take a host without nodes out of the swarm, and forget it.

    The machine need not be alive. Its Docker stays as it is; take it out of the inventory yourself.

    \b
    Examples:
      epic-run host drain host-3 && epic-run host remove host-3
    """
    with acting(output) as context:
        hosting.remove(context, name)
    emit(
        {"removed": name},
        lambda: click.echo(f"{name} is forgotten. Take it out of the inventory as well."),
        output,
    )


def _tell(found: Sequence[Finding], fine: str, output: str) -> None:
    wrong = [finding for finding in found if finding.mend]

    def human() -> None:
        where: dict[tuple[str, str], list[str]] = {}
        for finding in found:
            where.setdefault((finding.what, finding.mend), []).append(finding.host)
        for (what, mend), hosts in where.items():
            mark = click.style("!", fg="red") if mend else click.style("-", fg="yellow")
            click.echo(f"{mark} {', '.join(sorted(hosts))}: {what}")
            if mend:
                click.echo(click.style("  Hint: ", fg="cyan") + mend)
        if not wrong:
            click.secho(fine, fg="green")

    emit([asdict(finding) for finding in found], human, output)
    if wrong:
        raise click.exceptions.Exit(1)


def _as_dict(item: HostState) -> dict[str, Any]:
    return {
        "name": item.host.name,
        "rack": item.host.rack,
        "state": item.state,
        "nodes": item.nodes,
        "cores": item.cores,
        "memory_bytes": item.memory,
        "disk_bytes": item.disk,
        "used": asdict(item.used),
        "disk": hosting.disk_keeping(item.record.facts),
        "facts": dict(item.record.facts),
        "checked_at": item.record.checked_at,
    }


def _row(item: HostState) -> tuple[str, ...]:
    disk = "-"
    if item.disk:
        kept = hosting.disk_keeping(item.record.facts)
        disk = f"{bytes_text(item.used.disk_bytes)} of {bytes_text(item.disk)}, {kept}"
    return (
        item.host.name,
        item.host.rack or "-",
        item.state,
        str(item.nodes),
        f"{item.used.cores} of {item.cores}",
        f"{bytes_text(item.used.memory_bytes)} of {bytes_text(item.memory)}",
        disk,
        str(item.record.facts.get("docker_version") or "-"),
    )
