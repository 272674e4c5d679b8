"""Speaking HTTP with a Docker engine: through its local socket, or through SSH.

Paths carry no version of the API, so each engine speaks its own: Docker 20.10 knows none above
1.41, Docker 29 none below 1.44, and what is asked here means the same in all of them.

Standard library only: the Docker SDK takes a third of a second to import, more than a whole
`epic-run list` may, and reading takes no more than a few requests. Images are built with the SDK
(`docker_build`), where its import does not matter.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from epic_runner import ssh
from epic_runner.deadline import seconds_left
from epic_runner.errors import DockerUnavailable, EpicError, NotFound
from epic_runner.hosts import Host

# How long an engine may be silent where no deadline (`deadline.within`) says otherwise.
TIMEOUT_SECONDS = 60.0
# How long ssh has for ending by itself.
_END_SECONDS = 1.0


class Connection(http.client.HTTPConnection):
    """HTTP over an engine's socket: the local one, or one behind SSH.

    Attributes:
        stream: The bare connection, for what an attached command reads.
    """

    stream: socket.socket

    def __init__(self, host: Host) -> None:
        super().__init__("docker", timeout=TIMEOUT_SECONDS)
        self._of = host
        self._helper: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._watch: threading.Timer | None = None
        self._is_late = False

    def connect(self) -> None:
        """Connect to the socket, or to a `docker system dial-stdio` on the host."""
        self._began = time.monotonic()
        if self._of.is_local:
            self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.watch()
            self.stream.connect(self._of.socket)
        else:
            docker = f"docker -H unix://{shlex.quote(self._of.socket)}"
            command = ssh.command(self._of, f"{docker} system dial-stdio")
            self.stream, theirs = socket.socketpair()
            with theirs:
                end = theirs.fileno()
                self._helper = subprocess.Popen(
                    command, stdin=end, stdout=end, stderr=subprocess.PIPE
                )
            self.watch()
        # http.client forgets `sock` when a response is to be read to its end; it stays open, and
        # ours to write to, as long as the response does.
        self.sock = self.stream

    def watch(self, silence_seconds: float | None = TIMEOUT_SECONDS) -> None:
        """Break off at the deadline that holds here, or after a silence where there is none.

        A socket's own time limit begins anew with every byte, so it would bound no whole answer.

        Args:
            silence_seconds: The longest silence; None for any.
        """
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        left = seconds_left()
        if left is None:
            self.stream.settimeout(silence_seconds)
            return
        # A socket that may wait is one that the watch can wake up; connecting alone, it cannot.
        self.stream.settimeout(left or 0.001)
        self._watch = threading.Timer(left, self._break_off)
        self._watch.daemon = True
        self._watch.start()

    def _break_off(self) -> None:
        self._is_late = True
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def send_json(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request with JSON for a body, and return the answer, unread."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        target = quote(path, safe="/?&=") + (f"?{urlencode(query)}" if query else "")
        try:
            self.request(method, target, body=data, headers=headers)
            return self.getresponse()
        except (OSError, http.client.HTTPException) as problem:
            raise self.explained(problem) from problem

    def read(self, response: http.client.HTTPResponse) -> bytes:
        """Return the whole body of an answer.

        Raises:
            ConnectionError: It did not come to its end.
        """
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise self.explained(problem) from problem
        self.refuse_late()
        return data

    def refuse_late(self) -> None:
        """Raise ConnectionError if what was read ended only because it was broken off."""
        if self._is_late:
            raise self.explained(TimeoutError())

    def explained(self, problem: Exception) -> ConnectionError:
        """Return a problem in words for people: what ssh said, or that nothing was said in time."""
        if self._is_late or isinstance(problem, TimeoutError):
            waited = time.monotonic() - self._began
            return ConnectionError(f"no answer within {waited:.0f} s")
        return ConnectionError(self._complaint() or str(problem))

    def _complaint(self) -> str:
        """Return what ssh said when it failed; nothing if it did not."""
        if self._helper is None or self._helper.stderr is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._helper.wait(_END_SECONDS)
        if self._helper.returncode in (None, 0):
            return ""
        # What is there, not all there will be: a shared connection that stays holds the pipe open.
        os.set_blocking(self._helper.stderr.fileno(), False)
        lines = (self._helper.stderr.read() or b"").decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def end(self) -> None:
        """Close the connection and what carried it; also one that was never made."""
        if self._watch is not None:
            self._watch.cancel()
        self.close()
        if hasattr(self, "stream"):
            self.stream.close()
        if self._helper is not None:
            self._helper.terminate()
            try:
                self._helper.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                # It waits for the shared connection, whose host is silent.
                self._helper.kill()
                self._helper.wait()
            if self._helper.stderr is not None:
                self._helper.stderr.close()


def fetch(host: Host, path: str, query: Mapping[str, Any] | None = None) -> bytes:
    """Return what the engine answers to a GET, as it comes; raises as `request` does."""
    return _ask(host, "GET", path, None, query)


def request(
    host: Host,
    method: str,
    path: str,
    body: Any = None,
    query: Mapping[str, Any] | None = None,
) -> Any:
    """Send a request and return the JSON of the answer, None where there is none.

    Raises:
        NotFound: The engine has no such thing.
        EpicError: The engine refused.
        DockerUnavailable: The engine does not answer.
    """
    data = _ask(host, method, path, body, query)
    return json.loads(data) if data else None


def _ask(host: Host, method: str, path: str, body: Any, query: Mapping[str, Any] | None) -> bytes:
    with speaking(host):
        connection = Connection(host)
        try:
            response = connection.send_json(method, path, body, query)
            data = connection.read(response)
        finally:
            connection.end()
    check(response.status, data)
    return data


def check(status: int, data: bytes) -> None:
    """Raise what an answer of the engine says is wrong, if anything is."""
    if status < http.client.BAD_REQUEST:
        return
    message = data.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(message)["message"]
    if status == http.client.NOT_FOUND:
        raise NotFound(f"Docker: {message}")
    raise EpicError(f"Docker: {message or status}")


@contextlib.contextmanager
def speaking(host: Host) -> Iterator[None]:
    """Turn a connection's errors into one that names the host."""
    try:
        yield
    except (OSError, http.client.HTTPException) as problem:
        raise DockerUnavailable(
            f"Docker on host {host.name} does not answer: {problem}",
            "epic-run doctor tells what is wrong with it.",
        ) from problem
