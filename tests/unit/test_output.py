"""What programs read is JSON and nothing else; what is asked of people stands beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from life_samples import known, spec

from epic_runner.cli import cli, tenant
from epic_runner.gateway import site
from epic_runner.resources import content_root
from epic_runner.store import ScheduleRecord, Timing


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("destroy lab", "Destroy work/lab"),
        ("tenant remove work --with-clusters", "With tenant work go:"),
        ("tenant remove work --with-clusters", "Remove tenant work"),
        ("schedule remove nightly", "Remove the schedule work/nightly?"),
        ("gateway down", "Remove the gateway https://gw:8443"),
    ],
)
def test_a_question_is_no_part_of_the_output(
    line: str, question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(tenant, "_volumes", lambda *_, **__: [])
    monkeypatch.setattr(site, "load", lambda: SimpleNamespace(url="https://gw:8443"))
    with known(tmp_path, spec(), "master-1") as context:
        with context.store.transaction() as transaction:
            timing = Timing("0 2 * * *", "UTC")
            transaction.put_schedule(ScheduleRecord("work", "nightly", "ada", timing, ()), {})
        ended = CliRunner().invoke(cli, [*line.split(), "--output", "json"], input="n\n")
    assert question in ended.stderr
    assert ended.stdout == ""


def test_the_folder_of_the_content_is_json_for_programs() -> None:
    ended = CliRunner().invoke(cli, ["inventory", "--content", "--output", "json"])
    assert json.loads(ended.stdout) == {"content": str(content_root())}
    ended = CliRunner().invoke(cli, ["inventory", "--content"])
    assert ended.stdout == f"{content_root()}\n"
