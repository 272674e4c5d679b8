"""Commands inside nodes, attached: output as it comes, input, terminals.

The Docker SDK would not do: it reads an attached stream from the bare socket and so loses what had
arrived together with the answer's header, which a busy machine turns into lost first lines.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from epic_runner.deadline import within
from epic_runner.engine import Connection, check, request, speaking
from epic_runner.errors import DockerUnavailable, EpicError
from epic_runner.hosts import Host

CHUNK = 1 << 16

# How long a command may take to begin; how long it then goes on is its own affair.
OPENING_SECONDS = 20.0

# How long the engine may take to notice that a command has ended whose output has.
_END_SECONDS = 5.0
_FRAME_HEADER = 8  # bytes: stream, three zeros, length (Docker's attach format)
_STDERR = 2

Write = Callable[[bytes, bool], None]


@dataclass(frozen=True)
class Setting:
    """As whom and where a command runs.

    Attributes:
        user: As whom; as the container's own user if empty.
        directory: Where; in the container's own directory if empty.
        environment: Variables beside those of the container.
    """

    user: str = ""
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


_PLAIN = Setting()


def stream(
    host: Host,
    container: str,
    command: list[str],
    write: Write,
    *,
    setting: Setting = _PLAIN,
    stdin: BinaryIO | None = None,
    hold: bool = False,
) -> int:
    """Run a command in a container and pass on its output as it comes.

    Args:
        host: The container's host.
        container: The container's name.
        command: The command.
        write: Called with each piece, and whether it came on stderr.
        setting: As whom and where.
        stdin: A file whose content becomes the command's input; no input if None.
        hold: Keep the command's input open and empty for as long as this process listens: by its
            end a command learns that nobody does any more, which Docker tells it in no other way.

    Returns:
        The command's exit code.

    Raises:
        NotFound: There is no such container.
        EpicError: The engine refused: the container does not run, say.
        DockerUnavailable: The engine does not answer, or the connection broke off before the
            command's end.
    """
    started, attached = _attach(host, container, command, setting, hold or stdin is not None)
    with contextlib.closing(attached):
        attached.go_on()
        if stdin is not None:
            threading.Thread(target=_feed, args=(stdin, attached), daemon=True).start()
        for is_error, piece in attached.frames():
            write(piece, is_error)
    with speaking(host), within(OPENING_SECONDS):
        return _exit_code(host, started)


class Pouring:
    """A command whose output is passed on until it ends or somebody stops listening.

    Its input stays open and empty for as long as that. Its exit code is not asked for: whoever
    needs to know how it ended has it print that.

    Args:
        host: The container's host.
        container: The container's name.
        command: The command.

    Raises as `stream` does.
    """

    def __init__(self, host: Host, container: str, command: list[str]) -> None:
        _, self._attached = _attach(host, container, command, _PLAIN, stdin=True)

    def pour(self, write: Write) -> None:
        """Pass on what comes, to the end; `write` is called as by `stream`."""
        with contextlib.closing(self._attached):
            self._attached.go_on()
            for is_error, piece in self._attached.frames():
                write(piece, is_error)

    def stop(self) -> None:
        """Stop listening; `pour` returns, in whatever thread it is."""
        self._attached.hang_up()


def output_of(
    host: Host, container: str, command: list[str], *, setting: Setting = _PLAIN
) -> tuple[int, str]:
    """Run a short command in a container; return its exit code and all it printed.

    Raises as `stream` does.
    """
    pieces: list[bytes] = []
    code = stream(host, container, command, lambda piece, _: pieces.append(piece), setting=setting)
    return code, b"".join(pieces).decode("utf-8", "replace")


class Terminal:
    """A command on a terminal of its own inside a container.

    Args:
        host: The container's host.
        container: The container's name.
        command: The command.
        setting: As whom and where.

    Raises as `stream` does.
    """

    def __init__(
        self, host: Host, container: str, command: list[str], *, setting: Setting = _PLAIN
    ) -> None:
        self._host = host
        with speaking(host), within(OPENING_SECONDS):
            self._exec = _create(host, container, command, setting, stdin=True, tty=True)
            self._attached = _Attached(host, self._exec, tty=True)
        self._attached.go_on()

    def send(self, data: bytes) -> None:
        """Type `data`."""
        self._attached.send(data)

    def receive(self) -> bytes:
        """Wait for what the command shows; empty once it has ended."""
        return self._attached.read_some()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal how large its window is."""
        # A command that has ended has no window any more: no reason to complain.
        with contextlib.suppress(EpicError, OSError, http.client.HTTPException):
            request(self._host, "POST", f"/exec/{self._exec}/resize?h={rows}&w={columns}")

    def close(self) -> int:
        """Hang up, and return the exit code of the command."""
        with speaking(self._host):
            self._attached.close()
            return _exit_code(self._host, self._exec)


def _attach(
    host: Host,
    container: str,
    command: list[str],
    setting: Setting,
    stdin: bool,  # noqa: FBT001 - as the engine has it
) -> tuple[str, _Attached]:
    with speaking(host), within(OPENING_SECONDS):
        started = _create(host, container, command, setting, stdin=stdin)
        return started, _Attached(host, started, tty=False)


class _Attached:
    """The connection to a started exec: frames of output, or a terminal's bytes, and input."""

    def __init__(self, host: Host, exec_id: str, *, tty: bool) -> None:
        connection = Connection(host)
        try:
            response = connection.send_json(
                "POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": tty}
            )
            if response.status != http.client.OK:
                check(response.status, connection.read(response))
        except BaseException:
            connection.end()
            raise
        self._host = host
        self._connection = connection
        self._response = response

    def go_on(self) -> None:
        """Be silent as long as it likes from here on, as a terminal or a job may be for hours."""
        self._connection.watch(None)

    def frames(self) -> Iterator[tuple[bool, bytes]]:
        while header := self._exactly(_FRAME_HEADER):
            channel, length = struct.unpack(">BxxxL", header)
            yield channel == _STDERR, self._exactly(length)

    def read_some(self) -> bytes:
        try:
            return self._response.read1(CHUNK)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        self._connection.stream.sendall(data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.stream.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()
        self._connection.end()

    def _exactly(self, length: int) -> bytes:
        # Through the response's own buffer: what came with the header is in there.
        data = b""
        with speaking(self._host):
            while len(data) < length:
                try:
                    piece = self._response.read(length - len(data))
                except (OSError, http.client.HTTPException) as problem:
                    raise self._connection.explained(problem) from problem
                if not piece:
                    self._connection.refuse_late()
                    return b""
                data += piece
        return data


def _create(
    host: Host,
    container: str,
    command: list[str],
    setting: Setting,
    *,
    stdin: bool = False,
    tty: bool = False,
) -> str:
    body = {
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": tty,
        "Cmd": command,
        "User": setting.user,
        "WorkingDir": setting.directory,
        "Env": [f"{key}={value}" for key, value in setting.environment.items()],
    }
    return str(request(host, "POST", f"/containers/{container}/exec", body)["Id"])


def _exit_code(host: Host, exec_id: str) -> int:
    end = time.monotonic() + _END_SECONDS
    while True:
        state = request(host, "GET", f"/exec/{exec_id}/json")
        if not state["Running"] and state["ExitCode"] is not None:
            return int(state["ExitCode"])
        if time.monotonic() > end:
            raise DockerUnavailable(
                f"The connection to Docker on host {host.name} broke off; the command goes on."
            )
        time.sleep(0.02)


def _feed(source: BinaryIO, attached: _Attached) -> None:
    # Read past Python's buffer: a thread that waits inside it would keep the process from ending.
    with contextlib.suppress(OSError):
        while data := os.read(source.fileno(), CHUNK):
            attached.send(data)
    attached.end_input()
