"""Anyone's playbook on the nodes of a cluster, as a member of its tenant: an action like a script.

It is recorded with what it has made of each node. Its options and its output are not: they may hold
what its caller alone should know.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epic_runner import ssh
from epic_runner.actions import drive
from epic_runner.actions.request import ActionRequest, refusal
from epic_runner.cluster import Node
from epic_runner.errors import EpicError, InputError
from epic_runner.inventory import cluster_groups, node_variables
from epic_runner.jobs import refuse_stopped
from epic_runner.lifecycle import Context, acting_user
from epic_runner.operations import settled
from epic_runner.processes import seen_by_plays
from epic_runner.resources import content_root
from epic_runner.store import ActionRecord, ClusterRecord, NodeOutcome, TenantRecord


def play(
    context: Context,
    name: str,
    playbook: str,
    options: Sequence[str] = (),
    *,
    tenant: str | None = None,
    user: str | None = None,
) -> int:
    """Run a playbook on a cluster's nodes; return ansible-playbook's exit code.

    Args:
        context: The store and the hosts.
        name: The cluster.
        playbook: The playbook's file.
        options: More options of ansible-playbook.
        tenant: The cluster's tenant, where the name needs it.
        user: As which member; the tenant's first administrator by default.

    Raises:
        InputError: There is no such file, the user is no member, or the cluster is stopped.
        DockerUnavailable: A host cannot be reached.
    """
    try:
        content = Path(playbook).read_bytes()
    except OSError as problem:
        raise InputError(f"{playbook}: {problem.strerror}.") from problem
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        owner = transaction.tenant(cluster.tenant)
    refuse_stopped(cluster)
    begun = _recorded(context, cluster, owner, ActionRequest(Path(playbook).name, content), user)
    nodes = cluster.staying()
    try:
        rc, counts = _run(nodes_inventory(context, cluster, begun.user), playbook, options)
    except KeyboardInterrupt:
        _close(context, begun, "cancelled", "it was interrupted", outcomes(nodes, {}))
        raise
    except EpicError as problem:
        _close(context, begun, "failed", problem.message, outcomes(nodes, {}))
        raise
    reason = f"ansible-playbook ended with {rc}" if rc else ""
    _close(context, begun, "failed" if rc else "done", reason, outcomes(nodes, counts))
    return rc


def outcomes(
    nodes: Sequence[Node], counts: Mapping[str, Mapping[str, int]]
) -> dict[str, NodeOutcome]:
    """Return what a play has made of each node, by short name.

    Args:
        nodes: The cluster's nodes.
        counts: Ansible's recap: by host, `failures` and `unreachable` among others; empty where the
            play did not come to its end.
    """
    now = time.time()

    def outcome(node: Node) -> NodeOutcome:
        found = counts.get(node.name)
        if found is None:
            if counts:
                return NodeOutcome("skipped", None, "no task was for it", now)
            return NodeOutcome("unknown", None, "the play did not come to its end", now)
        if found["unreachable"]:
            return NodeOutcome("unknown", None, "it could not be reached", now)
        if found["failures"]:
            return NodeOutcome("failed", None, "a task failed", now)
        return NodeOutcome("done", None, "", now)

    return {node.short_name: outcome(node) for node in nodes}


def _recorded(
    context: Context,
    cluster: ClusterRecord,
    tenant: TenantRecord,
    request: ActionRequest,
    user: str | None,
) -> ActionRecord:
    """Record a play that begins, or that is refused; raise InputError for that."""
    acting = user or tenant.default_user() or ""
    reason = refusal(tenant, acting, sudo=False, asker=context.asker)
    made = drive.new_record(
        cluster, request, acting, cluster.staying(), reason, asker=context.asker
    )
    # Its hash tells which playbook it was; what stands in it stays with its author.
    made = replace(made, script=b"", options={**made.options, "playbook": True})
    with context.store.transaction() as transaction:
        transaction.add_action(made)
    if reason:
        acting_user(tenant, acting, context.asker)  # it says so in more words
        raise InputError(reason)
    return made


def _close(
    context: Context,
    action: ActionRecord,
    state: str,
    reason: str,
    ends: Mapping[str, NodeOutcome],
) -> None:
    def change(transaction: Any) -> None:
        transaction.set_action(action.id, ends)
        transaction.set_action(action.id, state=state, reason=reason, ended_at=time.time())

    settled(context.store, change, lambda _step: None)


def _run(
    inventory: Mapping[str, Any], playbook: str, options: Sequence[str]
) -> tuple[int, Mapping[str, Mapping[str, int]]]:
    """Run ansible-playbook on this terminal; return its exit code, and its recap by host."""
    with tempfile.TemporaryDirectory(prefix="epic-play-") as folder:
        nodes, recap = Path(folder) / "nodes.json", Path(folder) / "recap.json"
        nodes.write_text(json.dumps(inventory), encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(nodes),
            playbook, *options,
        ]  # fmt: skip
        enabled = os.environ.get("ANSIBLE_CALLBACKS_ENABLED")
        environment = {
            **seen_by_plays(os.environ, is_recorded=False),
            "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
            "ANSIBLE_CALLBACKS_ENABLED": ",".join(filter(None, [enabled, "epic_stats"])),
            "EPIC_STATS_FILE": str(recap),
        }
        rc = subprocess.run(command, check=False, env=environment).returncode
        with contextlib.suppress(OSError, ValueError):
            return rc, json.loads(recap.read_text(encoding="utf-8"))
        return rc, {}


def nodes_inventory(context: Context, cluster: ClusterRecord, user: str) -> dict[str, Any]:
    """Return an inventory of a cluster's nodes, on which plays act as a member."""
    sockets = {
        host: ssh.nearby(context.hosts[host]).socket
        for host in {node.host for node in cluster.staying()}
        if not context.hosts[host].is_local
    }
    groups = cluster_groups(
        cluster,
        lambda node: node_variables(node, context.hosts[node.host], sockets.get(node.host, "")),
    )
    variables = {
        "ansible_user": user,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_remote_tmp": "/tmp/.ansible-${USER:-epic}",  # noqa: S108 - in the node
        "epic_cluster_name": cluster.name,
        "epic_tenant_name": cluster.tenant,
    }
    return {"all": {"children": groups, "vars": variables}}
