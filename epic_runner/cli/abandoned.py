"""What several verbs do first: clusters of jobs whose epic-run was killed are removed."""

from __future__ import annotations

import click

from epic_runner.store import Store


def tell_sweep(store: Store) -> None:
    """Have clusters removed whose job's epic-run was killed, and say so."""
    with store.read() as transaction:
        if not transaction.jobs(only_unsettled=True):
            return
    from epic_runner.transient import sweep

    for job in sweep(store):
        click.echo(
            f"The job {job.id} has lost its epic-run: it is finished now, and its cluster "
            f"{job.tenant}/{job.cluster} removed.",
            err=True,
        )
