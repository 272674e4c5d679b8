"""Where tenants' files are: a folder that the hosts have in common, or what an NFS server exports.

The inventory's variable `epic_storage` names it, and each tenant has a folder of its own below it,
which is the volume that its nodes mount. Without it, the volume is Docker's own, on each host.

What is done in there is done by a container, for whoever may use Docker need not be root.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

# Tells that a folder is the storage of tenants: one whose file system is not mounted has none.
MARK = ".epic-storage"
# The group that all members and services of a tenant share, in every node.
GROUP = 900

NFS_PORT = 2049
NFS_VERSION = "nfsvers=4"
_NFS = re.compile(r"nfs://(?:\[([0-9A-Fa-f:]+)\]|([\w.-]+))(?::(\d+))?(/[^?]*)(?:\?(.*))?")

# Root of a container, for ownership and modes; nothing else.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]
NOT_MARKED, NOT_EMPTY = 3, 4

# Several hosts may do it at once: whoever makes the mark or the folder first has made it for all.
MAKE = f"""
cd /storage || exit 1
if ! [ -e {MARK} ]; then
    [ "$2" = mark ] || exit {NOT_MARKED}
    strange=$(ls -A | grep -vxE '[.].*|lost[+]found')
    [ -z "$strange" ] || [ -e {MARK} ] || exit {NOT_EMPTY}
    echo "$3" >".epic-new.$3" || exit 1
    ln ".epic-new.$3" {MARK} 2>/dev/null
    rm -f ".epic-new.$3"
fi
[ -d "$1" ] || mkdir -m 0700 "$1" 2>/dev/null || [ -d "$1" ] || mkdir "$1" || exit 1
[ -g "$1" ] || {{ chgrp {GROUP} "$1" && chmod 2770 "$1"; }}
"""

# The new name tells hosts that do it at once, and later runs, that the folder is nobody's any more.
ERASE = f"""
cd /storage || exit 1
[ -e {MARK} ] || exit 0
mv -T "$1" ".epic-gone.$1.$2" 2>/dev/null
rm -rf ".epic-gone.$1."* 2>/dev/null || rm -rf ".epic-gone.$1."*
"""


class StorageError(DockerError):
    """A storage cannot be used as it is; `hint` tells what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(0, message)
        self.hint = hint


def nfs_parts(storage: str) -> tuple[str, int, str, list[str]] | None:
    """Return server, port, path and mount options of `nfs://SERVER[:PORT]/PATH[?OPTIONS]`.

    None where it is none.
    """
    match = _NFS.fullmatch(storage)
    if not match:
        return None
    six, name, port, path, options = match.groups()
    given = [option for option in re.split("[,&]", options or "") if option]
    return six or name, int(port or NFS_PORT), posixpath.normpath(path), given


def volume_options(storage: str, tenant: str = "") -> dict[str, str]:
    """Return what Docker's local driver makes a volume of: a tenant's folder, or all of them.

    Nothing where there is no storage in common.

    Raises:
        StorageError: It is neither a folder nor an export.
    """
    if not storage:
        return {}
    if storage.startswith("/"):
        folder = posixpath.join(posixpath.normpath(storage), tenant).rstrip("/")
        return {"type": "none", "o": "bind", "device": folder}
    parts = nfs_parts(storage)
    if not parts:
        raise StorageError(
            f"epic_storage is {storage}, which is neither a folder nor an export",
            "Name a folder, as /srv/shared, or nfs://SERVER/PATH?OPTIONS.",
        )
    server, port, path, given = parts
    options = [f"addr={server}", "rw"]
    if port != NFS_PORT:
        options.append(f"port={port}")
    # The kernel's own choice would be version 3, which takes more than one port.
    if not any(re.match(r"(nfs)?vers=", option) for option in given):
        options.append(NFS_VERSION)
    place = posixpath.join(path, tenant) if tenant else path
    return {"type": "nfs", "o": ",".join([*options, *given]), "device": f":{place}"}


def described(options: Mapping[str, str] | None) -> str:
    """Return where the files of a volume are, for people."""
    options = options or {}
    device = options.get("device", "")
    if options.get("type") == "nfs":
        server = re.search(r"addr=([^,]+)", options.get("o", ""))
        return f"{device.lstrip(':')} of the NFS server {server[1] if server else 'unknown'}"
    return device or "a volume of this host alone"


def is_other(volume: Mapping[str, Any], storage: str, tenant: str) -> bool:
    """Whether an existing volume has its files elsewhere than the storage says."""
    return (volume.get("Options") or {}) != volume_options(storage, tenant)


def storage_facts(storage: str, timeout_seconds: float) -> dict[str, Any]:
    """Return what this host sees of the storage, without Docker's help and without changing it.

    Returns:
        `kind` (`none`, `folder`, `nfs` or `unknown`) and `place`. Of a folder `mark` (what it is
        known by, the same on all hosts; empty where it has none) and `writable` (None where only
        root could tell). Of an export `server`: open, or why its port is not. `error` is empty, or
        says why it cannot be used.
    """
    facts: dict[str, Any] = {"kind": "none", "place": "", "error": ""}
    try:
        facts["place"] = described(volume_options(storage)) if storage else ""
    except StorageError as problem:
        return {**facts, "kind": "unknown", "error": str(problem)}
    if storage.startswith("/"):
        return {**facts, "kind": "folder", **_folder_facts(Path(storage))}
    parts = nfs_parts(storage)
    if parts:
        try:
            with socket.create_connection(parts[:2], timeout_seconds):
                server = "open"
        except OSError as problem:
            server = problem.strerror or str(problem)
        return {**facts, "kind": "nfs", "server": server}
    return facts


def _folder_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"mark": "", "writable": None}
    try:
        if not folder.is_dir():
            return {**facts, "error": "there is no such folder"}
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            facts["writable"] = False
        elif os.geteuid() == 0:
            facts["writable"] = _can_write(folder)
        facts["mark"] = (folder / MARK).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    except OSError as problem:
        facts["error"] = problem.strerror
    return facts


def _can_write(folder: Path) -> bool:
    # Of a server that takes root for nobody, only an attempt tells.
    token = folder / f".epic-check.{uuid.uuid4().hex}"
    try:
        token.touch()
        token.unlink()
    except OSError:
        return False
    return True


def ensure_volume(
    docker: Docker, volume: Mapping[str, Any], tenant: str, image: str
) -> dict[str, str]:
    """Make a tenant's volume, and its folder in the storage, where they are missing.

    Args:
        docker: The engine.
        volume: `name`, and for one that is in a storage `storage` and `marks`: whether the storage
            may be marked as such here, where no preparing has done it.
        tenant: The tenant's name.
        image: An image that is there, with a shell.

    Returns:
        The volume's options.

    Raises:
        StorageError: The volume is there with its files elsewhere, or the storage is not usable.
    """
    storage = volume.get("storage") or ""
    wanted = volume_options(storage, tenant)
    found = named_volume(docker, volume["name"])
    if found and is_other(found, storage, tenant):
        raise StorageError(
            f"the storage of tenant {tenant} is {described(found.get('Options'))} here, and "
            f"epic_storage asks for {described(wanted)}; all files stay where they are",
            'Set epic_storage back, or move the files: docs/hosts.md, "Shared storage".',
        )
    if not found:
        if wanted:
            make_folder(docker, storage, tenant, image, marks=bool(volume.get("marks")))
        body = {
            "Name": volume["name"],
            "Labels": {"epic.tenant": tenant},
            "DriverOpts": wanted,
        }
        docker.request("POST", "/volumes/create", body)
    return wanted


def named_volume(docker: Docker, name: str) -> dict[str, Any] | None:
    """Return a volume of this host; None where there is none of the name.

    An engine that is asked for one that it does not have asks the swarm's managers, and fails where
    these are older and know of no volumes.
    """
    query = {"filters": json.dumps({"name": [name]})}
    volumes = docker.request("GET", "/volumes", query=query)["Volumes"] or []
    return next((item for item in volumes if item["Name"] == name), None)


def make_folder(docker: Docker, storage: str, tenant: str, image: str, *, marks: bool) -> None:
    """Make a tenant's folder in the storage, for its members alone."""
    # Wherever Docker mounts an export, it is that one; a folder may be one that nothing is on.
    how = "mark" if marks or not storage.startswith("/") else "keep"
    code, said = in_storage(docker, storage, image, MAKE, tenant, how, uuid.uuid4().hex)
    place = described(volume_options(storage))
    if code == NOT_MARKED:
        raise StorageError(
            f"{place} is not marked as the storage of tenants on this host",
            "Is the shared file system mounted there? If so, epic-run host prepare marks it.",
        )
    if code == NOT_EMPTY:
        raise StorageError(
            f"{place} holds other files, among which a tenant's name could be",
            "Have epic_storage name an empty folder of its own.",
        )
    if code:
        raise StorageError(
            f"no folder for tenant {tenant} can be made in {place}: {said or f'exit code {code}'}",
            f"Make it by hand: owned by group {GROUP}, with mode 2770. docs/hosts.md tells more.",
        )


def erase_folder(docker: Docker, storage_options: Mapping[str, str], tenant: str) -> bool:
    """Remove a tenant's folder with all that is in it.

    Returns:
        Whether it could be done: a host without any image of ours cannot.

    Raises:
        StorageError: Something is left of it.
    """
    image = any_image(docker)
    if not image:
        return False
    whole = dict(storage_options)
    whole["device"] = posixpath.dirname(whole["device"].lstrip(":"))
    if whole["type"] == "nfs":
        whole["device"] = f":{whole['device']}"
    code, said = run_in(docker, whole, image, ERASE, tenant, uuid.uuid4().hex)
    if code:
        raise StorageError(
            f"{described(storage_options)} cannot be removed: {said or f'exit code {code}'}",
            "Remove it by hand, then try again.",
        )
    return True


def any_image(docker: Docker) -> str:
    """Return the smallest image of ours that the host has; empty where it has none."""
    query = {"filters": json.dumps({"label": ["epic.app"]})}
    images = docker.request("GET", "/images/json", query=query) or []
    return str(min(images, key=lambda image: image["Size"])["Id"]) if images else ""


def in_storage(
    docker: Docker, storage: str, image: str, script: str, *arguments: str
) -> tuple[int, str]:
    """Run a shell's script in a container that sees the whole storage at /storage."""
    return run_in(docker, volume_options(storage), image, script, *arguments)


def run_in(
    docker: Docker, options: Mapping[str, str], image: str, script: str, *arguments: str
) -> tuple[int, str]:
    """Run a script in a container with a volume of these options; return exit code and output."""
    body = {
        "Image": image,
        "User": "root",
        "Entrypoint": ["/bin/sh", "-c", script, "sh"],
        "Cmd": list(arguments),
        "Tty": True,
        "Labels": {"epic.helper": "storage"},
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "CapAdd": CAPABILITIES,
            "Mounts": [
                {
                    "Type": "volume",
                    "Target": "/storage",
                    "VolumeOptions": {
                        "NoCopy": True,
                        "DriverConfig": {"Name": "local", "Options": dict(options)},
                    },
                }
            ],
        },
    }
    helper = docker.request("POST", "/containers/create", body)["Id"]
    try:
        docker.request("POST", f"/containers/{helper}/start")
        code = docker.request("POST", f"/containers/{helper}/wait")["StatusCode"]
        query = {"stdout": "1", "stderr": "1"}
        said = docker.request("GET", f"/containers/{helper}/logs", query=query) or b""
    except DockerError as problem:
        raise unmountable(options, str(problem)) from problem
    finally:
        # With the volume, which is but a way to the storage.
        docker.request("DELETE", f"/containers/{helper}", query={"force": "1", "v": "1"})
    return int(code), said.decode("utf-8", "replace").strip() if isinstance(said, bytes) else ""


def unmountable(options: Mapping[str, str], why: str) -> StorageError:
    """Return why a helper did not start, of which the storage is the likeliest reason."""
    # Of what the engine says to it, the kernel's own word is all that people can use.
    why = why.rpartition(": ")[2] if "failed to mount local volume" in why else why
    hint = "Is it there, on this host too? epic-run host check looks at all hosts."
    if options.get("type") == "nfs":
        hint = "Does the host's kernel have NFS (modprobe nfs), and does the server let it in?"
    return StorageError(f"{described(options)} cannot be mounted: {why}", hint)
