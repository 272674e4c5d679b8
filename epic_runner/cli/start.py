"""`epic-run start`."""

from __future__ import annotations

import click

from epic_runner import lifecycle
from epic_runner.cli import completing
from epic_runner.cli.common import acting, tenant_option
from epic_runner.cli.show import print_endpoints, result
from epic_runner.output import emit, output_option


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@tenant_option
@output_option
def start(cluster: str, tenant: str | None, output: str) -> None:
    """Start a stopped cluster.

    Nodes keep their names, addresses, volumes and ports.

    \b
    Examples:
      epic-run start lab
      epic-run start analytics/lab --output json
    """
    with acting(output) as context:
        record = lifecycle.start(context, cluster, tenant)
    emit(result(record, "start"), lambda: print_endpoints(record), output)
