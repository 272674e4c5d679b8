"""What `epic-run expand` and `epic-run shrink` do with what they were given."""

from __future__ import annotations

import click

from epic_runner import lifecycle
from epic_runner.cli.common import acting
from epic_runner.cli.show import result
from epic_runner.output import counted, emit


def resized(cluster: str, role: str, by: int, tenant: str | None, output: str) -> None:
    """Add `by` nodes, or remove them where it is below 0, and tell how many there are."""
    with acting(output) as context:
        record = lifecycle.resize(context, cluster, role, by, tenant)
    count = record.spec.role(role).count
    emit(
        result(record, "expand" if by > 0 else "shrink"),
        lambda: click.echo(f"{cluster} has {counted(count, f'{role} node')}."),
        output,
    )
