"""`epic-run submit`."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import click

from epic_runner import jobs
from epic_runner.actions.printing import write
from epic_runner.cli.common import tenant_option
from epic_runner.cli.words import WithArguments, pairs
from epic_runner.errors import EpicError
from epic_runner.hosts import Host
from epic_runner.jobs import Job, JobRequest
from epic_runner.lifecycle import Context
from epic_runner.output import output_option
from epic_runner.site import site_hosts
from epic_runner.store import Store

# What a shell makes of a program that Ctrl-C ended: 128 and the signal's number.
CANCELLED = 130

# How long a cancelled job's last output is waited for.
LAST_WORDS_SECONDS = 2.0


@click.command(cls=WithArguments)
@click.argument("cluster")
@click.argument("file")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--conf", "-c", "conf", multiple=True, metavar="KEY=VALUE",
    help="A property of Spark, such as spark.cores.max=2. May be repeated.",
)  # fmt: skip
@click.option(
    "--py-files", "py_files", multiple=True, metavar="FILES",
    help="More Python files (.py, .zip, .egg), divided by commas. May be repeated.",
)  # fmt: skip
@click.option("--class", "main_class", default="", help="The main class of a jar.")
@click.option("--name", "-n", default="", help="The name of the Spark application.")
@click.option(
    "--env", "-e", "environment", multiple=True, metavar="NAME=VALUE",
    help="A variable of the program's environment. May be repeated.",
)  # fmt: skip
@click.option(
    "--on", default="", metavar="NAME",
    help="The connected cluster on whose workers it runs; the driver stays on CLUSTER.",
)  # fmt: skip
@click.option(
    "--as", "user", metavar="USER", envvar="EPIC_USER",
    help="The member who runs it; the tenant's first administrator by default.",
)  # fmt: skip
@tenant_option
@output_option
def submit(
    cluster: str,
    file: str,
    arguments: tuple[str, ...],
    conf: tuple[str, ...],
    py_files: tuple[str, ...],
    main_class: str,
    name: str,
    environment: tuple[str, ...],
    on: str,
    user: str | None,
    tenant: str | None,
    output: str,
) -> None:
    """Run a job on a cluster, and follow its output.

    FILE is a Python program (.py), a jar, an R or a shell script (.R, .sh) of this machine; or of
    the nodes, when its path begins with /tenant/ or /data/. What follows FILE goes to the job.

    The job's output is passed on as it comes, and its exit code is that of this command. Ctrl-C
    cancels the job. With --output json a summary is the last line on stderr.

    \b
    Examples:
      epic-run submit lab examples/jobs/pi.py 100
      epic-run submit lab --as bob --conf spark.cores.max=2 train.py --rows 5000
      epic-run submit sandbox --on big train.py
      epic-run submit lab --py-files features.py,lib.zip /tenant/jobs/score.py
    """
    request = JobRequest(
        file=file,
        arguments=arguments,
        conf=pairs("--conf", conf),
        py_files=tuple(item for files in py_files for item in files.split(",") if item),
        main_class=main_class,
        name=name,
        environment=pairs("--env", environment),
        on=on,
    )
    store = Store()
    try:
        code = _Run(Context(store, site_hosts(store)), output).run(cluster, request, tenant, user)
    finally:
        store.close()
    raise click.exceptions.Exit(code)


class _Run:
    """One job from its start to its end, whatever comes between."""

    def __init__(self, context: Context, output: str) -> None:
        self._context = context
        self._output = output
        self._following: _Following | None = None

    def run(self, cluster: str, request: JobRequest, tenant: str | None, user: str | None) -> int:
        """Start the job, follow it, and return the exit code of the command."""
        try:
            job = jobs.start(
                self._context, cluster, request, tenant=tenant, user=user, announce=self._announce
            )
            assert self._following is not None  # noqa: S101 - for the type checker: announced
            code = self._following.result()
        except KeyboardInterrupt:
            if self._following is None:
                raise
            return self._cancelled(self._following)
        self._summary(job, "done" if code == 0 else "failed", code)
        return code

    def _announce(self, job: Job) -> None:
        self._following = _Following(self._context.hosts[job.node.host], job)
        self._following.start()

    def _cancelled(self, following: _Following) -> int:
        job = following.job
        click.echo(f"\nCancelling the job {job.id} ...", err=True)
        try:
            jobs.cancel(following.host, job)
            # Its last words may be on their way.
            following.join(LAST_WORDS_SECONDS)
        except (EpicError, KeyboardInterrupt):
            click.echo(
                "It could not be cancelled; it may go on. To end it: "
                f"epic-run shell {job.node.cluster} {job.node.short_name} --as {job.user} -- "
                f"epic-job cancel {job.id}",
                err=True,
            )
            self._summary(job, "unknown", 1)
            return 1
        click.echo("It is cancelled: its processes have ended.", err=True)
        self._summary(job, "cancelled", CANCELLED)
        return CANCELLED

    def _summary(self, job: Job, state: str, code: int) -> None:
        if self._output != "json":
            return
        summary: dict[str, Any] = {
            "verb": "submit",
            "cluster": job.node.cluster,
            "tenant": job.node.tenant,
            "node": job.node.short_name,
            "user": job.user,
            "job": job.id,
            "state": state,
            "exit_code": code,
            "seconds": round(time.time() - job.started_at, 3),
        }
        click.echo(json.dumps(summary, sort_keys=True), err=True)


class _Following(threading.Thread):
    """Follows a job beside its start: its output is seen at once, also while Ansible tidies up."""

    def __init__(self, host: Host, job: Job) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.job = job
        self._code = 0
        self._problem: Exception | None = None

    def run(self) -> None:
        """Follow the job to its end."""
        try:
            self._code = jobs.follow(self.host, self.job, write)
        except Exception as problem:  # noqa: BLE001 - raised again by `result`
            self._problem = problem

    def result(self) -> int:
        """Wait for the job's end; return its exit code, or raise what following raised."""
        self.join()
        if self._problem is not None:
            raise self._problem
        return self._code
