"""`epic-run lifetime`."""

from __future__ import annotations

import time

import click

from epic_runner.cli import completing
from epic_runner.cli.common import tenant_option
from epic_runner.output import duration_text, emit, output_option, table


@click.group()
def lifetime() -> None:
    """See who uses clusters and when they end, and end those that are due.

    \b
    Examples:
      epic-run lifetime check
      epic-run lifetime sweep
      epic-run extend lab --by 4h
    """


@lifetime.command()
@click.argument("cluster", required=False, shell_complete=completing.clusters)
@tenant_option
@output_option
def check(cluster: str | None, tenant: str | None, output: str) -> None:
    """Look who uses a cluster, or all clusters, and show when they end.

    Nothing is warned of or ended, but what was seen is written down: `list` shows it.

    \b
    Examples:
      epic-run lifetime check
      epic-run lifetime check lab --output json
    """
    from epic_runner import sweeping
    from epic_runner.lifecycle import Context
    from epic_runner.site import site_hosts
    from epic_runner.standing import ending_text
    from epic_runner.store import Store

    store = Store()
    only = None
    if cluster is not None:
        with store.read() as transaction:
            only = transaction.find_cluster(cluster, tenant)
    found = sweeping.check(Context(store, site_hosts(store)), only)
    store.close()
    now = time.time()

    def human() -> None:
        if not found:
            click.echo("There are no clusters.")
            return
        rows = [
            (
                item.cluster.tenant,
                item.cluster.name,
                item.cluster.wanted,
                duration_text(now - item.since),
                "-"
                if item.cluster.wanted != "running"
                else duration_text(max(now - item.use.active_at, 0)),
                item.use.activity,
                ending_text(item, now) or "-",
            )
            for item in found
        ]
        click.echo(table(["TENANT", "NAME", "WANTED", "AGE", "UNUSED", "LAST USE", "ENDS"], rows))

    emit([item.as_dict(now) for item in found], human, output)


@lifetime.command()
@output_option
def sweep(output: str) -> None:
    """Look at all clusters once: warn of ends that are near, end what is due.

    `epic-run schedule serve` does this every minute. Warnings are in `list` and `status`, and on
    the terminals of who is logged in on the cluster. What could not be asked counts as used: a
    host that does not answer keeps its clusters.

    \b
    Examples:
      epic-run lifetime sweep
      epic-run lifetime sweep --output json
    """
    from epic_runner import sweeping
    from epic_runner.lifecycle import Context
    from epic_runner.site import site_hosts
    from epic_runner.store import Store

    store = Store()

    def say(text: str) -> None:
        if output != "json":
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    try:
        swept = sweeping.sweep(Context(store, site_hosts(store)), say)
    finally:
        store.close()
    now = time.time()

    def human() -> None:
        for item in swept:
            if item.outcome in ("kept", "busy") and item.reason:
                cluster = item.standing.cluster
                say(f"{cluster.tenant}/{cluster.name} is kept: {item.reason}")

    data = [
        {**item.standing.as_dict(now), "outcome": item.outcome, "reason": item.reason}
        for item in swept
    ]
    emit(data, human, output)
    if any(item.outcome == "failed" for item in swept):
        raise click.exceptions.Exit(1)
