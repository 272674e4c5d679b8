"""`epic-run status`."""

from __future__ import annotations

import click

from epic_runner import connections
from epic_runner.cli.common import probes, tenant_option
from epic_runner.cli.show import print_status
from epic_runner.output import emit, output_option
from epic_runner.site import site_hosts
from epic_runner.status import cluster_status, last_operation
from epic_runner.store import Store


@click.command()
@click.argument("cluster")
@click.option("--hide-token", is_flag=True, help="Leave the notebooks' token out of addresses.")
@tenant_option
@output_option
def status(cluster: str, *, hide_token: bool, tenant: str | None, output: str) -> None:
    """Show a cluster: health, nodes, endpoints, what is missing and why.

    Health is green when all is as wanted, yellow when it works in part, red when it does not.

    \b
    Examples:
      epic-run status lab
      epic-run status lab --output json
    """
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        troubles = connections.troubles(record.spec, transaction.clusters())
    found = cluster_status(
        record,
        site_hosts(store),
        probes(),
        last_operation(store, record),
        with_token=not hide_token,
        troubles=troubles,
    )
    emit(found.as_dict(), lambda: print_status(found), output)
