"""Starting a script on nodes, all at once, through their engines.

The playbook `action.yml` starts one as well, by the same commands. It is not used here: Ansible and
a Python on every host take more processor time to begin than the script takes to start on dozens
of nodes (docs/benchmarks.md).
"""

from __future__ import annotations

import base64
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from typing import Any

from epic_runner import docker_exec, ssh
from epic_runner.actions.decide import NO_ENGINE
from epic_runner.cluster import Node
from epic_runner.errors import DockerUnavailable, EpicError
from epic_runner.everywhere import ask_all
from epic_runner.hosts import Host
from epic_runner.resources import content_root

# How many nodes are started on at once.
AT_ONCE = 32
# Of how many jobs and actions a node keeps what they left, as the role `action` has it.
JOBS_KEPT = 200

# Writes the file $1, of the owner $2, from the input; then runs the rest.
_WITH_FILE = """
set -eu
mkdir -p "${1%/*}"
(umask 077; cat >"$1")
chown "$2" "$1"
chmod 0500 "$1"
shift 2
exec "$@" </dev/null
"""


@dataclass(frozen=True)
class Start:
    """How the start went on one node.

    Attributes:
        rc: 0 where the script was started; else `stderr` tells why it was not. `NO_ENGINE` where
            the engine ran nothing.
        stdout: What the script printed meanwhile.
        stderr: What it printed there, and behind it the line that tells how far it is.
    """

    rc: int
    stdout: bytes
    stderr: bytes


def start(
    hosts: Mapping[str, Host],
    nodes: Sequence[Node],
    action: Mapping[str, Any],
    started: Callable[[Mapping[str, Start]], None],
) -> dict[str, str]:
    """Start a script on nodes; return why of those whose hosts did not answer, by short name.

    Args:
        hosts: All hosts by name.
        nodes: The nodes.
        action: The script and how it is run, as the filter `action_commands` takes it.
        started: Called with how it went on nodes, by short name, as soon as that is known; in this
            thread.
    """
    near, away = ask_all((hosts[name] for name in {node.host for node in nodes}), ssh.nearby)
    silent = {node.short_name: away[node.host] for node in nodes if node.host in away}
    there = [node for node in nodes if node.host in near]
    if not there:
        return silent
    commands = _commands(there, action)
    with ThreadPoolExecutor(min(len(there), AT_ONCE)) as pool:
        names = {
            pool.submit(_start, near[node.host], command): node.short_name
            for node, command in zip(there, commands, strict=True)
        }
        waiting = set(names)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            fine = {}
            for future in done:
                try:
                    fine[names[future]] = future.result()
                except DockerUnavailable as problem:
                    silent[names[future]] = problem.message
            started(fine)
    return silent


def _described(node: Node) -> dict[str, Any]:
    return {
        "short_name": node.short_name,
        "container": node.container,
        "role": node.role,
        "index": node.index,
    }


def _start(host: Host, command: Mapping[str, Any]) -> Start:
    words, stdin = [str(word) for word in command["command"]], None
    printed = {False: bytearray(), True: bytearray()}
    setting = docker_exec.Setting("root", environment=command.get("environment", {}))
    with tempfile.TemporaryFile() as file:
        for path, content in command.get("files", {}).items():
            file.write(base64.b64decode(content["base64"]))
            file.seek(0)
            owner = f"{content['uid']}:{content['gid']}"
            words, stdin = ["bash", "-c", _WITH_FILE, "bash", path, owner, *words], file
        try:
            code = docker_exec.stream(
                host,
                str(command["container"]),
                words,
                lambda data, is_error: printed[is_error].extend(data),
                setting=setting,
                stdin=stdin,
            )
        except DockerUnavailable:
            raise
        except EpicError as problem:  # it does not run, say
            return Start(NO_ENGINE, b"", problem.message.encode())
    return Start(code, bytes(printed[False]), bytes(printed[True]))


def surroundings(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that tell a script of its cluster, by the filter that plays have."""
    return dict(_filters("actions").surroundings(cluster))


def _commands(nodes: Sequence[Node], action: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what starts an action on nodes, by the filters by which the playbook knows it."""
    commands = _filters("actions").action_commands([_described(node) for node in nodes], action)
    return list(_filters("jobs").jobs_kept(commands, JOBS_KEPT))


@cache
def _filters(name: str) -> Any:
    """Return the module of the content's filters of a name."""
    path = content_root() / "filter_plugins" / f"{name}.py"
    found = importlib.util.spec_from_file_location(f"epic_{name}_filters", path)
    if found is None or found.loader is None:
        raise EpicError(f"{path} is missing: this installation is not whole.")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
