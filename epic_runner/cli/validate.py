"""`epic-run validate`: every mistake in files, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from epic_runner.catalog import load_catalog
from epic_runner.cli import completing
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import EpicError, InputErrors
from epic_runner.output import bytes_text, counted, emit, output_option, table
from epic_runner.resources import content_root, home
from epic_runner.spec.load import Documents, load_documents
from epic_runner.spec.models import Flavor, Tenant
from epic_runner.spec.resolve import draft_clusters


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a value of the Template or Job, such as roles.worker.count=5. May be repeated.",
)
@output_option
@click.pass_context
def validate(
    context: click.Context, files: tuple[str, ...], sets: tuple[str, ...], output: str
) -> None:
    """Check files, and report every mistake with its line.

    A FILE may be a folder of files, or - for standard input. Nothing is started or changed.

    \b
    Examples:
      epic-run validate lab.yml
      epic-run validate tenants/ lab.yml --set roles.worker.count=5
      epic-run validate - --output json < lab.yml
    """
    catalog = load_catalog(content_root() / "images")
    flavors, tenants = _known()
    try:
        documents = load_documents(
            files, sets, catalog=catalog, known_flavors=flavors, known_tenants=tenants
        )
    except InputErrors as error:
        if output != "json":
            raise
        emit({"ok": False, "mistakes": [asdict(item) for item in error.mistakes]}, _nothing, output)
        context.exit(error.exit_code)
    clusters = draft_clusters(documents, catalog=catalog, known_flavors=flavors)
    summary = _summary(documents, clusters)
    emit(summary, lambda: _print(summary), output)


def _known() -> tuple[dict[str, Flavor] | None, dict[str, Tenant] | None]:
    """Return the flavors and tenants that were applied here before.

    Where there is no store yet, tenants may well be applied elsewhere: they are not looked for.
    A store that does not answer keeps nobody from checking files: then neither is known.
    """
    if "EPIC_DATABASE_URL" not in os.environ and not (home() / "store.db").exists():
        return {}, None
    # Most checking needs no database, so its library is not loaded before here.
    from epic_runner.store import Store

    try:
        store = Store()
        with store.read() as reading:
            flavors = {
                name: Flavor.model_validate(item) for name, item in reading.flavors().items()
            }
            tenants = {
                item.name: Tenant.model_validate(dict(item.document)) for item in reading.tenants()
            }
        store.close()
    except EpicError:
        return None, None
    return flavors, tenants


def _summary(documents: Documents, clusters: Mapping[str, ClusterSpec]) -> dict[str, Any]:
    """Return what the files hold, as JSON-ready data."""
    return {
        "ok": True,
        "flavors": [
            {"name": name, "cores": item.cores, "memory_bytes": item.memory}
            for name, item in documents.flavors.items()
        ],
        "tenants": [
            {"name": name, "members": len(item.members)} for name, item in documents.tenants.items()
        ],
        "templates": [
            {"name": name, "app": item.app, "tenant": item.tenant} | _figures(clusters.get(name))
            for name, item in documents.templates.items()
        ],
        "jobs": [
            {
                "name": name,
                "file": item.submit.file,
                "cluster": item.cluster.name,
                "template": item.cluster.template,
            }
            for name, item in documents.jobs.items()
        ],
        "apps": [{"name": name, "image": item.reference} for name, item in documents.apps.items()],
    }


def _figures(cluster: ClusterSpec | None) -> dict[str, Any]:
    if cluster is None:
        return {}
    return {
        "nodes": cluster.node_count,
        "cores": cluster.total.cores,
        "memory_bytes": cluster.total.memory_bytes,
        "roles": {role.name: role.count for role in cluster.roles},
    }


def _print(summary: Mapping[str, Any]) -> None:
    rows = [
        (
            "Flavor",
            item["name"],
            f"{counted(item['cores'], 'core')}, {bytes_text(item['memory_bytes'])}",
        )
        for item in summary["flavors"]
    ]
    rows += [
        ("Tenant", item["name"], counted(item["members"], "member")) for item in summary["tenants"]
    ]
    rows += [("Template", item["name"], _template_text(item)) for item in summary["templates"]]
    rows += [("Job", item["name"], _job_text(item)) for item in summary["jobs"]]
    rows += [("App", item["name"], item["image"]) for item in summary["apps"]]
    click.echo(table(("KIND", "NAME", "WHAT IT IS"), rows))
    click.echo("ok")


def _template_text(item: Mapping[str, Any]) -> str:
    if "nodes" not in item:
        return f"{item['app']}, with flavors that are not known here"
    return (
        f"{item['app']}, {counted(item['nodes'], 'node')}, {counted(item['cores'], 'core')}, "
        f"{bytes_text(item['memory_bytes'])} of memory"
    )


def _job_text(item: Mapping[str, Any]) -> str:
    if item["cluster"]:
        return f"{item['file']} on {item['cluster']}"
    return f"{item['file']} on a cluster of its own, of the template {item['template']}"


def _nothing() -> None:
    """Print nothing: the mistakes are in the data."""
