"""`epic-run inventory`."""

from __future__ import annotations

import click

from epic_runner import connections
from epic_runner.cli import completing
from epic_runner.cli.common import tenant_option
from epic_runner.host_secrets import without_secrets
from epic_runner.literal import inventory_yaml
from epic_runner.output import emit, output_option
from epic_runner.resources import content_root
from epic_runner.site import site_hosts
from epic_runner.site_inventory import site_inventory
from epic_runner.store import Store


@click.command()
@click.argument("cluster", required=False, shell_complete=completing.clusters)
@click.option("--content", is_flag=True, help="Print the folder of playbooks and ansible.cfg.")
@tenant_option
@output_option
def inventory(cluster: str | None, *, content: bool, tenant: str | None, output: str) -> None:
    """Write a cluster's Ansible inventory, with which its playbooks run without epic-run.

    Passwords of hosts are left out.

    \b
    Examples:
      epic-run inventory lab > lab.inventory.yml
      ansible-playbook -i lab.inventory.yml playbooks/launch.yml
      cd "$(epic-run inventory --content)"
      ansible -i inventories/epic.yml lab -m command -a hostname
    """
    if content:
        root = content_root()
        emit({"content": str(root)}, lambda: click.echo(root), output)
        return
    if cluster is None:
        raise click.UsageError("Name a cluster: epic-run list shows them.")
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        owner = transaction.tenant(record.tenant)
        connected = connections.connected(record.spec, transaction.clusters())
    data, secrets = without_secrets(site_inventory(record, owner, site_hosts(store), connected))
    emit(data, lambda: click.echo(inventory_yaml(data), nl=False), output)
    for host, variables in secrets.items():
        click.echo(
            f"Left out, since secrets are not printed: {', '.join(variables)} of host {host}; "
            "ansible-playbook takes --ask-become-pass or -e @FILE.",
            err=True,
        )
