"""What a shell is told to complete: files, and what the store has names for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from life_samples import document, node, spec

from epic_runner.cli import cli, completing
from epic_runner.host_inventory import inventory_path
from epic_runner.store import (
    ActionRecord,
    HostRecord,
    JobRecord,
    NodeOutcome,
    ScheduleRecord,
    Store,
    Timing,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EPIC_DATABASE_URL", "EPIC_INVENTORY", "EPIC_TENANT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store() -> Iterator[Store]:
    """Two tenants that both have a cluster lab; one has nightly runs, a job and an action."""
    made = Store()
    with made.transaction() as transaction:
        for tenant, members in (("work", ("master-1", "worker-1")), ("play", ("master-1",))):
            transaction.apply_tenant(document(tenant))
            of = spec(tenant=tenant)
            transaction.add_cluster(of, "ada", [node(of, name) for name in members])
        transaction.add_cluster(spec(name="big"), "ada", [node(spec(name="big"), "worker-7")])
        transaction.add_job(JobRecord("20250301-1-aa", "work", "lab", "ada", "a.py", "a.py"))
        transaction.add_action(
            ActionRecord(
                "20250302-2-bb", "work", "lab", "ada", "a", "0" * 64, b"1", {},
                {"worker-1": NodeOutcome("done", 0)},
            )
        )  # fmt: skip
        transaction.put_schedule(
            ScheduleRecord(
                "work", "nightly", "ada", Timing("0 2 * * *", "UTC"), ({"kind": "Job"},)
            ),
            {},
        )
        transaction.put_host(HostRecord("rack1-a"))
    yield made
    made.close()


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return kind and value of all that completes the last word of a line of bash."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    monkeypatch.setenv("_EPIC_RUN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        cli.main([], prog_name="epic-run", standalone_mode=False)
    shown = capsys.readouterr()
    assert shown.err == ""
    return [tuple(item.split(",", 1)) for item in shown.out.splitlines() if item]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda line: [
        value for kind, value in completed(line, monkeypatch, capsys) if kind == "plain"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "launch exa", "launch lab.yml exa", "plan exa", "run exa", "validate exa",
        "tenant apply exa", "schedule add exa", "submit lab exa", "submit lab a.py exa",
        "submit lab --py-files exa", "action run lab exa", "action play lab exa",
        "gateway up --certificate exa", "login --ssh exa",
    ],
)  # fmt: skip
def test_files_are_left_to_the_shell(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(f"epic-run {line}", monkeypatch, capsys) == [("file", "exa")]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("status ", ["play/lab", "big", "work/lab"]),
        ("status b", ["big"]),
        ("status work/", ["work/big", "work/lab"]),
        ("status --tenant work ", ["big", "lab"]),
        ("destroy -t play l", ["lab"]),
        ("login --cluster b", ["big"]),
        ("list --tenant ", ["play", "work"]),
        ("launch lab.yml --tenant w", ["work"]),
        ("tenant show p", ["play"]),
        ("expand big --role ", ["master", "worker"]),
        ("action run big --role w", ["worker"]),
        ("shell work/lab ", ["master-1", "worker-1"]),
        ("shell big -- w", []),
        ("shell big -- ls w", []),
        ("logs big --node ", ["worker-7"]),
        ("logs big --service spark-w", ["spark-worker"]),
        ("shell big --as b", ["bob"]),
        ("schedule show ", ["nightly"]),
        ("job show ", ["20250301-1-aa"]),
        ("action show 2025", ["20250302-2-bb"]),
        ("action logs 20250302 --node ", ["worker-1"]),
        ("host drain ", ["local", "rack1-a"]),
        ("image build sp", ["spark"]),
    ],
)  # fmt: skip
def test_names_are_those_of_the_store(line: str, names: list[str], complete) -> None:
    assert complete(f"epic-run {line}") == names


def test_hosts_of_the_inventory_are_known_as_it_was_last_read(
    home: Path, complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epic_runner import host_inventory

    Store().close()
    (home / "hosts.yml").write_text("all: {hosts: {rack1-b: {}}}", encoding="utf-8")
    assert complete("epic-run host drain ") == []
    read = {"all": {"hosts": ["rack1-b"]}}
    monkeypatch.setattr(host_inventory, "_read", lambda _path: read)
    path = inventory_path()
    assert path
    host_inventory.read_inventory(path)
    monkeypatch.setattr(host_inventory, "_read", None)
    assert complete("epic-run host drain ") == ["rack1-b"]


def test_completing_makes_no_store(home: Path, complete) -> None:
    assert complete("epic-run status ") == []
    assert not home.exists()


def test_a_store_that_cannot_be_read_has_no_names(home: Path, complete) -> None:
    home.mkdir()
    (home / "store.db").write_bytes(b"this is no database" * 500)
    assert complete("epic-run status ") == []


@pytest.mark.usefixtures("store")
def test_a_store_of_an_older_version_is_not_brought_up_to_date(
    complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epic_runner.store import database

    monkeypatch.setattr(database, "HEAD", "9999")
    monkeypatch.setattr(database, "_migrate", None)
    assert complete("epic-run status ") == []


@pytest.mark.usefixtures("store")
def test_a_store_that_does_not_answer_is_not_waited_for(
    complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completing, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(Store, "__init__", lambda *_, **__: time.sleep(20))
    began = time.monotonic()
    assert complete("epic-run status ") == []
    assert time.monotonic() - began < 10


def test_a_verb_that_does_not_exist_is_no_error_while_it_is_typed(complete) -> None:
    assert complete("epic-run lanch x") == []


@pytest.mark.usefixtures("store")
def test_every_argument_is_completed() -> None:
    def silent(group: click.Group, above: str) -> Iterator[str]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command
            if isinstance(command, click.Group):
                yield from silent(command, f"{above}{name} ")
            elif not command.hidden:
                context = click.Context(command)
                for item in command.params:
                    if isinstance(item, click.Argument) and not item.shell_complete(context, ""):
                        yield f"{above}{name} {item.name}"

    assert [*silent(cli, "")] == []


@pytest.mark.usefixtures("store")
def test_the_command_itself_completes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "epic_runner"], capture_output=True, text=True, timeout=60,
        check=True, cwd=Path(__file__).resolve().parents[2],
        env={
            **os.environ, "_EPIC_RUN_COMPLETE": "bash_complete",
            "COMP_WORDS": "epic-run status b", "COMP_CWORD": "2",
        },
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("plain,big", "")
