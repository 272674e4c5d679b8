"""Pure functions on inventory data; they know nothing of epic_runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MIB = 2**20

# The service that shows applications which have ended.
HISTORY = "spark-history"

# What a Spark daemon, the init and the operating system of a node take beside Spark's own memory:
# a worker's JVM holds up to 256 MiB of heap and about 120 MiB beside it.
SPARK_RESERVED_MIB = 448
# What one daemon more takes on a node that is master and worker, and JupyterLab's server on a
# node that runs executors beside it.
SPARK_DAEMON_MIB = 376
JUPYTER_MIB = 128
# Services on whose nodes drivers run: notebooks, and jobs that are submitted.
JUPYTER, MASTER, WORKER = "jupyter", "spark-master", "spark-worker"
# Of what is left, an executor's JVM takes this much beyond its heap (Spark's own default for
# memory overhead is 0.10 of the heap, at least 384 MiB, which a small node does not have).
SPARK_OVERHEAD = 0.15
# Spark refuses to start an executor or a driver with less: 1.5 times its reserved 300 MiB.
SPARK_LEAST_MIB = 512
# The history server's heap: an eighth of its node, in which logs of some 100,000 tasks are read,
# and what its JVM holds beside the heap.
SPARK_HISTORY_PART = 8
SPARK_HISTORY_LEAST_MIB = 320
SPARK_HISTORY_BESIDE_MIB = 192


def merge_offers(
    offers: Iterable[Mapping[str, Mapping[str, Any]]], node_roles: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Bring together, by node role, what several roles offer for its nodes.

    Args:
        offers: For each role, by node role: `files` (path to content, mode, uid, gid), `secrets`
            (likewise), `dirs` (lines of MODE OWNER GROUP PATH), `ready` and `leave` (lists of
            commands), `logs` (paths).
        node_roles: The names of all node roles.

    Returns:
        By node role one offer with all of these keys.
    """
    merged: dict[str, dict[str, Any]] = {
        name: {"files": {}, "secrets": {}, "dirs": [], "ready": [], "leave": [], "logs": []}
        for name in node_roles
    }
    for offer in offers:
        for name, part in offer.items():
            for key, value in part.items():
                if isinstance(merged[name][key], dict):
                    merged[name][key].update(value)
                else:
                    merged[name][key].extend(value)
    return merged


def with_files(
    node_roles: Mapping[str, Mapping[str, Any]], offers: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return node roles with the files of their merged offers, as the module epic_nodes takes them.

    The lines of `dirs` become the file that the node's init reads.
    """
    return {
        name: {
            **role,
            "secrets": offers[name]["secrets"],
            "files": {
                **offers[name]["files"],
                "/etc/epic/dirs": {
                    "content": "".join(f"{line}\n" for line in offers[name]["dirs"])
                },
            },
        }
        for name, role in node_roles.items()
    }


def reach_commands(
    nodes: Iterable[Mapping[str, Any]], host: str, program: str, seconds: float, stage: str
) -> list[dict[str, Any]]:
    """Return the command by which a host's first node looks for a node of each other host.

    Args:
        nodes: All nodes of the cluster.
        host: The Docker host that looks.
        program: The source of `reach.py`.
        seconds: How long it may take.
        stage: `early` where one that is not reached is waited for, `late` where it fails.

    Returns:
        One command as the module epic_exec takes it; none where there is no other host.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for node in nodes:
        if node.get("address"):
            first.setdefault(node["host"], node)
    others = [f"{name}={node['address']}" for name, node in first.items() if name != host]
    if host not in first or not others:
        return []
    own = first[host]
    return [
        {
            "node": own["short_name"],
            "container": own["container"],
            "command": ["python3", "-c", program, str(seconds), stage, *others],
            "logs": [],
        }
    ]


def exec_commands(
    nodes: Iterable[Mapping[str, Any]], offers: Mapping[str, Mapping[str, Any]], key: str
) -> list[dict[str, Any]]:
    """Return the `ready` or `leave` commands of nodes, as the module epic_exec takes them."""
    return [
        {
            "node": node["short_name"],
            "container": node["container"],
            "command": list(command),
            "logs": list(offers[node["role"]]["logs"]),
        }
        for node in nodes
        for command in offers[node["role"]][key]
    ]


def spark_history_mib(memory_bytes: int) -> int:
    """Return the heap in MiB of a history server on a node of this size."""
    return max(memory_bytes // MIB // SPARK_HISTORY_PART, SPARK_HISTORY_LEAST_MIB)


def _left_mib(node_role: Mapping[str, Any]) -> int:
    """Return the memory in MiB that a node of this role has beside its daemons and its system."""
    left = int(node_role["memory_bytes"] // MIB - SPARK_RESERVED_MIB)
    if HISTORY in node_role["services"]:
        left -= spark_history_mib(node_role["memory_bytes"]) + SPARK_HISTORY_BESIDE_MIB
    if _is_shared(node_role):
        left -= SPARK_DAEMON_MIB * (MASTER in node_role["services"])
        left -= JUPYTER_MIB * (JUPYTER in node_role["services"])
    return left


def _is_shared(node_role: Mapping[str, Any]) -> bool:
    """Return whether executors and drivers share the nodes of this role."""
    services = node_role["services"]
    return WORKER in services and (MASTER in services or JUPYTER in services)


def _shared_driver_mib(node_role: Mapping[str, Any]) -> float:
    """Return the heap of a driver beside executors: a quarter of what is left, with its overhead.

    So two drivers have one half of it, and executors the other.
    """
    return max(_left_mib(node_role) / 4 / (1 + SPARK_OVERHEAD), SPARK_LEAST_MIB)


def spark_worker_mib(node_role: Mapping[str, Any]) -> int:
    """Return the memory in MiB that a node of this role can give to executors."""
    mib = _left_mib(node_role) / (1 + SPARK_OVERHEAD)
    if _is_shared(node_role):
        mib -= 2 * _shared_driver_mib(node_role)
    return max(int(mib), SPARK_LEAST_MIB)


def spark_driver_mib(node_role: Mapping[str, Any]) -> int:
    """Return the heap in MiB of a driver on a node of this role.

    Half of what is left beside the daemons, so that a notebook and a submitted job have room at
    the same time; less where executors share the node.
    """
    if _is_shared(node_role):
        return int(_shared_driver_mib(node_role))
    return max(_left_mib(node_role) // 2, SPARK_LEAST_MIB)


def spark_target(
    node_roles: Mapping[str, Mapping[str, Any]],
    nodes: Iterable[Mapping[str, Any]],
    url_path: str,
    port: int,
) -> dict[str, Any]:
    """Return where drivers that go to a cluster find it, and what fits its workers.

    Args:
        node_roles: Its node roles, with `name`, `memory_bytes` and `services`.
        nodes: Its nodes, with `name`, `short_name` and `role`.
        url_path: The path below which a gateway offers it; empty without one.
        port: The port of its masters.

    Returns:
        `url` of the masters; `proxy_url`, the path of the master's pages, only a path, since an
        address would be written into logs of applications; `executor_mib`, the memory of executors.
    """

    def running(service: str) -> list[Mapping[str, Any]]:
        return [role for role in node_roles.values() if service in role["services"]]

    master_roles = {role["name"] for role in running("spark-master")}
    masters = [node for node in nodes if node["role"] in master_roles]
    workers = [spark_worker_mib(role) for role in running("spark-worker")]
    short_names = [node.get("short_name", "") for node in masters]
    return {
        "url": "spark://" + ",".join(f"{node['name']}:{port}" for node in masters),
        "proxy_url": f"{url_path}/{short_names[0]}/spark-master" if url_path and masters else "",
        "executor_mib": min(workers, default=SPARK_LEAST_MIB),
    }


def spark_folder(
    files: Mapping[str, Mapping[str, Any]], folder: str, target: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the files of a folder of settings for drivers that go to a target."""
    return {
        f"{folder}/{name}": {**file, "vars": {"__spark_target": dict(target)}}
        for name, file in files.items()
    }


def spark_connected(
    connections: Iterable[Mapping[str, Any]], files: Mapping[str, Mapping[str, Any]], port: int
) -> dict[str, dict[str, Any]]:
    """Return the folders of settings for drivers that go to connected clusters."""
    found: dict[str, dict[str, Any]] = {}
    for other in connections:
        target = spark_target(other["node_roles"], other["nodes"], other["url_path"], port)
        found |= spark_folder(files, f"/etc/spark/connections/{other['name']}", target)
    return found


def jupyter_kernels(connections: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the kernels whose Spark runs on connected clusters, as files.

    They are the image's own kernels, with other settings of Spark.
    """
    commands = {
        "python3": ("Python", "python", ["/opt/venv/bin/python", "-Xfrozen_modules=off", "-m",
                                         "ipykernel_launcher", "-f", "{connection_file}"]),
        "ir": ("R", "R", ["/usr/lib/R/bin/R", "--slave", "-e", "IRkernel::main()", "--args",
                          "{connection_file}"]),
    }  # fmt: skip
    return {
        f"/usr/local/share/jupyter/kernels/{kernel}-{name}/kernel.json": {
            "content": json.dumps(
                {
                    "argv": command,
                    "display_name": f"{title} ({name})",
                    "language": language,
                    "env": {"SPARK_CONF_DIR": f"/etc/spark/connections/{name}"},
                },
                indent=1,
            )
        }
        for name in connections
        for kernel, (title, language, command) in commands.items()
    }


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "exec_commands": exec_commands,
            "reach_commands": reach_commands,
            "jupyter_kernels": jupyter_kernels,
            "merge_offers": merge_offers,
            "spark_connected": spark_connected,
            "spark_driver_mib": spark_driver_mib,
            "spark_folder": spark_folder,
            "spark_history_mib": spark_history_mib,
            "spark_target": spark_target,
            "spark_worker_mib": spark_worker_mib,
            "with_files": with_files,
        }
