"""`epic-run restart`."""

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
def restart(cluster: str, tenant: str | None, output: str) -> None:
    """Stop a cluster and start it again.

    \b
    Examples:
      epic-run restart lab
      epic-run restart analytics/lab --output json
    """
    with acting(output) as context:
        record = lifecycle.restart(context, cluster, tenant)
    emit(result(record, "restart"), lambda: print_endpoints(record), output)
