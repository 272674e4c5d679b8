"""`epic-run tenant`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from epic_runner import docker_api, lifecycle
from epic_runner.catalog import load_catalog
from epic_runner.cli import completing
from epic_runner.cli.common import acting
from epic_runner.deadline import ANSWER_SECONDS
from epic_runner.everywhere import ask_any
from epic_runner.hosts import Host
from epic_runner.output import bytes_text, emit, output_option, table
from epic_runner.quota import usage_of
from epic_runner.resources import content_root
from epic_runner.site import site_hosts
from epic_runner.spec.load import load_documents
from epic_runner.store import ClusterRecord, Store, TenantRecord

# An engine looks at every file of every volume to tell how much they hold.
COUNTING_SECONDS = 120.0
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
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files
)
@output_option
def apply_(files: Sequence[str], output: str) -> None:
    """Write the Tenants and Flavors of FILEs to the store.

    What was applied is named: tenants by their names, flavors as flavor/NAME.

    \b
    Examples:
      epic-run tenant apply examples/tenant.yml
    """
    documents = load_documents(files, catalog=load_catalog(content_root() / "images"))
    with Store().transaction() as transaction:
        for flavor in documents.flavors.values():
            transaction.apply_flavor(flavor.model_dump(mode="json"))
        known = {item.name: item.document.get("egress") for item in transaction.tenants()}
        records = [
            transaction.apply_tenant(item.model_dump(mode="json"))
            for item in documents.tenants.values()
        ]
        changed = [
            record.name
            for record in records
            if known.get(record.name) not in (None, record.document.get("egress"))
            and transaction.clusters(record.name)
        ]
    # Tenants have stood here by their bare names before flavors did, for programs too.
    names = [record.name for record in records]
    names += [f"flavor/{name}" for name in documents.flavors]

    def human() -> None:
        click.echo(f"Applied: {', '.join(names) or 'no tenant and no flavor'}.")
        for name in changed:
            click.echo(
                f"What {name} may reach takes effect with the next launch, start or repair of one "
                "of its clusters, on the hosts of that cluster."
            )

    emit(names, human, output)


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
@click.argument("name", shell_complete=completing.tenants)
@click.option(
    "--volumes",
    is_flag=True,
    help="Also tell what its volumes hold, which the hosts have to count.",
)
@output_option
def show(name: str, *, volumes: bool, output: str) -> None:
    """Show a tenant: quota and use, members, clusters.

    What is used is what flavors promise to all nodes, of stopped clusters too. Memory and cores
    are kept to by every node, disk on hosts that can enforce it, as host list tells; elsewhere it
    is watched. --volumes tells what the volumes hold in truth, and which nodes hold too much.

    \b
    Examples:
      epic-run tenant show analytics
      epic-run tenant show analytics --volumes
    """
    with Store().read() as transaction:
        record, clusters = transaction.tenant(name), transaction.clusters(name)
    data = _describe(record, clusters)
    if volumes:
        data["volumes"] = _volumes(name, with_sizes=True)
        data["over_disk"] = _over_disk(name)

    def human() -> None:
        rows = [(kind, *_figure(data, kind).split(" of ")) for kind in KINDS]
        click.echo(table(["QUOTA", "USED", "LIMIT"], [(*row, "-")[:3] for row in rows]))
        click.echo("Disk is what flavors promise; host list tells which hosts enforce it.")
        click.echo()
        if volumes:
            held = [(v["name"], v["host"], bytes_text(v["bytes"])) for v in data["volumes"]]
            click.echo(table(["VOLUME", "HOST", "HOLDS"], held))
            for node in data["over_disk"]:
                click.secho(f"{node} holds more than its flavor's disk.", fg="yellow")
            click.echo()
        members = [
            (m["user"], m["role"], "yes" if m.get("sudo") else "no") for m in data["members"]
        ]
        click.echo(table(["MEMBER", "ROLE", "SUDO"], members))
        click.echo(f"\nClusters: {', '.join(data['clusters']) or 'none'}")

    emit(data, human, output)


@tenant.command()
@click.argument("name", shell_complete=completing.tenants)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.option("--plan", is_flag=True, help="Tell what would go, and change nothing.")
@click.option("--with-clusters", is_flag=True, help="Destroy its clusters first.")
@output_option
def remove(name: str, *, yes: bool, plan: bool, with_clusters: bool, output: str) -> None:
    """Remove a tenant, with all that is in its storage and all its secrets.

    A tenant that has clusters is only removed with --with-clusters. The question lists what goes:
    clusters, volumes, secrets and schedules. What was run in the tenant is forgotten as well.

    \b
    Examples:
      epic-run tenant remove analytics --plan
      epic-run tenant remove analytics
      epic-run tenant remove analytics --with-clusters --yes
    """
    if plan:
        going = _going(name)
        emit(going, lambda: click.echo("\n".join(_going_lines(going))), output)
        return
    if not yes:
        going = _going(name)
        if going["clusters"] and not with_clusters:
            raise lifecycle.still_has_clusters(name, going["clusters"])
        click.echo("\n".join(_going_lines(going)), err=True)
        click.confirm(f"Remove tenant {name} with all of this?", abort=True, err=True)
    with acting(output) as context:
        if with_clusters:
            with context.store.read() as transaction:
                clusters = [cluster.name for cluster in transaction.clusters(name)]
            for cluster in clusters:
                lifecycle.destroy(context, cluster, name)
        lifecycle.remove_tenant(context, name)
    emit(
        {"removed": name},
        lambda: click.echo(f"{name} is gone, with its storage and secrets."),
        output,
    )


def _going(name: str) -> dict[str, Any]:
    """Return what a removal takes away."""
    from epic_runner.secrets import tenant_secrets

    with Store().read() as transaction:
        record, clusters = transaction.tenant(name), transaction.clusters(name)
        schedules = transaction.schedules(name)
    volumes = _volumes(name, with_sizes=False)
    return {
        "tenant": name,
        "clusters": [cluster.name for cluster in clusters],
        "nodes": [node.container for cluster in clusters for node in cluster.nodes],
        "volumes": volumes,
        # What hosts have in common is named by each, and is there once.
        "storage": sorted({item["place"] for item in volumes if item["place"]}),
        "secrets": tenant_secrets(name),
        "schedules": [schedule.name for schedule in schedules],
        "members": [member["user"] for member in record.members],
    }


def _going_lines(going: dict[str, Any]) -> list[str]:
    listed = {
        "clusters": going["clusters"],
        "nodes": going["nodes"],
        "volumes": [f"{item['name']} on host {item['host']}" for item in going["volumes"]],
        "storage": [f"{place}, with all files" for place in going["storage"]],
        "secrets": going["secrets"],
        "schedules": going["schedules"],
        "members": going["members"],
    }
    lines = [f"With tenant {going['tenant']} go:"]
    for kind, items in listed.items():
        lines.append(f"  {kind}: {'' if items else 'none'}".rstrip())
        lines += [f"    {item}" for item in items]
    return lines


def _volumes(tenant: str, *, with_sizes: bool) -> list[dict[str, Any]]:
    """Return name, host and place of each volume of a tenant, and its bytes if wanted.

    The place is empty but where a volume is a way to a storage that hosts have in common.
    """

    def held(host: Host) -> list[dict[str, Any]]:
        found = docker_api.volumes(host, {"epic.tenant": tenant})
        sizes = docker_api.volume_sizes(host) if with_sizes and found else {}
        return [
            {"name": item["Name"], "host": host.name, "place": docker_api.place_of(item)}
            | ({"bytes": sizes.get(item["Name"], 0)} if with_sizes else {})
            for item in sorted(found, key=lambda item: str(item["Name"]))
        ]

    answers = ask_any(
        site_hosts(Store()).values(), held, COUNTING_SECONDS if with_sizes else ANSWER_SECONDS
    )
    return [item for held_there in answers.values() for item in held_there]


def _over_disk(tenant: str) -> list[str]:
    """Return the nodes of a tenant, as CLUSTER NODE, that hold more than their flavor's disk."""
    labels = {"epic.tenant": tenant, "epic.cluster": None}
    answers = ask_any(
        site_hosts(Store()).values(), lambda host: docker_api.containers(host, labels)
    )
    over = [item for found in answers.values() for item in found if docker_api.is_over_disk(item)]
    return sorted(
        f"{item['Labels']['epic.cluster']} {item['Labels']['epic.role']}-"
        f"{item['Labels']['epic.index']}"
        for item in over
    )


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
