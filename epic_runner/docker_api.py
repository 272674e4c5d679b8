"""Docker's API: the only module that knows the Docker SDK.

Changes go through Ansible; what is here reads, follows and attaches. The SDK takes a quarter of a
second to import, so it is imported when a client is first made.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from epic_runner.errors import DockerUnavailable, NotFound
from epic_runner.hosts import Host

if TYPE_CHECKING:
    from docker import APIClient

LOCAL = "unix:///var/run/docker.sock"
API_VERSION = "1.41"  # Docker 20.10, the oldest engine that is supported
TIMEOUT_SECONDS = 60


@cache
def _client(address: str) -> APIClient:
    import docker

    return docker.APIClient(base_url=address, version=API_VERSION, timeout=TIMEOUT_SECONDS)


def client(host: Host) -> APIClient:
    """Return the engine's client of a host: the local socket, or through SSH."""
    return _client(LOCAL if host.is_local else f"ssh://{host.name}")


@contextlib.contextmanager
def _speaking(host: Host) -> Iterator[APIClient]:
    """Turn the SDK's errors into ours."""
    import docker.errors
    import requests

    try:
        yield client(host)
    except docker.errors.NotFound as problem:
        raise NotFound(f"Docker on host {host.name}: {problem.explanation}") from problem
    except (docker.errors.DockerException, requests.RequestException, OSError) as problem:
        raise DockerUnavailable(
            f"Docker on host {host.name} does not answer: {problem}",
            "epic-run doctor tells what is wrong with it.",
        ) from problem


def engine_info(host: Host) -> dict[str, Any]:
    """Return what the engine says of itself (`docker info`)."""
    with _speaking(host) as engine:
        return dict(engine.info())


def containers(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all containers of a host that carry labels; None stands for any value."""
    return _labelled(host, "containers", labels)


def volumes(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all volumes of a host that carry labels."""
    return _labelled(host, "volumes", labels)


def networks(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all networks of a host that carry labels."""
    return _labelled(host, "networks", labels)


def _labelled(host: Host, kind: str, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    wanted = [key if value is None else f"{key}={value}" for key, value in labels.items()]
    filters = {"label": wanted}
    with _speaking(host) as engine:
        if kind == "containers":
            return list(engine.containers(all=True, filters=filters))
        if kind == "volumes":
            return list(engine.volumes(filters=filters)["Volumes"] or [])
        return list(engine.networks(filters=filters))


def images(host: Host) -> dict[str, dict[str, Any]]:
    """Return the images that carry a label of ours, by reference."""
    with _speaking(host) as engine:
        found = engine.images(filters={"label": "epic.app"})
    return {tag: image for image in found for tag in image.get("RepoTags") or []}


def inspect(host: Host, container: str) -> dict[str, Any]:
    """Return all that Docker knows of a container; raises NotFound."""
    with _speaking(host) as engine:
        return dict(engine.inspect_container(container))


def read_file(host: Host, container: str, path: str) -> bytes | None:
    """Return a file of a container, running or not; None where there is none."""
    try:
        with _speaking(host) as engine:
            chunks, _ = engine.get_archive(container, path)
            data = b"".join(chunks)
    except NotFound:
        return None
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.next()
        content = tar.extractfile(member) if member else None
        return content.read() if content else None


def output_of(host: Host, container: str, command: list[str]) -> tuple[int, str]:
    """Run a short command in a container; return its exit code and all it printed."""
    with _speaking(host) as engine:
        started = engine.exec_create(container, command)
        output = engine.exec_start(started["Id"])
        code = engine.exec_inspect(started["Id"])["ExitCode"]
    return code, output.decode("utf-8", "replace")


def stream(
    host: Host,
    container: str,
    command: list[str],
    write: Callable[[bytes, bool], None],
) -> int:
    """Run a command in a container and pass on its output as it comes.

    Args:
        host: The host.
        container: The container.
        command: The command.
        write: Called with each piece, and whether it came on stderr.

    Returns:
        The command's exit code.
    """
    with _speaking(host) as engine:
        started = engine.exec_create(container, command)
        for out, err in engine.exec_start(started["Id"], stream=True, demux=True):
            if out:
                write(out, False)  # noqa: FBT003 - the callback's two channels
            if err:
                write(err, True)  # noqa: FBT003
        return int(engine.exec_inspect(started["Id"])["ExitCode"] or 0)


def open_shell(
    host: Host, container: str, command: list[str], user: str, directory: str
) -> tuple[str, Any]:
    """Start a command on a terminal inside a container; return the exec's id and its socket."""
    with _speaking(host) as engine:
        started = engine.exec_create(
            container,
            command,
            stdin=True,
            tty=True,
            user=user,
            workdir=directory,
            environment={"TERM": "xterm-256color"},
        )
        attached = engine.exec_start(started["Id"], tty=True, socket=True)
    return str(started["Id"]), getattr(attached, "_sock", attached)


def resize(host: Host, exec_id: str, rows: int, columns: int) -> None:
    """Tell a terminal inside a container how large the window is."""
    with _speaking(host) as engine:
        engine.exec_resize(exec_id, height=rows, width=columns)


def exit_code(host: Host, exec_id: str) -> int:
    """Return the exit code of an exec that has ended."""
    with _speaking(host) as engine:
        return int(engine.exec_inspect(exec_id)["ExitCode"] or 0)
