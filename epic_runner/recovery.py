"""Finding in Docker what the store does not know, and rebuilding the store from it.

Every container carries its cluster's spec and its tenant's document in labels, so a lost store is
not a lost cluster; and everything carries its cluster's name, so that nothing is ever orphaned
without being seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from epic_runner import docker_api
from epic_runner.addresses import next_address, subnet_of
from epic_runner.cluster import ClusterSpec, Node, container_name, split_name
from epic_runner.errors import NotFound
from epic_runner.everywhere import ask_all, ask_any
from epic_runner.hosts import Host
from epic_runner.inventory import spanning_name, storage_name
from epic_runner.secrets import keep_token
from epic_runner.store import ClusterRecord, Store, TenantRecord
from epic_runner.store.store import FIRST_UID

TOKEN_FILE = "/etc/epic/secrets/jupyter-token"  # noqa: S105 - where it is, not what it is
PASSWD_FILE = "/etc/epic/passwd"  # noqa: S105 - likewise
SUDOERS_FILE = "/etc/epic/sudoers"
MEMBERS_FILE = "/etc/epic/members.json"

# What a token may consist of: RFC 6750, section 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{1,256}")


@dataclass(frozen=True)
class Found:
    """A container that carries our labels, and the host it is on."""

    host: str
    container: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, str]:
        """The container's labels."""
        return dict(self.container["Labels"])

    @property
    def key(self) -> tuple[str, str]:
        """Its tenant and cluster."""
        return self.labels["epic.tenant"], self.labels["epic.cluster"]

    def node(self) -> Node:
        """Return the node that the container is."""
        tenant, cluster = self.key
        role, index = self.labels["epic.role"], int(self.labels["epic.index"])
        return Node(cluster, tenant, role, index, self.host, {})


@dataclass(frozen=True)
class Recovered:
    """What a recovery did: clusters written to the store, and what belongs to nothing.

    `orphans` are sentences for people: what it is, on which host, and how to remove it.
    """

    clusters: tuple[str, ...]
    orphans: tuple[str, ...]


def find_containers(hosts: Iterable[Host], labels: Mapping[str, str | None]) -> list[Found]:
    """Return the containers that carry labels, of all hosts that answer.

    Raises:
        DockerUnavailable: None answers.
    """
    answers = ask_any(hosts, lambda host: docker_api.containers(host, labels))
    return [Found(name, item) for name, containers in answers.items() for item in containers]


@dataclass(frozen=True)
class Strays:
    """Containers that carry a cluster's labels and are not among its nodes.

    Attributes:
        nodes: The nodes that they are.
        hosts: The names of the hosts that have told what they have.
    """

    nodes: tuple[Node, ...]
    hosts: frozenset[str]


def strays(hosts: Mapping[str, Host], cluster: ClusterRecord) -> Strays:
    """Look for a cluster's strays on all hosts that answer.

    Raises:
        DockerUnavailable: None answers.
    """
    labels = {"epic.tenant": cluster.tenant, "epic.cluster": cluster.name}
    known = {(node.host, node.container) for node in cluster.nodes}
    answers = ask_any(hosts.values(), lambda host: docker_api.containers(host, labels))
    nodes = (Found(name, item).node() for name, found in answers.items() for item in found)
    return Strays(
        tuple(node for node in nodes if (node.host, node.container) not in known),
        frozenset(answers),
    )


def hosts_with(
    hosts: Mapping[str, Host], tenant: str, name: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the hosts that have anything of a cluster, and those that do not tell."""
    labels = {"epic.tenant": tenant, "epic.cluster": name}
    answers, silent = ask_all(
        hosts.values(),
        lambda host: [*docker_api.containers(host, labels), *docker_api.volumes(host, labels)],
    )
    return frozenset(host for host, found in answers.items() if found), frozenset(silent)


def find_remains(hosts: Mapping[str, Host], name: str, tenant: str | None) -> ClusterRecord | None:
    """Return a record of a cluster that only Docker knows, for destroying it."""
    tenant, name = split_name(name, tenant)
    labels: dict[str, str | None] = {"epic.cluster": name}
    if tenant:
        labels["epic.tenant"] = tenant
    containers = find_containers(hosts.values(), labels)
    tenants = {found.key[0] for found in containers}
    for volumes in ask_any(hosts.values(), lambda host: docker_api.volumes(host, labels)).values():
        tenants |= {volume["Labels"]["epic.tenant"] for volume in volumes}
    if len(tenants) != 1:
        return None
    spec = ClusterSpec(name, tenants.pop(), "unknown", "", ())
    return ClusterRecord(0, spec, "", "absent", tuple(found.node() for found in containers))


def recover(
    store: Store, hosts: Mapping[str, Host], name: str | None = None, tenant: str | None = None
) -> Recovered:
    """Write to the store every cluster that Docker has and the store does not.

    Args:
        store: The store.
        hosts: All hosts by name.
        name: Only the cluster that this name, or `TENANT/NAME`, means; no orphans are looked for.
        tenant: Only clusters of this tenant.
    """
    labels: dict[str, str | None] = {"epic.cluster": None}
    if name:
        tenant, name = split_name(name, tenant)
        labels["epic.cluster"] = name
    if tenant:
        labels["epic.tenant"] = tenant
    with store.read() as transaction:
        known = {(record.tenant, record.name) for record in transaction.clusters()}
    if name and any(key[1] == name and tenant in (None, key[0]) for key in known):
        return Recovered((), ())
    lost: dict[tuple[str, str], list[Found]] = {}
    for found in find_containers(hosts.values(), labels):
        if found.key not in known and "epic.cluster.spec" in found.labels:
            lost.setdefault(found.key, []).append(found)
    tenants = {name: _tenant(hosts, all_of) for name, all_of in _by_tenant(lost).items()}
    subnets = _subnets(hosts) if lost else {}
    written = [
        key
        for key, containers in lost.items()
        if (tenant_found := tenants[key[0]])
        and _write(
            store, hosts, containers, replace(tenant_found, subnet=subnets.get(tenant_found.name))
        )
    ]
    return Recovered(
        tuple(f"{tenant}/{name}" for tenant, name in sorted(written)),
        () if name else tuple(_orphans(store, hosts, known | lost.keys())),
    )


def _by_tenant(lost: Mapping[tuple[str, str], list[Found]]) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for (tenant, _), containers in lost.items():
        found.setdefault(tenant, []).extend(containers)
    return found


def _tenant(hosts: Mapping[str, Host], containers: list[Found]) -> TenantRecord | None:
    """Return a tenant by what its nodes were told last; None when none of them is left."""
    newest = max(containers, key=lambda found: int(found.container["Created"]))

    def told(found: Found) -> tuple[float, int, Found, bytes | None]:
        noted, when = docker_api.read_dated_file(
            hosts[found.host], found.container["Id"], MEMBERS_FILE
        )
        return when, int(found.container["Created"]), found, noted

    try:
        _, _, last, noted = max((told(found) for found in containers), key=lambda item: item[:2])
        host, container = hosts[last.host], last.container["Id"]
        return described_tenant(
            json.loads(newest.labels["epic.tenant.document"]),
            docker_api.read_file(host, container, PASSWD_FILE),
            docker_api.read_file(host, container, SUDOERS_FILE),
            noted,
        )
    except NotFound:
        return None


def _subnets(hosts: Mapping[str, Host]) -> dict[str, str]:
    """Return the addresses of the networks that span hosts, by their tenants' names."""
    answers, _ = ask_all(
        hosts.values(), lambda host: docker_api.networks(host, {"epic.tenant": None})
    )
    found = {}
    for network in (item for networks in answers.values() for item in networks):
        tenant = network["Labels"]["epic.tenant"]
        parts = (network.get("IPAM") or {}).get("Config") or []
        # One that was made a moment ago has no addresses to tell of yet.
        subnets = [part["Subnet"] for part in parts if part.get("Subnet")]
        if network["Name"] == spanning_name(tenant) and subnets:
            found[tenant] = subnets[0]
    return found


def _write(
    store: Store, hosts: Mapping[str, Host], containers: list[Found], tenant: TenantRecord
) -> bool:
    """Write one cluster to the store; False when it left Docker, or came back, meanwhile."""
    oldest_first = sorted(containers, key=lambda found: int(found.container["Created"]))
    newest = oldest_first[-1]
    try:
        described = [_described(hosts[found.host], found) for found in oldest_first]
    except NotFound:
        return False
    # Of one node on two hosts, the later one is the node, and the other a stray.
    nodes = list({node.short_name: node for node in described}.values())
    spec = ClusterSpec.from_dict(json.loads(newest.labels["epic.cluster.spec"]))
    left, silent = _left(hosts, newest.key)
    missing = still_wanted(spec, nodes, left)
    spec = counted(spec, [*nodes, *missing], is_whole=not silent)
    # Where no host tells of the network, the nodes do.
    asked = next((subnet_of(node.address) for node in nodes if node.address), None)
    tenant = replace(tenant, subnet=tenant.subnet or asked)
    for found in containers:
        token = docker_api.read_file(hosts[found.host], found.container["Id"], TOKEN_FILE)
        # It goes into the gateway's maps, and root of the node may have written anything there.
        if token and _TOKEN.fullmatch(token):
            keep_token(spec.tenant, spec.name, token.decode())
    with store.transaction() as transaction:
        others = transaction.clusters(spec.tenant)
        if any(record.name == spec.name for record in others):
            return False
        transaction.restore_tenant(tenant)
        taken = [*nodes, *(node for other in others for node in (*other.nodes, *other.lost))]
        nodes += addressed(missing, taken, transaction.tenant(spec.tenant).subnet)
        key = transaction.add_cluster(spec, newest.labels["epic.owner"], nodes)
        running = any(found.container["State"] == "running" for found in containers)
        transaction.set_cluster(key, wanted="running" if running else "stopped")
    return True


def described_tenant(
    described: Mapping[str, Any],
    passwd: bytes | None,
    sudoers: bytes | None,
    noted: bytes | None = None,
) -> TenantRecord:
    """Return a tenant from a node's label and from the accounts that a node has by now.

    Labels stay as they were when the node was made, while its account files follow the tenant's
    members. But whoever is root on a node can write those files, and nobody there the label. So
    files add ordinary members and take members and roles away; administrators, principals and the
    user ids of known members are those of the label. Who may become root is read from the files:
    root of a node can share that anyway. Lines that epic-run cannot have written are passed over.

    Args:
        described: The label: `document` and `uids`.
        passwd: The node's list of members' accounts, None if it was never filled.
        sudoers: The node's list of those who may become root.
        noted: The node's note of what else the tenant's document says of members, by their names.
    """
    document, uids = dict(described["document"]), dict(described["uids"])
    if passwd:
        labelled = {member["user"]: member for member in document.get("members", [])}
        accounts = _accounts(passwd, uids)
        sudo = {line.split()[0] for line in _lines(sudoers or b"") if line.strip()}
        demoted = _ordinary(noted or b"")
        document["members"] = [
            {
                **labelled.get(user, {"user": user, "role": "member"}),
                **({"role": "member"} if user in demoted else {}),
                "sudo": user in sudo,
            }
            for user in accounts
        ]
        uids |= accounts
    return TenantRecord(document["name"], document, uids)


def _accounts(passwd: bytes, uids: Mapping[str, int]) -> dict[str, int]:
    """Return the user ids of the members whom a node knows, in its order.

    Args:
        passwd: The node's list of accounts.
        uids: The ids that are given already, by the users who have them.
    """
    found: dict[str, int] = {}
    for line in _lines(passwd):
        user, _, uid, *_ = [*line.split(":"), "", "", ""]
        if user in uids:
            found[user] = uids[user]
        elif (
            _is_member(user)
            and re.fullmatch("[0-9]{1,9}", uid)
            and int(uid) >= FIRST_UID
            and int(uid) not in {*uids.values(), *found.values()}
        ):
            found.setdefault(user, int(uid))
    return found


def _ordinary(noted: bytes) -> set[str]:
    """Return the users whom a node's note calls ordinary members."""
    try:
        members = json.loads(noted or b"[]")
    except (ValueError, RecursionError):
        return set()
    return {
        str(member.get("name"))
        for member in (members if isinstance(members, list) else [])
        if isinstance(member, dict) and member.get("role") == "member"
    }


def _is_member(user: str) -> bool:
    """Whether a tenant's document may name a member so."""
    # pydantic takes a tenth of a second to import, which most verbs have no use for.
    from pydantic import ValidationError

    from epic_runner.spec.models import Member

    try:
        Member(user=user)
    except ValidationError:
        return False
    return True


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines()


def still_wanted(
    spec: ClusterSpec, nodes: Iterable[Node], left: Iterable[Node]
) -> tuple[Node, ...]:
    """Return the nodes without containers that a cluster was to have when its store was lost.

    A node that went in order took its volume along, one whose container somebody removed left it
    behind; but so did one that was made anew elsewhere while its host was away. So there are no
    more than the spec asks for, those with the highest numbers first.

    Args:
        spec: The cluster, as the newest container has it in its label.
        nodes: The nodes that have containers.
        left: The nodes of which there are volumes.
    """
    there = {node.short_name: node for node in nodes}
    found: dict[str, Node] = {}
    for node in sorted(left, key=lambda node: node.index, reverse=True):
        role = next((role for role in spec.roles if role.name == node.role), None)
        have = sum(other.role == node.role for other in (*there.values(), *found.values()))
        if role and have < role.count and node.short_name not in there:
            found.setdefault(node.short_name, node)
    return tuple(reversed(found.values()))


def counted(spec: ClusterSpec, nodes: Iterable[Node], *, is_whole: bool) -> ClusterSpec:
    """Return the spec with the counts of the nodes that were found, or the app's least ones.

    Numbers tell nothing of it: those of nodes that have left are not given again.

    Args:
        spec: The cluster, as the newest container has it in its label.
        nodes: The nodes that were found.
        is_whole: Whether all hosts told; else it keeps the counts that it had.
    """
    found = Counter(node.role for node in nodes)
    least = {role.name: role.minimum if is_whole else role.count for role in spec.roles}
    roles = tuple(
        replace(role, count=max(found[role.name], least[role.name])) for role in spec.roles
    )
    return replace(spec, roles=roles)


def addressed(nodes: Iterable[Node], others: Iterable[Node], subnet: str | None) -> list[Node]:
    """Return nodes with an address each, where their tenant's network spans hosts.

    Args:
        nodes: The nodes, none of which has one.
        others: All other nodes of the tenant.
        subnet: The tenant's addresses; None where an engine gives them.
    """
    taken = {node.address for node in others}
    return [
        replace(node, address=next_address(subnet, taken)) if subnet else node for node in nodes
    ]


def _left(hosts: Mapping[str, Host], key: tuple[str, str]) -> tuple[list[Node], Collection[str]]:
    """Return the nodes of a cluster of which there are volumes, and the hosts that do not tell."""
    tenant, cluster = key
    labels = {"epic.tenant": tenant, "epic.cluster": cluster, "epic.node": None}
    answers, silent = ask_all(hosts.values(), lambda host: docker_api.volumes(host, labels))
    found = [_node_of(volume, host) for host, volumes in answers.items() for volume in volumes]
    return found, silent


def _node_of(volume: Mapping[str, Any], host: str) -> Node:
    labels = volume["Labels"]
    role, _, index = labels["epic.node"].rpartition("-")
    return Node(labels["epic.cluster"], labels["epic.tenant"], role, int(index), host, {})


def _described(host: Host, found: Found) -> Node:
    """Return the node with the host ports and the address that its container was made with."""
    node = found.node()
    spec = ClusterSpec.from_dict(json.loads(found.labels["epic.cluster.spec"]))
    inspected = docker_api.inspect(host, found.container["Id"])
    bindings = inspected["HostConfig"]["PortBindings"] or {}
    ports = {
        endpoint.name: int(bindings[f"{endpoint.port}/tcp"][0]["HostPort"])
        for endpoint in spec.role(node.role).endpoints
        if f"{endpoint.port}/tcp" in bindings
    }
    networks = inspected.get("NetworkSettings", {}).get("Networks") or {}
    attached = networks.get(spanning_name(node.tenant)) or {}
    # What was asked for, which a container that does not run has as well.
    address = (attached.get("IPAMConfig") or {}).get("IPv4Address", "")
    return replace(node, ports=ports, address=address)


def _orphans(store: Store, hosts: Mapping[str, Host], known: set[tuple[str, str]]) -> Iterable[str]:
    tenants = {tenant for tenant, _ in known}
    with store.read() as transaction:
        nodes = {
            (node.host, node.container)
            for cluster in transaction.clusters()
            for node in (*cluster.nodes, *cluster.lost)
        }
    answers, silent = ask_all(
        hosts.values(), lambda host: docker_api.volumes(host, {"epic.tenant": None})
    )
    yield from (f"what host {name} has was not looked at: {why}" for name, why in silent.items())
    for host in (hosts[name] for name in answers):
        for volume in answers[host.name]:
            labels = volume["Labels"]
            tenant, cluster = labels["epic.tenant"], labels.get("epic.cluster")
            if cluster and (tenant, cluster) not in known:
                yield (
                    f"volume {volume['Name']} on host {host.name} belongs to no cluster: "
                    f"epic-run destroy {tenant}/{cluster} removes it"
                )
            elif "epic.node" in labels and cluster:
                node = _node_of(volume, host.name)
                if (node.host, node.container) not in nodes:
                    yield (
                        f"volume {volume['Name']} on host {host.name} is that of {node.name}, "
                        f"which {tenant}/{cluster} does not have: docker volume rm removes it, "
                        "and so does destroying the cluster"
                    )
            elif not cluster and tenant not in tenants and volume["Name"] == storage_name(tenant):
                yield (
                    f"volume {volume['Name']} on host {host.name} is the storage of a tenant "
                    f"without clusters: epic-run tenant remove {tenant} removes it with all data"
                )
        for found in find_containers([host], {"epic.cluster": None}):
            if found.key not in known:
                name = container_name(*found.key, found.node().short_name)
                yield (
                    f"container {name} on host {host.name} cannot be recovered: "
                    f"epic-run destroy {'/'.join(found.key)} removes it"
                )
