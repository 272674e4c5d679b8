#!/usr/bin/python
"""Ansible module: commands inside the nodes of one Docker host, in parallel."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_exec
short_description: Run commands inside nodes of this Docker host
description:
  - Runs commands in many nodes at once over the engine's local socket, and returns each one's
    exit code and output. A failing command of one node does not stop the others.
options:
  commands:
    description:
      - What to run. Keys C(node) (its name in the outcomes), C(container), C(command) (a list),
        C(user), C(environment), C(base64) (whether its output is returned so, byte for byte),
        C(files) (path to C(content), C(base64) or, on the controller, C(src); C(mode),
        C(uid), C(gid); written before the command runs).
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds that each command may take.
    type: int
    default: 60
  changes:
    description: Whether the commands change anything; probes do not.
    type: bool
    default: true
  running_only:
    description: Pass over nodes that do not run.
    type: bool
    default: false
  log_lines:
    description: How many last lines of each C(logs) file a failed command's result carries.
    type: int
    default: 15
  parallel:
    description: How many commands run at once.
    type: int
    default: 16
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Wait until the master answers
  epic_exec:
    commands:
      - node: master-1
        container: epic.analytics.lab.master-1
        command: [epic-wait, tcp, localhost, "7077", --timeout, "60"]
        logs: [/data/log/spark-master/current]
"""

RETURN = r"""
outcomes:
  description: By node, its commands' C(rc), C(stdout), C(stderr) and, after a failure, C(logs).
  type: dict
  returned: always
"""

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

ARGUMENT_SPEC: dict[str, Any] = {
    "commands": {"type": "list", "elements": "dict", "required": True},
    "timeout": {"type": "int", "default": 60},
    "changes": {"type": "bool", "default": True},
    "running_only": {"type": "bool", "default": False},
    "log_lines": {"type": "int", "default": 15},
    "parallel": {"type": "int", "default": 16},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def run_one(docker: Docker, item: dict[str, Any], timeout: int, lines: int) -> dict[str, Any]:
    """Run one command; return its exit code and output, and the logs when it failed."""
    try:
        docker.put_files(item["container"], item.get("files", {}))
        code, stdout, stderr = docker.execute_raw(
            item["container"],
            [str(word) for word in item["command"]],
            user=item.get("user", "root"),
            environment=item.get("environment", {}),
            timeout_seconds=timeout,
        )
    except DockerError as problem:
        code, stdout, stderr = 255, b"", str(problem).encode()
    text = encoded if item.get("base64") else decoded
    result: dict[str, Any] = {"rc": code, "stdout": text(stdout), "stderr": text(stderr)}
    if code:
        result["logs"] = {path: tail(docker, item, path, lines) for path in item.get("logs", [])}
    return result


def encoded(data: bytes) -> str:
    """Return output in base64."""
    return base64.b64encode(data).decode("ascii")


def decoded(data: bytes) -> str:
    """Return output as text."""
    return data.decode("utf-8", "replace")


def is_running(docker: Docker, container: str) -> bool:
    """Tell whether a container is there and runs."""
    found = docker.request("GET", f"/containers/{container}/json", missing_ok=True)
    return bool(found and found["State"]["Running"])


def tail(docker: Docker, item: dict[str, Any], path: str, lines: int) -> str:
    """Return the last lines of a node's file; also of a node that has stopped."""
    try:
        content = docker.read_file(item["container"], path) or b""
    except DockerError as problem:
        return str(problem)
    return "\n".join(content.decode("utf-8", "replace").splitlines()[-lines:])


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    docker = Docker(params["socket"])
    commands = params["commands"]
    if check_mode:
        return {"changed": False, "skipped": True, "outcomes": {}}
    if params["running_only"]:
        try:
            commands = [item for item in commands if is_running(docker, item["container"])]
        except DockerError as problem:
            return {"failed": True, "msg": str(problem), "outcomes": {}, **docker.absence()}

    def act(item: dict[str, Any]) -> dict[str, Any]:
        return run_one(docker, item, params["timeout"], params["log_lines"])

    with ThreadPoolExecutor(params["parallel"]) as pool:
        done = list(pool.map(act, commands))
    outcomes = by_node(commands, done)
    result: dict[str, Any] = {"changed": params["changes"], "outcomes": outcomes}
    failed = {node: outcome for node, outcome in outcomes.items() if outcome["rc"]}
    if failed:
        message = "; ".join(map(explain, failed.items()))
        result |= {"failed": True, "msg": message, **docker.absence()}
    return result


def by_node(
    commands: list[dict[str, Any]], done: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return one outcome a node: that of its first command that failed, or all their output."""
    outcomes: dict[str, dict[str, Any]] = {}
    for item, outcome in zip(commands, done):  # noqa: B905 - Python 3.9 of RHEL 9 knows no "strict"
        node = item["node"]
        earlier = outcomes.get(node)
        if earlier is None or (outcome["rc"] and not earlier["rc"]):
            outcomes[node] = outcome
        elif not earlier["rc"]:
            outcomes[node] = {
                key: earlier[key] + outcome[key] for key in ("rc", "stdout", "stderr")
            }
    return outcomes


def explain(item: tuple[str, dict[str, Any]]) -> str:
    """Return one line on a failed command."""
    node, outcome = item
    return f"{node}: {(outcome['stderr'] or outcome['stdout']).strip() or outcome['rc']}"


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
