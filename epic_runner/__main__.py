"""The command's entry: the only place that prints errors and chooses exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

import click

from epic_runner.cli import cli
from epic_runner.errors import EpicError, InputErrors, Mistake

INTERRUPTED = 1


def main(arguments: list[str] | None = None) -> None:
    """Run `epic-run` and end the process: 0 done, 1 the run failed, 2 bad input."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run `epic-run` and return its exit code."""
    # A service manager's stop, or a closed terminal, ends a run as Ctrl-C does: in order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return int(cli.main(arguments, prog_name="epic-run", standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        click.echo("Nothing was changed.", err=True)
        return INTERRUPTED
    except click.ClickException as problem:
        problem.show()
        return 2
    except KeyboardInterrupt:
        click.echo("\nInterrupted. The same command again goes on where it stopped.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, say) has left: no more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EpicError as problem:
        if _debugging():
            raise
        for line in error_lines(problem):
            click.echo(line, err=True)
        return problem.exit_code
    except Exception as problem:
        if _debugging():
            raise
        click.echo(f"Error: {type(problem).__name__}: {problem}", err=True)
        click.echo("Hint:  This is a fault of epic-run; --debug shows where it is.", err=True)
        return 1


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


def _debugging() -> bool:
    return bool(os.environ.get("EPIC_DEBUG"))


if __name__ == "__main__":
    main()
