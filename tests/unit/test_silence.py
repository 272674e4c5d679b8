"""Hosts and engines that hang: each is waited for once, and not for longer than was said."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from content_modules import utility
from life_samples import record, spec

from epic_runner import docker_api, docker_exec, logs, ssh, status
from epic_runner.deadline import seconds_left, within
from epic_runner.engine import request
from epic_runner.errors import DockerUnavailable
from epic_runner.everywhere import ask_all
from epic_runner.hosts import Host
from epic_runner.status import NodeStatus, Place, health, probe_all

LIMIT = 0.6
# What a busy machine may add.
SLACK = 3.0

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def bounded(seconds: float = LIMIT) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK


class Engine:
    """An engine whose every connection is a test's affair, from the request on."""

    def __init__(self, path: Path, behave: Callable[[socket.socket, bytes], None]) -> None:
        self.host = Host("here", 1, 1, variables={
            "ansible_connection": "local", "epic_docker_socket": str(path),
        })  # fmt: skip
        self.asked: list[bytes] = []
        self._behave = behave
        self._open: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = connection.recv(65536)
            self.asked.append(head.split()[1])
            self._behave(connection, head)

    def close(self) -> None:
        _shut(self._socket)
        # Whoever was being let in meanwhile is among the open ones only then.
        self._server.join()
        for one in self._open:
            _shut(one)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def hang(_connection: socket.socket, _head: bytes) -> None:
    """Take a request, and say nothing."""


def drip(start: bytes) -> Callable[[socket.socket, bytes], None]:
    """Say one byte after the other for ever: no single wait is long."""

    def behave(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return behave


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    with contextlib.ExitStack() as stack:

        def make(behave: Callable[[socket.socket, bytes], None]) -> Engine:
            made = Engine(tmp_path / "docker.sock", behave)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize(
    "behave",
    [
        hang,
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=["silent", "in its head", "in its body", "without an end"],
)
def test_an_engine_has_one_deadline_for_its_whole_answer(engine, behave) -> None:
    host = engine(behave).host
    with (
        bounded(),
        within(LIMIT),
        pytest.raises(DockerUnavailable, match="on host here does not answer: no answer within"),
    ):
        request(host, "GET", "/info")


def test_an_engine_that_accepts_nobody_is_not_waited_for(tmp_path: Path) -> None:
    """A dockerd that was stopped: its socket takes connections until the backlog is full."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as waiting:
        listening.bind(str(path))
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)  # noqa: FBT003 - the method's form
                one.connect(str(path))
        variables = {"ansible_connection": "local", "epic_docker_socket": str(path)}
        with bounded(), within(LIMIT), pytest.raises(DockerUnavailable):
            request(Host("here", 1, 1, variables=variables), "GET", "/info")


def test_of_several_bounds_the_nearest_counts() -> None:
    assert seconds_left() is None
    with within(1):
        with within(60):
            assert seconds_left() <= 1
        with within(0.1):
            assert seconds_left() <= 0.1
        assert 0.1 < seconds_left() <= 1
    assert seconds_left() is None


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Host]:
    """Put a shell's lines in ssh's place; returns a host that is reached by it."""

    def make(lines: str) -> Host:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "ssh").write_text(f"#!/bin/bash\n{lines}\n")
        (folder / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        monkeypatch.setenv("EPIC_HOME", str(tmp_path))
        return Host("far", 1, 1)

    return make


def test_ssh_that_hangs_and_does_not_want_to_end_is_ended(fake_ssh) -> None:
    host = fake_ssh("trap '' TERM; while true; do sleep 0.05; done")
    with (
        bounded(LIMIT + 1),
        within(LIMIT),
        pytest.raises(DockerUnavailable, match="host far does not answer: no answer within"),
    ):
        request(host, "GET", "/info")


def test_ssh_is_quoted_though_a_shared_connection_keeps_its_output_open(fake_ssh) -> None:
    host = fake_ssh("(sleep 5) <&- >/dev/null & echo 'docker: not found' >&2; exit 127")
    with bounded(1), pytest.raises(DockerUnavailable, match="docker: not found"):
        request(host, "GET", "/info")


def test_a_socket_that_ssh_does_not_forward_is_not_waited_for(fake_ssh) -> None:
    host = fake_ssh("exec sleep 60")
    with bounded(), within(LIMIT), pytest.raises(DockerUnavailable, match="Host far"):
        ssh.forwarded_engine(host)


def test_a_silent_host_costs_its_own_limit_once_and_hides_no_other(engine, tmp_path) -> None:
    silent = engine(hang).host
    well = Engine(tmp_path / "well.sock", lambda connection, _: connection.sendall(OK))
    hosts = [silent, *(Host(f"well-{n}", 1, 1, variables=well.host.variables) for n in range(40))]
    with bounded():
        answers, problems = ask_all(hosts, lambda host: request(host, "GET", "/info"), LIMIT)
    well.close()
    assert len(answers) == 40
    assert problems.keys() == {"here"}
    assert "no answer within" in problems["here"]


def test_logs_of_a_silent_host_are_given_up_once(engine, monkeypatch) -> None:
    monkeypatch.setattr(logs, "ANSWER_SECONDS", LIMIT)
    made = engine(hang)
    cluster = record(spec(12), "master-1", *(f"worker-{n}" for n in range(1, 13)))
    with bounded():
        tails = logs.tails({"local": replace(made.host, name="local")}, logs.sources(cluster), 5)
    assert made.asked == [b"/_ping"]
    assert len(tails) == 13
    assert all("host local does not answer" in tail.problem for tail in tails)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


def exec_engine(
    attached: Callable[[socket.socket], None],
) -> Callable[[socket.socket, bytes], None]:
    """Behave as an engine in which a command is started."""

    def behave(connection: socket.socket, head: bytes) -> None:
        if b"/start" in head:
            attached(connection)
            return
        body = b'{"Id": "e1", "Running": false, "ExitCode": 0}'
        told = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
        connection.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (told, body))

    return behave


def test_a_command_that_begins_late_is_given_up(engine, monkeypatch) -> None:
    monkeypatch.setattr(docker_exec, "OPENING_SECONDS", LIMIT)
    host = engine(exec_engine(lambda _: None)).host
    with bounded(), pytest.raises(DockerUnavailable, match="no answer within"):
        docker_exec.output_of(host, "c", ["true"])


def test_a_command_that_has_begun_may_be_silent_for_long(engine, monkeypatch) -> None:
    monkeypatch.setattr(docker_exec, "OPENING_SECONDS", 0.5)

    def attached(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        time.sleep(1.0)
        connection.sendall(b"\x01\x00\x00\x00\x00\x00\x00\x04late")
        connection.shutdown(socket.SHUT_RDWR)

    assert docker_exec.output_of(engine(exec_engine(attached)).host, "c", ["true"]) == (0, "late")


def test_a_question_asked_by_a_command_has_the_question_s_deadline(engine) -> None:
    host = engine(exec_engine(lambda connection: connection.sendall(HEAD))).host
    with bounded(), within(LIMIT), pytest.raises(DockerUnavailable, match="no answer within"):
        docker_exec.output_of(host, "c", ["true"])


# -- the modules on hosts ------------------------------------------------------------------------


def test_a_module_gives_an_engine_up_that_gives_no_sign_of_life(engine, monkeypatch) -> None:
    monkeypatch.setattr(utility, "PULSE_SECONDS", 0.3)
    made = engine(hang)
    docker = utility.Docker(made.host.socket)
    with bounded(), pytest.raises(utility.DockerError, match="it hangs: no sign of life"):
        docker.request("POST", "/containers/create", {})
    asked = len(made.asked)
    # What else is to be done on this host is not even tried.
    for act in (
        lambda: docker.request("GET", "/info"),
        lambda: docker.execute("c", ["true"]),
        lambda: docker.start_with("c", {}),
    ):
        with bounded(0), pytest.raises(utility.DockerError, match="it hangs"):
            act()
    assert len(made.asked) == asked


def test_a_module_waits_for_an_engine_that_is_slow_and_lives(engine, monkeypatch) -> None:
    monkeypatch.setattr(utility, "PULSE_SECONDS", 0.2)

    def slow(connection: socket.socket, head: bytes) -> None:
        if b"/_ping" not in head:
            time.sleep(1.0)
        connection.sendall(OK)

    made = engine(slow)
    assert utility.Docker(made.host.socket).request("POST", "/containers/x/stop") == b"{}"
    assert b"/_ping" in made.asked


def test_a_module_gives_a_command_up_whose_engine_stops_in_its_middle(engine, monkeypatch) -> None:
    monkeypatch.setattr(utility, "PULSE_SECONDS", 0.3)
    begun = threading.Event()

    def behave(connection: socket.socket, head: bytes) -> None:
        if b"/start" in head:
            connection.sendall(HEAD)
            begun.set()
        elif not begun.is_set():
            exec_engine(lambda _: None)(connection, head)

    docker = utility.Docker(engine(behave).host.socket)
    with bounded(), pytest.raises(utility.DockerError, match="it hangs"):
        docker.execute("c", ["epic-wait"], timeout_seconds=60)


def test_an_engine_that_dies_of_a_request_is_away(engine) -> None:
    def die(connection: socket.socket, _head: bytes) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    docker = utility.Docker(engine(die).host.socket)
    with pytest.raises(utility.DockerError, match=r"closed connection|reset"):
        docker.request("POST", "/containers/x/stop")
    assert docker.absence() == {"engine_away": True}


# -- what is told of it --------------------------------------------------------------------------

AWAY = "Docker on host host-3 does not answer: no answer within 10 s"


def node(name: str, state: str = "ready", reason: str = "") -> NodeStatus:
    return NodeStatus(name, name.split("-", maxsplit=1)[0], "host-3", name, state, reason)


@pytest.mark.parametrize("wanted", ["running", "stopped", "absent"])
def test_a_silent_host_is_named_whatever_is_wanted(wanted: str) -> None:
    colour, reason = health([node("master-1", "error", AWAY)], wanted, ())
    assert colour in ("yellow", "red")
    assert "host-3" in reason


def test_nodes_of_a_silent_host_share_a_clause() -> None:
    bad = [node(f"worker-{number}", "error", AWAY) for number in range(1, 6)]
    _, reason = health([node("master-1"), *bad, node("worker-6", "error", "else")], "running", ())
    assert reason == (
        f"worker-1, worker-2, worker-3, worker-4, worker-5 are error: {AWAY}; "
        "worker-6 is error: else"
    )


def test_the_first_things_amiss_are_told_and_the_rest_is_counted() -> None:
    bad = [node(f"worker-{number}", "error", f"reason {number}") for number in range(1, 6)]
    _, reason = health([node("master-1"), *bad], "running", ())
    assert reason.endswith("worker-3 is error: reason 3; and 2 more")


def test_the_path_that_a_service_does_not_know_is_not_its_answer() -> None:
    class Notebook(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/work") else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    node = record(spec(), "master-1").nodes[0]
    try:
        place = Place(node, 8888, server.server_port, ("/api", "/work/lab/api"))
        assert status.ask({}, place) == (None, None)
        place = Place(node, 8888, server.server_port, ("/api",))
        assert status.ask({}, place) == (None, "answers 404 Not Found")
    finally:
        server.shutdown()
        server.server_close()


def test_a_service_is_asked_first_by_the_path_that_is_likely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = record(spec(), "master-1", "worker-1")
    monkeypatch.setattr(
        status, "path_prefixes", lambda _: {("spark-master", "lab-master-1"): "/work/lab"}
    )
    probe = status.AppProbe(endpoint="spark-master", path="/json/")
    seen: list[tuple[str, ...]] = []

    def asked(place: Place) -> tuple[Any, str | None]:
        seen.append(place.paths)
        return {}, None

    for way in (False, True, None):
        probe_all(cluster, {"spark-master": probe}, asked, is_behind_gateway=way)
    plain, behind = "/json/", "/work/lab/json/"
    assert seen == [(plain, behind), (behind, plain), (plain, behind)]


def test_a_sign_of_life_is_asked_for_by_the_smallest_question(engine) -> None:
    made = engine(lambda connection, _: connection.sendall(OK))
    docker_api.ping(made.host)
    assert made.asked == [b"/_ping"]
