"""A running cluster as the files that would launch it."""

from __future__ import annotations

from typing import Any

import yaml

from epic_runner.catalog import Catalog
from epic_runner.spec.models import BUILTIN_FLAVORS
from epic_runner.spec.quantities import format_size
from epic_runner.store import ClusterRecord


def documents(cluster: ClusterRecord, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the Flavors and the Template that make a cluster like this one.

    Flavors that every installation has, unchanged, are left out; so are the services that the
    app gives to a node role anyway.
    """
    app = catalog.get(cluster.spec.app)
    flavors: dict[str, dict[str, Any]] = {}
    roles: dict[str, Any] = {}
    for role in cluster.spec.roles:
        own = app.roles[role.name].services if app and role.name in app.roles else ()
        roles[role.name] = {"count": role.count, "flavor": role.flavor}
        added = [service for service in role.services if service not in own]
        if added:
            roles[role.name]["services"] = added
        built_in = BUILTIN_FLAVORS.get(role.flavor)
        if built_in and (built_in.cores, built_in.memory, built_in.disk or 0) == (
            role.size.cores,
            role.size.memory_bytes,
            role.size.disk_bytes,
        ):
            continue
        flavors[role.flavor] = {
            "kind": "Flavor",
            "name": role.flavor,
            "cores": role.size.cores,
            "memory": format_size(role.size.memory_bytes),
            **({"disk": format_size(role.size.disk_bytes)} if role.size.disk_bytes else {}),
        }
    template = {
        "kind": "Template",
        "name": cluster.name,
        "tenant": cluster.tenant,
        "app": f"{cluster.spec.app}@{cluster.spec.app_version}",
        "roles": roles,
    }
    if cluster.spec.connections:
        template["connections"] = {"clusters": list(cluster.spec.connections)}
    return [*flavors.values(), template]


def as_yaml(items: list[dict[str, Any]]) -> str:
    """Return documents as one YAML file."""
    return yaml.safe_dump_all(items, sort_keys=False, default_flow_style=None)
