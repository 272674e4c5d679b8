"""Anyone's playbook on the nodes of a cluster, as a member of its tenant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epic_runner import ssh
from epic_runner.errors import InputError
from epic_runner.inventory import group_name, node_variables
from epic_runner.jobs import refuse_stopped
from epic_runner.lifecycle import Context, acting_user
from epic_runner.processes import seen_by_plays
from epic_runner.resources import content_root
from epic_runner.store import ClusterRecord


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
    if not Path(playbook).is_file():
        raise InputError(f"{playbook}: there is no such file.")
    with context.store.read() as transaction:
        cluster = transaction.find_cluster(name, tenant)
        owner = transaction.tenant(cluster.tenant)
    refuse_stopped(cluster)
    acting = acting_user(owner, user)
    with tempfile.TemporaryDirectory(prefix="epic-play-") as folder:
        inventory = Path(folder) / "nodes.json"
        inventory.write_text(
            json.dumps(nodes_inventory(context, cluster, acting)), encoding="utf-8"
        )
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory),
            playbook, *options,
        ]  # fmt: skip
        environment = {
            **seen_by_plays(os.environ),
            "ANSIBLE_CONFIG": str(content_root() / "ansible.cfg"),
        }
        return subprocess.run(command, check=False, env=environment).returncode


def nodes_inventory(context: Context, cluster: ClusterRecord, user: str) -> dict[str, Any]:
    """Return an inventory of a cluster's nodes, on which plays act as a member."""
    group = group_name(cluster.name)
    sockets = {
        host: ssh.nearby(context.hosts[host]).socket
        for host in {node.host for node in cluster.staying()}
        if not context.hosts[host].is_local
    }
    children = {
        f"{group}_{group_name(role.name)}": {
            "hosts": {
                node.name: node_variables(
                    node, context.hosts[node.host], sockets.get(node.host, "")
                )
                for node in cluster.staying()
                if node.role == role.name
            }
        }
        for role in cluster.spec.roles
    }
    variables = {
        "ansible_user": user,
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_remote_tmp": "/tmp/.ansible-${USER:-epic}",  # noqa: S108 - in the node
        "epic_cluster_name": cluster.name,
        "epic_tenant_name": cluster.tenant,
    }
    return {"all": {"children": {group: {"children": children}}, "vars": variables}}
