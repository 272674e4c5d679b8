"""Schedules: when they are due, what becomes of it, and that it happens once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from click.testing import CliRunner, Result
from life_samples import document, spec
from servers import PostgreSQL
from spec_samples import mistakes_in

from epic_runner import cron
from epic_runner.cli.schedule import schedule
from epic_runner.errors import EpicError, InputError, NotFound
from epic_runner.processes import ending_with_this_process, started
from epic_runner.schedules import drive, install, serve
from epic_runner.schedules.decide import KEPT_RUNS, Due, due, outdated, retry
from epic_runner.schedules.reading import schedules_of
from epic_runner.spec.load import load_documents
from epic_runner.store import RunRecord, ScheduleRecord, Store, Timing, UseRecord

BERLIN = "Europe/Berlin"
DAY = 86400.0


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def clock(line: str, after: str, count: int = 3, zone: str = BERLIN) -> list[str]:
    """Return the next times of a line as the clock on the wall shows them, with the offset."""
    times = cron.following(line, zone, at(after, zone))
    found = [datetime.fromtimestamp(next(times), ZoneInfo(zone)) for _ in range(count)]
    return [f"{moment:%m-%d %H:%M%z}"[:-2] for moment in found]


# -- the clock -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("0 2 * * *", ["03-01 02:00", "03-02 02:00", "03-03 02:00"]),
        ("*/20 9 * * mon", ["03-03 09:00", "03-03 09:20", "03-03 09:40"]),
        ("30 6 1,15 * *", ["03-01 06:30", "03-15 06:30", "04-01 06:30"]),
        # As with cron, a day of the month and one of the week are either one or the other.
        ("0 0 13 * fri", ["03-07 00:00", "03-13 00:00", "03-14 00:00"]),
        ("@daily", ["03-02 00:00", "03-03 00:00", "03-04 00:00"]),
    ],
)
def test_a_line_means_what_it_means_to_cron(line: str, times: list[str]) -> None:
    text = cron.check_line(line)
    assert [item[:-3] for item in clock(text, "2025-03-01T00:00", zone="UTC")] == times


def test_a_time_that_spring_skips_is_made_up_for_at_once() -> None:
    assert clock("30 2 * * *", "2025-03-29T12:00") == [
        "03-30 03:00+02", "03-31 02:30+02", "04-01 02:30+02",
    ]  # fmt: skip


def test_a_time_that_autumn_repeats_comes_once_but_for_lines_of_every_hour() -> None:
    assert clock("30 2 * * *", "2025-10-25T12:00", 2) == ["10-26 02:30+02", "10-27 02:30+01"]
    assert clock("30 * * * *", "2025-10-26T01:00") == [
        "10-26 01:30+02", "10-26 02:30+02", "10-26 02:30+01",
    ]  # fmt: skip


def test_the_same_line_means_other_moments_in_other_zones() -> None:
    berlin = cron.next_time("0 2 * * *", BERLIN, at("2025-07-01T12:00"))
    assert berlin == at("2025-07-02T00:00")
    assert cron.next_time("0 2 * * *", "UTC", at("2025-07-01T12:00")) == at("2025-07-02T02:00")


def test_lines_and_zones_that_are_none_are_told_with_their_place(tmp_path: Path) -> None:
    head = "kind: Job\nname: a\ncluster: {name: lab}\nsubmit: {file: /tenant/a.py}\n"
    for text, said in {
        "schedule: 0 2 * *\n": "5: schedule.cron must be a cron line of five fields",
        'schedule: "0 25 * * *"\n': "5: schedule.cron is no cron line: bad hour",
        'schedule: "0 0 30 2 *"\n': "5: schedule.cron is no cron line: bad day-of-month",
        'schedule: {cron: "0 2 * * *", timezone: Mars}\n': "5: schedule.timezone must be a time",
        'schedule: {cron: "@daily", overlap: kill}\n': "5: schedule.overlap must be skip or queue",
        'schedule: {cron: "@daily", retrys: 3}\n': "schedule.retrys is not a known key",
    }.items():
        [mistake] = mistakes_in(tmp_path, head + text)
        assert said in mistake, mistake


def test_a_machine_has_a_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert cron.local_zone() == "America/New_York"
    monkeypatch.setenv("TZ", "<-03>3")
    assert cron.check_zone(cron.local_zone())


# -- the policy ------------------------------------------------------------------------------

TWO = at("2025-03-01T02:00")


def nightly(**timing: Any) -> ScheduleRecord:
    wanted = Timing("0 2 * * *", "UTC", **timing)
    return ScheduleRecord("work", "nightly", "ada", wanted, ({"kind": "Job"},), next_at=TWO)


def a_run(state: str, **values: Any) -> RunRecord:
    defaults: dict[str, Any] = {"cause": "schedule", "planned_at": TWO - DAY}
    return RunRecord(values.pop("id", state), "work", "nightly", state=state, **defaults | values)


def told(found: Due) -> list[tuple[str, str, float]]:
    return [(run.state, run.cause, run.planned_at - TWO) for run in found.add]


def test_before_its_time_nothing_is_due_and_at_it_one_run() -> None:
    assert due(nightly(), [], TWO - 1) == Due(next_at=TWO)
    found = due(nightly(), [], TWO + 4)
    assert told(found) == [("running", "schedule", 0)]
    assert found.next_at == TWO + DAY


def test_a_paused_schedule_is_never_due() -> None:
    paused = replace(nightly(), state="paused")
    assert due(paused, [a_run("waiting")], TWO + 4) == Due()


@pytest.mark.parametrize(
    ("policy", "runs"),
    [
        ("run_once", [("missed", "schedule", DAY), ("running", "missed", 2 * DAY)]),
        ("skip", [("missed", "schedule", 2 * DAY)]),
    ],
)
def test_times_that_nobody_was_there_for_make_one_run_or_none(policy, runs) -> None:
    found = due(nightly(missed=policy), [], TWO + 2 * DAY + 3600)
    assert told(found) == runs
    assert found.next_at == TWO + 3 * DAY
    assert found.add[0].reason.startswith("nobody was there to run it, ")


def test_a_run_that_is_a_little_late_is_not_missed() -> None:
    assert told(due(nightly(missed="skip"), [], TWO + 299)) == [("running", "schedule", 0)]
    assert told(due(nightly(missed="skip"), [], TWO + 301)) == [("missed", "schedule", 0)]


def test_while_a_run_goes_on_the_next_one_is_left_out_or_waits() -> None:
    going = [a_run("running")]
    skipped = due(nightly(), going, TWO + 4)
    assert told(skipped) == [("skipped", "schedule", 0)]
    assert "goes on" in skipped.add[0].reason
    assert told(due(nightly(overlap="queue"), going, TWO + 4)) == [("waiting", "schedule", 0)]
    # Only one waits.
    full = [*going, a_run("waiting")]
    found = due(nightly(overlap="queue"), full, TWO + 4)
    assert told(found) == [("skipped", "schedule", 0)]
    assert found.begin is None


def test_what_waits_begins_when_the_run_before_it_is_over() -> None:
    assert due(nightly(), [a_run("waiting")], TWO - 60).begin == "waiting"
    assert due(nightly(), [a_run("waiting"), a_run("running")], TWO - 60).begin is None
    later = a_run("waiting", cause="retry", planned_at=TWO - 30)
    assert due(nightly(), [later], TWO - 60).begin is None


def test_a_failed_run_is_tried_again_as_often_as_said_and_gives_way_to_the_next() -> None:
    schedule = nightly(retries=2, retry_after_seconds=200)
    first = a_run("failed")
    again = retry(schedule, first, TWO)
    assert again is not None
    assert (again.state, again.cause, again.attempt) == ("waiting", "retry", 2)
    assert again.planned_at == TWO + 200
    assert retry(schedule, replace(first, attempt=3), TWO) is None
    assert retry(schedule, a_run("cancelled"), TWO) is None
    assert retry(schedule, a_run("interrupted"), TWO) is not None
    assert retry(nightly(), first, TWO) is None
    found = due(schedule, [replace(again, id="again")], TWO + 250)
    assert (told(found), found.drop, found.begin) == (
        [("running", "schedule", 0)], ("again",), None,
    )  # fmt: skip


def test_the_oldest_runs_are_forgotten_and_none_that_is_not_over() -> None:
    runs = [a_run("running"), *(a_run("done", id=str(n)) for n in range(KEPT_RUNS + 2))]
    assert outdated(runs) == [str(KEPT_RUNS), str(KEPT_RUNS + 1)]


# -- the store and the service ---------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database().replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    made = Store(url)
    yield made
    made.close()


def put(store: Store, **values: Any) -> ScheduleRecord:
    """Put a schedule into the store that is due now."""
    now = time.time()
    record = replace(nightly(), next_at=now - 1, created_at=now, **values)
    with store.transaction() as transaction:
        transaction.put_schedule(record, {"a.py": b"print(1)\n\x00"})
    return record


def runs_of(store: Store) -> list[RunRecord]:
    with store.read() as transaction:
        return transaction.runs("work", "nightly")


def test_a_schedule_is_kept_whole_and_found_by_its_name(store: Store) -> None:
    record = put(store)
    with store.transaction() as transaction:
        assert transaction.find_schedule("work/nightly") == record
        assert transaction.schedule_files("work", "nightly") == {"a.py": b"print(1)\n\x00"}
        transaction.put_schedule(replace(record, tenant="away"), {})
        with pytest.raises(InputError, match="not one schedule"):
            transaction.find_schedule("nightly")
        transaction.add_run(a_run("done"))
        transaction.remove_schedule("work", "nightly")
        assert transaction.runs("work", "nightly") == []
        assert [item.tenant for item in transaction.schedules()] == ["away"]
        with pytest.raises(NotFound, match="no schedule nightly of tenant work"):
            transaction.find_schedule("nightly", "work")


def test_of_many_services_on_one_store_one_begins_a_run(store: Store, url: str) -> None:
    put(store)
    begun: list[str] = []

    def one(_: int) -> None:
        own = Store(url)
        serve.tick(own, lambda _text: None, lambda _store, run: begun.append(run.id))
        own.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))
    assert len(begun) == 1
    [run] = runs_of(store)
    assert (run.id, run.state, run.pid_started) == (begun[0], "running", started(run.pid))


def test_a_run_whose_process_is_gone_is_interrupted_and_tried_again(store: Store) -> None:
    put(store, timing=replace(nightly().timing, retries=1))
    with store.transaction() as transaction:
        transaction.set_schedule("work", "nightly", next_at=time.time() + DAY)
        dead = {**drive.driver(), "pid": 2**22 + 1, "pid_started": "7"}
        transaction.add_run(replace(a_run("running"), **dead))
    said: list[str] = []
    serve.tick(store, said.append, lambda _store, _run: None)
    waiting, interrupted = runs_of(store)
    assert (interrupted.state, waiting.state) == ("interrupted", "waiting")
    assert waiting.attempt == 2
    assert "is gone" in said[0]


def test_a_run_that_two_services_see_interrupted_is_tried_again_once(store: Store) -> None:
    schedule = put(store, timing=replace(nightly().timing, retries=1))
    with store.transaction() as transaction:
        transaction.add_run(a_run("running"))
    for _ in range(2):
        drive.bury(store, a_run("running"), schedule)
    assert sorted(run.state for run in runs_of(store)) == ["interrupted", "waiting"]


def test_a_driver_elsewhere_gets_time_for_a_heartbeat(store: Store, monkeypatch) -> None:
    put(store)
    stale = {**drive.driver(), "controller": "elsewhere", "heartbeat_at": time.time() - 3600}
    with store.transaction() as transaction:
        transaction.set_schedule("work", "nightly", next_at=time.time() + DAY)
        transaction.add_run(replace(a_run("running"), **stale))

    def beat(_seconds: float) -> None:
        with store.transaction() as transaction:
            transaction.set_run("running", heartbeat_at=time.time())

    monkeypatch.setattr(serve.time, "sleep", beat)
    serve.tick(store, lambda _text: None, lambda _store, _run: None)
    assert [run.state for run in runs_of(store)] == ["running"]
    monkeypatch.setattr(serve.time, "sleep", lambda _seconds: None)
    with store.transaction() as transaction:
        transaction.set_run("running", heartbeat_at=time.time() - 3600)
    serve.tick(store, lambda _text: None, lambda _store, _run: None)
    assert runs_of(store)[-1].state == "interrupted"


def test_a_job_ends_with_its_driver(tmp_path: Path) -> None:
    child = ending_with_this_process(["sleep", "300"])
    text = f"import subprocess as s, sys, time; print(s.Popen({child!r}).pid, flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", text + "time.sleep(300)"], stdout=subprocess.PIPE, cwd=tmp_path
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()[:6])
        parent.kill()
    until(lambda: not started(pid))


def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_sweep_is_due_when_nobody_has_looked_at_a_cluster_for_so_long(store: Store) -> None:
    assert not serve.is_sweep_due(store, 60)
    with store.transaction() as transaction:
        key = transaction.add_cluster(spec(), "ada", ())
    assert serve.is_sweep_due(store, 60)
    with store.transaction() as transaction:
        transaction.put_use(key, UseRecord(0.0, "x", time.time() - 10))
    assert not serve.is_sweep_due(store, 60)
    assert serve.is_sweep_due(store, 5)


# What stands in `epic-run run`'s place.
def program(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "command", lambda _schedule: [sys.executable, "-c", text])


def driven(store: Store, write: Any = lambda _piece: None) -> RunRecord:
    with store.transaction() as transaction:
        transaction.add_run(a_run("running"))
    return drive.drive(store, "running", write)


def test_a_run_finds_its_files_and_leaves_its_output(store, monkeypatch) -> None:
    program("print(open('job.yml').read(), open('a.py', 'rb').read())", monkeypatch)
    put(store)
    seen: list[bytes] = []
    ended = driven(store, seen.append)
    assert (ended.state, ended.rc) == ("done", 0)
    assert runs_of(store) == [ended]
    log = Path(ended.log).read_bytes()
    assert log == b"".join(seen)
    assert b"kind: Job" in log
    assert rb"b'print(1)\n\x00'" in log


def test_a_run_that_fails_says_why_and_is_planned_again(store, monkeypatch) -> None:
    program("import sys; print('Error: no room'); print('Hint: x'); sys.exit(3)", monkeypatch)
    put(store, timing=replace(nightly().timing, retries=1))
    ended = driven(store)
    assert (ended.state, ended.rc, ended.reason) == ("failed", 3, "Error: no room")
    assert {run.state for run in runs_of(store)} == {"failed", "waiting"}


def test_only_a_run_that_is_recorded_as_running_is_driven(store: Store) -> None:
    put(store)
    with store.transaction() as transaction:
        transaction.add_run(a_run("done"))
    with pytest.raises(InputError, match="is done"):
        drive.drive(store, "done")


# -- files -----------------------------------------------------------------------------------

NIGHTLY = """\
kind: Tenant
name: work
members: [{user: ada, role: admin}, {user: bob}]
---
kind: Flavor
name: tiny
cores: 1
memory: 1g
---
kind: Template
name: small
tenant: work
app: spark
roles: {worker: {flavor: tiny}}
---
kind: Job
name: nightly
cluster: {template: small}
submit: {file: train.py, py_files: [lib/features.py, /tenant/lib.zip], args: ["2025-03-01"]}
schedule: {cron: "@daily", timezone: Europe/Berlin, overlap: queue, retries: 2}
"""


def read(store: Store, folder: Path, text: str = NIGHTLY, **options: Any) -> Any:
    (folder / "lib").mkdir(exist_ok=True)
    (folder / "train.py").write_text("train")
    (folder / "lib" / "features.py").write_text("features")
    (folder / "jobs.yml").write_text(text)
    documents = load_documents([folder / "jobs.yml"])
    with store.transaction() as transaction:
        transaction.apply_tenant(document())
        options = {"tenant": None, "user": None, "now": TWO, **options}
        return schedules_of(transaction, documents, **options)


def test_a_schedule_holds_all_that_its_job_needs(store: Store, tmp_path: Path) -> None:
    [item] = read(store, tmp_path)
    record = item.record
    assert (record.tenant, record.name, record.user) == ("work", "nightly", "ada")
    assert record.timing == Timing("0 0 * * *", BERLIN, "queue", "run_once", 2, 300)
    assert record.next_at == at("2025-03-02T00:00", BERLIN)
    assert item.files == {"train.py": b"train", "features.py": b"features"}
    # What is stored launches and runs where the files are not.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, content in item.files.items():
        (elsewhere / name).write_bytes(content)
    (elsewhere / "job.yml").write_text(yaml.safe_dump_all(list(record.documents)))
    documents = load_documents([elsewhere / "job.yml"])
    assert [*documents.flavors, *documents.templates] == ["tiny", "small"]
    job = documents.jobs["nightly"]
    assert (job.tenant, job.schedule) == ("work", None)
    assert job.submit.py_files == ("features.py", "/tenant/lib.zip")
    assert job.submit.args == ("2025-03-01",)


def test_a_schedule_brings_the_scripts_of_its_clusters_actions_along(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "setup").mkdir()
    (tmp_path / "setup" / "install.sh").write_text("install")
    (tmp_path / "setup" / "once.sh").write_text("once")
    written = "[{run: setup/install.sh, replay: true}, {command: date}, {run: setup/once.sh}]"
    text = NIGHTLY.replace("app: spark\n", f"app: spark\nactions: {written}\n")
    [item] = read(store, tmp_path, text)
    assert (item.files["install.sh"], item.files["once.sh"]) == (b"install", b"once")
    [template] = [found for found in item.record.documents if found["kind"] == "Template"]
    names = [action.get("run") for action in template["actions"]]
    assert names == ["install.sh", None, "once.sh"]


def test_a_schedule_runs_as_a_member_and_in_a_tenant_that_can_be_told(
    store: Store, tmp_path: Path
) -> None:
    [item] = read(store, tmp_path, user="bob")
    assert item.record.user == "bob"
    with pytest.raises(InputError, match="not a member"):
        read(store, tmp_path, user="eve")
    there = NIGHTLY.replace("{template: small}", "{name: lab}")
    with pytest.raises(NotFound, match="no cluster lab"):
        read(store, tmp_path, there)
    assert read(store, tmp_path, there, tenant="work")[0].record.tenant == "work"
    never = NIGHTLY.partition("schedule:")[0]
    with pytest.raises(InputError, match="no Job with a schedule"):
        read(store, tmp_path, never)


def test_a_program_that_is_too_large_belongs_into_the_storage(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epic_runner.schedules.reading.LARGEST_BYTES", 4)
    with pytest.raises(InputError) as refused:
        read(store, tmp_path)
    assert "/tenant/" in (refused.value.hint or "")


# -- cron and systemd ------------------------------------------------------------------------


def test_a_crontab_keeps_what_is_not_ours() -> None:
    entry = install.cron_entry(
        {"EPIC_HOME": "/srv/100%", "EPIC_DATABASE_URL": "postgresql://a:b@c/d"}
    )
    before = "MAILTO=ada\n0 4 * * * backup\n"
    with_ours = install.with_line(before, entry.line)
    assert with_ours.startswith(before)
    assert with_ours.count(install.MARK) == 1
    assert install.with_line(with_ours, entry.line) == with_ours
    assert install.with_line(with_ours, "") == before
    # No password is where everybody reads it, and no percent sign ends the line.
    assert "a:b" not in entry.line
    assert "%" not in entry.line.replace(r"\%", "")


# What stands in the place of cron's program: its table is a file.
CRONTAB = """#!/bin/sh
[ "$1" = - ] && exec cat > "$TABLE"
cat "$TABLE" 2>/dev/null
"""


def test_what_is_installed_is_called_and_goes_without_a_trace(tmp_path, monkeypatch) -> None:
    program, table = tmp_path / "bin" / "crontab", tmp_path / "table"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    table.write_text("0 4 * * * backup\n")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TABLE", str(table))
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    # The interpreter of the test has its packages from its own path.
    entry = install.cron_entry({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    install.install(entry)
    install.install(entry)
    ours = [line for line in table.read_text().splitlines() if line.endswith(install.MARK)]
    assert len(ours) == 1
    [variables] = entry.files
    assert variables.stat().st_mode & 0o077 == 0
    command = ours[0].removeprefix("* * * * * ")
    subprocess.run(["sh", "-c", command], check=True, env={"HOME": "/"}, timeout=120)
    assert (tmp_path / "home" / "store.db").exists()
    assert (tmp_path / "home" / "schedules" / "cron.log").read_text() == ""
    install.uninstall(entry)
    assert table.read_text() == "0 4 * * * backup\n"
    assert not variables.exists()


def test_what_would_be_uninstalled_is_only_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(install, "uninstall", lambda _: pytest.fail("it was uninstalled"))

    def serve_with(*words: str) -> Result:
        # As `epic-run` itself calls it; click keeps a verb's help option once it is made.
        names = ["-h", "--help"]
        return CliRunner().invoke(schedule, ["serve", *words], help_option_names=names)

    told = serve_with("--uninstall", "cron", "--dry-run")
    assert (told.exit_code, "schedule.env would be removed" in told.output) == (0, True)
    both = serve_with("--uninstall", "cron", "--install", "systemd")
    assert isinstance(both.exception, InputError)


def test_a_machine_without_cron_says_what_else_there_is(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    with pytest.raises(EpicError, match="no crontab") as refused:
        install.install(install.cron_entry({}))
    assert "--install systemd" in (refused.value.hint or "")
    assert not (tmp_path / "home" / "schedule.env").exists()


def test_the_variables_of_the_shell_reach_the_scheduler(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    wanted = {"EPIC_VAULT_ADDR": 'it\'s $HOME "here"', "HISTFILE": "x", "EPIC_OUTPUT": "json"}
    entry = install.cron_entry(wanted)
    [(path, text)] = entry.files.items()
    path.write_text(text)
    shown = subprocess.run(
        ["sh", "-c", f". {path}; env"], capture_output=True, text=True, check=True, env={}
    ).stdout.splitlines()
    assert 'EPIC_VAULT_ADDR=it\'s $HOME "here"' in shown
    assert not any(line.startswith(("HISTFILE", "EPIC_OUTPUT")) for line in shown)


def test_systemd_gets_a_timer_and_lets_runs_go_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    entry = install.systemd_entry({"XDG_CONFIG_HOME": "/x", "EPIC_HOME": 'a"b\\c'})
    files = {path.name: text for path, text in entry.files.items()}
    assert set(files) == {
        "schedule.systemd.env", "epic-run-schedule.service", "epic-run-schedule.timer",
    }  # fmt: skip
    assert "KillMode=process" in files["epic-run-schedule.service"]
    assert "OnCalendar=minutely" in files["epic-run-schedule.timer"]
    assert files["schedule.systemd.env"] == 'EPIC_HOME="a\\"b\\\\c"\n'
