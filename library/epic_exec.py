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
      - What to run. Keys C(node) (its name in results), C(container), C(command) (a list),
        C(user), C(files) (path to C(content), C(mode), written before the command runs).
    type: list
    elements: dict
    required: true
  timeout:
    description: Seconds that each command may take.
    type: int
    default: 60
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
    description: The Docker engine's socket.
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
results:
  description: By node, its commands' C(rc), C(stdout), C(stderr) and, after a failure, C(logs).
  type: dict
  returned: always
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.epic_docker import Docker, DockerError


def run(docker: Docker, item: dict[str, Any], timeout: int, lines: int) -> dict[str, Any]:
    """Run one command; return its exit code and output, and the logs when it failed."""
    try:
        docker.put_files(item["container"], item.get("files", {}))
        code, stdout, stderr = docker.execute(
            item["container"],
            [str(word) for word in item["command"]],
            user=item.get("user", "root"),
            timeout_seconds=timeout,
        )
    except DockerError as problem:
        code, stdout, stderr = 255, "", str(problem)
    result: dict[str, Any] = {"rc": code, "stdout": stdout, "stderr": stderr}
    if code:
        result["logs"] = {path: tail(docker, item, path, lines) for path in item.get("logs", [])}
    return result


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


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "commands": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 60},
            "running_only": {"type": "bool", "default": False},
            "log_lines": {"type": "int", "default": 15},
            "parallel": {"type": "int", "default": 16},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
    )
    p = module.params
    docker = Docker(p["socket"])
    commands = p["commands"]
    if p["running_only"]:
        commands = [item for item in commands if is_running(docker, item["container"])]
    with ThreadPoolExecutor(p["parallel"]) as pool:
        outcomes = list(
            pool.map(lambda item: run(docker, item, p["timeout"], p["log_lines"]), commands)
        )
    results = {item["node"]: outcome for item, outcome in zip(commands, outcomes, strict=True)}
    failed = {node: outcome for node, outcome in results.items() if outcome["rc"]}
    if failed:
        module.fail_json(msg="; ".join(map(explain, failed.items())), results=results)
    module.exit_json(changed=bool(results), results=results)


def explain(item: tuple[str, dict[str, Any]]) -> str:
    """Return one line on a failed command."""
    node, outcome = item
    return f"{node}: {(outcome['stderr'] or outcome['stdout']).strip() or outcome['rc']}"


if __name__ == "__main__":
    main()
