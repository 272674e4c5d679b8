"""`epic-run list`."""

from __future__ import annotations

import time
from typing import Any

import click

from epic_runner.errors import EpicError
from epic_runner.hosts import all_hosts
from epic_runner.output import bytes_text, emit, output_option, table
from epic_runner.store import ClusterRecord, Store


@click.command("list")
@click.option("--tenant", "-t", help="Only this tenant's clusters.")
@output_option
def list_(tenant: str | None, output: str) -> None:
    """List clusters.

    \b
    Examples:
      epic-run list
      epic-run list --tenant analytics --output json
    """
    with Store().read() as transaction:
        records = transaction.clusters(tenant)
    running = _running() if records else {}
    rows = [_row(record, running) for record in records]

    def human() -> None:
        if not rows:
            click.echo("There are no clusters; epic-run launch FILE makes one.")
            return
        cells = [
            (
                *(row[key] for key in ("tenant", "name", "app", "owner", "wanted")),
                f"{row['running']}/{row['nodes']}",
                row["cores"],
                bytes_text(row["memory_bytes"]),
                row["age"],
            )
            for row in rows
        ]
        heads = ["TENANT", "NAME", "APP", "OWNER", "WANTED", "NODES", "CORES", "MEMORY", "AGE"]
        click.echo(table(heads, cells))

    emit(rows, human, output)


def _running() -> dict[str, int] | None:
    """Return how many containers run, by tenant and cluster; None when Docker doesn't answer."""
    from epic_runner import docker_api

    counts: dict[str, int] = {}
    try:
        for host in all_hosts().values():
            for container in docker_api.containers(host, {"epic.cluster": None}):
                if container["State"] == "running":
                    labels = container["Labels"]
                    key = f"{labels['epic.tenant']}/{labels['epic.cluster']}"
                    counts[key] = counts.get(key, 0) + 1
    except EpicError as problem:
        click.echo(f"Warning: {problem.message}", err=True)
        return None
    return counts


def _row(record: ClusterRecord, running: dict[str, int] | None) -> dict[str, Any]:
    total = record.spec.total
    up = "?" if running is None else running.get(f"{record.tenant}/{record.name}", 0)
    return {
        "tenant": record.tenant,
        "name": record.name,
        "app": f"{record.spec.app}@{record.spec.app_version}",
        "owner": record.owner,
        "wanted": record.wanted,
        "nodes": record.spec.node_count,
        "running": up,
        "cores": total.cores,
        "memory_bytes": total.memory_bytes,
        "age": _age(time.time() - record.created_at),
    }


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
