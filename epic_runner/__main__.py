"""The command's entry: the only place that prints errors and chooses exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from typing import TextIO

import click

from epic_runner.cli import cli
from epic_runner.errors import EpicError, InputErrors, Mistake


def main(arguments: list[str] | None = None) -> None:
    """Run `epic-run` and end the process: 0 done, 1 the run failed, 2 bad input."""
    sys.exit(run(arguments))


# What click raises for a group without a verb; before 8.2 it printed the help itself.
NO_VERB: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())

# A service manager's stop, or a closed terminal: they end a run as Ctrl-C does.
ORDERLY = (signal.SIGTERM, signal.SIGHUP)


def _end_in_order(_number: int, _frame: object) -> None:
    """End once: what cleans up behind a run is not disturbed by a second signal of the kind.

    Those come by themselves: the kernel tells of a parent's end as often as it has threads.
    """
    for number in ORDERLY:
        # Not SIG_IGN, which whatever is started from here on would have as well.
        _handle(number, lambda *_: None)
    raise KeyboardInterrupt


def _handle(number: signal.Signals, act: signal._HANDLER) -> None:
    """Have a signal handled, unless whoever started this process lets it ignore it: nohup, say."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, act)


def run(arguments: list[str] | None = None) -> int:
    """Run `epic-run` and return its exit code."""
    for number in ORDERLY:
        _handle(number, _end_in_order)
    output, errors = sys.stdout, sys.stderr
    try:
        code = int(cli.main(arguments, prog_name="epic-run", standalone_mode=False) or 0)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (BrokenPipeError, SystemExit) as end:
        # The reader of our output (head, say) has left: no more to say. When click is the first
        # to notice, it wraps the output and ends the process, as shell completion does too.
        if isinstance(end, SystemExit) and sys.stdout is output:
            raise
        return 0
    except (KeyboardInterrupt, Exception) as problem:
        if os.environ.get("EPIC_DEBUG"):
            raise
        lines, code = told(problem)
        with contextlib.suppress(BrokenPipeError):
            for line in lines:
                click.echo(line, err=True)
    finally:
        for stream in (output, errors):
            _let_go(stream)
    return code


def _let_go(stream: TextIO) -> None:
    """Give up what a stream still holds and cannot get rid of, since its reader has left, say.

    Python would try once more when it ends, and make of its failure the exit code 120.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def told(problem: BaseException) -> tuple[Iterable[str], int]:
    """Return how an exception is told to people, and the exit code it ends in."""
    match problem:
        # click turns Ctrl-C into its own Abort, which a "no" to a question is as well.
        case KeyboardInterrupt() | click.Abort(__cause__=KeyboardInterrupt()):
            return ["\nInterrupted. The same command again goes on where it stopped."], 1
        case click.Abort():
            return ["Nothing was changed."], 1
        case click.ClickException():
            return usage_lines(problem), 2
        case EpicError():
            return error_lines(problem), problem.exit_code
        case OSError(strerror=str()):
            where = f"{problem.filename}: " if problem.filename else ""
            hint = "epic-run doctor looks at disks and permissions."
            return error_lines(EpicError(f"{where}{problem.strerror}.", hint)), 1
        case _:
            text = f"{type(problem).__name__}: {problem}"
            hint = "This is a fault of epic-run; epic-run --debug shows where it is."
            return error_lines(EpicError(text, hint)), 1


def usage_lines(problem: click.ClickException) -> Iterable[str]:
    """Return a mistake in how the command was called, with the command whose help says more.

    That no verb was named is none to be told of: the help is what click has to say, and all of it.
    """
    if isinstance(problem, NO_VERB):
        yield problem.format_message()
        return
    yield click.style("Error:", fg="red", bold=True) + f" {problem.format_message()}"
    context = getattr(problem, "ctx", None)
    if context is not None:
        yield click.style("Hint: ", fg="cyan") + f" {context.command_path} --help"


def error_lines(problem: EpicError) -> Iterable[str]:
    """Return an error as people read it: `Error:` where and what, `Hint:` what to do next."""
    mistakes: Iterable[Mistake] = (
        problem.mistakes
        if isinstance(problem, InputErrors)
        else [Mistake("", problem.message, problem.hint)]
    )
    for mistake in mistakes:
        where = f"{mistake.where}: " if mistake.where else ""
        yield click.style("Error:", fg="red", bold=True) + f" {where}{mistake.message}"
        if mistake.hint:
            yield click.style("Hint: ", fg="cyan") + f" {mistake.hint}"


if __name__ == "__main__":
    main()
