"""How epic-run ends, whoever reads what it prints, and whatever tells it to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epic_runner import __main__

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


# What a verb does that is told to end, and that cleans up behind itself.
ENDED = """
import os, signal, subprocess, sys, threading, time
import click
from epic_runner import __main__
from epic_runner.processes import join

@click.command()
def verb():
    waiting = threading.Thread(target=time.sleep, args=(60,), daemon=True)
    waiting.start()
    def tell():
        time.sleep(0.3)
        {tell}
    threading.Thread(target=tell, daemon=True).start()
    try:
        join(waiting)
    except KeyboardInterrupt:
        {again}
        time.sleep(0.1)
        # What is started to clean up can be ended as ever.
        child = subprocess.Popen(["sleep", "60"])
        child.terminate()
        print("cleaned up", child.wait())
        raise

__main__.cli = verb
__main__.main([])
"""


def told_to_end(tell: str, again: str = "") -> str:
    """Run a verb that is told to end, and told again while it cleans up; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED.format(tell=tell, again=again or "pass")],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2], timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_whoever_is_told_to_end_cleans_up_undisturbed(name: str) -> None:
    tell = f"os.kill(os.getpid(), signal.{name})"
    assert told_to_end(tell, tell) == "cleaned up -15\n"


def test_a_signal_that_does_not_wake_who_waits_is_seen_in_a_moment() -> None:
    """As one that comes just before the wait."""
    tell = "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)"
    assert told_to_end(tell) == "cleaned up -15\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_the_caller_lets_it_ignore_ends_nothing(name: str) -> None:
    """As nohup does with a terminal's end."""
    tell = f"os.kill(os.getpid(), signal.{name}); time.sleep(1); os._exit(7)"
    verb = ENDED.format(tell=tell, again="pass")
    done = subprocess.run(
        ["bash", "-c", f'trap "" {name}; exec "$@"', "bash", sys.executable, "-c", verb],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2], timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, ""), done.stderr


@pytest.mark.parametrize("group", [[], ["tenant"], ["host"]])
def test_without_a_verb_the_help_is_all_that_is_printed(
    group: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "ORDERLY", ())
    assert __main__.run([*group, "--help"]) == 0
    help_text = capsys.readouterr().out
    # click's own exit code for it.
    assert __main__.run(group) == 2
    assert capsys.readouterr() == ("", help_text)
    assert __main__.run([*group, "--nonsense"]) == 2
    assert capsys.readouterr().err.startswith("Error: No such option")
