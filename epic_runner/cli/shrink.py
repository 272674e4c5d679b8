"""`epic-run shrink`."""

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
def shrink(cluster: str, role: str, by: int, tenant: str | None, output: str) -> None:
    """Remove the newest nodes of a node role, in order.

    A leaving Spark worker takes no more work and hands over its blocks first; running jobs go
    on. The same command again after a failure finishes that shrink.

    \b
    Examples:
      epic-run shrink lab --by 2
      epic-run shrink lab --role worker --by 1 --output json
    """
    with acting(output) as context:
        record = lifecycle.shrink(context, cluster, role, by, tenant)
    count = record.spec.role(role).count
    emit(
        result(record, "shrink"), lambda: click.echo(f"{cluster} has {count} {role} nodes."), output
    )
