"""The life of a cluster: one function per verb.

Each reserves in the store what it changes, runs the playbook of its name, and settles the store.
Every one of them can be cut off anywhere: the same call again finds what is recorded and what
Docker has, and finishes.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epic_runner import connections, egress, recovery, software
from epic_runner.addresses import next_subnet, pool
from epic_runner.cluster import ClusterSpec, Node, newest_first
from epic_runner.errors import HostsSilent, InputError, NotFound, PortsTaken, QuotaExceeded
from epic_runner.events import Listener, Step
from epic_runner.gateway import site as gateway_site
from epic_runner.gateway import ssh_keys
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory, hosts_inventory
from epic_runner.operations import Running, operate
from epic_runner.reservation import new_nodes, other_ports, without_ports
from epic_runner.runner import run_playbook
from epic_runner.secrets import (
    cluster_secrets,
    cluster_token,
    find_token,
    forget_secrets,
    forget_tenant,
)
from epic_runner.site import is_spread
from epic_runner.store import ClusterRecord, HostRecord, Store, TenantRecord
from epic_runner.store.store import Transaction

# How many plays an operation runs in all before a port that is taken is left to people.
MOST_ATTEMPTS = 4

# The playbooks that fill no node.
_WITHOUT_SECRETS = frozenset({"stop", "shrink", "destroy"})
# Playbooks after which nobody uses a cluster; all others have the way through the gateway open.
_CLOSING = frozenset({"stop", "destroy"})


def who_asks() -> str | None:
    """Return the member who asks, by EPIC_USER; None for whoever runs the controller."""
    return os.environ.get("EPIC_USER") or None


@dataclass(frozen=True)
class Context:
    """What every verb needs: the store, the hosts, whom to tell of progress, and who asks.

    Attributes:
        store: The store.
        hosts: The hosts by name.
        listener: Told of each step.
        asker: The member who asks, by EPIC_USER; without one it is whoever runs the controller, who
            may act for everybody.
    """

    store: Store
    hosts: Mapping[str, Host]
    listener: Listener = lambda _step: None
    asker: str | None = field(default_factory=who_asks)


@dataclass(frozen=True)
class _Prepared:
    """What an operation works on.

    Attributes:
        cluster: The cluster.
        tenant: Its tenant.
        new: The short names of nodes that it has reserved.
        also: Hosts without nodes that it acts on as well.
    """

    cluster: ClusterRecord
    tenant: TenantRecord
    new: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


def launch(
    context: Context,
    spec: ClusterSpec,
    *,
    tenant_document: Mapping[str, Any] | None = None,
    flavors: Iterable[Mapping[str, Any]] = (),
    user: str | None = None,
) -> ClusterRecord:
    """Bring a cluster up, or finish bringing it up, or grow it to the template's counts.

    Args:
        context: The store, the hosts and a listener.
        spec: The cluster as wanted.
        tenant_document: The Tenant document to apply first, None to take the tenant as it is.
        flavors: Flavor documents to apply first.
        user: Who acts and owns the notebooks; the tenant's first administrator by default.

    Raises:
        QuotaExceeded: Tenant or hosts have no room; nothing was changed.
        InputError: A cluster of this name exists that differs in more than its counts and
            connections, it cannot be connected as it wants to be, or its images do not fit
            together.
        OperationFailed: A phase failed; the same call again resumes.
    """

    def prepare(transaction: Transaction) -> _Prepared:
        if tenant_document is not None:
            transaction.apply_tenant(tenant_document)
        for flavor in flavors:
            transaction.apply_flavor(flavor)
        tenant = transaction.tenant(spec.tenant)
        owner = acting_user(tenant, user, context.asker)
        connections.check(spec, transaction.clusters(), labels)
        try:
            cluster = transaction.find_cluster(spec.name, spec.tenant)
        except NotFound:
            key = transaction.add_cluster(spec, owner, ())
            cluster = ClusterRecord(key, spec, owner, "running", ())
        wanted = grown(cluster, spec)
        transaction.set_cluster(cluster.id, wanted="running", spec=wanted)
        transaction.declare(cluster, wanted.actions)
        new = _reserve(context, transaction, replace(cluster, spec=wanted))
        return _prepared(transaction, spec.tenant, spec.name, new)

    # A Vault that is sealed, say, is told before anything is reserved.
    find_token(spec.tenant, spec.name)
    if spec.actions:
        from epic_runner.actions.declared import admitted

        spec = admitted(context, spec, tenant_document, user)
    labels = software.image_labels(context.hosts) if software.are_needed(spec) else {}
    software.check(spec, labels)
    arguments = {role.name: role.count for role in spec.roles}
    with operate(
        context.store, tenant=spec.tenant, cluster=spec.name, verb="launch", arguments=arguments,
        user=user or "", prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        return _completed(context, running, _play(context, running, "launch"))


def start(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Start a stopped cluster, or whatever of it does not run."""
    return _converge(context, name, tenant, "start", wanted="running")


def stop(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Stop all nodes; their volumes, addresses and the cluster's reservation stay."""
    return _converge(context, name, tenant, "stop", wanted="stopped")


def restart(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Stop all nodes and start them again."""
    return _converge(context, name, tenant, "restart", wanted="running")


def repair(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Bring a drifted cluster back: missing nodes, stopped ones, changed files, strays.

    A stopped cluster is left stopped. A cluster that only Docker knows has to be recovered first
    (`recovery.recover`).
    """
    found = _find(context, name, tenant)

    def prepare(transaction: Transaction) -> _Prepared:
        cluster = transaction.find_cluster(found.name, found.tenant)
        _refuse_half_destroyed(cluster)
        new = _reserve(context, transaction, cluster, mending=True)
        # Those that an operation has made since the look at Docker are none.
        known = {(node.host, node.container) for node in cluster.nodes}
        alien = [node for node in strays.nodes if (node.host, node.container) not in known]
        return _prepared(transaction, found.tenant, found.name, new, alien)

    strays = recovery.strays(context.hosts, found)
    with operate(
        context.store, tenant=found.tenant, cluster=found.name, verb="repair", arguments={},
        user="", prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        cluster = running.prepared.cluster
        verbs = ["repair" if cluster.wanted == "running" else "stop"]
        if cluster.leaving or cluster.strays:
            verbs.insert(0, "shrink")
        cluster = _play(context, running, *verbs)
        _forget_left(running)
        _forget_lost(running, found.lost, strays.hosts)
        return _completed(context, running, cluster)


def _converge(
    context: Context,
    name: str,
    tenant: str | None,
    verb: str,
    *,
    wanted: str,
) -> ClusterRecord:
    found = _find(context, name, tenant)

    def prepare(transaction: Transaction) -> _Prepared:
        cluster = transaction.find_cluster(found.name, found.tenant)
        _refuse_half_destroyed(cluster)
        transaction.set_cluster(cluster.id, wanted=wanted)
        new: tuple[Node, ...] = ()
        if wanted == "running":
            # A launch or expand that was refused half-way may lack nodes in the store, too.
            new = _reserve(context, transaction, cluster, mending=verb == "restart")
        return _prepared(transaction, found.tenant, found.name, new)

    with operate(
        context.store, tenant=found.tenant, cluster=found.name, verb=verb, arguments={},
        user="", prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        return _completed(context, running, _play(context, running, verb))


def resize(
    context: Context, name: str, role: str, by: int, tenant: str | None = None
) -> ClusterRecord:
    """Add nodes to a running cluster (`by` above 0), or remove the newest of a node role.

    An expand touches no running node. A shrink lets the services of the leaving nodes leave in
    order first.

    Raises:
        InputError: There is no such node role, the app allows no more or needs the nodes, or the
            cluster is stopped.
        QuotaExceeded: Tenant or hosts have no room for more; nothing was changed.
    """
    found = _find(context, name, tenant)
    verb = "expand" if by > 0 else "shrink"
    arguments = {"role": role, "by": abs(by)}

    def prepare(transaction: Transaction) -> _Prepared:
        cluster = transaction.find_cluster(found.name, found.tenant)
        _refuse_stopped(cluster, verb)
        if _resumes(transaction, cluster, verb, arguments):
            _resuming(context, verb)
        else:
            spec = resized(cluster.spec, role, by)
            transaction.set_cluster(cluster.id, spec=spec)
            if by < 0:
                transaction.set_leaving(cluster.id, newest_first(cluster.staying(), role)[:-by])
            cluster = replace(cluster, spec=spec)
        new = _reserve(context, transaction, cluster) if by > 0 else ()
        return _prepared(transaction, found.tenant, found.name, new)

    if by > 0:
        find_token(found.tenant, found.name)
    with operate(
        context.store, tenant=found.tenant, cluster=found.name, verb=verb,
        arguments=arguments, user="", prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        record = _play(context, running, verb)
        if by < 0:
            _forget_left(running)
            return running.prepared.cluster
        return _completed(context, running, record)


def move(
    context: Context, cluster: ClusterRecord, nodes: Iterable[Node], *, lost: bool
) -> ClusterRecord:
    """Replace nodes of a cluster by new ones on other hosts.

    The new ones are made first; then the old ones hand over their work and leave. Nodes that are
    `lost` with their host are only forgotten.

    Raises:
        QuotaExceeded: The other hosts have no room; nothing was changed.
    """
    names = {node.short_name for node in nodes}

    def prepare(transaction: Transaction) -> _Prepared:
        now = transaction.find_cluster(cluster.name, cluster.tenant)
        going = [node for node in now.nodes if node.short_name in names]
        if lost:
            transaction.set_lost(now.id, going)
        else:
            transaction.set_leaving(now.id, going)
        # New numbers are above all that are there, so whatever is left of the old is another node.
        numbered = replace(now, leaving=now.leaving | names)
        new = _reserve(context, transaction, numbered, mending=True)
        return _prepared(transaction, now.tenant, now.name, new)

    with operate(
        context.store, tenant=cluster.tenant, cluster=cluster.name, verb="move",
        arguments={"nodes": sorted(names)}, user="", prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        if cluster.wanted == "stopped":
            record = running.prepared.cluster
        else:
            record = _play(context, running, "repair" if lost else "expand")
            record = _completed(context, running, record)
        if not lost:
            _play(context, running, "shrink")
            _forget_left(running)
        return record


def destroy(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Remove a cluster: nodes, volumes, and the tenant's network when nothing else uses it.

    The tenant's storage stays. No node needs to be alive, and the store need not know the cluster:
    what carries its labels goes.
    """
    found = doomed(context, name, tenant)

    def prepare(transaction: Transaction) -> _Prepared:
        # Whoever held the cluster meanwhile may have given it nodes, or made another of its name.
        try:
            cluster = transaction.find_cluster(found.name, found.tenant)
            transaction.set_cluster(cluster.id, wanted="absent")
        except NotFound:
            cluster = replace(found, id=0)
        known = {record.name: record for record in transaction.tenants()}
        tenant_record = known.get(found.tenant, TenantRecord(found.tenant, {}, {}))
        return _Prepared(cluster, tenant_record)

    with operate(
        context.store, tenant=found.tenant, cluster=found.name, verb="destroy", arguments={},
        user="", prepare=prepare, listener=context.listener,
    ) as held:  # fmt: skip
        cluster = held.prepared.cluster
        # What is left on a host of nodes that are elsewhere now goes as well, if the host is there.
        also, silent = recovery.hosts_with(context.hosts, cluster.tenant, cluster.name)
        away = silent & {node.host for node in cluster.lost} - {node.host for node in cluster.nodes}
        running = replace(held, prepared=replace(held.prepared, also=also))
        try:
            # Without a node of it anywhere, all hosts are looked at but those that are gone.
            _play(_except(context, away), running, "destroy")
        except HostsSilent as problem:
            problem.hint = unfinished(cluster, problem.hosts)
            raise
        forget_secrets(cluster.tenant, cluster.name)
        ssh_keys.forget(cluster.tenant, cluster.name)
        running.settle(lambda transaction: transaction.remove_cluster(cluster.id))
        for name_of_host in sorted(away):
            running.listener(Step("Destroy the cluster", name_of_host, left_behind(cluster)))
        return cluster


def unfinished(cluster: ClusterRecord, hosts: Iterable[str]) -> str:
    """Return how a destroy is finished that could not reach hosts."""
    names, finish = sorted(hosts), f"epic-run destroy {cluster.tenant}/{cluster.name} --yes"
    lost = " and ".join(f"epic-run host drain {name} --lost" for name in names)
    return (
        f"{finish} finishes it when {' and '.join(names)} "
        f"{'is' if len(names) == 1 else 'are'} back; if gone for good, {lost} does."
    )


def left_behind(cluster: ClusterRecord) -> str:
    """Return what to do about a destroyed cluster's remains on a host that is away."""
    return (
        "is away; should it come back, "
        f"epic-run destroy {cluster.tenant}/{cluster.name} --yes removes what is left there"
    )


def doomed(context: Context, name: str, tenant: str | None = None) -> ClusterRecord:
    """Return the cluster that `destroy` would remove, also one that only Docker knows.

    Raises:
        NotFound: Neither store nor Docker knows it.
    """
    try:
        return _find(context, name, tenant)
    except NotFound:
        remains = recovery.find_remains(context.hosts, name, tenant)
        if remains is None:
            raise
        return remains


def remove_tenant(context: Context, name: str) -> None:
    """Remove a tenant without clusters: storage, network, secrets, its members' user ids.

    Raises:
        InputError: It still has clusters.
    """

    def prepare(transaction: Transaction) -> None:
        transaction.tenant(name)
        clusters = [cluster.name for cluster in transaction.clusters(name)]
        if clusters:
            raise still_has_clusters(name, clusters)

    # The operation is held under the name of no cluster, which no cluster can have.
    with operate(
        context.store, tenant=name, cluster="", verb="tenant-remove", arguments={}, user="",
        prepare=prepare, listener=context.listener,
    ) as running:  # fmt: skip
        run_playbook(
            "tenant-remove",
            hosts_inventory(context.hosts, {"epic_tenant": name}),
            running.directory,
            operation=running.record.id,
            listener=running.listener,
        )
        forget_tenant(name)
        running.settle(lambda transaction: transaction.remove_tenant(name))


def still_has_clusters(name: str, clusters: Sequence[str]) -> InputError:
    """Return why a tenant is not removed."""
    return InputError(
        f"Tenant {name} still has clusters: {', '.join(clusters)}.",
        f"epic-run destroy {name}/{clusters[0]}, or epic-run tenant remove {name} "
        "--with-clusters to destroy them all.",
    )


def acting_user(tenant: TenantRecord, user: str | None, asker: str | None = None) -> str:
    """Return who acts in a tenant.

    Args:
        tenant: The tenant.
        user: As whom; its first administrator by default.
        asker: The member who asks for it; anybody who may act for everybody by default.

    Raises:
        InputError: `user` is no member, or none for whom the asker may act; or the tenant has no
            members at all.
    """
    members = [member["user"] for member in tenant.members]
    if user is not None and user not in members:
        raise InputError(
            f"{user} is not a member of tenant {tenant.name}; its members are "
            f"{', '.join(members) or 'none'}."
        )
    acting = user or tenant.default_user()
    if acting is None:
        raise InputError(
            f"Tenant {tenant.name} has no members.",
            "Add `members: [{user: ada, role: admin}]` to the Tenant document.",
        )
    if reason := tenant.why_not_for(acting, asker):
        raise InputError(reason, "EPIC_USER tells who asks, --as for whom.")
    return acting


def grown(cluster: ClusterRecord, wanted: ClusterSpec) -> ClusterSpec:
    """Return the spec of a cluster after a launch of `wanted`: never fewer nodes than before.

    Raises:
        InputError: They differ in more than counts and connections.
    """
    _refuse_half_destroyed(cluster)
    have = cluster.spec
    differences = _differences(have, wanted)
    if differences:
        raise InputError(
            f"{cluster.name} exists already and differs from the template: "
            f"{'; '.join(differences)}.",
            f"Launch it under another name (--name), or epic-run destroy {cluster.name} first.",
        )
    counts = {role.name: role.count for role in have.roles}
    return replace(
        wanted,
        roles=tuple(
            replace(role, count=max(role.count, counts[role.name])) for role in wanted.roles
        ),
    )


def _differences(have: ClusterSpec, wanted: ClusterSpec) -> list[str]:
    found = []
    if (have.app, have.app_version) != (wanted.app, wanted.app_version):
        found.append(f"app {have.app}@{have.app_version} is not {wanted.app}@{wanted.app_version}")
    if {role.name for role in have.roles} != {role.name for role in wanted.roles}:
        return [*found, "its node roles are others"]
    for role in have.roles:
        other = wanted.role(role.name)
        if role.size != other.size:
            found.append(f"{role.name} has flavor {role.flavor}, not {other.flavor}")
        if role.services != other.services:
            found.append(
                f"{role.name} runs {', '.join(role.services)}, not {', '.join(other.services)}"
            )
    return found


def resized(spec: ClusterSpec, role: str, by: int) -> ClusterSpec:
    """Return the spec with `by` more (or, negative, fewer) nodes of a node role.

    Raises:
        InputError: There is no such node role, or the app's limits forbid it.
    """
    names = [item.name for item in spec.roles]
    if role not in names:
        raise InputError(
            f"{spec.name} has no node role {role}; it has {', '.join(names)}.",
            "Choose one with --role.",
        )
    now = spec.role(role)
    count = now.count + by
    if count < now.minimum:
        raise InputError(
            f"{spec.name} has {now.count} {role} nodes and {spec.app} needs at least "
            f"{now.minimum}: {-by} can't leave."
        )
    if now.maximum is not None and count > now.maximum:
        raise InputError(f"{spec.app} allows at most {now.maximum} {role} nodes, not {count}.")
    return replace(
        spec,
        roles=tuple(
            replace(item, count=count) if item.name == role else item for item in spec.roles
        ),
    )


def _reserve(
    context: Context, transaction: Transaction, cluster: ClusterRecord, *, mending: bool = False
) -> tuple[Node, ...]:
    tenant = transaction.tenant(cluster.tenant)
    if is_spread(context.hosts) and not tenant.subnet:
        taken = [other.subnet for other in transaction.tenants() if other.subnet]
        tenant = replace(tenant, subnet=next_subnet(taken, pool()))
        transaction.set_subnet(tenant.name, str(tenant.subnet))
    clusters = transaction.clusters()
    hosts = taking_nodes(context.hosts, transaction.hosts())
    new = new_nodes(cluster, clusters, tenant, hosts, mending=mending)
    transaction.add_nodes(cluster.id, new)
    if not tenant.subnet and (names := without_ports(cluster)):
        now = transaction.find_cluster(cluster.name, cluster.tenant)
        transaction.set_ports(cluster.id, other_ports(now, names, transaction.clusters()))
    return new


def taking_nodes(hosts: Mapping[str, Host], known: Mapping[str, HostRecord]) -> dict[str, Host]:
    """Return the hosts as the store has them by now.

    Since they were read, one may have been drained, or removed and so forgotten: it takes no nodes.

    Args:
        hosts: The hosts as they were read, by name.
        known: What the store remembers of hosts now.
    """

    def leaves(host: Host) -> bool:
        record = known.get(host.name)
        if record is None:
            # This machine need not have been looked at.
            return not host.is_local
        return record.draining

    return {
        name: replace(host, draining=True) if leaves(host) else host for name, host in hosts.items()
    }


def _play(
    context: Context,
    running: Running[_Prepared],
    *verbs: str,
    cluster: ClusterRecord | None = None,
) -> ClusterRecord:
    """Run playbooks, one after the other; return the cluster as it is then.

    The cluster is the prepared one, unless an earlier playbook of the operation has changed it.

    A node that cannot start because a program has one of its ports gets another one, new nodes on
    a host that cannot be reached get another host, and the playbook is run again.
    """
    cluster = cluster or running.prepared.cluster
    gateway, ssh = gateway_site.load(), None
    if not _WITHOUT_SECRETS.issuperset(verbs):
        # Before anything is made: a Vault that is sealed is told at once, by its own error.
        token = cluster_token(cluster.tenant, cluster.name)
        if gateway is not None:
            ssh = ssh_keys.node_trust(cluster.tenant, cluster.name, token)
    ways_out = egress.load()
    connected = _connected(context, cluster)
    waiting, attempts = list(verbs), 0
    while waiting:
        attempts += 1
        inventory = cluster_inventory(
            cluster,
            running.prepared.tenant,
            context.hosts,
            secrets=cluster_secrets(cluster.tenant, cluster.name),
            gateway=gateway,
            opens=waiting[0] in _CLOSING or not awaited_actions(context, cluster),
            ssh=ssh,
            also=running.prepared.also,
            ways_out=ways_out,
            connected=connected,
        )
        directory = running.directory
        try:
            run_playbook(
                waiting[0],
                inventory,
                directory if attempts == 1 else directory / f"play-{attempts}",
                operation=running.record.id,
                listener=running.listener,
                limit=_concerned(cluster, waiting[0]),
            )
        except PortsTaken as problem:
            if attempts == MOST_ATTEMPTS:
                raise
            cluster = _with_other_ports(running, cluster, problem.nodes)
        except HostsSilent as problem:
            homeless = _homeless(cluster, running.prepared.new, problem.hosts)
            if attempts == MOST_ATTEMPTS or not homeless:
                raise
            context = _without(context, problem.hosts)
            running.listener(Step("Place nodes elsewhere"))
            try:
                cluster = _elsewhere(context, running, cluster, homeless, problem.begun)
            except QuotaExceeded as refusal:
                # That the host is away is what has to be mended.
                problem.args = (f"{problem.message} No other host can take its nodes: {refusal}",)
                problem.message = problem.args[0]
                raise problem from refusal
        else:
            del waiting[0]
    return cluster


def _completed(
    context: Context, running: Running[_Prepared], cluster: ClusterRecord
) -> ClusterRecord:
    """Run what the template declares on nodes that lack it; return the cluster, of use by then."""
    if cluster.spec.actions and cluster.wanted == "running":
        # Who declares nothing pays nothing for it.
        from epic_runner.actions.declared import complete

        was_shut = awaited_actions(context, cluster)
        complete(replace(context, listener=running.listener), cluster, running.prepared.tenant)
        if was_shut and gateway_site.load() is not None:
            return _play(context, running, "open", cluster=cluster)
    return cluster


def awaited_actions(context: Context, cluster: ClusterRecord) -> tuple[str, ...]:
    """Return the names of the declared actions before whose end nobody uses a cluster."""
    if not cluster.spec.actions:
        return ()
    from epic_runner.actions.due import awaited

    with context.store.read() as transaction:
        return awaited(cluster, transaction.declared_history(cluster))


def _connected(context: Context, cluster: ClusterRecord) -> tuple[ClusterRecord, ...]:
    """Return the clusters that a cluster is connected to, as they are now."""
    if not cluster.spec.connections:
        return ()
    with context.store.read() as transaction:
        return connections.connected(cluster.spec, transaction.clusters())


def _homeless(cluster: ClusterRecord, new: Container[str], hosts: Container[str]) -> list[Node]:
    """Return the new nodes that were to be on hosts; older ones may have data there."""
    return [node for node in cluster.nodes if node.host in hosts and node.short_name in new]


def _without(context: Context, names: Container[str]) -> Context:
    """Return the context in which hosts take no nodes, and are asked for nothing."""
    return replace(
        context,
        hosts={
            name: replace(host, draining=True, manager=False) if name in names else host
            for name, host in context.hosts.items()
        },
    )


def _elsewhere(
    context: Context,
    running: Running[_Prepared],
    cluster: ClusterRecord,
    nodes: Iterable[Node],
    begun: Container[str],
) -> ClusterRecord:
    nodes = list(nodes)

    def change(transaction: Transaction) -> ClusterRecord:
        # Of those that were perhaps made, something may come back with their host.
        transaction.set_lost(cluster.id, [node for node in nodes if node.host in begun])
        transaction.remove_nodes(cluster.id, [node for node in nodes if node.host not in begun])
        now = transaction.find_cluster(cluster.name, cluster.tenant)
        _reserve(context, transaction, now, mending=True)
        return transaction.find_cluster(cluster.name, cluster.tenant)

    return replace(running.settle(change), strays=cluster.strays)


def _with_other_ports(
    running: Running[_Prepared], cluster: ClusterRecord, names: Container[str]
) -> ClusterRecord:
    def change(transaction: Transaction) -> tuple[Node, ...]:
        nodes = other_ports(cluster, names, transaction.clusters())
        transaction.set_ports(cluster.id, nodes)
        return nodes

    changed = running.settle(change)
    by_name = {node.short_name: node for node in changed}
    nodes = tuple(by_name.get(node.short_name, node) for node in cluster.nodes)
    return replace(cluster, nodes=nodes)


def _forget_left(running: Running[_Prepared]) -> None:
    cluster = running.prepared.cluster
    left = [node for node in cluster.nodes if node.short_name in cluster.leaving]
    if left:
        running.settle(lambda transaction: transaction.remove_nodes(cluster.id, left))


def _forget_lost(running: Running[_Prepared], lost: Container[Node], hosts: Container[str]) -> None:
    """Forget lost nodes of which nothing is left.

    Args:
        running: The operation, which has removed all strays that were found.
        lost: The nodes that were lost before these were looked for.
        hosts: The hosts that told what they have then. One that came back later may have more.
    """
    cluster = running.prepared.cluster
    if gone := [node for node in cluster.lost if node in lost and node.host in hosts]:
        running.settle(lambda transaction: transaction.remove_nodes(cluster.id, gone))


def _concerned(cluster: ClusterRecord, verb: str) -> Iterable[str]:
    """Return the hosts that a playbook acts on, nothing if those of all nodes.

    A shrink concerns the nodes that leave alone: others' hosts may be away.
    """
    if verb != "shrink":
        return ()
    leaving = [node for node in cluster.nodes if node.short_name in cluster.leaving]
    gateway = gateway_site.load()
    return sorted(
        {node.host for node in (*leaving, *cluster.strays)} | ({gateway.host} if gateway else set())
    )


def _except(context: Context, names: Container[str]) -> Context:
    """Return the context without hosts that are gone."""
    hosts = {name: host for name, host in context.hosts.items() if name not in names}
    return replace(context, hosts=hosts)


def _find(context: Context, name: str, tenant: str | None) -> ClusterRecord:
    with context.store.read() as transaction:
        return transaction.find_cluster(name, tenant)


def _prepared(
    transaction: Transaction,
    tenant: str,
    name: str,
    new: Iterable[Node] = (),
    strays: Iterable[Node] = (),
) -> _Prepared:
    cluster = replace(transaction.find_cluster(name, tenant), strays=tuple(strays))
    return _Prepared(
        cluster, transaction.tenant(tenant), frozenset(node.short_name for node in new)
    )


def _resumes(
    transaction: Transaction, cluster: ClusterRecord, verb: str, arguments: Mapping[str, Any]
) -> bool:
    """Whether the cluster's last change was this very one and did not get to its end."""
    last = next(iter(transaction.operations(cluster.tenant, cluster.name, limit=1)), None)
    return (
        last is not None
        and last.verb == verb
        and dict(last.arguments) == dict(arguments)
        and last.state in ("failed", "interrupted")
    )


def _resuming(context: Context, verb: str) -> None:
    context.listener(Step(f"Finish the {verb} that was cut off"))


def _refuse_stopped(cluster: ClusterRecord, verb: str) -> None:
    _refuse_half_destroyed(cluster)
    if cluster.wanted != "running":
        raise InputError(
            f"{cluster.name} is stopped: only a running cluster can {verb}.",
            f"epic-run start {cluster.name}",
        )


def _refuse_half_destroyed(cluster: ClusterRecord) -> None:
    if cluster.wanted == "absent":
        raise InputError(
            f"{cluster.name} is half destroyed: an earlier destroy did not get to its end.",
            f"epic-run destroy {cluster.name} --yes finishes it.",
        )
