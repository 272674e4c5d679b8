"""`epic-run repair`."""

from __future__ import annotations

from typing import Any

import click

from epic_runner import lifecycle, recovery
from epic_runner.cli import completing
from epic_runner.cli.common import acting, tenant_option
from epic_runner.cli.show import result
from epic_runner.output import emit, output_option


@click.command()
@click.argument("cluster", required=False, shell_complete=completing.clusters)
@tenant_option
@output_option
def repair(cluster: str | None, tenant: str | None, output: str) -> None:
    """Bring a drifted cluster back, and rebuild what the store has lost.

    Missing and stopped nodes come back with their volumes, changed files inside nodes are mended,
    containers that don't belong are removed. A cluster that Docker has and the store has lost is
    written back to the store first. Without CLUSTER only that is done, for all clusters, and what
    belongs to nothing is reported.

    \b
    Examples:
      epic-run repair lab
      epic-run repair
    """
    with acting(output) as context:
        recovered = recovery.recover(context.store, context.hosts, cluster, tenant)
        record = lifecycle.repair(context, cluster, tenant) if cluster else None
    data: dict[str, Any] = {"recovered": recovered.clusters, "orphans": recovered.orphans}
    if record:
        data |= result(record, "repair")

    def human() -> None:
        for name in recovered.clusters:
            click.echo(f"{name} was written back to the store.")
        for orphan in recovered.orphans:
            click.echo(f"Orphan: {orphan}.")
        if record:
            click.echo(
                f"{record.name} is stopped, as wanted; a start makes containers that are missing."
                if record.wanted == "stopped"
                else f"{record.name} is as wanted."
            )
        elif not recovered.clusters and not recovered.orphans:
            click.echo("Store and Docker agree.")

    emit(data, human, output)
