"""`epic-run launch`: from a template to a working cluster."""

from __future__ import annotations

from typing import Any

import click

from epic_runner.cli import completing
from epic_runner.cli.common import acting
from epic_runner.cli.show import print_endpoints, result
from epic_runner.output import emit, output_option


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files
)
@click.option("--name", "-n", help="The cluster's name; the template's by default.")
@click.option(
    "--tenant",
    "-t",
    shell_complete=completing.tenants,
    help="The tenant; the template's by default.",
)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE",
    help="Change a value of the template, such as roles.worker.count=5. May be repeated.",
)  # fmt: skip
@click.option(
    "--as", "user", metavar="USER", envvar="EPIC_USER", shell_complete=completing.members,
    help="The member who owns the cluster; the tenant's first administrator by default.",
)  # fmt: skip
@output_option
def launch(
    files: tuple[str, ...],
    name: str | None,
    tenant: str | None,
    sets: tuple[str, ...],
    user: str | None,
    output: str,
) -> None:
    """Bring a cluster up from a template, or finish doing so.

    FILE holds one Template, and may hold the Tenant and Flavors that it needs; several files are
    read together, - is standard input. The same command again finishes a launch that was cut
    off, and touches nothing that is as it should be.

    \b
    Examples:
      epic-run launch examples/sandbox.yml
      epic-run launch lab.yml --name lab2 --set roles.worker.count=5
      epic-run launch tenant.yml lab.yml --as bob --output json
    """
    from epic_runner.cli.reading import read_template
    from epic_runner.lifecycle import launch as launch_cluster

    with acting(output) as context:
        reading = read_template(context.store, files, sets, name, tenant)
        cluster = launch_cluster(
            context,
            reading.spec,
            tenant_document=reading.tenant,
            flavors=reading.flavors,
            user=user,
        )
    data: dict[str, Any] = result(cluster, "launch")
    emit(data, lambda: print_endpoints(cluster), output)
