"""`epic-run tenant`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from epic_runner import lifecycle
from epic_runner.catalog import load_catalog
from epic_runner.cli.common import acting
from epic_runner.output import bytes_text, emit, output_option, table
from epic_runner.quota import usage_of
from epic_runner.resources import content_root
from epic_runner.spec.load import load_documents
from epic_runner.store import ClusterRecord, Store, TenantRecord

KINDS = ("clusters", "nodes", "cores", "memory", "disk")


@click.group()
def tenant() -> None:
    """Apply, list, show and remove tenants.

    \b
    Examples:
      epic-run tenant apply examples/tenant.yml
      epic-run tenant show analytics
    """


@tenant.command("apply")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@output_option
def apply_(files: Sequence[str], output: str) -> None:
    """Write the Tenants and Flavors of FILEs to the store.

    \b
    Examples:
      epic-run tenant apply examples/tenant.yml
    """
    documents = load_documents(files, catalog=load_catalog(content_root() / "images"))
    with Store().transaction() as transaction:
        for flavor in documents.flavors.values():
            transaction.apply_flavor(flavor.model_dump(mode="json"))
        records = [
            transaction.apply_tenant(item.model_dump(mode="json"))
            for item in documents.tenants.values()
        ]
    names = [record.name for record in records]
    emit(names, lambda: click.echo(f"Applied: {', '.join(names) or 'no tenant'}."), output)


@tenant.command("list")
@output_option
def list_(output: str) -> None:
    """List tenants with what they use.

    \b
    Examples:
      epic-run tenant list
    """
    with Store().read() as transaction:
        records, clusters = transaction.tenants(), transaction.clusters()
    data = [_describe(record, clusters) for record in records]
    rows = [
        (item["name"], len(item["members"]), *(_figure(item, kind) for kind in KINDS))
        for item in data
    ]
    emit(
        data,
        lambda: click.echo(table(["TENANT", "MEMBERS", *(k.upper() for k in KINDS)], rows)),
        output,
    )


@tenant.command()
@click.argument("name")
@output_option
def show(name: str, output: str) -> None:
    """Show a tenant: quota and use, members, clusters.

    \b
    Examples:
      epic-run tenant show analytics
    """
    with Store().read() as transaction:
        record, clusters = transaction.tenant(name), transaction.clusters(name)
    data = _describe(record, clusters)

    def human() -> None:
        rows = [(kind, *_figure(data, kind).split(" of ")) for kind in KINDS]
        click.echo(table(["QUOTA", "USED", "LIMIT"], [(*row, "-")[:3] for row in rows]))
        click.echo()
        members = [
            (m["user"], m["role"], "yes" if m.get("sudo") else "no") for m in data["members"]
        ]
        click.echo(table(["MEMBER", "ROLE", "SUDO"], members))
        click.echo(f"\nClusters: {', '.join(data['clusters']) or 'none'}")

    emit(data, human, output)


@tenant.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@output_option
def remove(name: str, *, yes: bool, output: str) -> None:
    """Remove an empty tenant, with all that is in its storage.

    \b
    Examples:
      epic-run tenant remove analytics
    """
    if not yes:
        click.confirm(f"Remove tenant {name} and all data in its storage?", abort=True)
    with acting(output) as context:
        lifecycle.remove_tenant(context, name)
    emit({"removed": name}, lambda: click.echo(f"{name} is gone, with its storage."), output)


def _describe(record: TenantRecord, clusters: Sequence[ClusterRecord]) -> dict[str, Any]:
    own = [cluster for cluster in clusters if cluster.tenant == record.name]
    return {
        "name": record.name,
        "members": record.members,
        "quota": dict(record.quota),
        "usage": asdict(usage_of(own)),
        "clusters": [cluster.name for cluster in own],
    }


def _figure(item: dict[str, Any], kind: str) -> str:
    used, limit = item["usage"][kind], item["quota"].get(kind)
    text = bytes_text if kind in ("memory", "disk") else str
    return text(used) if limit is None else f"{text(used)} of {text(limit)}"
