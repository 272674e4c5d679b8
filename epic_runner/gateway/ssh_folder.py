"""The folder that opens a cluster's nodes to one member's ssh: made here, handed to people."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from pathlib import Path

from epic_runner.errors import InputError
from epic_runner.gateway import lifecycle, site, ssh_keys, tunnel
from epic_runner.gateway.paths import SSH, cluster_prefix, endpoint_prefix
from epic_runner.gateway.site import Gateway
from epic_runner.hosts import Host
from epic_runner.jobs import refuse_stopped, submitting_node
from epic_runner.lifecycle import acting_user
from epic_runner.resources import private_directory
from epic_runner.secrets import cluster_token
from epic_runner.store import ClusterRecord
from epic_runner.store.store import Transaction


def reached(
    cluster: ClusterRecord, hosts: dict[str, Host], awaits: tuple[str, ...] = ()
) -> Gateway:
    """Return the gateway through which ssh reaches a cluster's nodes.

    Args:
        cluster: The cluster.
        hosts: All Docker hosts by name.
        awaits: The declared actions behind which it is opened (`actions.due.awaited`).

    Raises:
        InputError: There is none, or the cluster is not behind it, or does not run.
    """
    refuse_stopped(cluster)
    gateway = site.load()
    if gateway is None:
        raise InputError(
            "ssh goes through the gateway, and this site has none.",
            f"epic-run shell {cluster.name} opens a shell without one; epic-run gateway up makes "
            "one.",
        )
    paths = site.routed_paths(gateway, hosts)
    is_open = any(endpoint_prefix(node, SSH) in paths for node in cluster.staying())
    if not is_open and awaits:
        raise InputError(
            f"No ssh leads to {cluster.name} until the actions that its template declares are "
            f"done: {', '.join(awaits)}.",
            f"epic-run shell {cluster.name} opens a shell without it; "
            f"epic-run status {cluster.name} tells how far they are.",
        )
    if not is_open:
        raise InputError(
            f"No ssh leads to {cluster.name}: it is older than the gateway, or than this version.",
            f"epic-run gateway up && epic-run repair {cluster.name}, which restarts its nodes.",
        )
    return gateway


def write(
    transaction: Transaction,
    gateway: Gateway,
    cluster: ClusterRecord,
    folder: Path,
    *,
    user: str | None,
    hours: float,
    asker: str | None = None,
) -> str:
    """Write all that a member's ssh needs into a folder; return who the member is.

    What was there of an earlier folder is replaced.

    Raises:
        InputError: The user is no member, or none for whom the asker may act; or the folder holds
            something else.
    """
    member = acting_user(transaction.tenant(cluster.tenant), user, asker)
    login = lifecycle.login(
        transaction, gateway, user=member, tenant=cluster.tenant, cluster=cluster.name, hours=hours
    )
    _refuse_other(folder)
    name = ssh_keys.principal(member, cluster.tenant, cluster.name)
    key, certificate = ssh_keys.new_certificate(name, member, hours, dt.datetime.now(dt.UTC))
    alias = ssh_keys.host_alias(cluster.tenant, cluster.name)
    token = cluster_token(cluster.tenant, cluster.name)
    known = ssh_keys.public_line(ssh_keys.host_key(cluster.tenant, cluster.name, token))
    first = submitting_node(cluster)
    others = [node.short_name for node in cluster.staying() if node != first]
    settings = {
        "host": gateway.public_name,
        "port": gateway.port,
        "path": cluster_prefix(cluster.tenant, cluster.name),
        "cookie": site.COOKIE,
        "cluster": cluster.name,
        "alias": alias,
        "user": member,
        "nodes": [first.short_name, *others],
        "ends": int(time.time() + hours * 3600),
    }
    files = {
        "key": key,
        "key-cert.pub": certificate + b"\n",
        "known_hosts": f"{alias} {known}\n".encode(),
        "session": login.token.encode(),
        tunnel.SETTINGS: json.dumps(settings, indent=1).encode(),
    }
    if gateway.has_own_authority:
        files["ca.pem"] = site.file("ca.pem").read_bytes()
    private_directory(folder)
    for file, content in files.items():
        path = folder / file
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(content)
    if not gateway.has_own_authority:
        (folder / "ca.pem").unlink(missing_ok=True)
    shutil.copyfile(str(tunnel.__file__), folder / "tunnel.py")
    tunnel.configure(folder.resolve())
    return member


def _refuse_other(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and (folder / tunnel.SETTINGS).exists()):
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise InputError(
            f"{folder} is there already, and no folder for ssh.", "Name one that is to be made."
        )
