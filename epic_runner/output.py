"""How a command's result reaches its reader: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

output_option = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    envvar="EPIC_OUTPUT",
    help="A table for people, or JSON for programs.",
)


def emit(data: Any, human: Callable[[], None], output: str) -> None:
    """Print `data` as JSON, or call `human`, which prints the same for people."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, sort_keys=True, default=str))
    else:
        human()


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return `rows` under `headings` in columns as wide as their widest cell.

    Plain text without frames, so that it can be read, cut and searched with other tools.
    """
    cells = [[str(cell) for cell in row] for row in [list(headings), *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def counted(count: int, what: str) -> str:
    """Return a number of things for people: `1 node`, `3 nodes`, `0 hosts`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def bytes_text(count: int) -> str:
    """Return a count of bytes for people: `512m`, `4g`, `1.5t` (binary multiples)."""
    if count == 0:
        return "0"
    for unit, factor in (("t", 2**40), ("g", 2**30), ("m", 2**20), ("k", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + unit
    return str(count)


def duration_text(seconds: float) -> str:
    """Return a duration for people, in its two largest units: `45s`, `1h 20m`, `3d 2h`."""
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (parts and unit != "s"):
            parts.append((left // size, unit))
            left %= size
    text = " ".join(f"{count}{unit}" for count, unit in parts[:2] if count)
    return text or "0s"


def shortened(text: str, most: int = 30) -> str:
    """Return a text on one line, cut where it is longer than `most` letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
