"""`epic-run stop`."""

from __future__ import annotations

import click

from epic_runner import lifecycle
from epic_runner.cli import completing
from epic_runner.cli.common import acting, tenant_option
from epic_runner.cli.show import result
from epic_runner.output import emit, output_option


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@tenant_option
@output_option
def stop(cluster: str, tenant: str | None, output: str) -> None:
    """Stop a cluster; its data stays.

    Nodes end in order. What the cluster has reserved of the tenant's quota stays reserved.

    \b
    Examples:
      epic-run stop lab
      epic-run stop analytics/lab --output json
    """
    with acting(output) as context:
        record = lifecycle.stop(context, cluster, tenant)
    emit(
        result(record, "stop"),
        lambda: click.echo(
            f"{record.name} is stopped; epic-run start {record.name} brings it back."
        ),
        output,
    )
