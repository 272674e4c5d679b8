"""A cluster's inventory with all that the site has for it: secrets, gateway, ways out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from epic_runner import egress
from epic_runner.gateway import site, ssh_keys
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.secrets import cluster_secrets, cluster_token
from epic_runner.store import ClusterRecord, TenantRecord


def site_inventory(
    cluster: ClusterRecord,
    tenant: TenantRecord,
    hosts: Mapping[str, Host],
    connected: Iterable[ClusterRecord],
) -> dict[str, Any]:
    """Return the inventory with which any playbook of a cluster runs.

    Args:
        cluster: The cluster with its nodes.
        tenant: Its tenant.
        hosts: All Docker hosts by name.
        connected: The clusters on which its notebooks and jobs may run.

    Raises:
        SecretsUnavailable: Vault is configured and sealed, does not answer or refuses.
    """
    token = cluster_token(cluster.tenant, cluster.name)
    gateway = site.load()
    return cluster_inventory(
        cluster,
        tenant,
        hosts,
        secrets=cluster_secrets(cluster.tenant, cluster.name),
        gateway=gateway,
        ssh=ssh_keys.node_trust(cluster.tenant, cluster.name, token) if gateway else None,
        ways_out=egress.load(),
        connected=connected,
    )
