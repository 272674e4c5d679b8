"""`epic-run list`."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import click

from epic_runner.cli import completing
from epic_runner.cli.abandoned import tell_sweep
from epic_runner.output import bytes_text, duration_text, emit, output_option, table
from epic_runner.site import site_hosts
from epic_runner.standing import Standing, ending_text, standings
from epic_runner.store import Store


@click.command("list")
@click.option(
    "--tenant", "-t", shell_complete=completing.tenants, help="Only this tenant's clusters."
)
@output_option
def list_(tenant: str | None, output: str) -> None:
    """List clusters.

    \b
    Examples:
      epic-run list
      epic-run list --tenant analytics --output json
    """
    store = Store()
    tell_sweep(store)
    with store.read() as transaction:
        records = transaction.clusters(tenant)
    running = _running(store) if records else {}
    rows = [_row(item, running) for item in standings(store, records)]

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
                "-" if row["idle_seconds"] is None else duration_text(row["idle_seconds"]),
                row["ends"] or "-",
            )
            for row in rows
        ]
        heads = [
            "TENANT", "NAME", "APP", "OWNER", "WANTED", "NODES", "CORES", "MEMORY", "AGE", "UNUSED",
            "ENDS",
        ]  # fmt: skip
        click.echo(table(heads, cells))

    emit(rows, human, output)


def _running(store: Store) -> dict[str, int] | None:
    """Return how many containers run, by tenant and cluster; None when no host answers."""
    from epic_runner import docker_api
    from epic_runner.everywhere import ask_all

    found, silent = ask_all(
        site_hosts(store).values(),
        lambda host: docker_api.containers(host, {"epic.cluster": None}),
    )
    for why in silent.values():
        click.echo(f"Warning: {why}", err=True)
    labels = [
        container["Labels"]
        for containers in found.values()
        for container in containers
        if container["State"] == "running"
    ]
    counts = Counter(f"{label['epic.tenant']}/{label['epic.cluster']}" for label in labels)
    return counts if found else None


def _row(standing: Standing, running: dict[str, int] | None) -> dict[str, Any]:
    record, now = standing.cluster, time.time()
    known = standing.as_dict(now)
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
        "age": _age(now - record.created_at),
        "idle_seconds": known["idle_seconds"] if record.wanted == "running" else None,
        "last_use": known["last_use"],
        "ends_at": known["ends_at"],
        "ends": ending_text(standing, now),
    }


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
