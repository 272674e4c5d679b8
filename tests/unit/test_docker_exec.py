"""Commands in nodes lose no byte, and a broken connection is no success."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epic_runner import docker_exec
from epic_runner.docker_exec import Setting
from epic_runner.errors import DockerUnavailable, EpicError, NotFound
from epic_runner.hosts import Host


def frame(channel: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", channel, len(data)) + data


class Engine:
    """An engine that answers each request with what a test says; it notes what it was asked."""

    def __init__(self, path: Path) -> None:
        self.attached: Callable[[socket.socket], None] = lambda _connection: None
        self.states: list[dict[str, Any]] = [{"Running": False, "ExitCode": 0}]
        self.refuse: tuple[int, str] | None = None
        self.created: dict[str, Any] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n")
             if line.lower().startswith(b"content-length")),
            0,
        )  # fmt: skip
        while len(body) < length:
            body += connection.recv(65536)
        path = head.split()[1].decode()
        if path.endswith("/start"):
            self.attached(connection)
        elif self.refuse:
            self._json(connection, {"message": self.refuse[1]}, self.refuse[0])
        elif path.endswith("/exec"):
            self.created = json.loads(body)
            self._json(connection, {"Id": "e1"}, 201)
        else:
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            self._json(connection, state, 200)

    @staticmethod
    def _json(connection: socket.socket, answer: dict[str, Any], status: int) -> None:
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        connection.sendall(head + data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "docker.sock")
    yield made
    made.close()


@pytest.fixture
def host(tmp_path: Path, engine: Engine) -> Host:
    del engine
    variables = {"ansible_connection": "local", "epic_docker_socket": str(tmp_path / "docker.sock")}
    return Host("local", 1, 2**30, variables=variables)


class Seen:
    def __init__(self) -> None:
        self.out = b""
        self.err = b""

    def write(self, data: bytes, is_error: bool) -> None:  # noqa: FBT001
        if is_error:
            self.err += data
        else:
            self.out += data


def test_output_that_comes_together_with_the_header_is_not_lost(engine: Engine, host: Host) -> None:
    engine.attached = lambda c: c.sendall(HEAD + frame(1, b"first\n") + frame(2, b"oh\n"))
    seen = Seen()
    assert docker_exec.stream(host, "c", ["x"], seen.write) == 0
    assert (seen.out, seen.err) == (b"first\n", b"oh\n")


def test_output_in_any_pieces_arrives_in_order(engine: Engine, host: Host) -> None:
    def dribble(connection: socket.socket) -> None:
        data = HEAD + b"".join(frame(1, bytes([n]) * n) for n in range(1, 60))
        for start in range(0, len(data), 7):
            connection.sendall(data[start : start + 7])

    engine.attached = dribble
    engine.states = [{"Running": True, "ExitCode": None}, {"Running": False, "ExitCode": 9}]
    seen = Seen()
    assert docker_exec.stream(host, "c", ["x"], seen.write) == 9
    assert seen.out == b"".join(bytes([n]) * n for n in range(1, 60))


def test_a_connection_that_breaks_off_is_no_success(
    engine: Engine, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_exec, "_END_SECONDS", 0.1)
    engine.attached = lambda c: c.sendall(HEAD + frame(1, b"begun")[:-2])
    engine.states = [{"Running": True, "ExitCode": None}]
    with pytest.raises(DockerUnavailable, match="broke off"):
        docker_exec.stream(host, "c", ["x"], Seen().write)


def test_input_is_handed_over_and_closed(engine: Engine, host: Host, tmp_path: Path) -> None:
    def count(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        total = 0
        while data := connection.recv(65536):
            total += len(data)
        connection.sendall(frame(1, str(total).encode()))

    engine.attached = count
    given = tmp_path / "given"
    given.write_bytes(os.urandom(1_000_000))
    seen = Seen()
    with given.open("rb") as source:
        docker_exec.stream(host, "c", ["wc"], seen.write, stdin=source)
    assert seen.out == b"1000000"
    assert engine.created["AttachStdin"] is True


def test_a_command_that_is_held_has_an_input_that_stays_open(engine: Engine, host: Host) -> None:
    def end_when_silent(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        try:
            ended = connection.recv(1) == b""
        except TimeoutError:
            ended = False
        connection.sendall(HEAD + frame(1, str(ended).encode()))

    engine.attached = end_when_silent
    seen = Seen()
    docker_exec.stream(host, "c", ["tail"], seen.write, hold=True)
    assert seen.out == b"False"
    assert engine.created["AttachStdin"] is True


def test_a_command_runs_as_whom_and_where_it_is_told_to(engine: Engine, host: Host) -> None:
    engine.attached = lambda c: c.sendall(HEAD + frame(1, b"a") + frame(2, b"b"))
    setting = Setting("ada", "/tenant", {"A": "b"})
    assert docker_exec.output_of(host, "c", ["x"], setting=setting) == (0, "ab")
    assert engine.created["User"] == "ada"
    assert engine.created["WorkingDir"] == "/tenant"
    assert engine.created["Env"] == ["A=b"]
    assert engine.created["AttachStdin"] is False


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(404, NotFound, "No such container"), (409, EpicError, "is not running")],
)
def test_a_refusal_is_told_in_the_engines_words(
    engine: Engine, host: Host, status: int, error: type[EpicError], message: str
) -> None:
    engine.refuse = (status, message)
    with pytest.raises(error, match=message):
        docker_exec.output_of(host, "c", ["x"])


def test_an_engine_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    variables = {"ansible_connection": "local", "epic_docker_socket": str(tmp_path / "none")}
    with pytest.raises(DockerUnavailable, match="does not answer"):
        docker_exec.output_of(Host("local", 1, 1, variables=variables), "c", ["x"])


def test_an_error_of_the_reader_is_not_taken_for_dockers(engine: Engine, host: Host) -> None:
    engine.attached = lambda c: c.sendall(HEAD + frame(1, b"x"))

    def write(_data: bytes, _is_error: bool) -> None:  # noqa: FBT001
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        docker_exec.stream(host, "c", ["x"], write)


def test_a_terminal_passes_bytes_both_ways(engine: Engine, host: Host) -> None:
    def echo(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"prompt ")
        connection.sendall(connection.recv(100).upper())

    engine.attached = echo
    engine.states = [{"Running": False, "ExitCode": 4}]
    terminal = docker_exec.Terminal(host, "c", ["bash"])
    shown = terminal.receive()
    terminal.send(b"hello")
    while data := terminal.receive():
        shown += data
    assert shown == b"prompt HELLO"
    assert terminal.close() == 4
    assert engine.created["Tty"] is True
