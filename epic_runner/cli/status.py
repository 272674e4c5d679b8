"""`epic-run status`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import click

from epic_runner import connections
from epic_runner.cli import completing
from epic_runner.cli.common import probes, tenant_option
from epic_runner.cli.show import print_status, print_use
from epic_runner.hosts import Host
from epic_runner.output import emit, output_option
from epic_runner.site import site_hosts
from epic_runner.standing import Standing, glance, standings
from epic_runner.status import cluster_status, last_operation
from epic_runner.store import ClusterRecord, Store


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
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
        history = transaction.declared_history(record)
    hosts = site_hosts(store)
    with ThreadPoolExecutor(1) as pool:
        standing = pool.submit(_standing, store, record, hosts)
        found = cluster_status(
            record,
            hosts,
            probes(),
            last_operation(store, record),
            with_token=not hide_token,
            troubles=troubles,
            history=history,
        )
    known = standing.result()
    found = replace(found, use=known.as_dict(time.time()))

    def human() -> None:
        print_status(found)
        print_use(known)

    emit(found.as_dict(), human, output)


def _standing(store: Store, cluster: ClusterRecord, hosts: Mapping[str, Host]) -> Standing:
    """Return what is known of a cluster's use: asked now, where it ends by itself."""
    if cluster.spec.lifetime and cluster.wanted == "running":
        return glance(store, cluster, hosts)
    return standings(store, [cluster])[0]
