"""`epic-run export`."""

from __future__ import annotations

import click

from epic_runner.catalog import load_catalog
from epic_runner.cli import completing
from epic_runner.cli.common import tenant_option
from epic_runner.export import as_yaml, documents
from epic_runner.output import emit, output_option
from epic_runner.resources import content_root
from epic_runner.store import Store


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@tenant_option
@output_option
def export(cluster: str, tenant: str | None, output: str) -> None:
    """Write a running cluster as a template, with its present counts.

    The scripts of declared actions stand in it, as `command`.

    \b
    Examples:
      epic-run export lab > lab.yml
      epic-run export lab | epic-run launch - --name lab2
    """
    with Store().read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
        scripts = transaction.declared_scripts(record.id)
    items = documents(record, load_catalog(content_root() / "images"), scripts)
    emit(items, lambda: click.echo(as_yaml(items), nl=False), output)
