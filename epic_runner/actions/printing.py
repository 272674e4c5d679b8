"""What nodes print, line by line behind their names, on the stream that it came on."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable

# A line that never ends is shown in pieces of this size, so that no memory is filled by it.
LONGEST_LINE_BYTES = 1 << 16

# What may move the cursor of a terminal or worse; colours may stay.
_CONTROL = re.compile(rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")


def harmless(data: bytes) -> bytes:
    """Return text for a terminal: control characters as people write them (`^G`), colours kept."""
    data = data.removesuffix(b"\r")
    return _CONTROL.sub(lambda found: b"^" + bytes([found[0][0] ^ 0x40]), data)


class Lines:
    """Shows the output of many nodes at once: whole lines, each behind its node's name.

    Args:
        width: How wide the names are.
        is_terminal: Whether stdout, and whether stderr, are terminals.
        put: Writes bytes to stdout, or to stderr if its second argument says so.
    """

    def __init__(
        self,
        width: int,
        is_terminal: tuple[bool, bool] | None = None,
        put: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self._width = width
        self._is_terminal = is_terminal or (sys.stdout.isatty(), sys.stderr.isatty())
        self._put = put or write
        self._rest: dict[tuple[str, bool], bytes] = {}
        self._guard = threading.Lock()

    def piece(self, node: str, data: bytes, is_error: bool) -> None:  # noqa: FBT001 - an audience's form
        """Take a piece of what a node printed; show the lines that it ends."""
        with self._guard:
            whole, newline, rest = (self._rest.pop((node, is_error), b"") + data).rpartition(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                whole, newline, rest = whole + newline + rest, b"\n", b""
            if rest:
                self._rest[node, is_error] = rest
            if newline:
                self._show(node, whole, is_error=is_error)

    def of(self, node: str) -> Callable[[bytes, bool], None]:
        """Return what takes the pieces of one node."""
        return lambda data, is_error: self.piece(node, data, is_error)

    def end(self, node: str) -> None:
        """Show what a node printed last, without a line's end."""
        with self._guard:
            for is_error in (False, True):
                if rest := self._rest.pop((node, is_error), b""):
                    self._show(node, rest, is_error=is_error)

    def _show(self, node: str, text: bytes, *, is_error: bool) -> None:
        name = f"{node:<{self._width}} | ".encode()
        lines = text.split(b"\n")
        if self._is_terminal[is_error]:
            lines = [harmless(line) for line in lines]
        self._put(b"".join(name + line + b"\n" for line in lines), is_error)


def plain(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
    """Write what one node printed byte for byte; to a terminal only what does it no harm."""
    if (sys.stderr if is_error else sys.stdout).isatty():
        data = b"\n".join(map(harmless, data.split(b"\n")))
    write(data, is_error)


def write(data: bytes, is_error: bool) -> None:  # noqa: FBT001 - the callback's form
    """Write to our stdout, or to stderr if `is_error`, byte for byte and at once.

    A reader that has left (head, say) ends nothing: the rest is just not shown.
    """
    # Past Python's buffers: a thread that waits inside one would keep the process from ending.
    stream = (sys.stderr if is_error else sys.stdout).fileno()
    try:
        while data:
            data = data[os.write(stream, data) :]
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
