"""`epic-run extend`."""

from __future__ import annotations

import time

import click

from epic_runner.cli import completing
from epic_runner.cli.common import tenant_option
from epic_runner.output import emit, output_option


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@click.option(
    "--by", default="2h", show_default=True, metavar="DURATION",
    help="How much longer, from its foreseen end, such as 90m or 1d.",
)  # fmt: skip
@tenant_option
@output_option
def extend(cluster: str, by: str, tenant: str | None, output: str) -> None:
    """Put off the end of a cluster that has a lifetime.

    Its end comes no earlier than that, used or not. A warning that was given is taken back; the
    next one comes before the new end.

    \b
    Examples:
      epic-run extend lab
      epic-run extend analytics/lab --by 1d
    """
    from epic_runner.errors import InputError
    from epic_runner.spec.quantities import parse_duration
    from epic_runner.standing import ending_text
    from epic_runner.standing import extend as put_off
    from epic_runner.store import Store

    try:
        seconds = parse_duration(by)
    except ValueError as problem:
        raise InputError(f"--by {by} {problem}.") from None
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
    if record.spec.lifetime is None:
        raise InputError(
            f"{record.name} has no lifetime: it lasts until somebody ends it.",
            "Add `lifetime: {max_idle: 2h}` to its template, and launch it again.",
        )
    standing = put_off(store, cluster, seconds, tenant)
    store.close()
    now = time.time()

    def human() -> None:
        text = ending_text(standing, now) or "does not end while it is stopped"
        click.echo(f"{record.name} {text}, if nobody uses it.")

    emit(standing.as_dict(now), human, output)
