"""Showing an operation while it runs: live in a terminal, plain lines when piped, or not at all."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

import click

from epic_runner.events import Step

# Outcomes that are not worth a line of their own when nothing had to be done.
_QUIET = {"unchanged"}


class Progress(Protocol):
    """Something that shows steps from `__enter__` to `__exit__`."""

    def step(self, step: Step) -> None:
        """Show one step."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, whatever happened."""


def open_progress(*, quiet: bool, on_stderr: bool = False) -> Progress:
    """Return the progress that fits where stdout goes, or stderr."""
    if quiet:
        return Silent()
    stream = sys.stderr if on_stderr else sys.stdout
    return Live(on_stderr=on_stderr) if stream.isatty() else Plain(on_stderr=on_stderr)


class Silent:
    """Shows nothing: the result alone will be printed."""

    def step(self, step: Step) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""


class Plain:
    """One line a step, with the seconds since the start: for logs and pipes."""

    def __init__(self, *, on_stderr: bool = False) -> None:
        self._start = time.monotonic()
        self._on_stderr = on_stderr

    def step(self, step: Step) -> None:
        """Print a line."""
        seconds = f"{time.monotonic() - self._start:6.1f}s"
        if not step.node:
            click.echo(f"{seconds}  {step.phase}", err=self._on_stderr)
        elif step.message not in _QUIET:
            mark = "FAILED: " if step.failed else ""
            click.echo(f"{seconds}    {step.node}: {mark}{step.message}", err=self._on_stderr)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""


class Live:
    """Phases with a spinner and their time, and under the present one its nodes."""

    def __init__(self, *, on_stderr: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._phases: list[tuple[str, float, dict[str, Step]]] = []
        self._states: dict[str, str] = {}
        self._ended: float | None = None
        self._failed = False
        console = Console(stderr=on_stderr)
        self._live = RichLive(console=console, get_renderable=self._render, refresh_per_second=8)

    def step(self, step: Step) -> None:
        """Take a step into the picture."""
        if not self._phases or self._phases[-1][0] != step.phase:
            self._phases.append((step.phase, time.monotonic(), {}))
        if step.node:
            self._phases[-1][2][step.node] = step

    @property
    def is_over(self) -> bool:
        """Whether the operation has ended."""
        return self._ended is not None

    def states(self, states: dict[str, str]) -> None:
        """Take the nodes' present states into the picture, beside the operation's own steps."""
        self._states = states

    def __enter__(self) -> Self:
        """Begin drawing."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw the last picture and leave it standing."""
        self._ended = time.monotonic()
        self._failed = kind is not None
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        lines: list[Any] = []
        for position, (phase, start, nodes) in enumerate(self._phases):
            last = position == len(self._phases) - 1
            end = self._ended if last else self._phases[position + 1][1]
            seconds = (end or time.monotonic()) - start
            label = f"{phase}  {seconds:.1f} s"
            bad = any(step.failed for step in nodes.values()) or (last and self._failed)
            if end is None:
                lines.append(Spinner("dots", text=Text(label, style="bold")))
            else:
                lines.append(
                    Text(f"{'✗' if bad else '✓'} {label}", style="red" if bad else "green")
                )
            shown = {name: step for name, step in nodes.items() if step.message not in _QUIET}
            if end is None:
                # What Docker and the services say of nodes that the phase has not reported yet.
                for name, state in self._states.items():
                    shown.setdefault(name, Step(phase, name, state))
            lines += [_line(step) for step in shown.values()]
        return Group(*lines) if lines else Spinner("dots", text="Start")


def _line(step: Step) -> Any:
    from rich.text import Text

    return Text(f"    {step.node:<14} {step.message}", style="red" if step.failed else "dim")
