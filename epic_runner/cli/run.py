"""`epic-run run`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

import click

from epic_runner.cli import completing
from epic_runner.cli.common import COLOURS
from epic_runner.errors import OperationFailed
from epic_runner.events import Step
from epic_runner.lifecycle import Context
from epic_runner.output import output_option
from epic_runner.processes import CANCELLED
from epic_runner.progress import Progress, open_progress
from epic_runner.site import site_hosts
from epic_runner.store import JobRecord, Store

if TYPE_CHECKING:
    from epic_runner.transient import JobOutcome


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files
)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE",
    help="Change a value of the Job or its Template, such as submit.args=[x]. May be repeated.",
)  # fmt: skip
@click.option(
    "--tenant",
    "-t",
    shell_complete=completing.tenants,
    help="The tenant; the job's or its template's by default.",
)
@click.option("--keep", is_flag=True, help="Leave the cluster that is made for the job.")
@output_option
def run(
    files: tuple[str, ...], *, sets: tuple[str, ...], tenant: str | None, keep: bool, output: str
) -> None:
    """Run a job from its YAML, on a cluster that is there or on one made for it.

    FILE holds one Job, and the Template, Tenant and Flavors that it needs; several files are read
    together. A cluster that is made for the job is removed when the job is over, however it ends:
    also after Ctrl-C, and when this command is killed. What the job printed and made is kept under
    EPIC_HOME/jobs.

    Progress is told on stderr, the job's output is passed on as it comes, and its exit code is that
    of this command. With --output json a summary is the last line on stderr.

    \b
    Examples:
      epic-run run examples/job.yml
      epic-run run job.yml cluster.yml --set 'submit.args=[--rows, "10"]'
      epic-run run job.yml --keep
    """
    from epic_runner import transient
    from epic_runner.cli.reading import read_job

    store = Store()
    screen = _Screen(output)
    try:
        plan = read_job(store, files, sets, tenant)
        context = Context(store, site_hosts(store), screen.step)
        audience = transient.Audience(
            screen.recorded, screen.started, screen.write, screen.ended, screen.silent
        )
        with screen:
            outcome = transient.run_job(context, plan, keep=keep, audience=audience)
    except KeyboardInterrupt:
        if screen.job is None:
            raise
        with store.read() as transaction:
            click.echo(_cancelled(transaction.job(screen.job.id)), err=True)
        raise click.exceptions.Exit(CANCELLED) from None
    finally:
        store.close()
    screen.summary(outcome)
    raise click.exceptions.Exit(outcome.exit_code)


def _cancelled(job: JobRecord) -> str:
    """Return what is told of a job that people ended."""
    if not job.is_transient:
        return "It is cancelled: its processes have ended."
    name = f"{job.tenant}/{job.cluster}"
    if not job.is_settled:
        return (
            f"It is cancelled; its cluster {job.cluster} is not removed yet.\n"
            "Hint:  epic-run list tries again."
        )
    if job.options.get("keep"):
        return f"It is cancelled.\nHint:  epic-run destroy {name} removes its cluster."
    return "It is cancelled, and nothing of it is left on the hosts."


class _Screen:
    """Shows a job: how its cluster comes up, what it prints, and how it ended."""

    def __init__(self, output: str) -> None:
        self._is_json = output == "json"
        self._progress: Progress | None = None
        self._is_removing = False
        self.job: JobRecord | None = None

    def __enter__(self) -> Self:
        self._progress = open_progress(quiet=self._is_json, on_stderr=True)
        self._progress.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self._close(*problem)

    def _close(self, *problem: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*(problem or (None, None, None)))
            self._progress = None

    def step(self, step: Step) -> None:
        """Show a step; of a removal, that there is one."""
        if self._progress is not None:
            self._progress.step(step)
        elif not self._is_removing and self.job is not None and self.job.is_transient:
            self._is_removing = True
            self._say(f"Removing the cluster {self.job.cluster} ...")

    def recorded(self, job: JobRecord) -> None:
        """Take the job as it begins."""
        self.job = job

    def started(self, job: JobRecord) -> None:
        """Make room for the job's output."""
        self._close()
        self._say(f"The job {job.id} starts on {job.cluster}.")

    def write(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
        """Pass on what the job prints."""
        from epic_runner.actions.printing import write

        write(data, is_error)

    def ended(self, job: JobRecord) -> None:
        """Tell how the job ended; of one that never began, the error that is raised tells why."""
        if self._progress is not None:
            self._close(OperationFailed, None, None)
            if job.state == "failed":
                return
        code = "" if job.rc in (None, 0) else f" with exit code {job.rc}"
        why = f": {job.reason}" if job.reason else ""
        seconds = (job.ended_at or time.time()) - job.started_at
        state = click.style(job.state, fg=COLOURS.get(job.state, "red"))
        mark = "" if job.state == "done" else click.style("Error:", fg="red", bold=True) + " "
        self._say(f"{mark}The job {job.id} is {state}{code}{why}, after {seconds:.1f} s.")

    def silent(self, why: str) -> None:
        """Tell that the job's host does not answer."""
        self._say(f"Waiting for the job's host: {why}")

    def summary(self, outcome: JobOutcome) -> None:
        """Tell what is left, and where."""
        job = outcome.job
        kept = bool(job.is_transient and job.options.get("keep"))
        if self._is_json:
            data = {
                "verb": "run", "job": job.id, "cluster": job.cluster, "tenant": job.tenant,
                "user": job.user, "state": job.state, "exit_code": outcome.exit_code,
                "applications": job.applications, "is_transient": job.is_transient, "kept": kept,
                "folder": str(outcome.folder) if outcome.folder else None, "left": outcome.left,
            }  # fmt: skip
            click.echo(json.dumps(data, sort_keys=True), err=True)
            return
        if outcome.folder:
            self._say(f"What it printed and made: {outcome.folder}")
        if outcome.left:
            self._say(f"Its cluster {job.cluster} is not removed yet: {outcome.left}")
            self._say("Hint:  epic-run list tries again.")
        elif kept:
            self._say(f"Hint:  epic-run destroy {job.tenant}/{job.cluster} removes its cluster.")

    def _say(self, text: str) -> None:
        if not self._is_json:
            click.echo(text, err=True)
