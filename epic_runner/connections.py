"""Connections: clusters of a tenant on which the notebooks and jobs of another one may run.

A node of the connected cluster gets a folder of Spark's settings for each of them, and its
JupyterLab a kernel. Drivers and executors have to have the same Python, Java and Spark, so that is
looked at before anything is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import product
from typing import Any

from epic_runner.cluster import ClusterSpec
from epic_runner.errors import InputError
from epic_runner.software import Labels, disagreement, software
from epic_runner.store import ClusterRecord


def connected(spec: ClusterSpec, clusters: Iterable[ClusterRecord]) -> tuple[ClusterRecord, ...]:
    """Return the clusters that are there of those that a cluster is connected to."""
    known = {item.name: item for item in clusters if item.tenant == spec.tenant}
    return tuple(
        known[name] for name in spec.connections if name in known and known[name].wanted != "absent"
    )


def check(spec: ClusterSpec, clusters: Iterable[ClusterRecord], labels: Labels) -> None:
    """Refuse connections that could not work.

    Args:
        spec: The cluster that is to be connected.
        clusters: All clusters of the store.
        labels: Those of the images that hosts have.

    Raises:
        InputError: There is no such cluster, or it has other software.
    """
    clusters = list(clusters)
    found = {item.name: item for item in connected(spec, clusters)}
    for name in spec.connections:
        if name not in found:
            raise InputError(
                f"{spec.name} is to be connected with {name}, but tenant {spec.tenant} has no "
                "such cluster.",
                _suggestion(spec, name, clusters),
            )
        _refuse_unlike(spec, found[name].spec, labels)


def troubles(spec: ClusterSpec, clusters: Iterable[ClusterRecord]) -> list[str]:
    """Return, in words, what keeps a cluster from those that it is connected to."""
    found = {item.name: item for item in connected(spec, clusters)}
    said = []
    for name in spec.connections:
        if name not in found:
            said.append(f"the connected cluster {name} is gone")
        elif found[name].wanted != "running":
            said.append(f"the connected cluster {name} is stopped")
    return said


def for_inventory(cluster: ClusterRecord, path: str) -> dict[str, Any]:
    """Return a connected cluster as the roles take it.

    Args:
        cluster: The cluster that is connected to.
        path: The path below which a gateway offers it; empty without one.
    """
    return {
        "name": cluster.name,
        "url_path": path,
        "node_roles": {
            role.name: {
                "name": role.name,
                "memory_bytes": role.size.memory_bytes,
                "services": list(role.services),
            }
            for role in cluster.spec.roles
        },
        "nodes": [
            {"name": node.name, "short_name": node.short_name, "role": node.role}
            for node in cluster.staying()
        ],
    }


def _refuse_unlike(spec: ClusterSpec, other: ClusterSpec, labels: Labels) -> None:
    own, theirs = (f"{item.app} {item.app_version}" for item in (spec, other))
    if own != theirs:
        raise _unlike(spec, other, own, theirs)
    for role, others in product(spec.roles, other.roles):
        mine = software(role.image, spec.app, labels)
        found = software(others.image, other.app, labels)
        what = disagreement(mine, found)
        if what:
            raise _unlike(spec, other, f"{what} {mine[what]}", f"{what} {found[what]}")


def _unlike(spec: ClusterSpec, other: ClusterSpec, own: str, theirs: str) -> InputError:
    return InputError(
        f"{spec.name} cannot be connected with {other.name}: it has {own}, and {other.name} "
        f"has {theirs}.",
        f"Launch {other.name} anew with this version's images, or leave the connection out.",
    )


def _suggestion(spec: ClusterSpec, name: str, clusters: Iterable[ClusterRecord]) -> str:
    names = [
        item.name for item in clusters if item.tenant == spec.tenant and item.name != spec.name
    ]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f'Did you mean "{near[0]}"?'
    if names:
        return f"It has {', '.join(sorted(names))}."
    return f"Launch {name} first."
