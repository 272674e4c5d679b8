"""Pure functions on inventory data; they know nothing of epic_runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

MIB = 2**20

# What a Spark daemon, the init and the operating system of a node take beside Spark's own memory:
# a worker's JVM holds up to 256 MiB of heap and about 120 MiB beside it.
SPARK_RESERVED_MIB = 448
# Of what is left, an executor's JVM takes this much beyond its heap (Spark's own default for
# memory overhead is 0.10 of the heap, at least 384 MiB, which a small node does not have).
SPARK_OVERHEAD = 0.15
# Spark refuses to start an executor or a driver with less: 1.5 times its reserved 300 MiB.
SPARK_LEAST_MIB = 512


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
    nodes: Iterable[Mapping[str, Any]], host: str, program: str, seconds: float
) -> list[dict[str, Any]]:
    """Return the command by which a host's first node looks for a node of each other host.

    Args:
        nodes: All nodes of the cluster.
        host: The Docker host that looks.
        program: The source of `reach.py`.
        seconds: How long it may take.

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
            "command": ["python3", "-c", program, str(seconds), *others],
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


def spark_worker_mib(memory_bytes: int) -> int:
    """Return the memory in MiB that a node of this size can give to executors."""
    left = memory_bytes // MIB - SPARK_RESERVED_MIB
    return max(int(left / (1 + SPARK_OVERHEAD)), SPARK_LEAST_MIB)


def spark_driver_mib(memory_bytes: int) -> int:
    """Return the heap in MiB of a driver on a node of this size.

    Half of what is left beside the daemons, so that a notebook and a submitted job have room at
    the same time.
    """
    left = memory_bytes // MIB - SPARK_RESERVED_MIB
    return max(left // 2, SPARK_LEAST_MIB)


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "exec_commands": exec_commands,
            "reach_commands": reach_commands,
            "merge_offers": merge_offers,
            "spark_driver_mib": spark_driver_mib,
            "spark_worker_mib": spark_worker_mib,
            "with_files": with_files,
        }
