"""A running cluster as the files that would launch it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from epic_runner.catalog import Catalog
from epic_runner.cluster import STOP, DeclaredAction, Lifetime
from epic_runner.errors import InputError
from epic_runner.spec.quantities import format_duration, format_size
from epic_runner.spec.scripts import command_name
from epic_runner.store import ClusterRecord

# What else than line feeds YAML takes for line breaks, and reads back as such.
_BREAKS = frozenset("\r\x85\u2028\u2029")


class _Text(str):
    """A script, which is written line by line where that can be read back as it is."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes scripts as people do."""


def _written(dumper: yaml.SafeDumper, text: _Text) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", str(text), '"' if _BREAKS & {*text} else style
    )


_Dumper.add_representer(_Text, _written)


def documents(
    cluster: ClusterRecord, catalog: Catalog, scripts: Mapping[str, bytes] | None = None
) -> list[dict[str, Any]]:
    """Return the Flavors and the Template that make a cluster like this one.

    All its flavors are there, the built-in ones too: an installation may have replaced them. The
    services that the app gives to a node role anyway are left out. Declared actions have their
    scripts in place, since the files are elsewhere, if they still are.

    Args:
        cluster: The cluster.
        catalog: The apps.
        scripts: The scripts of its declared actions, by their keys.

    Raises:
        InputError: A script is not known any more.
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
        flavors[role.flavor] = {
            "kind": "Flavor",
            "name": role.flavor,
            "cores": role.size.cores,
            "memory": format_size(role.size.memory_bytes),
            **({"disk": format_size(role.size.disk_bytes)} if role.size.disk_bytes else {}),
        }
    template: dict[str, Any] = {
        "kind": "Template",
        "name": cluster.name,
        "tenant": cluster.tenant,
        "app": f"{cluster.spec.app}@{cluster.spec.app_version}",
        "roles": roles,
    }
    if cluster.spec.connections:
        template["connections"] = {"clusters": list(cluster.spec.connections)}
    if cluster.spec.lifetime:
        template["lifetime"] = _lifetime(cluster.spec.lifetime)
    if cluster.spec.actions:
        template["actions"] = [_action(item, scripts or {}) for item in cluster.spec.actions]
    return [*flavors.values(), template]


def _lifetime(limits: Lifetime) -> dict[str, Any]:
    figures = {
        "max_idle": limits.max_idle_seconds,
        "max_age": limits.max_age_seconds,
        "warn": limits.warn_seconds or None,
    }
    durations = {key: format_duration(value) for key, value in figures.items() if value is not None}
    return {**durations, "action": limits.action}


def _action(action: DeclaredAction, scripts: Mapping[str, bytes]) -> dict[str, Any]:
    script = scripts.get(action.key)
    if script is None:
        raise InputError(
            f"The script of the declared action {action.name} is not known any more.",
            "Its store was lost; launch the cluster again from its template's files.",
        )
    text = script.decode()
    values = {
        "name": "" if action.name == command_name(text) else action.name,
        "command": _Text(text),
        "args": list(action.arguments),
        "env": dict(action.environment),
        "roles": list(action.roles),
        "sudo": action.sudo,
        "replay": action.replay,
        "timeout": format_duration(action.timeout_seconds) if action.timeout_seconds else "",
        "on_failure": "" if action.on_failure == STOP else action.on_failure,
    }
    return {key: value for key, value in values.items() if value}


def as_yaml(items: list[dict[str, Any]]) -> str:
    """Return documents as one YAML file."""
    return yaml.dump_all(
        items, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
