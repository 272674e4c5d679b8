"""`epic-run shrink`."""

from __future__ import annotations

import click

from epic_runner.cli import completing
from epic_runner.cli.common import by_options, tenant_option
from epic_runner.cli.resizing import resized
from epic_runner.output import output_option


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
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
    resized(cluster, role, -by, tenant, output)
