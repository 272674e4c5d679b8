"""Docker's API: the only module that knows the Docker SDK.

Changes go through Ansible; what is here only reads. Commands inside nodes are in `docker_exec`.
The SDK takes a quarter of a second to import, so it is imported when a client is first made.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from epic_runner.errors import DockerUnavailable, NotFound
from epic_runner.hosts import Host

if TYPE_CHECKING:
    from docker import APIClient

API_VERSION = "1.41"  # Docker 20.10, the oldest engine that is supported
TIMEOUT_SECONDS = 60


@cache
def _client(address: str) -> APIClient:
    import docker

    return docker.APIClient(base_url=address, version=API_VERSION, timeout=TIMEOUT_SECONDS)


def address(host: Host) -> str:
    """Return where a host's engine is spoken with: its local socket, or through SSH."""
    return f"unix://{host.socket}" if host.is_local else f"ssh://{host.name}"


def client(host: Host) -> APIClient:
    """Return the client of a host's engine."""
    return _client(address(host))


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


def read_archive(host: Host, container: str, path: str) -> bytes | None:
    """Return a file or folder of a container, running or not, as a tar archive; None if absent."""
    try:
        with _speaking(host) as engine:
            chunks, _ = engine.get_archive(container, path)
            return b"".join(chunks)
    except NotFound:
        return None


def read_file(host: Host, container: str, path: str) -> bytes | None:
    """Return a file of a container, running or not; None where there is none."""
    data = read_archive(host, container, path)
    if data is None:
        return None
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.next()
        content = tar.extractfile(member) if member else None
        return content.read() if content else None


def container_output(host: Host, container: str, lines: int) -> bytes:
    """Return the last lines that a container's first process printed, also of a dead container."""
    with _speaking(host) as engine:
        return bytes(engine.logs(container, stdout=True, stderr=True, tail=lines))
