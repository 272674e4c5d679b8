"""`epic-run destroy`."""

from __future__ import annotations

from dataclasses import replace

import click

from epic_runner import lifecycle
from epic_runner.cli import completing
from epic_runner.cli.common import acting, tenant_option
from epic_runner.cli.show import result
from epic_runner.inventory import storage_name
from epic_runner.output import counted, emit, output_option
from epic_runner.site import site_hosts
from epic_runner.store import Store


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@tenant_option
@output_option
def destroy(cluster: str, *, yes: bool, tenant: str | None, output: str) -> None:
    """Remove a cluster and its nodes' volumes.

    No node needs to be alive. The tenant's storage (/tenant on the nodes) stays.

    \b
    Examples:
      epic-run destroy lab
      epic-run destroy analytics/lab --yes
    """
    if not yes:
        store = Store()
        record = lifecycle.doomed(lifecycle.Context(store, site_hosts(store)), cluster, tenant)
        click.confirm(
            f"Destroy {record.tenant}/{record.name} with its "
            f"{counted(len(record.nodes), 'node')} and all that is in their homes?",
            abort=True,
            err=True,
        )
    with acting(output) as context:
        record = lifecycle.destroy(context, cluster, tenant)

    def human() -> None:
        click.echo(
            f"{record.name} is gone. The storage of tenant {record.tenant} (volume "
            f"{storage_name(record.tenant)}) is kept."
        )

    # Without its nodes: neither they nor their addresses, with the token in them, are there now.
    emit(result(replace(record, nodes=()), "destroy"), human, output)
