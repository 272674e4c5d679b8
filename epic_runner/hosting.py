"""The life of hosts: made ready, looked at, emptied, taken out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epic_runner import docker_api, lifecycle, recovery
from epic_runner.cluster import NOTHING, Size
from epic_runner.egress import still_open
from epic_runner.errors import InputError
from epic_runner.everywhere import ask_any
from epic_runner.gateway import site as gateway_site
from epic_runner.hosts import Host
from epic_runner.inventory import hosts_inventory
from epic_runner.lifecycle import Context
from epic_runner.operations import Running, operate
from epic_runner.output import bytes_text
from epic_runner.quota import used_by_host
from epic_runner.reservation import apart
from epic_runner.runner import run_playbook
from epic_runner.site import chosen, site_hosts
from epic_runner.store import ClusterRecord, HostRecord
from epic_runner.store.store import Transaction

# Kerberos allows five minutes, Spark's and TLS's clocks less; one second shows that nothing keeps
# the time.
CLOCK_SECONDS = 1.0
OLDEST_DOCKER = (20, 10)
LABELS = {"epic.cluster": None}
LEAST_FREE_DISK = 10 * 2**30


@dataclass(frozen=True)
class Finding:
    """Something about a host that people should know.

    Attributes:
        host: Its name.
        what: What is so, as a sentence.
        mend: What to do about it; empty where nothing needs to be done.
        check: What it is about: reach, docker, clock, disk, swarm, ports, firewall, mtu, storage.
    """

    host: str
    what: str
    mend: str = ""
    check: str = ""


@dataclass(frozen=True)
class HostState:
    """A host with what it has and what is promised of it.

    Attributes:
        host: The host.
        record: What is remembered of it.
        used: What nodes have been promised.
        nodes: How many nodes it holds.
    """

    host: Host
    record: HostRecord
    used: Size
    nodes: int

    @property
    def cores(self) -> int:
        """Virtual cores that can be promised."""
        return int(self.host.cores * self.host.cpu_overcommit)

    @property
    def memory(self) -> int:
        """Bytes of memory that can be promised."""
        return int(self.host.memory_bytes * self.host.memory_overcommit)

    @property
    def disk(self) -> int:
        """Bytes of disk that can be promised; 0 where it is not known."""
        return int(self.host.disk_bytes * self.host.disk_overcommit)

    @property
    def state(self) -> str:
        """`draining`, `unknown` until it is looked at, else `ready`."""
        if self.host.draining:
            return "draining"
        return "ready" if self.host.checked else "unknown"


def states(context: Context) -> list[HostState]:
    """Return all hosts with what is promised of them, from the store alone."""
    with context.store.read() as transaction:
        clusters, known = transaction.clusters(), transaction.hosts()
    used = used_by_host(clusters)
    nodes = [node.host for cluster in clusters for node in cluster.nodes]
    return [
        HostState(
            host, known.get(name, HostRecord(name)), used.get(name, NOTHING), nodes.count(name)
        )
        for name, host in context.hosts.items()
    ]


def prepare(context: Context) -> list[Finding]:
    """Make all hosts of the inventory ready, and remember what they say of themselves.

    Raises:
        OperationFailed: A host could not be made ready; the others may be.
    """
    return _play(context, "host-prepare", context.hosts)


def check(context: Context, names: Iterable[str] = ()) -> list[Finding]:
    """Look at hosts, remember what they say of themselves, and return what is worth knowing."""
    return _play(context, "host-check", chosen(context.hosts, names))


def drain(context: Context, name: str, *, lost: bool = False) -> list[str]:
    """Let a host take no new nodes, and move what can move to others.

    Workers move: a new one is made elsewhere, then the old one hands over its work and leaves.
    Masters stay, with the homes that are on them, unless the host is lost.

    Args:
        context: The store, the hosts and a listener.
        name: The host.
        lost: Whether it is gone for good: all of its nodes are made anew elsewhere, empty, and it
            is not asked for anything.

    Returns:
        The nodes that are still on it, as CLUSTER/NODE.

    Raises:
        InputError: The gateway is on it, and it is not lost.
    """
    host = chosen(context.hosts, [name])[name]
    if not lost:
        gateway_site.refuse_host(name, "drained")
    hosts = {**context.hosts, name: replace(host, draining=True, manager=host.manager and not lost)}
    context = replace(context, hosts=hosts)
    with context.store.transaction() as transaction:
        # In one transaction: a launch places its nodes before it, or elsewhere.
        _put(transaction, name, draining=True)
        there = _on(transaction, name)
    for cluster in there:
        moving = [node for node in cluster.nodes if node.host == name]
        if cluster.wanted == "absent":
            if lost:
                with context.store.transaction() as transaction:
                    transaction.set_lost(cluster.id, moving)
                lifecycle.destroy(context, cluster.name, cluster.tenant)
            continue
        if not lost:
            moving = [node for node in moving if not apart(cluster.spec.role(node.role))]
        if moving:
            lifecycle.move(context, cluster, moving, lost=lost)
    with context.store.read() as transaction:
        there = _on(transaction, name)
    return [
        f"{cluster.tenant}/{cluster.name} {node.short_name}"
        for cluster in there
        for node in cluster.nodes
        if node.host == name
    ]


@dataclass(frozen=True)
class Returned:
    """What a host that came back still had.

    Attributes:
        cleaned: The clusters of whose nodes something was removed, as TENANT/NAME.
        unknown: The clusters of which it has something, and that the store does not know.
        gateway: Whether a gateway was removed, since the site's is elsewhere by now, or forgotten.
    """

    cleaned: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    gateway: bool = False


def undrain(context: Context, name: str) -> Returned:
    """Let a host take new nodes again, and remove what is left on it of nodes made anew elsewhere.

    The volumes of such nodes are kept. What belongs to clusters that the store does not know is
    left alone: it may be all that is left of a lost store.
    """
    # What it takes to have keys is imported by those alone who use a gateway.
    from epic_runner.gateway.lifecycle import remove_remains

    host = chosen(context.hosts, [name])[name]
    with context.store.read() as transaction:
        known = {(cluster.tenant, cluster.name): cluster for cluster in transaction.clusters()}
    there = {found.key for found in recovery.find_containers([host], LABELS)}
    cleaned = []
    for key, cluster in sorted(known.items()):
        strays = key in there and recovery.strays({name: host}, cluster).nodes
        # Half destroyed, it is finished by another destroy.
        if cluster.wanted != "absent" and strays:
            lifecycle.repair(context, key[1], key[0])
            cleaned.append("/".join(key))
    gateway = remove_remains(context, name)
    with context.store.transaction() as transaction:
        for cluster in known.values():
            transaction.forget_lost(cluster.id, name)
    with context.store.transaction() as transaction:
        _put(transaction, name, draining=False)
    volumes = ask_any([host], lambda host: docker_api.volumes(host, LABELS))[name]
    there |= {(item["Labels"]["epic.tenant"], item["Labels"]["epic.cluster"]) for item in volumes}
    unknown = ("/".join(key) for key in sorted(there - known.keys()))
    return Returned(tuple(cleaned), tuple(unknown), gateway)


def remove(context: Context, name: str) -> None:
    """Take a host without nodes out of the swarm, and forget it.

    Raises:
        InputError: It still has nodes, or the gateway.
    """
    host = chosen(context.hosts, [name])[name]
    gateway_site.refuse_host(name, "removed")
    with context.store.transaction() as transaction:
        left = [cluster.name for cluster in _on(transaction, name)]
        if left:
            raise InputError(
                f"Host {name} still has nodes of {', '.join(left)}.",
                f"epic-run host drain {name} moves workers; masters stay: destroy their clusters, "
                "or drain with --lost if the machine is gone.",
            )
        # Launches that have begun place nothing there, from now on.
        _put(transaction, name, draining=True)
    if not host.is_local:
        _play(context, "host-remove", context.hosts, removing=name)
    with context.store.transaction() as transaction:
        transaction.forget_host(name)
        for cluster in transaction.clusters():
            transaction.forget_lost(cluster.id, name)


def findings(
    facts: Mapping[str, Mapping[str, Any]], silent: Mapping[str, str], span: tuple[float, float]
) -> list[Finding]:
    """Return what is worth knowing of hosts: a pure function.

    Args:
        facts: What each host said of itself (`epic_facts` of the module epic_host_facts).
        silent: Hosts that could not be reached, and why.
        span: This machine's clock before and after they were asked, in seconds since the epoch.
    """
    found = [
        Finding(
            name,
            f"It cannot be reached: {why}",
            f"ssh {name} has to work without a password.",
            "reach",
        )
        for name, why in silent.items()
    ]
    # Nobody listens at a host that is no member yet. A host's own address is the one that it alone
    # does not look at.
    known = {address for said in facts.values() for address in said.get("ports", {})}
    outside = {
        address
        for said in facts.values()
        if (said.get("swarm") or {}).get("state") != "active"
        for address in known - said.get("ports", {}).keys()
    }
    addresses = {address for said in facts.values() for address in said.get("addresses", ())}
    mtus = {name: said["mtu"] for name, said in facts.items() if said.get("mtu")}
    for name, said in facts.items():
        found += [
            Finding(name, what, mend, check) for check, what, mend in _of_host(said, outside, span)
        ]
        closed = said.get("closed")
        if closed is not None and (left := still_open(closed, addresses)):
            what = f"Its firewall does not close {', '.join(left)} of the hosts to tenants."
            found.append(Finding(name, what, "epic-run host check tells it.", "egress"))
        if name in mtus and mtus[name] > min(mtus.values()):
            what = f"Its packets may have {mtus[name]} bytes, another host's {min(mtus.values())}"
            what = f"{what}; networks between hosts use the smaller."
            found.append(Finding(name, what, check="mtu"))
    found += [
        Finding(
            name,
            f"It is in another swarm than {first}.",
            "Decide for one: docker swarm leave --force on hosts of the other, then epic-run host "
            "prepare.",
            "swarm",
        )
        for name, first in strangers(facts).items()
    ]
    seen = {name: said["storage"] for name, said in facts.items() if said.get("storage")}
    return [*found, *storage_findings(seen)]


def strangers(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the hosts that share no manager with the first one of a swarm, each with that one.

    Whoever is in the same swarm knows of the same managers, but for changes of the last seconds.
    """
    managers = {
        name: set(said["swarm"].get("managers", ()))
        for name, said in facts.items()
        if (said.get("swarm") or {}).get("state") == "active"
    }
    first = next(iter(managers), "")
    return {
        name: first
        for name, known in managers.items()
        if known and managers[first] and not known & managers[first]
    }


def storage_findings(seen: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Return what is worth knowing of tenants' storage: a pure function.

    Args:
        seen: What each host sees of it (`storage` of the facts).
    """
    shared = {name: storage for name, storage in seen.items() if storage["kind"] != "none"}
    marks = [(name, storage["mark"]) for name, storage in shared.items() if storage.get("mark")]
    for name, storage in seen.items():
        for what, mend in _of_storage(storage, dict(marks[:1])):
            yield Finding(name, what, mend, "storage")
        if shared and name not in shared:
            yield Finding(
                name,
                "It has no epic_storage, and other hosts have: tenants' files are not seen there.",
                "Set epic_storage for all hosts of the inventory.",
                "storage",
            )
        if not shared and len(seen) > 1:
            what = "/tenant is a folder of each host: epic_storage names one for all."
            yield Finding(name, what, check="storage")


def _of_storage(storage: Mapping[str, Any], first: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    place = storage["place"] or "epic_storage"
    if storage["error"]:
        yield (
            f"The storage of tenants, {place}, is not usable: {storage['error']}.",
            "Mount it there, then epic-run host prepare.",
        )
    elif storage["kind"] == "folder" and not storage["mark"]:
        yield (
            f"{place} is not marked as the storage of tenants: it is new, or not mounted.",
            "epic-run host prepare marks it where all hosts see the same.",
        )
    elif storage["kind"] == "folder" and storage["mark"] not in first.values():
        yield (
            f"{place} is another folder than that of {next(iter(first))}.",
            "Mount the same file system on both, then epic-run host prepare.",
        )
    elif storage.get("writable") is False:
        yield f"Root cannot write to {place}.", "Mount it so that root stays root (no_root_squash)."
    elif storage["kind"] == "nfs" and storage["server"] != "open":
        yield (
            f"The NFS server of {place} does not answer: {storage['server']}.",
            "Open its port to the host; is nfsd running there?",
        )
    if storage.get("elsewhere"):
        named = ", ".join(f"{who} ({where})" for who, where in storage["elsewhere"].items())
        yield (
            f"Tenants whose files are not in epic_storage: {named}.",
            'docs/hosts.md, "Shared storage", tells how to move them.',
        )


def _of_host(
    said: Mapping[str, Any], outside: Container[str], span: tuple[float, float]
) -> Iterator[tuple[str, str, str]]:
    if said.get("docker_error"):
        yield (
            "docker",
            f"Docker does not answer: {said['docker_error']}",
            "epic-run host prepare installs it, or starts it.",
        )
        return
    version = tuple(int(part) for part in str(said["docker_version"]).split(".")[:2])
    if version < OLDEST_DOCKER:
        what = f"Docker {said['docker_version']} is too old."
        yield "docker", what, "Upgrade it to 20.10 or newer."
    off = clock_offset(said, span)
    if abs(off) > CLOCK_SECONDS:
        what = f"Its clock is {abs(off):.0f} s off this machine's."
        yield "clock", what, "Run chrony or systemd-timesyncd."
    if said["disk_free_bytes"] < LEAST_FREE_DISK:
        what = f"{bytes_text(said['disk_free_bytes'])} are free at {said['disk_path']}."
        yield "disk", what, "docker image prune, or a larger disk."
    yield from (("swarm", what, mend) for what, mend in _of_swarm(said["swarm"]))
    for address, ports in said.get("ports", {}).items():
        closed = [name for name, state in ports.items() if state in ("refused", "silent", "error")]
        if closed and address not in outside:
            names = ", ".join(name.replace("_", "/") for name in closed)
            what = f"It does not reach {names} of {address}."
            yield "ports", what, "Open the ports between the hosts."
    yield from _of_firewalls(said)
    yield "disk", f"The disk of nodes is {_disk_told(said)}.", ""


def disk_keeping(said: Mapping[str, Any]) -> str:
    """Return what becomes of a flavor's disk on a host, by its facts: `enforced` or `watched`."""
    return "enforced" if said.get("disk_quota") in ("nodes", "volumes") else "watched"


def _disk_told(said: Mapping[str, Any]) -> str:
    if said.get("disk_quota") == "volumes":
        return "enforced on their volumes; what they write beside these is watched"
    return "enforced" if said.get("disk_quota") == "nodes" else "watched, not enforced"


def _of_swarm(swarm: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if swarm.get("state") != "active":
        yield "It is no member of the swarm.", "epic-run host prepare lets it join."
    elif swarm.get("error"):
        yield (
            f"Its swarm does not work: {swarm['error']}",
            "Start the hosts that are its managers; docs/hosts.md tells what if they are lost.",
        )


def clock_offset(said: Mapping[str, Any], span: tuple[float, float]) -> float:
    """Return how far a host's clock is off this machine's, in seconds, as far as that is certain.

    The time between question and answer tells nothing: only what lies outside of it counts.
    """
    return float(said["clock"] - min(max(said["clock"], span[0]), span[1]))


def _of_firewalls(said: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if said.get("ways_out"):
        yield (
            "egress",
            f"The rules for tenants are not in force: {said['ways_out']}.",
            "epic-run repair CLUSTER, of any cluster with nodes there, brings them back.",
        )
    for line in said.get("firewall", ()):
        yield "firewall", line, ""


def _play(
    context: Context, verb: str, hosts: Mapping[str, Host], *, removing: str = ""
) -> list[Finding]:
    if all(host.is_local for host in hosts.values()):
        raise InputError(
            "There is no inventory of hosts: this machine is the only one, and needs no preparing.",
            "Write hosts.yml under EPIC_HOME, or name an inventory by EPIC_INVENTORY; epic-run "
            "doctor looks at this machine.",
        )
    variables = {"host_remove_name": removing} if removing else {}
    with operate(
        context.store, tenant="", cluster="", verb=verb, arguments={"hosts": sorted(hosts)},
        user="", prepare=lambda _: None, listener=context.listener,
    ) as running:  # fmt: skip
        began = time.time()
        heard = run_playbook(
            verb,
            hosts_inventory(context.hosts, variables),
            running.directory,
            operation=running.record.id,
            listener=running.listener,
            limit=hosts if len(hosts) < len(context.hosts) else (),
            # A host is removed while others are dead, too: its play says itself what it needs, and
            # its refusal may be told of a dead one.
            silent_ok=verb != "host-remove",
        )
        ended = time.time()
        _remember(context, heard.facts, ended)
        facts: Mapping[str, Mapping[str, Any]] = heard.facts
        if facts:
            facts = _with_addresses_closed(context, running, facts, heard.silent)
        return findings(facts, heard.silent, (began, ended))


def _remember(context: Context, facts: Mapping[str, Mapping[str, Any]], checked_at: float) -> None:
    with context.store.transaction() as transaction:
        for name, said in facts.items():
            _put(transaction, name, facts=said, checked_at=checked_at)


def _with_addresses_closed(
    context: Context,
    running: Running[None],
    facts: Mapping[str, Mapping[str, Any]],
    silent: Container[str],
) -> Mapping[str, Mapping[str, Any]]:
    """Have the addresses of all hosts closed to tenants; return the facts as they are then.

    A launch tells the firewalls of its own hosts alone, and what it knows of the others.
    """
    before = {address for host in context.hosts.values() for address in host.addresses}
    hosts = site_hosts(context.store)
    addresses = {address for host in hosts.values() for address in host.addresses}
    there = [name for name in hosts if name not in silent]
    late = to_close(there, facts, addresses, are_new=not addresses <= before)
    if not late:
        return facts
    heard = run_playbook(
        "host-close",
        hosts_inventory(hosts, {"host_close_addresses": sorted(addresses)}),
        running.directory / "close",
        operation=running.record.id,
        listener=running.listener,
        limit=late,
        silent_ok=True,
    )
    told = {
        name: {**said, "closed": sorted({*said["closed"], *addresses})}
        for name, said in facts.items()
        if said.get("closed") is not None and name in late and name not in heard.silent
    }
    _remember(context, told, time.time())
    return {**facts, **told}


def to_close(
    hosts: Iterable[str],
    facts: Mapping[str, Mapping[str, Any]],
    addresses: Iterable[str],
    *,
    are_new: bool,
) -> list[str]:
    """Return the hosts whose firewall has to be told which addresses hosts have.

    Args:
        hosts: The names of hosts; one that is silent now is told when it is looked at again.
        facts: What some of them have just said of themselves.
        addresses: The addresses of all hosts.
        are_new: Whether some of these were not known before. Hosts that were not asked are told
            then.
    """
    addresses = list(addresses)

    def is_late(name: str) -> bool:
        if name not in facts:
            return are_new
        closed = facts[name].get("closed")
        return closed is not None and bool(still_open(closed, addresses))

    return [name for name in hosts if is_late(name)]


def look(
    hosts: Mapping[str, Host], names: Iterable[str], directory: Path
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, str], tuple[float, float]]:
    """Have hosts tell what they are like, without a store that remembers it.

    Args:
        hosts: All hosts.
        names: Those to look at, at least one.
        directory: A folder for what the play leaves.

    Returns:
        What `findings` takes.
    """
    began = time.time()
    heard = run_playbook(
        "host-check",
        hosts_inventory(hosts, {}),
        directory,
        operation=f"look-{uuid.uuid4().hex}",
        listener=lambda _: None,
        limit=names,
        silent_ok=True,
    )
    return heard.facts, heard.silent, (began, time.time())


def _put(transaction: Transaction, name: str, **changes: Any) -> None:
    known = transaction.hosts().get(name, HostRecord(name))
    transaction.put_host(replace(known, **changes))


def _on(transaction: Transaction, name: str) -> list[ClusterRecord]:
    """Return the clusters that have nodes on a host."""
    return [
        cluster
        for cluster in transaction.clusters()
        if any(node.host == name for node in cluster.nodes)
    ]
