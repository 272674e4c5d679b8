"""Reading what Docker has: containers, volumes, networks, images, files.

Changes go through Ansible. Commands inside nodes are in `docker_exec`, builds in `docker_build`.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
from collections.abc import Mapping
from typing import Any

from epic_runner.engine import fetch, request
from epic_runner.errors import NotFound
from epic_runner.hosts import Host

_FRAME_HEADER = 8  # bytes: stream, three zeros, length (Docker's attach format)


def ping(host: Host) -> None:
    """Ask a host's engine for a sign of life; raises DockerUnavailable."""
    fetch(host, "/_ping")


def engine_version(host: Host) -> dict[str, Any]:
    """Return the engine's versions (`docker version`), also of one too old for the rest."""
    return dict(request(host, "GET", "/version"))


def engine_info(host: Host) -> dict[str, Any]:
    """Return what the engine says of itself (`docker info`)."""
    return dict(request(host, "GET", "/info"))


def containers(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all containers of a host that carry labels; None stands for any value."""
    query = {"all": "1", "filters": _filters(labels)}
    return list(request(host, "GET", "/containers/json", query=query))


def volumes(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all volumes of a host that carry labels."""
    answer = request(host, "GET", "/volumes", query={"filters": _filters(labels)})
    return list(answer["Volumes"] or [])


def place_of(volume: Mapping[str, Any]) -> str:
    """Return where a volume has its files, if that is not in a folder of Docker's own."""
    options = volume.get("Options") or {}
    device = str(options.get("device", ""))
    if options.get("type") != "nfs":
        return device
    server = re.search(r"addr=([^,]+)", options.get("o", ""))
    return f"{server[1] if server else ''}{device}"


def networks(host: Host, labels: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return all networks of a host that carry labels."""
    return list(request(host, "GET", "/networks", query={"filters": _filters(labels)}) or [])


def volume_sizes(host: Host) -> dict[str, int]:
    """Return how many bytes the files of each volume take, by the volume's name.

    The engine counts every file for it, of all volumes, which takes seconds where they are large;
    before Docker 23 it counts images and containers as well.
    """
    answer = request(host, "GET", "/system/df", query={"type": "volume"})
    return {
        volume["Name"]: max(int((volume.get("UsageData") or {}).get("Size", -1)), 0)
        for volume in answer["Volumes"] or []
    }


def images(host: Host) -> dict[str, dict[str, Any]]:
    """Return the images that carry a label of ours, by reference."""
    found = request(host, "GET", "/images/json", query={"filters": _filters({"epic.app": None})})
    return {tag: image for image in found for tag in image.get("RepoTags") or []}


def inspect(host: Host, container: str) -> dict[str, Any]:
    """Return all that Docker knows of a container; raises NotFound."""
    return dict(request(host, "GET", f"/containers/{container}/json"))


def is_over_disk(container: Mapping[str, Any]) -> bool:
    """Whether a container, as `containers` has it, holds more than its flavor's disk.

    The engine looks at it at long intervals, by the container's health check.
    """
    return container["State"] == "running" and "(unhealthy)" in container.get("Status", "")


def held_bytes(host: Host, container: str) -> int | None:
    """Return what a container that is over its disk held when it was last looked at."""
    looks = inspect(host, container)["State"].get("Health", {}).get("Log") or []
    said = str(looks[-1]["Output"]).strip() if looks else ""
    return int(said) if said.isdigit() else None


def read_archive(host: Host, container: str, path: str) -> bytes | None:
    """Return a file or folder of a container, running or not, as a tar archive; None if absent."""
    try:
        return fetch(host, f"/containers/{container}/archive", {"path": path})
    except NotFound:
        return None


def read_file(host: Host, container: str, path: str) -> bytes | None:
    """Return a file of a container, running or not; None where there is none."""
    return read_dated_file(host, container, path)[0]


def read_dated_file(host: Host, container: str, path: str) -> tuple[bytes | None, float]:
    """Return a file of a container as `read_file` does, and when it was written."""
    data = read_archive(host, container, path)
    if data is None:
        return None, 0.0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.next()
        content = tar.extractfile(member) if member else None
        return (content.read(), float(member.mtime)) if member and content else (None, 0.0)


def container_output(host: Host, container: str, lines: int) -> bytes:
    """Return the last lines that a container's first process printed, also of a dead container."""
    query = {"stdout": "1", "stderr": "1", "tail": str(lines)}
    data = fetch(host, f"/containers/{container}/logs", query)
    output = b""
    while len(data) >= _FRAME_HEADER:
        _, length = struct.unpack(">BxxxL", data[:_FRAME_HEADER])
        output += data[_FRAME_HEADER : _FRAME_HEADER + length]
        data = data[_FRAME_HEADER + length :]
    return output


def _filters(labels: Mapping[str, str | None]) -> str:
    wanted = [key if value is None else f"{key}={value}" for key, value in labels.items()]
    return json.dumps({"label": wanted})
