"""Clusters, tenants and hosts as the tests of the program's heart need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epic_runner.cluster import ClusterSpec, Endpoint, Node, RoleSpec, Size
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context
from epic_runner.store import ClusterRecord, Store, TenantRecord

GIB = 2**30
SMALL = Size(1, GIB)
PAGE = Endpoint("spark-master", "Spark master", 8080)
NOTEBOOK = Endpoint("jupyter", "JupyterLab", 8888, "/lab", token=True)


def role(name: str, count: int, **values: Any) -> RoleSpec:
    defaults: dict[str, Any] = {
        "flavor": "tiny",
        "size": SMALL,
        "image": "epic/spark:3.5.9-r1",
        "services": (f"spark-{name}",),
        "roles": ("spark",),
        "minimum": 1,
    }
    return RoleSpec(name=name, count=count, **{**defaults, **values})


def spec(workers: int = 1, name: str = "lab", tenant: str = "work", **master: Any) -> ClusterSpec:
    master = {"endpoints": (PAGE,), "maximum": 1, **master}
    return ClusterSpec(
        name, tenant, "spark", "3.5.9", (role("master", 1, **master), role("worker", workers))
    )


def node(of: ClusterSpec, short_name: str, ports: Mapping[str, int] | None = None) -> Node:
    kind, _, index = short_name.rpartition("-")
    return Node(of.name, of.tenant, kind, int(index), "local", ports or {})


def record(
    of: ClusterSpec, *short_names: str, key: int = 1, leaving: tuple[str, ...] = (), **values: Any
) -> ClusterRecord:
    nodes = tuple(
        node(of, name, {"spark-master": 20000} if name.startswith("master") else None)
        for name in short_names
    )
    defaults = {"owner": "ada", "wanted": "running"}
    return ClusterRecord(key, of, nodes=nodes, leaving=frozenset(leaving), **{**defaults, **values})


def host(name: str = "local", cores: int = 64, memory: int = 64 * GIB, **values: Any) -> Host:
    return Host(name, cores, memory, variables={"ansible_connection": "local"}, **values)


def document(name: str = "work", quota: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "kind": "Tenant",
        "name": name,
        "quota": dict(quota or {}),
        "members": [
            {"user": "ada", "role": "admin", "sudo": True},
            {"user": "bob", "role": "member", "sudo": False},
        ],
    }


def tenant(quota: Mapping[str, Any] | None = None) -> TenantRecord:
    return TenantRecord("work", document(quota=quota), {"ada": 20000, "bob": 20001})


@contextmanager
def known(folder: Path, of: ClusterSpec, *short_names: str) -> Iterator[Context]:
    """Give a store that knows the tenant, and a cluster of it with these nodes on this host."""
    store = Store(f"sqlite:///{folder}/store.db")
    with store.transaction() as transaction:
        transaction.apply_tenant(tenant().document)
        transaction.add_cluster(of, "ada", [node(of, name) for name in short_names])
    try:
        yield Context(store, {"local": host()})
    finally:
        store.close()
