"""`epic-run logs`."""

from __future__ import annotations

import json
import signal

import click

from epic_runner import logs as reading
from epic_runner.cli import completing
from epic_runner.cli.common import node_of, tenant_option
from epic_runner.logs import Source, Tail
from epic_runner.output import emit, output_option
from epic_runner.site import site_hosts
from epic_runner.store import Store


@click.command()
@click.argument("cluster", shell_complete=completing.clusters)
@click.option(
    "--node",
    shell_complete=completing.nodes,
    help="Only this node, such as worker-2; or the first one of a node role.",
)
@click.option(
    "--service",
    "-s",
    shell_complete=completing.services,
    help="Only this service, such as spark-master.",
)
@click.option(
    "--lines", "-n", type=click.IntRange(min=0), default=20, show_default=True,
    help="How many last lines of each log.",
)  # fmt: skip
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@tenant_option
@output_option
def logs(
    cluster: str,
    *,
    node: str | None,
    service: str | None,
    lines: int,
    follow: bool,
    tenant: str | None,
    output: str,
) -> None:
    """Show the logs of a cluster's services.

    Stopped nodes have logs too; of a node that never had a service running, what its container
    printed is shown. With --output json, --follow prints an object for every line, and one with a
    problem for a log that cannot be read.

    \b
    Examples:
      epic-run logs lab
      epic-run logs lab --node worker-2 -n 200
      epic-run logs lab --service spark-master --follow
    """
    store = Store()
    with store.read() as transaction:
        record = transaction.find_cluster(cluster, tenant)
    hosts = site_hosts(store)
    store.close()
    sources = reading.sources(record, node_of(record, node) if node else None, service)
    if not follow:
        tails = reading.tails(hosts, sources, lines)
        if tails and all(tail.is_silent for tail in tails):
            raise reading.unread(tail.problem for tail in tails)
        emit([_as_dict(tail) for tail in tails], lambda: _print(tails), output)
        return
    shower = _Shower(sources, output)
    try:
        reading.follow(hosts, sources, lines, shower.show, shower.miss)
    except KeyboardInterrupt:
        # The ordinary end of following, for those who press it twice as well.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise click.exceptions.Exit(0) from None


class _Shower:
    """Prints followed lines: with where they come from, if that is more than one place.

    To people, what is amiss with several logs at once is told once.
    """

    def __init__(self, sources: list[Source], output: str) -> None:
        self._json = output == "json"
        self._missed: set[str] = set()
        self._alone = len(sources) == 1
        self._width = max((len(_title(source)) for source in sources), default=0)

    def show(self, source: Source, line: str) -> None:
        if self._json:
            click.echo(json.dumps({**_place(source), "line": line}))
        elif self._alone:
            click.echo(line)
        else:
            title = click.style(_title(source).ljust(self._width), fg="cyan")
            click.echo(f"{title} | {line}")

    def miss(self, source: Source, problem: str) -> None:
        if self._json:
            click.echo(json.dumps({**_place(source), "problem": problem}))
        elif problem not in self._missed:
            self._missed.add(problem)
            self.show(source, f"({problem})")


def _print(tails: list[Tail]) -> None:
    for number, tail in enumerate(tails):
        if len(tails) > 1:
            if number:
                click.echo()
            click.secho(f"==> {_title(tail.source)} <==", bold=True)
        for line in tail.lines:
            click.echo(line)
        if tail.problem:
            click.echo(f"({tail.problem})", err=True)


def _title(source: Source) -> str:
    return f"{source.node.name} {source.service}"


def _place(source: Source) -> dict[str, str]:
    return {"node": source.node.short_name, "service": source.service}


def _as_dict(tail: Tail) -> dict[str, object]:
    return {**_place(tail.source), "lines": list(tail.lines), "problem": tail.problem or None}
