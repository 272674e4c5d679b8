"""The little of Docker's API that the modules need, on the standard library alone.

Docker hosts have Python and Docker but not the Docker SDK, and one module call handles all nodes
of a host: this client is why a host needs nothing installed, and why a launch costs about what
`docker run` in parallel costs.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import struct
import tarfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

SOCKET = "/var/run/docker.sock"
API = "/v1.41"  # Docker 20.10, the oldest engine that is supported

_STREAM_HEADER = 8  # bytes: stream, three zeros, length (Docker's attach format)


class DockerError(Exception):
    """The engine refused a request or did not answer.

    `status` is the HTTP status, 0 when there was no answer at all.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """One engine, by its socket. Safe to share between threads: a connection lives for a request.

    Args:
        path: The engine's socket.
        timeout_seconds: How long one request may take.
    """

    def __init__(self, path: str = SOCKET, timeout_seconds: float = 120.0) -> None:
        self._path = path
        self._timeout = timeout_seconds

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        *,
        missing_ok: bool = False,
    ) -> Any:
        """Send a request and return the decoded answer; None where there is none.

        `body` is sent as JSON, or as it is when it is bytes (a tar archive).

        Raises:
            DockerError: The engine refused or did not answer; a 404 is None with `missing_ok`.
        """
        connection = _UnixConnection(self._path, self._timeout)
        try:
            response = self._send(connection, method, url, body, query)
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise DockerError(0, f"The Docker engine at {self._path}: {problem}") from problem
        finally:
            connection.close()
        if missing_ok and response.status == http.client.NOT_FOUND:
            return None
        _check(response.status, data)
        is_json = "json" in (response.getheader("Content-Type") or "")
        return json.loads(data) if data and is_json else data or None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        body: Any,
        query: Mapping[str, Any] | None,
    ) -> http.client.HTTPResponse:
        headers = {}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-tar"
        elif body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        target = API + quote(url) + ("?" + urlencode(query) if query else "")
        connection.request(method, target, body=body, headers=headers)
        return connection.getresponse()

    def labelled(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return all `containers`, `networks` or `volumes` that carry all of `labels`."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        query: dict[str, Any] = {"filters": filters}
        if kind == "containers":
            return self.request("GET", "/containers/json", query={**query, "all": "1"}) or []
        answer = self.request("GET", f"/{kind}", query=query)
        return (answer["Volumes"] or []) if kind == "volumes" else answer

    def put_files(self, container: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Write files (path → content or src, mode, uid, gid) into a container, running or not."""
        if files:
            self.request(
                "PUT", f"/containers/{container}/archive", archive(files), query={"path": "/"}
            )

    def read_file(self, container: str, path: str) -> bytes | None:
        """Return a file of a container, running or not; None where there is none."""
        data = self.request(
            "GET", f"/containers/{container}/archive", query={"path": path}, missing_ok=True
        )
        if data is None:
            return None
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.next()
            content = tar.extractfile(member) if member else None
            return content.read() if content else None

    def execute(
        self,
        container: str,
        command: list[str],
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> tuple[int, str, str]:
        """Run a command in a running container; return its exit code, stdout and stderr.

        Raises:
            DockerError: The command could not be started, or went on for longer than
                `timeout_seconds` (it is left running: give it a limit of its own).
        """
        body = {
            "AttachStdout": True,
            "AttachStderr": True,
            "Cmd": command,
            "User": user,
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
        }
        exec_id = self.request("POST", f"/containers/{container}/exec", body)["Id"]
        connection = _UnixConnection(self._path, timeout_seconds)
        try:
            response = self._send(
                connection, "POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": False}, None
            )
            if response.status != http.client.OK:
                _check(response.status, response.read())
            deadline = time.monotonic() + timeout_seconds
            output: dict[int, list[bytes]] = {1: [], 2: []}
            for stream, chunk in _frames(response, deadline):
                output[stream].append(chunk)
        except TimeoutError as problem:
            raise DockerError(
                0, f"`{' '.join(command)}` took longer than {timeout_seconds:.0f} s"
            ) from problem
        except (OSError, http.client.HTTPException) as problem:
            raise DockerError(0, f"The Docker engine at {self._path}: {problem}") from problem
        finally:
            connection.close()
        code = self.request("GET", f"/exec/{exec_id}/json")["ExitCode"]
        stdout, stderr = (b"".join(output[stream]).decode("utf-8", "replace") for stream in (1, 2))
        return (255 if code is None else code), stdout, stderr


def _check(status: int, data: bytes) -> None:
    if status < http.client.BAD_REQUEST:
        return
    message = data.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(message)["message"]
    raise DockerError(status, message or f"HTTP status {status}")


def _frames(response: http.client.HTTPResponse, deadline: float) -> Iterator[tuple[int, bytes]]:
    while True:
        header = _exactly(response, _STREAM_HEADER)
        if not header:
            return
        stream, length = struct.unpack(">BxxxL", header)
        yield stream, _exactly(response, length)
        if time.monotonic() > deadline:
            raise TimeoutError


def _exactly(response: http.client.HTTPResponse, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = response.read(length - len(data))
        if not piece:
            return b""
        data += piece
    return data


def archive(files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a tar archive of `files`: path → content or src, mode (octal text), uid, gid.

    `content` is text; `src` names a file of this host, of any content. Parent folders are made by
    Docker, as root and with mode 0755.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, file in sorted(files.items()):
            content = content_of(file)
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size = len(content)
            member.mode = int(str(file.get("mode", "0644")), 8)
            member.uid = int(file.get("uid", 0))
            member.gid = int(file.get("gid", 0))
            member.mtime = int(time.time())
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def content_of(file: Mapping[str, Any]) -> bytes:
    """Return what a file is to hold: its `content`, or what is in `src`.

    Raises:
        DockerError: `src` cannot be read.
    """
    if "src" not in file:
        return file["content"].encode()
    try:
        with open(file["src"], "rb") as source:  # noqa: PTH123 - pathlib costs start-up time
            return source.read()
    except OSError as problem:
        raise DockerError(0, str(problem)) from problem
