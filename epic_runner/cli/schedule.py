"""`epic-run schedule`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from epic_runner.cli import completing
from epic_runner.cli.common import FIRST_ADMIN, as_option, tenant_option
from epic_runner.lifecycle import who_asks
from epic_runner.output import duration_text, emit, output_option, table
from epic_runner.processes import host_of
from epic_runner.store import RunRecord, ScheduleRecord, Store

if TYPE_CHECKING:
    from epic_runner.schedules.install import Entry


@click.group()
def schedule() -> None:
    """Run jobs by the clock, and look at what came of them.

    \b
    Examples:
      epic-run schedule add nightly.yml
      epic-run schedule list
      epic-run schedule serve
    """


@schedule.command()
@click.argument("files", nargs=-1, required=True, shell_complete=completing.files)
@as_option(f"The member as whom it runs; the job's, or {FIRST_ADMIN}")
@tenant_option
@output_option
def add(files: tuple[str, ...], user: str | None, tenant: str | None, output: str) -> None:
    """Schedule the jobs of FILES that have a `schedule:`.

    They are kept whole, with their templates and programs, so FILES may vanish. Tenants that FILES
    hold are applied. A job that is scheduled already is replaced; its history stays.

    \b
    Examples:
      epic-run schedule add nightly.yml
      epic-run schedule add templates.yml jobs/ --as ada
    """
    from epic_runner.cli.reading import read_documents
    from epic_runner.schedules.reading import schedules_of

    store = Store()
    documents = read_documents(store, files, tenant)
    now = time.time()
    with store.transaction() as transaction:
        for document in documents.tenants.values():
            transaction.apply_tenant(document.model_dump(mode="json"))
        found = schedules_of(
            transaction, documents, tenant=tenant, user=user,
            asker=who_asks(), now=now,
        )  # fmt: skip
        known = {(item.tenant, item.name): item for item in transaction.schedules()}
        records = []
        for item in found:
            old = known.get((item.record.tenant, item.record.name))
            record = item.record
            if old is not None:
                next_at = None if old.state == "paused" else record.next_at
                record = replace(
                    record, state=old.state, created_at=old.created_at, next_at=next_at
                )
            transaction.put_schedule(record, item.files)
            records.append(record)
    store.close()

    def human() -> None:
        for record in records:
            click.echo(f"{record.tenant}/{record.name}: {_next_text(record, now)}")

    emit([_described(record) for record in records], human, output)


@schedule.command("list")
@click.option(
    "--tenant", "-t", shell_complete=completing.tenants, help="Only this tenant's schedules."
)
@output_option
def list_(tenant: str | None, output: str) -> None:
    """List schedules: when they run next, and how they ran last.

    \b
    Examples:
      epic-run schedule list
      epic-run schedule list --output json
    """
    store = Store()
    with store.read() as transaction:
        found = [
            (item, next(iter(transaction.runs(item.tenant, item.name, limit=1)), None))
            for item in transaction.schedules(tenant)
        ]
    store.close()
    now = time.time()

    def human() -> None:
        if not found:
            click.echo("There are no schedules; epic-run schedule add FILE makes one.")
            return
        rows = [
            (
                item.tenant, item.name, item.timing.cron, item.timing.timezone, item.user,
                _next_text(item, now), _last_text(last, now),
            )
            for item, last in found
        ]  # fmt: skip
        click.echo(table(["TENANT", "NAME", "CRON", "ZONE", "AS", "NEXT", "LAST"], rows))

    data = [{**_described(item), "last": vars(last) if last else None} for item, last in found]
    emit(data, human, output)


@schedule.command()
@click.argument("name", shell_complete=completing.schedules)
@click.option("--limit", "-n", default=20, show_default=True, help="How many runs to show.")
@tenant_option
@output_option
def show(name: str, limit: int, tenant: str | None, output: str) -> None:
    """Show a schedule: its policy, and its runs with state, exit code and output.

    \b
    Examples:
      epic-run schedule show nightly
      epic-run schedule show analytics/nightly -n 100 --output json
    """
    store = Store()
    with store.read() as transaction:
        found = transaction.find_schedule(name, tenant)
        runs = transaction.runs(found.tenant, found.name, limit=limit)
    store.close()
    now = time.time()

    def human() -> None:
        timing = found.timing
        click.echo(f"{found.tenant}/{found.name}  {timing.cron} {timing.timezone}  as {found.user}")
        retries = f", {timing.retries} times again" if timing.retries else ""
        click.echo(
            f"{_next_text(found, now)}; overlap: {timing.overlap}, missed: {timing.missed}{retries}"
        )
        if runs:
            click.echo()
            rows = [
                (
                    run.id, _time(run.planned_at), run.cause, run.state,
                    "" if run.rc is None else run.rc, _seconds(run, now),
                    run.reason or (f"{run.log} on {host_of(run.controller)}" if run.log else ""),
                )
                for run in runs
            ]  # fmt: skip
            click.echo(
                table(["RUN", "PLANNED", "CAUSE", "STATE", "RC", "TOOK", "OUTPUT, OR WHY"], rows)
            )

    emit(
        {
            **_described(found),
            "runs": [{**vars(run), "controller": host_of(run.controller)} for run in runs],
        },
        human,
        output,
    )


@schedule.command()
@click.argument("name", shell_complete=completing.schedules)
@tenant_option
@output_option
def pause(name: str, tenant: str | None, output: str) -> None:
    """Let a schedule rest: nothing of it begins until it is resumed.

    \b
    Examples:
      epic-run schedule pause nightly
    """
    _change(name, tenant, output, "paused")


@schedule.command()
@click.argument("name", shell_complete=completing.schedules)
@tenant_option
@output_option
def resume(name: str, tenant: str | None, output: str) -> None:
    """Have a schedule go on; what was due meanwhile is not made up for.

    \b
    Examples:
      epic-run schedule resume nightly
    """
    _change(name, tenant, output, "active")


@schedule.command()
@click.argument("name", shell_complete=completing.schedules)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@tenant_option
@output_option
def remove(name: str, *, yes: bool, tenant: str | None, output: str) -> None:
    """Remove a schedule and its history; a run that is under way goes on.

    \b
    Examples:
      epic-run schedule remove nightly --yes
    """
    store = Store()
    with store.read() as transaction:
        found = transaction.find_schedule(name, tenant)
    if not yes:
        click.confirm(f"Remove the schedule {found.tenant}/{found.name}?", abort=True, err=True)
    with store.transaction() as transaction:
        transaction.remove_schedule(found.tenant, found.name)
    store.close()
    emit(_described(found), lambda: click.echo(f"{found.name} is removed."), output)


@schedule.command("run-now")
@click.argument("name", shell_complete=completing.schedules)
@click.option("--background", "-b", is_flag=True, help="Return the run's id at once.")
@tenant_option
@output_option
def run_now(name: str, *, background: bool, tenant: str | None, output: str) -> None:
    """Run a schedule's job now, whatever the clock says, and follow its output.

    The exit code is the job's; Ctrl-C cancels it. With --output json the run's record is the last
    line on stderr.

    \b
    Examples:
      epic-run schedule run-now nightly
      epic-run schedule run-now nightly --background
    """
    from epic_runner.errors import ClusterBusy
    from epic_runner.operations import new_id
    from epic_runner.schedules import drive

    store = Store()
    now = time.time()
    with store.transaction() as transaction:
        found = transaction.find_schedule(name, tenant)
        going = [
            run
            for run in transaction.runs(found.tenant, found.name, is_open=True)
            if run.state == "running" and not drive.is_dead(run, now)
        ]
        if going:
            raise ClusterBusy(
                f"{found.name} runs already: {going[0].id}.",
                f"epic-run schedule show {found.name} tells when it is over.",
            )
        run = RunRecord(new_id(), found.tenant, found.name, "asked", now, "running")
        transaction.add_run(replace(run, **drive.driver()))
    if background:
        drive.begin(store, run)
        emit({"id": run.id}, lambda: click.echo(run.id), output)
        return
    ended = drive.drive(store, run.id, _pass_on)
    store.close()
    if output == "json":
        click.echo(json.dumps(vars(ended), sort_keys=True), err=True)
    raise click.exceptions.Exit(1 if ended.rc is None else ended.rc)


@schedule.command()
@click.option("--once", is_flag=True, help="Begin what is due now, and end: for cron.")
@click.option(
    "--sweep-every", default="1m", show_default=True, metavar="DURATION",
    help="How often to look after the lifetimes of clusters.",
)  # fmt: skip
@click.option("--no-sweep", is_flag=True, help="Do not look after lifetimes.")
@click.option(
    "--install", type=click.Choice(["cron", "systemd"]),
    help="Have cron, or your systemd, do it every minute from now on.",
)  # fmt: skip
@click.option("--uninstall", type=click.Choice(["cron", "systemd"]), help="Take that back.")
@click.option("--dry-run", is_flag=True, help="With --install: print what would be written.")
def serve(
    *,
    once: bool,
    sweep_every: str,
    no_sweep: bool,
    install: str | None,
    uninstall: str | None,
    dry_run: bool,
) -> None:
    """Run what is due, and look after the lifetimes of clusters, until it is stopped.

    Any number of them may serve one store. Runs are processes of their own and go on when this
    ends.

    \b
    Examples:
      epic-run schedule serve
      epic-run schedule serve --install systemd
      epic-run schedule serve --install cron --dry-run
    """
    if install or uninstall:
        _installed(install, uninstall, dry_run=dry_run)
        return
    from epic_runner.errors import InputError
    from epic_runner.schedules import serve as service
    from epic_runner.spec.quantities import parse_duration

    try:
        every = None if no_sweep else float(parse_duration(sweep_every))
    except ValueError as problem:
        raise InputError(f"--sweep-every {sweep_every} {problem}.") from None
    store = Store()
    try:
        if once:
            service.tick(store, _say)
            if every is not None and service.is_sweep_due(store, every):
                service.begin_sweep().wait()
            return
        _say("Serving schedules" + ("." if no_sweep else " and lifetimes."))
        service.serve(store, _say, sweep_seconds=every)
    except KeyboardInterrupt:
        _say("Stopped; what was begun goes on.")
    finally:
        store.close()


@schedule.command(hidden=True)
@click.argument("run")
def drive(run: str) -> None:
    """Drive a run to its end: what `serve` starts for each.

    \b
    Examples:
      epic-run schedule drive 20250301-020000-0a1b2c3d
    """
    from epic_runner.schedules import drive as driving

    store = Store()
    ended = driving.drive(store, run)
    store.close()
    raise click.exceptions.Exit(0 if ended.state == "done" else 1)


def _change(name: str, tenant: str | None, output: str, state: str) -> None:
    from epic_runner.cron import next_time

    store = Store()
    now = time.time()
    with store.transaction() as transaction:
        found = transaction.find_schedule(name, tenant)
        if found.state != state:
            timing = found.timing
            at = next_time(timing.cron, timing.timezone, now) if state == "active" else None
            transaction.set_schedule(found.tenant, found.name, state=state, next_at=at)
            found = replace(found, state=state, next_at=at)
    store.close()
    emit(_described(found), lambda: click.echo(f"{found.name}: {_next_text(found, now)}"), output)


def _installed(install: str | None, uninstall: str | None, *, dry_run: bool) -> None:
    from epic_runner.errors import InputError
    from epic_runner.schedules import install as installing

    if install and uninstall:
        raise InputError("--install and --uninstall exclude each other.", "Give one of them.")
    kind = install or uninstall
    make = installing.cron_entry if kind == "cron" else installing.systemd_entry
    entry = make(os.environ)
    if uninstall:
        if dry_run:
            for path in entry.files:
                click.echo(f"# {path} would be removed")
            if entry.line:
                click.echo(f"# crontab, without\n{entry.line}")
            return
        installing.uninstall(entry)
        click.echo(f"{kind} calls the scheduler no more.")
    elif dry_run:
        _print_entry(entry)
    else:
        installing.install(entry)
        click.echo(f"{kind} calls the scheduler every minute.")


def _print_entry(entry: Entry) -> None:
    from epic_runner.store.database import shown_url

    for path, text in entry.files.items():
        click.echo(f"# {path}")
        # What is shown on a terminal is no place for a password.
        url = os.environ.get("EPIC_DATABASE_URL")
        click.echo(text.replace(url, shown_url(url)) if url else text)
    if entry.line:
        click.echo(f"# crontab\n{entry.line}")


def _described(record: ScheduleRecord) -> dict[str, Any]:
    return {**vars(record), "timing": vars(record.timing), "documents": list(record.documents)}


def _pass_on(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _next_text(record: ScheduleRecord, now: float) -> str:
    if record.next_at is None:
        return record.state
    return f"{_time(record.next_at)} (in {duration_text(max(record.next_at - now, 0))})"


def _last_text(run: RunRecord | None, now: float) -> str:
    if run is None:
        return "-"
    ago = duration_text(max(now - (run.ended_at or run.started_at or run.planned_at), 0))
    return f"{run.state} {ago} ago" if run.is_over else run.state


def _seconds(run: RunRecord, now: float) -> str:
    if run.started_at is None:
        return ""
    return duration_text((run.ended_at or now) - run.started_at)
