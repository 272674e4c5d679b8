"""Commands inside nodes, attached: output as it comes, input, terminals.

The Docker SDK is not used here. It reads an attached stream from the bare socket and so loses what
had arrived together with the answer's header, which a busy machine turns into lost first lines;
and it takes a quarter of a second to import. What is needed of the engine's API is three requests.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from epic_runner.errors import DockerUnavailable, EpicError, NotFound
from epic_runner.hosts import Host

API = "/v1.41"  # Docker 20.10, the oldest engine that is supported
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 16

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
    with _speaking(host):
        started = _create(host, container, command, setting, stdin=hold or stdin is not None)
        attached = _Attached(host, started, tty=False)
    with contextlib.closing(attached):
        if stdin is not None:
            threading.Thread(target=_feed, args=(stdin, attached), daemon=True).start()
        for is_error, piece in attached.frames():
            write(piece, is_error)
    with _speaking(host):
        return _exit_code(host, started)


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
        with _speaking(host):
            self._exec = _create(host, container, command, setting, stdin=True, tty=True)
            self._attached = _Attached(host, self._exec, tty=True)

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
            _request(self._host, "POST", f"/exec/{self._exec}/resize?h={rows}&w={columns}")

    def close(self) -> int:
        """Hang up, and return the exit code of the command."""
        with _speaking(self._host):
            self._attached.close()
            return _exit_code(self._host, self._exec)


class _Attached:
    """The connection to a started exec: frames of output, or a terminal's bytes, and input."""

    def __init__(self, host: Host, exec_id: str, *, tty: bool) -> None:
        connection = _Connection(host)
        response = connection.send_json(
            "POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": tty}
        )
        if response.status != http.client.OK:
            _check(response.status, response.read())
        self._host = host
        self._connection = connection
        self._response = response
        # A terminal or a job may be silent for hours.
        connection.stream.settimeout(None)

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

    def close(self) -> None:
        self._response.close()
        self._connection.end()

    def _exactly(self, length: int) -> bytes:
        # Through the response's own buffer: what came with the header is in there.
        data = b""
        with _speaking(self._host):
            while len(data) < length:
                piece = self._response.read(length - len(data))
                if not piece:
                    return b""
                data += piece
        return data


class _Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket: the local one, or one behind SSH."""

    def __init__(self, host: Host) -> None:
        super().__init__("docker", timeout=TIMEOUT_SECONDS)
        self._of = host
        self._helper: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        if self._of.is_local:
            self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.stream.settimeout(TIMEOUT_SECONDS)
            self.stream.connect(self._of.socket)
        else:
            command = ["ssh", "-o", "BatchMode=yes", self._of.name, "docker system dial-stdio"]
            self.stream, theirs = socket.socketpair()
            self.stream.settimeout(TIMEOUT_SECONDS)
            with theirs:
                end = theirs.fileno()
                self._helper = subprocess.Popen(command, stdin=end, stdout=end)
        # http.client forgets `sock` when a response is to be read to its end; it stays open, and
        # ours to write to, as long as the response does.
        self.sock = self.stream

    def send_json(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        self.request(method, API + path, body=data, headers=headers)
        return self.getresponse()

    def end(self) -> None:
        self.close()
        self.stream.close()
        if self._helper is not None:
            self._helper.terminate()
            self._helper.wait()


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
    return str(_request(host, "POST", f"/containers/{container}/exec", body)["Id"])


def _exit_code(host: Host, exec_id: str) -> int:
    end = time.monotonic() + _END_SECONDS
    while True:
        state = _request(host, "GET", f"/exec/{exec_id}/json")
        if not state["Running"] and state["ExitCode"] is not None:
            return int(state["ExitCode"])
        if time.monotonic() > end:
            raise DockerUnavailable(
                f"The connection to Docker on host {host.name} broke off; the command goes on."
            )
        time.sleep(0.02)


def _request(host: Host, method: str, path: str, body: Any = None) -> Any:
    connection = _Connection(host)
    try:
        response = connection.send_json(method, path, body)
        data = response.read()
    finally:
        with contextlib.suppress(AttributeError):  # not even connected
            connection.end()
    _check(response.status, data)
    return json.loads(data) if data else None


def _check(status: int, data: bytes) -> None:
    if status < http.client.BAD_REQUEST:
        return
    message = data.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(message)["message"]
    if status == http.client.NOT_FOUND:
        raise NotFound(f"Docker: {message}")
    raise EpicError(f"Docker: {message or status}")


@contextlib.contextmanager
def _speaking(host: Host) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as problem:
        raise DockerUnavailable(
            f"Docker on host {host.name} does not answer: {problem}",
            "epic-run doctor tells what is wrong with it.",
        ) from problem


def _feed(source: BinaryIO, attached: _Attached) -> None:
    # Read past Python's buffer: a thread that waits inside it would keep the process from ending.
    with contextlib.suppress(OSError):
        while data := os.read(source.fileno(), CHUNK):
            attached.send(data)
    attached.end_input()
