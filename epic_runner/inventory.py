"""From a cluster to an Ansible inventory: a pure function that every door goes through.

The inventory holds all that a playbook needs: `ansible-playbook -i INVENTORY playbooks/launch.yml`
does what `epic-run launch` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from epic_runner.addresses import of_engine
from epic_runner.cluster import Node, RoleSpec
from epic_runner.connections import for_inventory
from epic_runner.egress import WaysOut, way_out
from epic_runner.errors import InputError
from epic_runner.gateway.paths import cluster_prefix, routes
from epic_runner.gateway.site import Gateway
from epic_runner.hosts import SOCKET, Host
from epic_runner.literal import literal
from epic_runner.store.records import ClusterRecord, TenantRecord

# Processes and threads per node: a JVM daemon has about 60 threads, an executor 100 and some per
# core, and a notebook's libraries one pool per core each.
PIDS_BASE = 1024
PIDS_PER_CORE = 512

# The groups that have a meaning of their own, to Ansible or to the playbooks.
FIXED_GROUPS = frozenset({"all", "ungrouped", "docker_hosts", "network_managers", "gateway_hosts"})

# What VXLAN adds to a packet: outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348).
VXLAN_BYTES = 50


def cluster_inventory(
    cluster: ClusterRecord,
    tenant: TenantRecord,
    hosts: Mapping[str, Host],
    *,
    secrets: str,
    gateway: Gateway | None = None,
    opens: bool = True,
    also: Iterable[str] = (),
    ways_out: WaysOut | None = None,
    ssh: Mapping[str, str] | None = None,
    connected: Iterable[ClusterRecord] = (),
) -> dict[str, Any]:
    """Return the inventory of one cluster, as data for a YAML file.

    Args:
        cluster: The cluster with its nodes.
        tenant: Its tenant, for the members' accounts.
        hosts: All Docker hosts by name.
        secrets: The reference to the cluster's secrets; what they are never goes in.
        gateway: The gateway that the cluster is to be reached by; None where the site has none.
        opens: Whether the way through it is opened or closed; else it stays as it is.
        also: More hosts that the play acts on.
        ways_out: What the site says of ways out of tenants' networks; None where no nodes are made.
        ssh: What nodes are to know for SSH through it (`gateway.ssh_keys.node_trust`); None for
            plays that fill no node, and where there is no gateway.
        connected: The clusters on which this one's notebooks and jobs may run.
    """
    leaving = [node for node in cluster.nodes if node.short_name in cluster.leaving]
    # A cluster without a single node may still have volumes somewhere.
    of_nodes = {node.host for node in (*cluster.nodes, *cluster.strays)}
    used_hosts = sorted({*of_nodes, *also} or hosts)
    roles = {role.name: role for role in cluster.spec.roles}
    return {
        "all": {
            "children": {
                "docker_hosts": {
                    "hosts": {name: dict(hosts[name].variables) for name in used_hosts}
                },
                "network_managers": {"hosts": managers(hosts) if tenant.subnet else {}},
                **gateway_group(gateway if opens else None, hosts),
                **cluster_groups(cluster, lambda node: node_variables(node, hosts[node.host])),
            },
            "vars": {
                "epic_cluster": literal(
                    {
                        "name": cluster.name,
                        "tenant": cluster.tenant,
                        "owner": cluster.owner,
                        "app": f"{cluster.spec.app}@{cluster.spec.app_version}",
                        "wanted": cluster.wanted,
                        "network": network(tenant, hosts),
                        "egress": way_out(tenant, hosts, ways_out, network_name(tenant.name))
                        if ways_out
                        else {},
                        "storage": storage_name(cluster.tenant),
                        "node_roles": {role.name: _role(role) for role in cluster.spec.roles},
                        "nodes": [
                            _node(node, roles.get(node.role), publishes=gateway is None)
                            for node in cluster.staying()
                        ],
                        "leaving": [
                            *(_node(node, roles.get(node.role)) for node in leaving),
                            # What was in a stray's home may be all that is left of it.
                            *(
                                {**_node(node, None), "keep_volume": True}
                                for node in cluster.strays
                            ),
                        ],
                        "users": [
                            {
                                "name": member["user"],
                                "uid": tenant.uids[member["user"]],
                                "sudo": bool(member.get("sudo", False)),
                                "role": member.get("role", "member"),
                                "principal": member.get("principal"),
                            }
                            for member in tenant.members
                        ],
                        "labels": labels(cluster, tenant),
                        "path": cluster_prefix(cluster.tenant, cluster.name) if gateway else "",
                        "connections": [
                            for_inventory(
                                other, cluster_prefix(other.tenant, other.name) if gateway else ""
                            )
                            for other in connected
                        ],
                        "routes": routes(
                            cluster.spec, cluster.staying(), cluster.owner, tenant.created_at
                        ),
                    }
                ),
                "epic_secrets": secrets,
                "epic_gateway": {"name": gateway.name if gateway else ""},
                "epic_ssh": dict(ssh or {"secrets": "", "authority": ""}),
            },
        }
    }


def network(tenant: TenantRecord, hosts: Mapping[str, Host]) -> dict[str, Any]:
    """Return the tenant's network: a bridge of the host, or one that spans hosts."""
    if tenant.subnet is None:
        return {"name": network_name(tenant.name), "spans": False}
    known = [host.mtu for host in hosts.values() if host.mtu]
    return {
        "name": spanning_name(tenant.name),
        "spans": True,
        "subnet": tenant.subnet,
        "ip_range": str(of_engine(tenant.subnet)),
        "mtu": min(known) - VXLAN_BYTES if known else 0,
    }


def managers(hosts: Mapping[str, Host]) -> dict[str, dict[str, Any]]:
    """Return the hosts that may make networks which span hosts, with their variables.

    Raises:
        InputError: There is none.
    """
    found = {name: dict(host.variables) for name, host in hosts.items() if host.manager}
    if not found:
        raise InputError(
            "No host is known to manage the hosts' networks.",
            "epic-run host prepare makes the hosts ready, epic-run host check looks again.",
        )
    return found


def hosts_inventory(hosts: Mapping[str, Host], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return an inventory of the Docker hosts alone, for plays that concern no cluster."""
    return {
        "all": {
            "children": {
                "docker_hosts": {
                    "hosts": {name: dict(host.variables) for name, host in hosts.items()}
                },
                "network_managers": {
                    "hosts": {
                        name: dict(host.variables) for name, host in hosts.items() if host.manager
                    }
                },
            },
            "vars": dict(variables),
        }
    }


def gateway_group(gateway: Gateway | None, hosts: Mapping[str, Host]) -> dict[str, Any]:
    """Return the group of the gateway's host; empty where the site has no gateway."""
    there = gateway is not None and gateway.host in hosts
    on = {gateway.host: dict(hosts[gateway.host].variables)} if gateway and there else {}
    return {"gateway_hosts": {"hosts": on}}


def cluster_groups(
    cluster: ClusterRecord, variables: Callable[[Node], dict[str, Any]]
) -> dict[str, Any]:
    """Return a cluster's group with one for each node role below it, and their nodes."""
    taken = {*FIXED_GROUPS}
    group = free_group(cluster.name, taken)
    of_role = {role.name: free_group(f"{group}_{role.name}", taken) for role in cluster.spec.roles}
    children = {
        name: {
            "hosts": {node.name: variables(node) for node in cluster.staying() if node.role == role}
        }
        for role, name in of_role.items()
    }
    return {group: {"children": children}}


def labels(cluster: ClusterRecord, tenant: TenantRecord) -> dict[str, str]:
    """Return the labels from which `epic-run repair` rebuilds the store."""
    return {
        "epic.owner": cluster.owner,
        "epic.cluster.spec": json.dumps(cluster.spec.as_dict(), sort_keys=True),
        "epic.tenant.document": json.dumps(
            {"document": dict(tenant.document), "uids": dict(tenant.uids)}, sort_keys=True
        ),
    }


def node_variables(node: Node, host: Host, socket: str = "") -> dict[str, Any]:
    """Return the variables that let ad-hoc plays work inside a node.

    `socket` is one of this machine that leads to the host's engine, if there is one.
    """
    variables: dict[str, Any] = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": node.container,
        "epic_host": node.host,
        "epic_role": node.role,
        "epic_index": node.index,
    }
    if socket:
        variables["ansible_docker_extra_args"] = f"-H unix://{socket}"
    elif not host.is_local:
        variables["ansible_docker_extra_args"] = f"-H ssh://{host.name}"
    elif host.socket != SOCKET:
        variables["ansible_docker_extra_args"] = f"-H unix://{host.socket}"
    return variables


def free_group(name: str, taken: set[str]) -> str:
    """Return a name as Ansible allows it for groups, letters, digits and underscores, and take it.

    Two clusters may ask for one group: `lab-worker`, and `lab` for its workers. Whoever comes
    later has underscores behind it.
    """
    found = re.sub(r"\W", "_", name)
    while found in taken:
        found += "_"
    taken.add(found)
    return found


def network_name(tenant: str) -> str:
    """Return the name of a tenant's bridge: on one host its network, on several its way out."""
    return f"epic.{tenant}"


def spanning_name(tenant: str) -> str:
    """Return the name of a tenant's network that spans hosts; a swarm allows no dot in it."""
    return f"epic_{tenant}"


def storage_name(tenant: str) -> str:
    """Return the name of the volume that all nodes of a tenant share."""
    return f"epic.{tenant}.storage"


def _role(role: RoleSpec) -> dict[str, Any]:
    return {
        "name": role.name,
        "image": role.image,
        "cores": role.size.cores,
        "memory_bytes": role.size.memory_bytes,
        "disk_bytes": role.size.disk_bytes,
        "pids_limit": PIDS_BASE + PIDS_PER_CORE * role.size.cores,
        "services": list(role.services),
    }


def _node(node: Node, role: RoleSpec | None, *, publishes: bool = True) -> dict[str, Any]:
    """Return a node as playbooks know it; behind a gateway, none publishes anything."""
    return {
        "name": node.name,
        "short_name": node.short_name,
        "container": node.container,
        "role": node.role,
        "index": node.index,
        "host": node.host,
        "address": node.address,
        "ports": [
            {"container_port": endpoint.port, "host_port": node.ports[endpoint.name]}
            for endpoint in (role.endpoints if role else ())
            if publishes and endpoint.name in node.ports
        ],
    }
