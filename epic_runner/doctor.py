"""Whether this machine can carry clusters, and how to mend what it lacks.

Facts are gathered by `doctor_facts`, the part that touches the machine; the
`judge_*` functions here turn them into findings and nothing else, so that every rule can be tested
by a value. A `None` in facts is something that could not be read: it is never a failure by itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from epic_runner.output import bytes_text

GIB = 2**30

# Docker 20.10's API: the first with cgroup v2, and the oldest that Debian 12 has.
LEAST_API = (1, 41)
PYTHON_SINCE = (3, 11)
PYTHON_BEFORE = (3, 14)
# The releases whose module and event interfaces the playbooks were tested with.
ANSIBLE_SINCE = (2, 19)
ANSIBLE_BEFORE = (2, 20)

# One set of images takes about 3 GB; a build needs as much again for its layers.
DISK_WARN_BYTES = 10 * GIB
DISK_FAIL_BYTES = 2 * GIB
# A launch writes some megabytes of events and output.
STORE_FAIL_BYTES = 50 * 2**20
# The smallest useful cluster: a master with a notebook, and one worker.
MEMORY_TOTAL_FAIL_BYTES = 2 * GIB
MEMORY_AVAILABLE_WARN_BYTES = 2 * GIB
# Kerberos refuses more than 300 s and tokens some seconds; log lines are hard to match sooner.
SKEW_WARN_SECONDS = 2.0
SKEW_FAIL_SECONDS = 60.0
# Every endpoint of every node takes one port.
PORTS_WARN_FREE = 50


class State(StrEnum):
    """How bad a finding is; the members are ordered, the best first."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        check: The check's name, the same in every version.
        state: Whether it is as it should be.
        seen: What was seen, as a phrase or a sentence.
        mend: What to do about it; None where nothing is to be done.
    """

    check: str
    state: State
    seen: str
    mend: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True)
class ProgramFacts:
    """The programs that epic-run is made of.

    Attributes:
        python: This Python's version.
        ansible_core: ansible-core's version; None where it is not installed.
        docker_collection: community.docker's version; None where Ansible does not find it.
    """

    python: tuple[int, int, int]
    ansible_core: str | None
    docker_collection: str | None


@dataclass(frozen=True)
class EngineFacts:
    """What the Docker engine says of itself.

    Attributes:
        error: Why it does not answer; None when it does. All the rest is empty then.
        address: Where it was looked for, such as `unix:///var/run/docker.sock`.
        version: The engine's version.
        api_version: The newest API version that it speaks.
        storage_driver: Such as `overlay2`.
        backing_filesystem: What the storage driver writes to; empty where it does not say.
        cgroup_driver: `systemd` or `cgroupfs`.
        cgroup_version: `1` or `2`.
        limits: Whether the kernel keeps each limit, by its name (`memory`, `swap`, `pids`, `cpu`).
        live_restore: Whether containers outlive a restart of the engine.
        root: The folder of the engine's data.
    """

    error: str | None = None
    address: str = ""
    version: str = ""
    api_version: str = "0"
    storage_driver: str = ""
    backing_filesystem: str = ""
    cgroup_driver: str = ""
    cgroup_version: str = ""
    limits: Mapping[str, bool] | None = None
    live_restore: bool | None = None
    root: str = ""


@dataclass(frozen=True)
class DiskFacts:
    """Room where `path` is, in bytes."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class MemoryFacts:
    """The machine's memory, in bytes; `available_bytes` is what new programs can have."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class ClockFacts:
    """This machine's clock.

    Attributes:
        synchronized: Whether a time service keeps it; None where the kernel does not say.
        engine_skew_seconds: The Docker engine's clock less this one; None where it was not told.
    """

    synchronized: bool | None = None
    engine_skew_seconds: float | None = None


@dataclass(frozen=True)
class DnsFacts:
    """How names are looked up.

    Attributes:
        host_name: This machine's name.
        host_address: What its name resolves to; None where it does not.
        nameservers: Those that containers inherit from the host, in order.
        engine_nameservers: Those of the engine's settings, which take their place.
        lost: Running nodes that do not find a neighbour, such as `lab-master-1: lab-worker-1`.
    """

    host_name: str
    host_address: str | None
    nameservers: tuple[str, ...]
    lost: tuple[str, ...] = ()
    engine_nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """One image of the catalogue.

    Attributes:
        name: The app's name.
        reference: The image reference that its app.yml asks for.
        present: Whether Docker has that image.
        fresh: Whether it was built from the files that are there now.
    """

    name: str
    reference: str
    present: bool
    fresh: bool


@dataclass(frozen=True)
class CatalogFacts:
    """The images of the catalogue, and the nodes that run others, such as `lab worker-1`.

    Attributes:
        images: The images.
        outdated_nodes: Nodes with another build of the image, or another version of the app, than
            the catalogue has; no launch changes that.
        revised_nodes: Nodes with an image that has another tag than the catalogue's; the next
            launch makes them anew.
    """

    images: tuple[ImageFacts, ...]
    outdated_nodes: tuple[str, ...] = ()
    revised_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoreFacts:
    """The store of wanted clusters.

    Attributes:
        place: Its address, without a password.
        exists: Whether it was made yet.
        error: Why it cannot be read; None when it can.
        writable: Whether it can be written.
        revision: The migration it is at.
        head: The migration that this version of epic-run wants.
        free_bytes: Room where its file is; None for a database server.
    """

    place: str
    exists: bool = True
    error: str | None = None
    writable: bool = True
    revision: str | None = None
    head: str | None = None
    free_bytes: int | None = None


@dataclass(frozen=True)
class VaultFacts:
    """The Vault that secrets are kept in.

    Attributes:
        address: Its address.
        error: Why secrets cannot be had; None when they can.
        mend: What to do about it.
        open_files: The files that log in and that others than their owner can read.
    """

    address: str
    error: str | None = None
    mend: str | None = None
    open_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class PortFacts:
    """The loopback ports that endpoints are published on.

    Attributes:
        first: The first port of the range.
        last: The last one, inclusive.
        taken: How many of them are in use.
        outgoing: The range that the kernel gives to outgoing connections.
    """

    first: int
    last: int
    taken: int
    outgoing: tuple[int, int] | None = None


@dataclass(frozen=True)
class FirewallFacts:
    """The rules for what tenants may reach.

    Attributes:
        bridges: How many tenants have a bridge that they are for.
        problem: What is wrong with them; empty where the kernel has what is wanted.
    """

    bridges: int
    problem: str = ""


@dataclass(frozen=True)
class Facts:
    """All that was gathered; None for what does not concern this machine or could not be read."""

    programs: ProgramFacts
    engine: EngineFacts
    disk: DiskFacts | None
    memory: MemoryFacts | None
    clock: ClockFacts
    dns: DnsFacts | None
    catalog: CatalogFacts | None
    store: StoreFacts | None
    ports: PortFacts | None
    vault: VaultFacts | None = None
    firewall: FirewallFacts | None = None


def judge(facts: Facts) -> list[Finding]:
    """Return the findings of every check that `facts` has something for."""
    findings = [*judge_programs(facts.programs), *judge_engine(facts.engine)]
    if facts.disk:
        findings.append(judge_disk(facts.disk))
    if facts.memory:
        findings.append(judge_memory(facts.memory))
    findings.append(judge_clock(facts.clock))
    if facts.dns:
        findings.append(judge_dns(facts.dns))
    if facts.firewall:
        findings.append(judge_firewall(facts.firewall))
    if facts.catalog:
        findings.append(judge_images(facts.catalog))
    if facts.store:
        findings.append(judge_store(facts.store))
    if facts.vault:
        findings.append(judge_vault(facts.vault))
    if facts.ports:
        findings.append(judge_ports(facts.ports))
    return findings


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state among `findings`; ok where there are none."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)


def judge_programs(facts: ProgramFacts) -> list[Finding]:
    """Judge Python, ansible-core and the collection for ad-hoc plays on nodes."""
    return [
        _judge_python(facts.python),
        _judge_ansible(facts.ansible_core),
        _judge_collection(facts.docker_collection),
    ]


def _judge_python(version: tuple[int, int, int]) -> Finding:
    seen = ".".join(map(str, version))
    if PYTHON_SINCE <= version[:2] < PYTHON_BEFORE:
        return Finding("python", State.OK, seen)
    return Finding(
        "python", State.FAIL, f"{seen}, not tested", "Install epic-run with Python 3.11 to 3.13."
    )


def _judge_ansible(version: str | None) -> Finding:
    mend = "Install what the lock file names: scripts/quickstart, or pip install epic-runner."
    if version is None:
        return Finding("ansible", State.FAIL, "ansible-core is not installed", mend)
    if ANSIBLE_SINCE <= _numbers(version)[:2] < ANSIBLE_BEFORE:
        return Finding("ansible", State.OK, f"ansible-core {version}")
    return Finding("ansible", State.WARN, f"ansible-core {version}, tested is 2.19", mend)


def _judge_collection(version: str | None) -> Finding:
    if version:
        return Finding("collection", State.OK, f"community.docker {version}")
    return Finding(
        "collection",
        State.WARN,
        "Ansible finds no community.docker: ad-hoc plays on nodes will not connect; "
        "launching works without it",
        "scripts/quickstart, or: ansible-galaxy collection install community.docker",
    )


def judge_engine(facts: EngineFacts) -> list[Finding]:
    """Judge the engine, and whether it keeps the limits that a flavor promises."""
    if facts.error is not None:
        return [
            Finding(
                "docker",
                State.FAIL,
                f"no engine answers at {facts.address}: {facts.error}",
                _docker_mend(facts.error),
            )
        ]
    return [_judge_version(facts), _judge_storage(facts), _judge_limits(facts)]


def _docker_mend(error: str) -> str:
    if "permission denied" in error.lower():
        return "Join the group docker, then log in again: sudo usermod -aG docker $USER"
    return "Start it: systemctl start docker (where it is not installed yet: scripts/quickstart)"


def _judge_version(facts: EngineFacts) -> Finding:
    live = {True: "on", False: "off", None: "unknown"}[facts.live_restore]
    seen = f"{facts.version} (API {facts.api_version}) at {facts.address}, live-restore {live}"
    if _numbers(facts.api_version) < LEAST_API:
        return Finding(
            "docker",
            State.FAIL,
            seen,
            f"Install Docker 20.10 or newer (API {_dotted(LEAST_API)}).",
        )
    return Finding("docker", State.OK, seen)


def _judge_storage(facts: EngineFacts) -> Finding:
    backing = f" on {facts.backing_filesystem}" if facts.backing_filesystem else ""
    seen = f"{facts.storage_driver}{backing}"
    # overlayfs is the containerd image store's name for the same thing.
    if facts.storage_driver in {"overlay2", "overlayfs", "btrfs", "zfs", "fuse-overlayfs"}:
        return Finding("storage", State.OK, seen)
    return Finding(
        "storage",
        State.WARN,
        f"{seen}: each container copies its image, so a launch is slow and takes much room",
        'Set "storage-driver": "overlay2" in /etc/docker/daemon.json, '
        "which hides the images and containers that are there now",
    )


def _judge_limits(facts: EngineFacts) -> Finding:
    limits = facts.limits or {}
    seen = f"cgroup v{facts.cgroup_version} by {facts.cgroup_driver}"
    missing = [name for name in ("memory", "cpu", "pids") if limits.get(name) is False]
    if missing:
        return Finding(
            "limits",
            State.FAIL,
            f"{seen}; the kernel keeps no limit of {' and '.join(missing)}: "
            "a node could take the whole machine",
            "Boot with cgroup_enable=memory, or use a kernel with the cpu, memory and pids "
            "controllers.",
        )
    if limits.get("swap") is False:
        return Finding(
            "limits",
            State.WARN,
            f"{seen}; swap is not limited: a node over its memory may swap instead of ending",
            "Boot with swapaccount=1, or run without swap.",
        )
    kept = ", ".join(name for name, is_kept in limits.items() if is_kept)
    return Finding("limits", State.OK, f"{seen}; limits kept: {kept or 'not known'}")


def judge_disk(facts: DiskFacts) -> Finding:
    """Judge the room where Docker keeps images, containers and volumes."""
    seen = f"{bytes_text(facts.free_bytes)} free of {bytes_text(facts.total_bytes)} at {facts.path}"
    mend = (
        "Make room, for example of images that nothing uses: docker image prune; or move Docker's "
        "data-root to a larger disk."
    )
    if facts.free_bytes < DISK_FAIL_BYTES:
        return Finding("disk", State.FAIL, seen, mend)
    if facts.free_bytes < DISK_WARN_BYTES:
        return Finding("disk", State.WARN, seen, mend)
    return Finding("disk", State.OK, seen)


def judge_memory(facts: MemoryFacts) -> Finding:
    """Judge the memory that nodes can have."""
    seen = f"{bytes_text(facts.available_bytes)} available of {bytes_text(facts.total_bytes)}"
    if facts.total_bytes < MEMORY_TOTAL_FAIL_BYTES:
        return Finding(
            "memory", State.FAIL, seen, "The smallest Spark cluster needs a machine with 2g."
        )
    if facts.available_bytes < MEMORY_AVAILABLE_WARN_BYTES:
        return Finding(
            "memory",
            State.WARN,
            seen,
            "End what takes it, for example a cluster that is not used: epic-run stop NAME",
        )
    return Finding("memory", State.OK, seen)


def judge_clock(facts: ClockFacts) -> Finding:
    """Judge this machine's clock, and the Docker host's against it."""
    skew_seconds = facts.engine_skew_seconds
    if skew_seconds is not None and abs(skew_seconds) >= SKEW_WARN_SECONDS:
        seen = f"the Docker host's clock is {skew_seconds:+.1f} s off this machine's"
        state = State.FAIL if abs(skew_seconds) >= SKEW_FAIL_SECONDS else State.WARN
        return Finding("clock", state, seen, "Run a time service (chrony) on both machines.")
    same = "" if skew_seconds is None else ", the same as the Docker host's"
    if facts.synchronized is False:
        return Finding(
            "clock",
            State.WARN,
            f"no time service keeps it{same}",
            "Install one: apt-get install chrony. On one machine it does not matter much; "
            "with several, logs and tokens go wrong.",
        )
    kept = "not known whether a time service keeps it"
    if facts.synchronized:
        kept = "kept by a time service"
    return Finding("clock", State.OK, f"{kept}{same}")


def judge_dns(facts: DnsFacts) -> Finding:
    """Judge whether nodes find one another by Docker's own DNS, and names outside by the site's."""
    if facts.lost:
        return Finding(
            "dns",
            State.FAIL,
            f"nodes do not find others by name: {'; '.join(facts.lost)}",
            "Docker's own DNS does not answer them: systemctl restart docker, then "
            "epic-run start NAME",
        )
    if facts.host_address is None:
        return Finding(
            "dns",
            State.WARN,
            f"this machine's own name {facts.host_name} does not resolve",
            f'Add a line "127.0.1.1 {facts.host_name}" to /etc/hosts.',
        )
    named = ", ".join(facts.engine_nameservers)
    if named and all(map(_is_loopback, facts.engine_nameservers)):
        return Finding(
            "dns",
            State.WARN,
            f"/etc/docker/daemon.json has {named} as its dns, where a container asks itself",
            'Take its "dns" out, then restart Docker: it asks this machine\'s own servers for '
            "containers, those on its loopback too.",
        )
    servers = facts.engine_nameservers or facts.nameservers
    # One on the host's own loopback is asked by Docker itself, if its address is of IPv4.
    usable = [server for server in servers if ":" not in server or not _is_loopback(server)]
    if not usable:
        listed = ", ".join(facts.nameservers) or "none"
        return Finding(
            "dns",
            State.WARN,
            f"nameservers: {listed}; none that a container can reach, so Docker falls back on "
            "public ones",
            "Name one in /etc/resolv.conf, then epic-run restart NAME of each cluster.",
        )
    return Finding(
        "dns",
        State.OK,
        f"{facts.host_name} is {facts.host_address}; containers ask {', '.join(usable)}",
    )


def judge_images(facts: CatalogFacts) -> Finding:
    """Judge whether every image of the catalogue is there, fresh, and what the nodes run."""
    images = facts.images
    missing = [image.name for image in images if not image.present]
    stale = [image.name for image in images if image.present and not image.fresh]
    if missing:
        return Finding(
            "images", State.WARN, f"not built yet: {', '.join(missing)}", "epic-run image build"
        )
    if stale:
        return Finding(
            "images",
            State.WARN,
            f"built from other files than those that are there now: {', '.join(stale)}",
            "epic-run image build",
        )
    return judge_nodes(facts) or Finding(
        "images", State.OK, f"{len(images)} of {len(images)} built and fresh"
    )


def judge_nodes(facts: CatalogFacts) -> Finding | None:
    """Judge the images of nodes; None where they are all those of the catalogue."""
    seen, mends = [], []
    if facts.revised_nodes:
        seen.append(f"nodes with an earlier image: {', '.join(facts.revised_nodes)}")
        mends.append(
            "epic-run launch of the cluster's template makes them anew: /data with homes and logs, "
            "and /tenant, stay; what runs on them ends, and what was installed elsewhere goes."
        )
    if facts.outdated_nodes:
        seen.append(f"nodes with an older build: {', '.join(facts.outdated_nodes)}")
        mends.append(
            "They keep it until they are made anew: epic-run export the cluster, destroy and "
            "launch it; /tenant stays, homes do not."
        )
    return Finding("images", State.WARN, "; ".join(seen), " ".join(mends)) if seen else None


def judge_store(facts: StoreFacts) -> Finding:
    """Judge whether the store can be read and written, and is of this version."""
    # A full disk is behind many errors, and no reason to rebuild a store.
    is_full = facts.free_bytes is not None and facts.free_bytes < STORE_FAIL_BYTES
    if facts.error is not None and not is_full:
        return Finding(
            "store",
            State.FAIL,
            f"{facts.place}: {facts.error}",
            "Mend what the message says. The store can be rebuilt from the containers: move it "
            "away, then epic-run repair",
        )
    if not facts.writable:
        return Finding(
            "store",
            State.FAIL,
            f"{facts.place} cannot be written",
            "Give it to your user, or name another folder: EPIC_HOME",
        )
    if facts.free_bytes is not None and is_full:
        return Finding(
            "store",
            State.FAIL,
            f"{facts.place}: only {bytes_text(facts.free_bytes)} free on its disk",
            "Make room there, or name a folder elsewhere: EPIC_HOME",
        )
    if not facts.exists:
        return Finding("store", State.OK, f"{facts.place}, made by the first command that writes")
    if facts.revision != facts.head:
        return Finding(
            "store",
            State.WARN,
            f"{facts.place} is at revision {facts.revision or 'none'}, wanted is {facts.head}",
            "The next command that writes moves it on; an older epic-run cannot read it then.",
        )
    return Finding("store", State.OK, f"{facts.place}, revision {facts.revision}")


def judge_vault(facts: VaultFacts) -> Finding:
    """Judge whether secrets can be had from Vault, and whether nobody else can take its keys."""
    if facts.error is not None:
        return Finding("vault", State.FAIL, facts.error, facts.mend)
    if facts.open_files:
        return Finding(
            "vault",
            State.WARN,
            f"others than their owner can read {', '.join(facts.open_files)}",
            f"chmod 600 {' '.join(facts.open_files)}",
        )
    return Finding("vault", State.OK, f"{facts.address} lets epic-run in")


def judge_firewall(facts: FirewallFacts) -> Finding:
    """Judge whether what tenants may reach is as wanted."""
    if facts.problem:
        return Finding(
            "firewall",
            State.FAIL,
            f"the rules for tenants are not in force: {facts.problem}",
            "epic-run repair CLUSTER, of any running cluster, brings them back; "
            "docker logs epic-firewall has more.",
        )
    return Finding("firewall", State.OK, f"the rules for {facts.bridges} tenants are in force")


def judge_ports(facts: PortFacts) -> Finding:
    """Judge the ports for endpoints: enough free, and none that outgoing connections take."""
    size = facts.last - facts.first + 1
    free = size - facts.taken
    seen = f"{free} of {size} free, {facts.first} to {facts.last}"
    if free <= 0:
        return Finding(
            "ports", State.FAIL, seen, "Destroy clusters that are not used, or stop what listens."
        )
    if facts.outgoing and facts.outgoing[0] <= facts.last and facts.first <= facts.outgoing[1]:
        first, last = facts.outgoing
        return Finding(
            "ports",
            State.WARN,
            f"{seen}; outgoing connections use {first} to {last} and may hold one of them",
            f"sysctl -w net.ipv4.ip_local_reserved_ports={facts.first}-{facts.last}",
        )
    if free < PORTS_WARN_FREE:
        return Finding("ports", State.WARN, seen, "Destroy clusters that are not used.")
    return Finding("ports", State.OK, seen)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `2.19.0b1` gives (2, 19, 0)."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
