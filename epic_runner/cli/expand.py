"""`epic-run expand`."""

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
def expand(cluster: str, role: str, by: int, tenant: str | None, output: str) -> None:
    """Add nodes to a running cluster.

    No running node is touched. The same command again after a failure finishes that
    expand; it does not add more.

    \b
    Examples:
      epic-run expand lab --by 2
      epic-run expand lab --role worker --by 1 --output json
    """
    resized(cluster, role, by, tenant, output)
