"""The little of Docker's API that the modules need, on the standard library alone.

Docker hosts have Python and Docker but not the Docker SDK, and one module call handles all nodes
of a host: this client is why a host needs nothing installed, and why a launch costs about what
`docker run` in parallel costs. Requests name no version of the API: each engine speaks its own.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import io
import json
import os
import socket
import stat
import struct
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

SOCKET = "/var/run/docker.sock"

# How often an engine is asked for a sign of life while it is to answer, and how long it has for it.
PULSE_SECONDS = 10.0

# How long a network that nobody should be on any more may take to be removed.
ENDPOINT_SECONDS = 10.0
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}

_STREAM_HEADER = 8  # bytes: stream, three zeros, length (Docker's attach format)


class DockerError(Exception):
    """The engine refused a request or did not answer.

    `status` is the HTTP status, 0 when there was no answer at all.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Pulse:
    """Notices that an engine hangs, by asking it for a sign of life while an answer is awaited.

    A request may take minutes on a busy host. Without this, an engine that hangs would be waited
    for as long, for one request after the other.

    Attributes:
        is_gone: Whether the engine hangs.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._awaited: set[socket.socket] = set()
        self._is_beating = False
        self.is_gone = False

    def begin(self, connection: socket.socket) -> None:
        """Have a connection broken off when the engine hangs."""
        with self._guard:
            self._awaited.add(connection)
            if self._is_beating:
                return
            self._is_beating = True
        threading.Thread(target=self._beat, daemon=True).start()

    def end(self, connection: socket.socket) -> None:
        """Leave a connection alone from here on."""
        with self._guard:
            self._awaited.discard(connection)

    def _beat(self) -> None:
        while True:
            time.sleep(PULSE_SECONDS)
            with self._guard:
                if not self._awaited:
                    self._is_beating = False
                    return
            if self._hangs():
                break
        with self._guard:
            self.is_gone = True
            for connection in self._awaited:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _hangs(self) -> bool:
        connection = _UnixConnection(self._path, PULSE_SECONDS)
        try:
            connection.request("GET", "/_ping")
            connection.getresponse().read()
        except socket.timeout:  # noqa: UP041 - Python 3.9 of RHEL 9 knows it by this name alone
            return True
        except (OSError, http.client.HTTPException):
            # It has ended or ends, and then so do its connections.
            return False
        finally:
            connection.close()
        return False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float, pulse: _Pulse | None = None) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path
        self._pulse = pulse
        # http.client forgets its socket while the answer is still being read from it.
        self._stream: socket.socket | None = None

    def connect(self) -> None:
        self.sock = self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        if self._pulse:
            if self._pulse.is_gone:
                raise TimeoutError
            self._pulse.begin(self.sock)
        self.sock.connect(self._path)

    def end(self) -> None:
        """Close the connection, whatever of its answer was read."""
        if self._pulse and self._stream:
            self._pulse.end(self._stream)
        self.close()


class Docker:
    """One engine, by its socket. Safe to share between threads: a connection lives for a request.

    Args:
        path: The engine's socket.
        timeout_seconds: How long one request may take.
    """

    def __init__(self, path: str = SOCKET, timeout_seconds: float = 120.0) -> None:
        self._path = path
        self._timeout = timeout_seconds
        self._pulse = _Pulse(path)
        self._is_gone = False

    def absence(self) -> dict[str, Any]:
        """Return what a module's result has to say of an engine that is down or hangs."""
        return {"engine_away": True} if self._is_gone or self._pulse.is_gone else {}

    def _connection(self, timeout_seconds: float | None = None) -> _UnixConnection:
        return _UnixConnection(self._path, timeout_seconds or self._timeout, self._pulse)

    def _problem(self, problem: Exception) -> DockerError:
        """Return a connection's problem in words that name the engine."""
        why = str(problem)
        if self._pulse.is_gone:
            why = f"it hangs: no sign of life within {PULSE_SECONDS:.0f} s"
        return DockerError(0, f"The Docker engine at {self._path}: {why}")

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
        connection = self._connection()
        try:
            response = self._send(connection, method, url, body, query)
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise self._problem(problem) from problem
        finally:
            connection.end()
        if missing_ok and response.status == http.client.NOT_FOUND:
            return None
        _check(response.status, data)
        is_json = "json" in (response.getheader("Content-Type") or "")
        return json.loads(data) if data and is_json else data or None

    def messages(
        self,
        url: str,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Iterator[dict[str, Any]]:
        """Send a POST and yield the messages that the engine answers with, as they come.

        Whoever stops listening ends what the engine does.

        Raises:
            DockerError: The engine refused, did not answer, or failed half-way.
        """
        connection = self._connection()
        try:
            response = self._send(connection, "POST", url, None, query, headers=headers)
            if response.status != http.client.OK:
                _check(response.status, response.read())
            for line in response:
                message = json.loads(line)
                if "error" in message:
                    raise DockerError(0, message["error"])
                yield message
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise self._problem(problem) from problem
        finally:
            connection.end()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        body: Any,
        query: Mapping[str, Any] | None = None,
        *,
        upgrade: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        headers = {**(headers or {}), **(UPGRADE if upgrade else {})}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-tar"
        elif body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body).encode()
        target = quote(url) + ("?" + urlencode(query) if query else "")
        try:
            connection.request(method, target, body=body, headers=headers)
            return connection.getresponse()
        except (ConnectionRefusedError, FileNotFoundError, ConnectionResetError):
            # One that closes without an answer has died meanwhile.
            self._is_gone = True
            raise

    def labelled(self, kind: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return all `containers`, `networks` or `volumes` that carry all of `labels`."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        query: dict[str, Any] = {"filters": filters}
        if kind == "containers":
            return self.request("GET", "/containers/json", query={**query, "all": "1"}) or []
        answer = self.request("GET", f"/{kind}", query=query)
        return (answer["Volumes"] or []) if kind == "volumes" else answer

    def remove_network(self, network: str) -> None:
        """Remove a network by its id; gateways, which are in many, leave it first."""
        filters = json.dumps({"label": ["epic.gateway"], "network": [network]})
        query = {"all": "1", "filters": filters}
        for gateway in self.request("GET", "/containers/json", query=query) or []:
            body = {"Container": gateway["Id"], "Force": True}
            self.request("POST", f"/networks/{network}/disconnect", body, missing_ok=True)
        end = time.monotonic() + ENDPOINT_SECONDS
        while True:
            try:
                self.request("DELETE", f"/networks/{network}", missing_ok=True)
            except DockerError as problem:
                if "active endpoints" not in str(problem) or time.monotonic() > end:
                    raise
                self._free(network)
                time.sleep(0.2)
            else:
                return

    def _free(self, network: str) -> None:
        """Take containers off a network that are not there any more.

        An engine that was paused or killed at the wrong moment leaves an endpoint behind.
        """
        found = self.request("GET", f"/networks/{network}", missing_ok=True) or {}
        for endpoint in (found.get("Containers") or {}).values():
            name = endpoint["Name"]
            if not self.request("GET", f"/containers/{name}/json", missing_ok=True):
                body = {"Container": name, "Force": True}
                self.request("POST", f"/networks/{network}/disconnect", body, missing_ok=True)

    def put_files(self, container: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Write files (path → content, mode, uid, gid) into a container, running or not."""
        if files:
            self.request(
                "PUT", f"/containers/{container}/archive", archive(files), query={"path": "/"}
            )

    def start_with(self, container: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Start a container whose first process reads `files`, a tar archive, from its input.

        The engine unpacks an archive in a process of its own, which costs as much as a fifth of a
        container's start; the node's own `tar` costs next to nothing.
        """
        connection = self._connection()
        query = {"stream": "1", "stdin": "1"}
        try:
            response = self._send(
                connection, "POST", f"/containers/{container}/attach", None, query, upgrade=True
            )
            if response.status != http.client.SWITCHING_PROTOCOLS:
                _check(response.status, response.read())
            self.request("POST", f"/containers/{container}/start")
            connection.sock.sendall(archive(files))
        except (OSError, http.client.HTTPException) as problem:
            raise self._problem(problem) from problem
        finally:
            connection.end()

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

    def has_file(self, container: str, path: str, file: Mapping[str, Any]) -> bool:
        """Whether a container has a file with this content, mode, uid and gid."""
        data = self.request(
            "GET", f"/containers/{container}/archive", query={"path": path}, missing_ok=True
        )
        if data is None:
            return False
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.next()
            content = tar.extractfile(member) if member else None
            return content is not None and (
                content.read(),
                stat.S_IMODE(member.mode),
                member.uid,
                member.gid,
            ) == (content_of(file), mode_of(file), *owner_of(file))

    def execute(
        self,
        container: str,
        command: list[str],
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> tuple[int, str, str]:
        """Run a command in a running container; return its exit code, stdout and stderr as text.

        Raises as `execute_raw` does.
        """
        code, *output = self.execute_raw(
            container, command, user=user, environment=environment, timeout_seconds=timeout_seconds
        )
        stdout, stderr = (data.decode("utf-8", "replace") for data in output)
        return code, stdout, stderr

    def execute_raw(
        self,
        container: str,
        command: list[str],
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> tuple[int, bytes, bytes]:
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
        connection = self._connection(timeout_seconds)
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
        except (TimeoutError, socket.timeout) as problem:  # noqa: UP041 - likewise
            if self._pulse.is_gone:
                raise self._problem(problem) from problem
            raise DockerError(
                0, f"`{' '.join(command)}` took longer than {timeout_seconds:.0f} s"
            ) from problem
        except (OSError, http.client.HTTPException) as problem:
            raise self._problem(problem) from problem
        finally:
            connection.end()
        code = self.request("GET", f"/exec/{exec_id}/json")["ExitCode"]
        stdout, stderr = (b"".join(output[stream]) for stream in (1, 2))
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
    """Return a tar archive of `files`: path → content or base64, mode (octal text), uid, gid.

    Parent folders are made by Docker, as root and with mode 0755.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, file in files.items():
            content = content_of(file)
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size = len(content)
            member.mode = mode_of(file)
            member.uid, member.gid = owner_of(file)
            member.mtime = int(time.time())
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def content_of(file: Mapping[str, Any]) -> bytes:
    """Return what a file is to hold: its `content`, a text, or any bytes as `base64`."""
    return base64.b64decode(file["base64"]) if "base64" in file else file["content"].encode()


def mode_of(file: Mapping[str, Any]) -> int:
    """Return the mode that a file is to have, given as octal text."""
    return int(str(file.get("mode", "0644")), 8)


def owner_of(file: Mapping[str, Any]) -> tuple[int, int]:
    """Return the uid and gid that a file is to have."""
    return int(file.get("uid", 0)), int(file.get("gid", 0))


@contextlib.contextmanager
def hold(name: str, how: int) -> Iterator[None]:
    """Hold a lock of this host (`fcntl.LOCK_EX` or `LOCK_SH`); the kernel frees a dead holder's.

    Raises:
        BlockingIOError: With `LOCK_NB`, when others hold it.
    """
    handle = _lock_file(f"{_lock_folder()}/epic.{name}.lock")
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def tenant_lock(tenant: str, *names: str) -> str:
    """Return the name of a tenant's lock, or of one within the tenant.

    Tenants are named by people: without a prefix, one would share the lock of the host's firewall,
    which is asked for while the tenant's is held.
    """
    return ".".join(["tenant", tenant, *names])


def _lock_folder() -> str:
    # Whoever may speak with the engine takes part, root or not: the folder has to be everybody's.
    with contextlib.suppress(OSError):
        if os.stat("/run/lock").st_mode & stat.S_IWOTH:  # noqa: PTH116 - pathlib costs start-up time
            return "/run/lock"
    return "/tmp"  # noqa: S108 - a lock file is only ever opened for reading


def _lock_file(path: str) -> int:
    while True:
        # The kernel lets nobody open another user's file here in a way that might make it.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(made, 0o644)
            return made
