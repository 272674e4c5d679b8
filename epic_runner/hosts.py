"""A Docker host as a value, and this machine as one; `site` knows which hosts there are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epic_runner.errors import InputError

# Virtual cores per real one. Notebooks and idle executors leave cores unused most of the time, so
# cores are shared, as OpenStack Nova (cpu_allocation_ratio 16, later 4) and EPIC do; memory isn't.
CPU_OVERCOMMIT = 8.0

SOCKET = "/var/run/docker.sock"

# A folder of the host, or nfs://SERVER[:PORT]/PATH[?OPTIONS].
_STORAGE = re.compile(r"/[^/\s].*|nfs://[^/?#\s]+/[^?\s]*(\?\S*)?")


@dataclass(frozen=True)
class Host:
    """A machine with Docker.

    Attributes:
        name: Its name in the inventory.
        cores: Real cores; a node may not be larger.
        memory_bytes: Real memory.
        cpu_overcommit: How many times its cores may be promised to nodes.
        memory_overcommit: Likewise its memory.
        disk_bytes: The room for volumes; 0 where it is not known, and then not counted.
        disk_overcommit: Likewise its disk.
        rack: What it shares with others and may lose with them, such as power or a switch.
        draining: Whether it takes no new nodes.
        checked: Whether its capacity is known; without, it takes no nodes either.
        manager: Whether it may make networks that span hosts.
        mtu: The largest packet between it and the others, in bytes; 0 where it is not known.
        addresses: Its addresses, which tenants must not reach.
        variables: Its own and Ansible's variables, from the inventory.
    """

    name: str
    cores: int
    memory_bytes: int
    cpu_overcommit: float = CPU_OVERCOMMIT
    memory_overcommit: float = 1.0
    disk_bytes: int = 0
    disk_overcommit: float = 1.0
    rack: str = ""
    draining: bool = False
    checked: bool = True
    manager: bool = False
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it is the machine that epic-run runs on."""
        return self.variables.get("ansible_connection") == "local"

    @property
    def socket(self) -> str:
        """The path of the engine's socket on the host."""
        return str(self.variables.get("epic_docker_socket", SOCKET))


def local_host() -> Host:
    """Return this machine as a host, with the capacity that its kernel reports."""
    return Host(
        name="local",
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        variables={
            "ansible_connection": "local",
            **_socket(os.environ.get("DOCKER_HOST", "")),
            **_storage(os.environ.get("EPIC_STORAGE", "")),
        },
    )


def refuse_storage(name: str, storage: Any) -> None:
    """Refuse what is neither a folder nor an export.

    Raises:
        InputError: It is neither; `name` says what names it.
    """
    if storage and not _STORAGE.fullmatch(str(storage)):
        raise InputError(
            f"{name} is {storage!r}, which is neither a folder nor an export.",
            "Name a folder that something shared is mounted on, such as /srv/shared, or "
            "nfs://SERVER/PATH?OPTIONS.",
        )


def _storage(text: str) -> dict[str, str]:
    refuse_storage("EPIC_STORAGE", text)
    return {"epic_storage": text} if text else {}


def _socket(address: str) -> dict[str, str]:
    """Return the variable that names this machine's engine, as DOCKER_HOST gives it.

    Raises:
        InputError: It is no local socket: that machine would not be this one.
    """
    path = address.removeprefix("unix://")
    if path in ("", SOCKET):
        return {}
    if not path.startswith("/"):
        raise InputError(
            f"DOCKER_HOST is {address}, but epic-run works with this machine's own engine.",
            "Unset it, or name a socket of this machine: DOCKER_HOST=unix:///var/run/docker.sock",
        )
    return {"epic_docker_socket": path}


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
