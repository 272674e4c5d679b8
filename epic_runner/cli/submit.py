"""`epic-run submit`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import click

from epic_runner import jobs, tracking
from epic_runner.actions.printing import write
from epic_runner.cli import completing
from epic_runner.cli.common import (
    FIRST_ADMIN,
    Command,
    as_option,
    env_option,
    seconds_of,
    tenant_option,
    timeout_option,
)
from epic_runner.cli.words import WithArguments, pairs
from epic_runner.errors import EpicError, OperationFailed
from epic_runner.lifecycle import Context
from epic_runner.output import emit, output_option
from epic_runner.processes import CANCELLED
from epic_runner.programs import JobRequest
from epic_runner.site import site_hosts
from epic_runner.store import JobRecord, Store
from epic_runner.tracking import Following

# How long a cancelled job's last output is waited for.
LAST_WORDS_SECONDS = 2.0
CUT_OFF = "Interrupted at the job's start; epic-run job list tells whether it runs."


def _carried(option: str, name: str, what: str) -> Callable[[Command], Command]:
    """Return what adds an option for files that go along with the program."""
    return click.option(
        option, name, multiple=True, metavar="FILES", shell_complete=completing.listed_files,
        help=f"{what}, divided by commas. May be repeated.",
    )  # fmt: skip


def _divided(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(item for value in values for item in value.split(",") if item)


@click.command(cls=WithArguments)
@click.argument("cluster", shell_complete=completing.clusters)
@click.argument("file", shell_complete=completing.files)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=completing.files)
@click.option(
    "--conf", "-c", "conf", multiple=True, metavar="KEY=VALUE",
    help="A property of Spark, such as spark.cores.max=2. May be repeated.",
)  # fmt: skip
@_carried("--py-files", "py_files", "More Python files (.py, .zip, .egg)")
@_carried("--jars", "jars", "More jars for the class paths of driver and executors")
@_carried("--files", "files", "Files for their working folders, found by SparkFiles.get")
@_carried("--archives", "archives", "Archives unpacked there, in a folder as by env.tar.gz#env")
@click.option("--class", "main_class", default="", help="The main class of a jar.")
@click.option("--name", "-n", default="", help="The name of the Spark application.")
@env_option("program")
@click.option(
    "--on", default="", metavar="NAME", shell_complete=completing.connected,
    help="The connected cluster on whose workers it runs; the driver stays on CLUSTER.",
)  # fmt: skip
@timeout_option("End it after this long, such as 90s or 2h.")
@click.option("--background", "-b", is_flag=True, help="Return the job's id as soon as it runs.")
@as_option(f"The member who runs it; {FIRST_ADMIN}")
@tenant_option
@output_option
def submit(
    cluster: str,
    file: str,
    arguments: tuple[str, ...],
    *,
    conf: tuple[str, ...],
    py_files: tuple[str, ...],
    jars: tuple[str, ...],
    files: tuple[str, ...],
    archives: tuple[str, ...],
    main_class: str,
    name: str,
    environment: tuple[str, ...],
    on: str,
    timeout: str | None,
    background: bool,
    user: str | None,
    tenant: str | None,
    output: str,
) -> None:
    """Run a job on a cluster, and follow its output.

    FILE is a Python program (.py), a jar, an R or a shell script (.R, .sh) or a notebook (.ipynb)
    of this machine; or of the nodes, when its path begins with /tenant/ or /data/. What follows
    FILE goes to the job.

    The job's output is passed on as it comes, and its exit code is that of this command. Ctrl-C
    cancels the job. With --output json a summary is the last line on stderr. With --background the
    job goes on without this command: epic-run job shows it.

    \b
    Examples:
      epic-run submit lab examples/jobs/pi.py 100
      epic-run submit lab --as bob --conf spark.cores.max=2 train.py --rows 5000
      epic-run submit lab --background --timeout 2h report.ipynb
      epic-run submit sandbox --on big train.py
      epic-run submit lab --py-files features.py,lib.zip /tenant/jobs/score.py
      epic-run submit lab --jars udf.jar --files rates.csv --archives env.tar.gz#env job.py
    """
    request = JobRequest(
        file=file,
        arguments=arguments,
        conf=pairs("--conf", conf),
        py_files=_divided(py_files),
        jars=_divided(jars),
        files=_divided(files),
        archives=_divided(archives),
        main_class=main_class,
        name=name,
        environment=pairs("--env", environment),
        on=on,
        timeout_seconds=seconds_of(timeout),
    )
    store = Store()
    try:
        context = Context(store, site_hosts(store))
        if background:
            try:
                job = jobs.start(context, cluster, request, tenant=tenant, user=user)
            except KeyboardInterrupt:
                click.echo(f"\n{CUT_OFF}", err=True)
                raise click.exceptions.Exit(CANCELLED) from None
            data = {"job": job.id, "cluster": job.cluster, "tenant": job.tenant}
            emit(data, lambda: _tell_background(job), output)
            return
        code = _Run(context, output).run(cluster, request, tenant, user)
    finally:
        store.close()
    raise click.exceptions.Exit(code)


def _tell_background(job: JobRecord) -> None:
    click.echo(job.id)
    click.echo(f"Hint:  epic-run job logs {job.id} -f", err=True)


class _Run:
    """One job from its start to its end, whatever comes between."""

    def __init__(self, context: Context, output: str) -> None:
        self._context = context
        self._output = output
        self._following: Following | None = None

    def run(self, cluster: str, request: JobRequest, tenant: str | None, user: str | None) -> int:
        """Start the job, follow it, and return the exit code of the command."""
        try:
            jobs.start(
                self._context, cluster, request, tenant=tenant, user=user, announce=self._announce
            )
            assert self._following is not None  # noqa: S101 - for the type checker: announced
            job = self._following.result()
        except KeyboardInterrupt:
            if self._following is None:
                click.echo(f"\n{CUT_OFF}", err=True)
                return CANCELLED
            return self._cancelled(self._following)
        if job.state == "cancelled":
            job = replace(job, rc=CANCELLED)
            click.echo(f"The job {job.id} was cancelled.", err=True)
        self._summary(replace(job, rc=1) if job.rc is None else job)
        if job.rc is None:
            raise OperationFailed(f"The job {job.id} is {job.state}: {job.reason}.")
        return job.rc

    def _announce(self, job: JobRecord) -> None:
        self._following = Following(self._context, job, write)

    def _cancelled(self, following: Following) -> int:
        job = following.job
        click.echo(f"\nCancelling the job {job.id} ...", err=True)
        try:
            job = tracking.cancel(self._context, job)
            # Its last words may be on their way.
            following.wait(LAST_WORDS_SECONDS)
        except (EpicError, KeyboardInterrupt):
            hint = f"epic-run job cancel {job.id}"
            click.echo(f"It could not be cancelled; it may go on. To end it: {hint}", err=True)
            self._summary(replace(job, state="unknown", rc=1))
            return 1
        click.echo("It is cancelled: its processes have ended.", err=True)
        self._summary(replace(job, rc=CANCELLED))
        return CANCELLED

    def _summary(self, job: JobRecord) -> None:
        if self._output != "json":
            return
        summary: dict[str, Any] = {
            "verb": "submit",
            "cluster": job.cluster,
            "tenant": job.tenant,
            "node": job.node,
            "user": job.user,
            "job": job.id,
            "applications": job.applications,
            "state": job.state,
            "exit_code": job.rc,
            "seconds": round((job.ended_at or time.time()) - job.started_at, 3),
        }
        click.echo(json.dumps(summary, sort_keys=True), err=True)
