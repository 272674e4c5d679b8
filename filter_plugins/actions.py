"""Pure functions that turn an action into commands for nodes; they know nothing of epic_runner."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The kernel takes no longer string than 128 KiB in an environment; a longer script goes as a file.
LONGEST_IN_ENVIRONMENT = 120_000


# ansible-runner drops what a host returns if it has more than 700,000 characters; base64 takes a
# third more than what it holds, and there are some words beside it.
MOST_RETURNED = 400_000


def action_commands(
    nodes: Iterable[Mapping[str, Any]], action: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what starts an action on nodes, as the module epic_exec takes it.

    Args:
        nodes: The nodes, with `short_name`, `container`, `role` and `index`.
        action: `id`, `user`, `name`, `script` (base64), `arguments`, `environment`, `sudo`,
            `timeout_seconds` (0: none), `limit_bytes`, `follow_milliseconds`, `wait` (whether the
            end is waited for, though more is printed than is passed on), and the account that the
            script belongs to, `uid`.
    """
    words = ["epic-job", "start", action["id"], "--user", action["user"]]
    if action["sudo"]:
        words.append("--sudo")
    if action["timeout_seconds"]:
        words += ["--timeout", str(action["timeout_seconds"])]
    if action["limit_bytes"]:
        words += ["--limit", str(action["limit_bytes"])]
    nodes = list(nodes)
    words += ["--follow", str(action["follow_milliseconds"])]
    words += ["--most", str(min(MOST_RETURNED // max(len(nodes), 1), 1 << 14))]
    if action["wait"]:
        words.append("--wait")
    return [
        {
            "node": node["short_name"],
            "container": node["container"],
            "base64": True,
            **_call(words, node, action),
        }
        for node in nodes
    ]


def _call(words: list[str], node: Mapping[str, Any], action: Mapping[str, Any]) -> dict[str, Any]:
    variables = {
        "EPIC_NODE": node["short_name"],
        "EPIC_ROLE": node["role"],
        "EPIC_INDEX": node["index"],
        "EPIC_USER": action["user"],
        "EPIC_ACTION": action["id"],
        **action["environment"],
    }
    pairs = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    arguments = list(map(str, action["arguments"]))
    if len(action["script"]) <= LONGEST_IN_ENVIRONMENT:
        return {
            "command": [*words, "--script", action["name"], *pairs, "--", *arguments],
            "environment": {"EPIC_SCRIPT": action["script"]},
        }
    owner = 0 if action["sudo"] else action["uid"]
    path = f"/data/jobs/{action['id']}.files/{action['name']}"
    return {
        "command": [*words, *pairs, "--", path, *arguments],
        "files": {path: {"base64": action["script"], "mode": "0500", "uid": owner, "gid": owner}},
    }


def surroundings(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that tell a script of the cluster it runs in.

    Args:
        cluster: `tenant`, `name`, `owner`, `app`, `nodes` with `name` and `role`, and `node_roles`
            with `services`, as the inventory has them.
    """
    roles = cluster["node_roles"]
    masters = [
        f"{node['name']}:7077"
        for node in cluster["nodes"]
        if "spark-master" in roles[node["role"]]["services"]
    ]
    return {
        "EPIC_TENANT": cluster["tenant"],
        "EPIC_CLUSTER": cluster["name"],
        "EPIC_OWNER": cluster["owner"],
        "EPIC_APP": cluster["app"],
        "EPIC_NODES": " ".join(node["name"] for node in cluster["nodes"]),
        "EPIC_DATATAPS": "",
        **({"EPIC_MASTER": f"spark://{','.join(masters)}"} if masters else {}),
    }


def action_failures(outcomes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each node on which an action did not end well.

    Args:
        outcomes: By node what the module epic_exec returned: `rc`, and `stderr` in base64, whose
            last line tells how the script ended.
    """
    found = []
    for node, outcome in outcomes.items():
        text = base64.b64decode(outcome["stderr"]).decode("utf-8", "replace")
        printed, mark, told = text.rpartition("\0")
        state, code = told.split()[:2] if mark and not outcome["rc"] else ("", "")
        if state == "done" and code == "0":
            continue
        said = (printed if mark else text).strip().splitlines()
        how = f"exit code {code}" if state == "done" else state or "it could not be started"
        found.append(f"{node}: {how}" + (f": {said[-1]}" if said else ""))
    return found


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "action_commands": action_commands,
            "action_failures": action_failures,
            "surroundings": surroundings,
        }
