"""How epic-run ends, whoever reads what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a verb does whose progress nobody reads any more: it goes on, and ends in its own way.
VERB = """
import contextlib, sys
import click
from epic_runner import __main__
from epic_runner.errors import InputError, OperationFailed

@click.command()
@click.pass_context
def verb(context):
    with contextlib.suppress(BrokenPipeError):
        click.echo("Create nodes")
    {end}

__main__.cli = verb
__main__.main([])
"""


def ended(end: str, *, with_errors: bool = False) -> tuple[int, str]:
    """Run a verb that prints into a pipe without a reader; return its exit code and its errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", VERB.format(end=end)],
            stdout=writer, stderr=writer if with_errors else subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2], timeout=60, check=False,
            # What is not written yet has to wait in a buffer.
            env={key: item for key, item in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, (done.stderr or b"").decode()


def test_a_failure_is_one_also_when_nobody_reads_the_progress() -> None:
    code, errors = ended("raise OperationFailed('Create nodes: no space left', 'Make room.')")
    assert code == 1
    assert errors.splitlines() == ["Error: Create nodes: no space left", "Hint:  Make room."]
    assert ended("raise OperationFailed('no space left')", with_errors=True)[0] == 1


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise InputError('wrong')", 2), ("context.exit(5)", 5), ("raise KeyboardInterrupt", 1)],
)
def test_every_other_end_keeps_its_exit_code(end: str, code: int) -> None:
    assert ended(end)[0] == code


def test_a_reader_who_has_enough_is_no_failure() -> None:
    assert ended("click.echo('more')") == (0, "")
