"""`epic-run job`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from epic_runner.cli import completing
from epic_runner.cli.abandoned import tell_sweep
from epic_runner.cli.common import COLOURS, tenant_option, when
from epic_runner.lifecycle import Context
from epic_runner.output import emit, output_option, table
from epic_runner.site import site_hosts
from epic_runner.store import JobRecord, Store

if TYPE_CHECKING:
    from epic_runner.spark_apps import Application

_CUT = ": more came than the limit of what is kept"
# In the order in which stages go through them.
_STAGES = ("complete", "active", "pending", "failed", "skipped")


@click.group()
def job() -> None:
    """Look at jobs: list them, show them and what they printed, cancel them.

    \b
    Examples:
      epic-run job list lab
      epic-run job show 20250301-1015
      epic-run job logs 20250301-1015 -f
    """


@job.command("list")
@click.argument("cluster", required=False, shell_complete=completing.clusters)
@click.option("--lines", "-n", type=click.IntRange(min=1), default=20, show_default=True,
              help="How many, the newest first.")  # fmt: skip
@tenant_option
@output_option
def list_(cluster: str | None, lines: int, tenant: str | None, output: str) -> None:
    """List jobs: who, when, what, and how they ended; of a cluster, or of all.

    Jobs of clusters that are gone are listed as well.

    \b
    Examples:
      epic-run job list
      epic-run job list lab --lines 100 --output json
    """
    from epic_runner import tracking
    from epic_runner.cluster import split_name

    if cluster:
        tenant, cluster = split_name(cluster, tenant)
    with _context() as context:
        tell_sweep(context.store)
        with context.store.read() as transaction:
            found = transaction.jobs(tenant, cluster, limit=lines)
            if cluster and not found:
                # One that is gone has its jobs still; one that never was is a slip of the pen.
                transaction.find_cluster(cluster, tenant)
        found = tracking.settle_all(context, found)
    rows = [
        (item.id, when(item.started_at), f"{item.tenant}/{item.cluster}", item.user, item.name,
         item.state, "" if item.rc is None else item.rc, _took(item))
        for item in found
    ]  # fmt: skip
    heads = ["JOB", "WHEN", "CLUSTER", "USER", "WHAT", "STATE", "CODE", "TOOK"]
    emit(
        [as_dict(item) for item in found],
        lambda: click.echo(table(heads, rows) if rows else "There are no jobs."),
        output,
    )


@job.command()
@click.argument("key", metavar="JOB", shell_complete=completing.jobs)
@output_option
def show(key: str, output: str) -> None:
    """Show a job: how it goes on or ended, Spark's id of it, its stages and its page.

    JOB is an id, or a beginning of it. While the job runs, its page is Spark's own; when it is
    over, the history server's, where its cluster runs the service spark-history.

    \b
    Examples:
      epic-run job show 20250301-1015
    """
    from epic_runner import tracking

    with _context() as context:
        found = tracking.settle(context, _find(context, key))
        application, page = _spark(context, found)
        found = _find(context, found.id) if application else found
    data = as_dict(found) | {
        "application": application.id if application else None,
        "stages": dict(application.stages) if application else {},
        "page": page or None,
    }
    emit(data, lambda: _print(found, application, page), output)


def _spark(context: Context, found: JobRecord) -> tuple[Application | None, str]:
    """Return a job's application as it is now, and the address of its page."""
    from dataclasses import replace

    from epic_runner import spark_apps, tracking
    from epic_runner.cli.show import addresses
    from epic_runner.errors import EpicError

    try:
        host, node = tracking.place(context, found)
        with context.store.read() as transaction:
            name = found.options.get("on") or found.cluster
            there = transaction.find_cluster(name, found.tenant)
    except EpicError:
        if not found.applications:
            return None, ""
        return spark_apps.Application(found.applications[-1], stages=dict(found.stages)), ""
    keys = spark_apps.ids(host, node, found.id) or found.applications
    if not keys:
        return None, ""
    hosts = {**context.hosts, host.name: host}
    now = spark_apps.look(hosts, node, keys[-1], there, is_over=found.is_over)
    with context.store.transaction() as transaction:
        transaction.set_job(found.id, applications=keys, stages=now.stages or found.stages)
    page = next((item.url for item in addresses(there) if item.name == now.page), "")
    now = replace(now, stages=now.stages or dict(found.stages))
    return now, now.url(page) if page else ""


def _print(found: JobRecord, application: Application | None, page: str) -> None:
    from epic_runner.transient import job_folder

    state = click.style(found.state, fg=COLOURS.get(found.state, "red"), bold=True)
    code = "" if found.rc in (None, 0) else f" with exit code {found.rc}"
    why = f": {found.reason}" if found.reason else ""
    where = f"{found.tenant}/{found.cluster}"
    kept = job_folder(found.id)
    click.echo(f"{found.id}  {where}  {found.user}  {when(found.started_at)}  {state}{code}{why}")
    lines = [
        ("what", f"{found.name}  {found.file} {' '.join(found.options['arguments'])}".rstrip()),
        ("driver", f"{found.node} on host {found.host}" if found.node else ""),
        ("took", _took(found)),
        ("kept", str(kept) if found.is_transient and kept.exists() else ""),
        ("sha256", found.digest[:12]),
        ("cut", " and ".join(found.cut) + _CUT if found.cut else ""),
    ]
    if application:
        counts = application.stages
        stages = [f"{counts[key]} {key}" for key in _STAGES if key in counts]
        lines += [
            ("application", f"{application.id}  {application.name}".rstrip()),
            ("stages", ", ".join(stages)),
            ("page", page),
        ]
    for title, text in lines:
        if text:
            click.echo(f"  {title:<12} {text}")
    if found.state in ("failed", "timed out"):
        click.echo(f"Hint:  epic-run job logs {found.id}")


@job.command()
@click.argument("key", metavar="JOB", shell_complete=completing.jobs)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@click.option("--stdout", "only", flag_value="stdout", help="Only what it printed on stdout.")
@click.option("--stderr", "only", flag_value="stderr", help="Only what it printed on stderr.")
def logs(key: str, only: str | None, *, follow: bool) -> None:
    """Show what a job has printed, stdout on stdout and stderr on stderr, byte for byte.

    \b
    Examples:
      epic-run job logs 20250301-1015 -f
      epic-run job logs 20250301-1015 --stdout > result.txt
    """
    from epic_runner import following, tracking, transient
    from epic_runner.actions.printing import plain

    def show_piece(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        if only in (None, "stderr" if is_error else "stdout"):
            plain(data, is_error)

    with _context() as context:
        found = _find(context, key)
        kept = transient.job_folder(found.id)
        if found.is_transient and found.is_over and kept.exists():
            for name in ("stdout", "stderr"):
                with contextlib.suppress(FileNotFoundError), (kept / name).open("rb") as file:
                    while data := file.read(1 << 16):
                        show_piece(data, name == "stderr")
            return
        reach, node = tracking.way(context, found)
        following.read_output(reach, node, found.id, show_piece, follow=follow)


@job.command()
@click.argument("key", metavar="JOB", shell_complete=completing.jobs)
@output_option
def cancel(key: str, output: str) -> None:
    """End a job with all its processes; a cluster that was made for it is removed.

    \b
    Examples:
      epic-run job cancel 20250301-1015
    """
    from epic_runner import tracking

    with _context() as context:
        over = tracking.cancel(context, tracking.settle(context, _find(context, key)))
    emit(as_dict(over), lambda: _tell_cancelled(over), output)


def _tell_cancelled(over: JobRecord) -> None:
    if over.is_over:
        click.echo(f"The job {over.id} is {over.state}.")
    else:
        click.echo(f"The job {over.id} has not begun, and will not; its cluster is removed.")


@job.command(hidden=True)
@click.argument("key", metavar="JOB", shell_complete=completing.jobs)
def finish(key: str) -> None:
    """Finish a job on a cluster of its own whose epic-run is gone: follow it, remove the cluster.

    \b
    Examples:
      epic-run job finish 20250301-101500-0a1b2c3d
    """
    from epic_runner import transient

    with _context() as context:
        transient.finish(context, key)


@contextmanager
def _context() -> Iterator[Context]:
    store = Store()
    try:
        yield Context(store, site_hosts(store))
    finally:
        store.close()


def _find(context: Context, key: str) -> JobRecord:
    with context.store.read() as transaction:
        return transaction.job(key)


def as_dict(found: JobRecord) -> dict[str, Any]:
    """Return a job for programs."""
    hidden = ("controller", "pid", "pid_started", "is_settled")
    return {name: value for name, value in vars(found).items() if name not in hidden}


def _took(found: JobRecord) -> str:
    seconds = (found.ended_at or time.time()) - found.started_at
    return f"{seconds:.1f} s"
