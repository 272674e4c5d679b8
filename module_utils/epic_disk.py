"""Keeping nodes to their flavor's disk: volumes and containers' own layers of a size.

Docker's local driver gives a volume a size where the file system below Docker's root counts by
project: XFS mounted with `pquota`, or ext4 with the feature `project` mounted with `prjquota`. Of
the layers that containers write to, Docker limits those on XFS alone. Elsewhere it refuses the
option, and disk is what people watch.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

BAD_REQUEST = 400
PROBE_BYTES = 2**20


def new_volume(
    docker: Docker, name: str, labels: Mapping[str, str], size_bytes: int = 0
) -> dict[str, Any]:
    """Make a volume, of a size where the engine can keep it to one, and return it.

    Docker applies a quota once for each name: it remembers the project of a path that it gave one
    to, and a volume made again there, whose folder is another one, is in no project at all. So a
    volume of a size gets a name that none had before, and is to be found by its labels.

    Args:
        docker: The engine.
        name: The name, where the volume has no size; else what the name begins with.
        labels: Its labels.
        size_bytes: How much it may hold; 0 for as much as there is.

    Raises:
        DockerError: The engine can't make it at all.
    """
    body = {"Name": name, "Labels": dict(labels)}
    if size_bytes:
        unique = {"Name": f"{name}.{uuid.uuid4().hex[:8]}"}
        sized = {**body, **unique, "DriverOpts": {"size": str(size_bytes)}}
        try:
            made: dict[str, Any] = docker.request("POST", "/volumes/create", sized)
        except DockerError as problem:
            # This is how an engine says that it cannot.
            if problem.status != BAD_REQUEST:
                raise
        else:
            return made
    plain: dict[str, Any] = docker.request("POST", "/volumes/create", body)
    return plain


def has_size(volume: Mapping[str, Any]) -> bool:
    """Whether the engine keeps a volume to a size."""
    return "size" in (volume.get("Options") or {})


def limits_layers(info: Mapping[str, Any]) -> bool:
    """Whether an engine whose volumes can have a size limits containers' layers too.

    Args:
        info: What the engine says of itself.
    """
    below = dict(info.get("DriverStatus") or []).get("Backing Filesystem")
    return info.get("Driver") == "overlay2" and below == "xfs"


def disk_quota(docker: Docker, info: Mapping[str, Any]) -> str:
    """Tell what of a node the engine keeps to a size: `nodes`, only their `volumes`, or `none`.

    Only an attempt tells, since mount options alone do not make a quota: a volume is made and
    removed.

    Raises:
        DockerError: The engine does not make or remove volumes.
    """
    attempt = uuid.uuid4().hex
    labels = {"epic.helper": "disk", "epic.probe": attempt}
    volume = new_volume(docker, f"epic.probe.{attempt}", labels, PROBE_BYTES)
    docker.request("DELETE", f"/volumes/{volume['Name']}", missing_ok=True)
    if not has_size(volume):
        return "none"
    return "nodes" if limits_layers(info) else "volumes"
