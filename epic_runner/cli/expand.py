"""`epic-run expand`."""

from __future__ import annotations

import click

from epic_runner import lifecycle
from epic_runner.cli.common import acting, by_options, tenant_option
from epic_runner.cli.show import result
from epic_runner.output import emit, output_option


@click.command()
@click.argument("cluster")
@by_options
@tenant_option
@output_option
def expand(cluster: str, role: str, by: int, tenant: str | None, output: str) -> None:
    """Add nodes to a running cluster.

    No running node is touched. The same command again after a failure finishes that
    expand; it does not add more.

    \b
    Examples:
      epic-run expand lab --by 2
      epic-run expand lab --role worker --by 1 --output json
    """
    with acting(output) as context:
        record = lifecycle.expand(context, cluster, role, by, tenant)
    count = record.spec.role(role).count
    emit(
        result(record, "expand"), lambda: click.echo(f"{cluster} has {count} {role} nodes."), output
    )
