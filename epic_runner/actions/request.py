"""What somebody wants to run on nodes, and what is refused before anything runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from epic_runner.cluster import CONTINUE, Node
from epic_runner.errors import InputError, NotFound
from epic_runner.programs import VARIABLE
from epic_runner.scripts import flaw
from epic_runner.store import ClusterRecord, TenantRecord

# What is kept of each stream of a node if nothing else is said, as epic-job has it.
OUTPUT_BYTES = 1 << 30

# What a file in the node may be called.
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class ActionRequest:
    """A script, and how it is to be run.

    Attributes:
        name: What people call it: its file's name, or the command.
        script: Its content. Without a `#!` line it is bash's.
        arguments: What it gets on its command line.
        environment: Variables beside those that tell it where it is.
        sudo: Whether it runs as root, on behalf of the member.
        timeout_seconds: After how long a node ends it; 0 for never.
        serial: On how many nodes at once; 0 for all.
        on_failure: Whether further nodes are reached when it failed on one: `continue` or `stop`.
        again: The id of the action that this one repeats; empty for none.
    """

    name: str
    script: bytes
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    sudo: bool = False
    timeout_seconds: int = 0
    serial: int = 0
    on_failure: str = CONTINUE
    again: str = ""

    @property
    def digest(self) -> str:
        """The script's SHA-256."""
        return hashlib.sha256(self.script).hexdigest()

    @property
    def file_name(self) -> str:
        """What the script is called in the node."""
        return _PLAIN_NAME.sub("-", PurePosixPath(self.name).name).strip("-.")[:64] or "script"

    def options(self) -> dict[str, Any]:
        """Return how it is run, as the store keeps it."""
        return {
            "arguments": list(self.arguments),
            "environment": dict(self.environment),
            "sudo": self.sudo,
            "timeout_seconds": self.timeout_seconds,
            "serial": self.serial,
            "on_failure": self.on_failure,
            "again": self.again,
        }

    @classmethod
    def of(cls, name: str, script: bytes, options: Mapping[str, Any]) -> ActionRequest:
        """Return the request that an action was made of."""
        known = {key: value for key, value in options.items() if key != "playbook"}
        return cls(name, script, **{**known, "arguments": tuple(options["arguments"])})


def check(request: ActionRequest) -> None:
    """Refuse a script that could not run anywhere.

    Raises:
        InputError: It is empty, too large, or its first line names no interpreter that can be; or a
            variable has an impossible name.
    """
    message, hint = flaw(request.name, request.script)
    if message:
        raise InputError(message, hint)
    for variable in request.environment:
        if not re.fullmatch(VARIABLE, variable):
            raise InputError(f'"{variable}" is no name of an environment variable.')


def refusal(tenant: TenantRecord, user: str, *, sudo: bool, asker: str | None = None) -> str:
    """Return why a user may not run an action in a tenant; empty if it is allowed.

    Args:
        tenant: The tenant.
        user: As whom it runs.
        sudo: Whether it runs as root on that one's behalf.
        asker: The member who asks for it; anybody who may act for everybody by default.
    """
    member = next((item for item in tenant.members if item["user"] == user), None)
    if member is None:
        return f"{user} is not a member of tenant {tenant.name}."
    if sudo and not member.get("sudo", False):
        return f"{user} may not become root on the nodes of tenant {tenant.name}."
    return tenant.why_not_for(user, asker)


def chosen(
    cluster: ClusterRecord, roles: Sequence[str] = (), names: Sequence[str] = ()
) -> list[Node]:
    """Return the nodes that an action goes to: all of them, or those of node roles and names.

    Raises:
        NotFound: There is no such node role or node, or no node at all.
    """
    nodes = list(cluster.staying())
    known = {role.name for role in cluster.spec.roles}
    for role in roles:
        if role not in known:
            raise NotFound(
                f"{cluster.name} has no node role {role}; it has {', '.join(sorted(known))}."
            )
    for name in names:
        if not any(name in (node.short_name, node.name) for node in nodes):
            there = ", ".join(node.short_name for node in nodes)
            raise NotFound(f"{cluster.name} has no node {name}; it has {there or 'none'}.")
    found = [
        node
        for node in nodes
        if not (roles or names) or node.role in roles or {node.short_name, node.name} & {*names}
    ]
    if not found:
        raise NotFound(f"{cluster.name} has no nodes.", f"epic-run repair {cluster.name}")
    return found
