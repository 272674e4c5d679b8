"""The ssh command that reaches a host as Ansible would, from the variables of its inventory."""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from epic_runner.deadline import seconds_left
from epic_runner.errors import DockerUnavailable, InputError
from epic_runner.hosts import Host
from epic_runner.resources import home

CONNECT_SECONDS = 10
# One connection serves all that is asked of a host within this time.
PERSIST_SECONDS = 60
# How long a forwarded socket serves those who read the inventory of nodes.
FORWARD_SECONDS = 1800


def command(host: Host, words: str, *options: str) -> list[str]:
    """Return the command that runs `words` on a host.

    Args:
        host: The host.
        words: A line for the host's shell.
        options: More options of ssh.

    Raises:
        InputError: A variable is a template, which only Ansible can read.
    """
    root = "sudo -n " if _truth(host.variables.get("ansible_become")) else ""
    return ["ssh", *arguments(host), *options, destination(host), f"{root}{words}"]


def forwarded_engine(host: Host) -> str:
    """Return a socket of this machine that leads to a host's Docker engine for some minutes.

    ssh ends by itself when the time is over and nobody uses the socket any more.

    Raises:
        DockerUnavailable: The host cannot be reached.
    """
    name = hashlib.sha256(f"{home()} {host.name}".encode()).hexdigest()[:16]
    path = _sockets() / f"{name}.docker"
    fresh = path.exists() and time.time() - path.stat().st_mtime < FORWARD_SECONDS / 2
    if fresh and _is_listening(path):
        return str(path)
    options = (
        "-f", "-n", "-L", f"{path}:{host.socket}",
        "-o", "StreamLocalBindUnlink=yes", "-o", "ExitOnForwardFailure=yes",
        # Of its own, for the shared connection would keep the forwarding as long as it lives.
        "-o", "ControlPath=none",
    )  # fmt: skip
    # The first of several values of an option is the one that ssh takes: ours go in front.
    command = ["ssh", *options, *arguments(host), destination(host), f"sleep {FORWARD_SECONDS}"]
    try:
        done = subprocess.run(
            command, check=False, timeout=seconds_left(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        refused = done.returncode != 0
    except subprocess.TimeoutExpired:
        refused = True
    if refused:
        raise DockerUnavailable(
            f"Host {host.name} does not let its Docker socket through ssh.",
            f"epic-run host check {host.name} looks at it.",
        )
    return str(path)


def nearby(host: Host) -> Host:
    """Return a host whose engine is asked through a socket of this machine.

    Many requests at once then share one connection, and start no program on the host.

    Raises:
        DockerUnavailable: The host cannot be reached.
    """
    if host.is_local:
        return host
    variables = {"ansible_connection": "local", "epic_docker_socket": forwarded_engine(host)}
    return replace(host, variables=variables)


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def arguments(host: Host) -> list[str]:
    """Return ssh's options for a host: keys, port, and what Ansible's own variables add."""
    variables = host.variables
    found = [
        "-o", "BatchMode=yes",
        "-o", f"ConnectTimeout={CONNECT_SECONDS}",
        "-o", "ServerAliveInterval=5",
        "-o", "ServerAliveCountMax=3",
        "-o", "ControlMaster=auto",
        "-o", f"ControlPersist={PERSIST_SECONDS}s",
        "-o", f"ControlPath={_sockets()}/%C",
    ]  # fmt: skip
    for option, names in (
        ("-p", ("ansible_port", "ansible_ssh_port")),
        ("-i", ("ansible_ssh_private_key_file", "ansible_private_key_file")),
        ("-l", ("ansible_user", "ansible_ssh_user")),
    ):
        if value := _value(host, *names):
            found += [option, os.path.expanduser(value) if option == "-i" else value]  # noqa: PTH111 - of what may be no path of ours
    for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        found += shlex.split(_value(host, name))
    if variables.get("ansible_ssh_args"):
        found += shlex.split(_value(host, "ansible_ssh_args"))
    return found


def destination(host: Host) -> str:
    """Return the address that ssh goes to."""
    return _value(host, "ansible_host", "ansible_ssh_host") or host.name


def _value(host: Host, *names: str) -> str:
    value = next((host.variables[name] for name in names if name in host.variables), "")
    if isinstance(value, Mapping) or "{{" in str(value):
        raise InputError(
            f"Host {host.name}: epic-run cannot read {names[0]}, which is a template or encrypted.",
            "Write the value itself, or put it into ~/.ssh/config.",
        )
    return str(value)


def _truth(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "1", "on", "y", "t")


def _sockets() -> Path:
    # The name of a socket may have a hundred characters, which a home's path may use up.
    folder = Path(tempfile.gettempdir()) / f"epic-ssh-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise InputError(
            f"{folder} belongs to somebody else, or others may write to it.",
            "Remove it, or set TMPDIR to a folder of your own.",
        )
    return folder
