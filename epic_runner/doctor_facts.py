"""Gathering what `doctor` judges: from the kernel, the Docker engine, the images and the store."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Container, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from epic_runner import docker_api, docker_exec, ports, vault
from epic_runner.catalog import Catalog, load_catalog
from epic_runner.deadline import ANSWER_SECONDS, within
from epic_runner.doctor import (
    CatalogFacts,
    ClockFacts,
    DiskFacts,
    DnsFacts,
    EngineFacts,
    Facts,
    FirewallFacts,
    ImageFacts,
    MemoryFacts,
    PortFacts,
    ProgramFacts,
    StoreFacts,
    VaultFacts,
)
from epic_runner.errors import EpicError
from epic_runner.hosts import Host, local_host
from epic_runner.images.builder import LABEL_LOCK, make_plans
from epic_runner.resources import content_root, home
from epic_runner.store.database import make_engine, named_url, reason_of, shown_url
from epic_runner.store.schema import HEAD

# struct timex of the kernel's adjtimex(2) on 64-bit Linux: its size with the padding, the place of
# `status`, and the bit of it that says that nobody keeps the clock.
_TIMEX_BYTES = 208
_TIMEX_STATUS_OFFSET = 40
_STA_UNSYNC = 0x40

# How long another program may hold the store before that is told.
STORE_WAIT_SECONDS = 2.0
# How long nodes are asked for one another.
ASKING_SECONDS = 20.0


# How a node's image may differ from the catalogue's.
OUTDATED, REVISED = "outdated", "revised"

_BRIDGE_OPTION = "com.docker.network.bridge.name"


def gather() -> Facts:
    """Return all facts of this machine and its engine; nothing is changed, migrated or started."""
    host = local_host()
    with within(ANSWER_SECONDS):
        engine, skew_seconds = engine_facts(host)
    with within(ASKING_SECONDS):
        lost = () if engine.error else lost_nodes(host)
    return Facts(
        programs=program_facts(),
        engine=engine,
        disk=disk_facts(engine.root) if engine.root else None,
        memory=memory_facts(),
        clock=ClockFacts(clock_synchronized(), skew_seconds),
        dns=dns_facts(lost),
        catalog=None
        if engine.error
        else catalog_facts(host, load_catalog(content_root() / "images")),
        store=store_facts(),
        ports=port_facts(),
        vault=vault_facts(),
        firewall=None if engine.error else firewall_facts(host),
    )


def program_facts() -> ProgramFacts:
    """Return the versions of Python, ansible-core and community.docker."""
    return ProgramFacts(
        python=sys.version_info[:3],
        ansible_core=_version("ansible-core"),
        docker_collection=_collection_version(),
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _collection_version() -> str | None:
    """Look where ansible.cfg and Ansible's defaults have it look."""
    roots = [
        content_root() / "collections",
        Path.home() / ".ansible" / "collections",
        Path("/usr/share/ansible/collections"),
        *(Path(entry) for entry in sys.path if entry),
    ]
    for root in roots:
        manifest = root / "ansible_collections" / "community" / "docker" / "MANIFEST.json"
        try:
            data = json.loads(manifest.read_text(encoding="utf-8"))
            return str(data["collection_info"]["version"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def engine_facts(host: Host) -> tuple[EngineFacts, float | None]:
    """Return what a host's engine says of itself, and how far its clock is off this machine's.

    The time between question and answer tells nothing of the clocks: only what lies outside of it
    counts, in seconds.
    """
    address = f"unix://{host.socket}" if host.is_local else f"ssh://{host.name}"
    try:
        version = docker_api.engine_version(host)
        before = time.time()
        info = docker_api.engine_info(host)
        after = time.time()
    except (EpicError, OSError) as problem:
        return EngineFacts(error=_reason(problem), address=address), None
    limits = {
        name: bool(info[key])
        for name, key in (
            ("memory", "MemoryLimit"),
            ("swap", "SwapLimit"),
            ("cpu", "CpuCfsQuota"),
            ("pids", "PidsLimit"),
        )
        if key in info
    }
    facts = EngineFacts(
        address=address,
        version=str(version.get("Version", "")),
        api_version=str(version.get("ApiVersion", "0")),
        storage_driver=str(info.get("Driver", "")),
        backing_filesystem=dict(info.get("DriverStatus") or []).get("Backing Filesystem", ""),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        cgroup_version=str(info.get("CgroupVersion", "1")),
        limits=limits,
        live_restore=info.get("LiveRestoreEnabled"),
        root=str(info.get("DockerRootDir", "")),
    )
    return facts, skew_seconds(str(info.get("SystemTime", "")), before, after)


def skew_seconds(told: str, before: float, after: float) -> float | None:
    """Return how far a clock is off that told a time between `before` and `after`, in seconds."""
    try:
        theirs = datetime.fromisoformat(told).timestamp()
    except ValueError:
        return None
    return theirs - min(max(theirs, before), after)


def _reason(problem: BaseException) -> str:
    """Return what the operating system said, which libraries wrap in words of their own."""
    inner: BaseException | None = problem
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(problem)


def catalog_facts(host: Host, catalog: Catalog) -> CatalogFacts | None:
    """Return which images of the catalogue a host has, and which nodes run other builds of them."""
    try:
        built = docker_api.images(host)
        nodes = docker_api.containers(host, {"epic.cluster": None})
    except EpicError:
        return None
    images = []
    for plan in make_plans(catalog).values():
        labels = built.get(plan.app.reference, {}).get("Labels") or {}
        images.append(
            ImageFacts(
                plan.app.name,
                plan.app.reference,
                present=plan.app.reference in built,
                fresh=labels.get(LABEL_LOCK) == plan.lock,
            )
        )
    ids = {image["Id"] for image in built.values()}
    ages = sorted((_node_name(node), age(node, catalog, ids)) for node in nodes)
    return CatalogFacts(
        tuple(images),
        outdated_nodes=tuple(name for name, found in ages if found == OUTDATED),
        revised_nodes=tuple(name for name, found in ages if found == REVISED),
    )


def age(container: Mapping[str, Any], catalog: Catalog, ids: Container[str]) -> str:
    """Return whether a node's image is `OUTDATED` or `REVISED` (see CatalogFacts), or neither.

    Args:
        container: Docker's summary of the node's container.
        catalog: The apps.
        ids: The ids of the images that the host has by name.
    """
    repository, _, tag = container.get("Image", "").rpartition(":")
    spec = json.loads(container["Labels"].get("epic.cluster.spec", "{}"))
    app = catalog.get(spec.get("app", ""))
    current = {item.image: item.tag for item in catalog}
    if current.get(repository, tag) != tag:
        same = app is not None and app.version == spec.get("app_version")
        return REVISED if same else OUTDATED
    return "" if container["ImageID"] in ids else OUTDATED


def _node_name(container: Mapping[str, Any]) -> str:
    labels = container["Labels"]
    return f"{labels['epic.cluster']} {labels.get('epic.role')}-{labels.get('epic.index')}"


def disk_facts(path: str) -> DiskFacts | None:
    """Return the room at `path`, or at the nearest folder above it that can be looked at."""
    for folder in (Path(path), *Path(path).parents):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return DiskFacts(path, usage.total, usage.free)
    return None


def memory_facts(meminfo: Path = Path("/proc/meminfo")) -> MemoryFacts | None:
    """Return the machine's memory as the kernel counts it."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    try:
        return MemoryFacts(kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024)
    except KeyError:
        return None


def clock_synchronized() -> bool | None:
    """Return whether the kernel says that a time service keeps its clock; None if it won't say.

    chrony, ntpd and systemd-timesyncd all tell the kernel, so none of them has to be known here.
    """
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # all zero: only read
    if adjtimex(timex) < 0:
        return None
    status = int.from_bytes(
        timex.raw[_TIMEX_STATUS_OFFSET : _TIMEX_STATUS_OFFSET + 4], sys.byteorder
    )
    return not status & _STA_UNSYNC


def lost_nodes(host: Host) -> tuple[str, ...]:
    """Ask one running node of each cluster for another one by name; return those that fail."""
    try:
        running = [
            container
            for container in docker_api.containers(host, {"epic.cluster": None})
            if container["State"] == "running"
        ]
        clusters: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for container in sorted(running, key=_host_name):
            labels = container["Labels"]
            clusters.setdefault((labels["epic.tenant"], labels["epic.cluster"]), []).append(
                container
            )
        lost = []
        for first, second, *_ in (nodes for nodes in clusters.values() if len(nodes) > 1):
            code, _output = docker_exec.output_of(
                host, first["Id"], ["getent", "hosts", _host_name(second)]
            )
            if code:
                lost.append(f"{_host_name(first)}: {_host_name(second)}")
    except EpicError:
        return ()  # a node ended meanwhile; that the engine does not answer is told elsewhere
    return tuple(lost)


def firewall_facts(host: Host) -> FirewallFacts | None:
    """Ask the firewall whether the kernel has its rules; None where no tenant has a bridge."""
    try:
        bridges = [
            network["Name"]
            for network in docker_api.networks(host, {"epic.tenant": None})
            if _BRIDGE_OPTION in (network["Options"] or {})
        ]
        if not bridges:
            return None
        found = docker_api.containers(host, {"epic.firewall": None})
        if not found or found[0]["State"] != "running":
            return FirewallFacts(len(bridges), "the container epic-firewall does not run")
        code, output = docker_exec.output_of(
            host, found[0]["Id"], ["python3", "/usr/local/lib/epic/firewall.py", "check"]
        )
    except EpicError as problem:
        return FirewallFacts(0, str(problem))
    return FirewallFacts(len(bridges), output.strip() if code else "")


def _host_name(container: Mapping[str, Any]) -> str:
    return _node_name(container).replace(" ", "-")


def dns_facts(
    lost: tuple[str, ...] = (),
    resolv: Path = Path("/etc/resolv.conf"),
    upstream: Path = Path("/run/systemd/resolve/resolv.conf"),
    settings: Path = Path("/etc/docker/daemon.json"),
) -> DnsFacts:
    """Return this machine's name, what it resolves to, and the nameservers containers inherit."""
    name = socket.gethostname()
    try:
        address: str | None = str(socket.getaddrinfo(name, None)[0][4][0])
    except OSError:
        address = None
    servers = _nameservers(resolv)
    # Where systemd-resolved answers on the loopback address, Docker reads what it asks instead.
    if servers == ("127.0.0.53",):
        servers = _nameservers(upstream) or servers
    return DnsFacts(name, address, servers, lost, _engine_nameservers(settings))


def _engine_nameservers(path: Path) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(path.read_text(encoding="utf-8")).get("dns") or ()))
    except (OSError, ValueError, AttributeError, TypeError):
        return ()


def _nameservers(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    return tuple(word[1] for word in words if len(word) > 1 and word[0] == "nameserver")


def port_facts() -> PortFacts:
    """Return how many of the ports for endpoints are in use."""
    wanted = ports.span()
    taken = sum(not ports.is_free(port) for port in wanted)
    return PortFacts(wanted[0], wanted[-1], taken, _outgoing_ports())


def vault_facts() -> VaultFacts | None:
    """Return whether secrets can be had from Vault; None where they are kept in files."""
    address = os.environ.get("EPIC_VAULT_ADDR", "")
    try:
        settings = vault.settings()
        if settings is None:
            return None
        vault.Vault(settings).check()
    except EpicError as problem:
        return VaultFacts(address, problem.message.rstrip("."), problem.hint)
    readable = stat.S_IRWXG | stat.S_IRWXO
    files = settings.credential_files
    return VaultFacts(
        settings.address,
        open_files=tuple(name for name in files if Path(name).stat().st_mode & readable),
    )


def _outgoing_ports() -> tuple[int, int] | None:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        first, last = map(int, text.split())
    except (OSError, ValueError):
        return None
    return first, last


def store_facts() -> StoreFacts:
    """Return the store's state without making or migrating it, as opening it would."""
    named = named_url() or f"sqlite:///{home() / 'store.db'}"
    try:
        url = make_url(named)
    except (SQLAlchemyError, ValueError):
        return StoreFacts("EPIC_DATABASE_URL", error="not the URL of a database", head=HEAD)
    if url.get_backend_name() != "sqlite" or not url.database:
        return _server_store_facts(named, HEAD)
    return _file_store_facts(Path(url.database), HEAD)


def _file_store_facts(path: Path, head: str) -> StoreFacts:
    place = str(path)
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    try:
        exists = path.exists()
    except OSError as problem:
        return StoreFacts(place, error=problem.strerror, head=head)
    writable = os.access(folder, os.W_OK | os.X_OK) and (not exists or os.access(path, os.W_OK))
    if not exists or not writable:
        return StoreFacts(place, exists=exists, writable=writable, head=head, free_bytes=free_bytes)
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=STORE_WAIT_SECONDS,
            isolation_level=None,
        )
        try:
            connection.execute("BEGIN IMMEDIATE")  # what a writer starts with: tells of locks
            [[answer]] = connection.execute("PRAGMA quick_check(1)").fetchall()
            made = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchone()
            row = made and connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as problem:
        return StoreFacts(place, error=str(problem), head=head, free_bytes=free_bytes)
    if answer != "ok":
        return StoreFacts(place, error=str(answer), head=head, free_bytes=free_bytes)
    revision = str(row[0]) if row else None
    return StoreFacts(place, revision=revision, head=head, free_bytes=free_bytes)


def _server_store_facts(url: str, head: str) -> StoreFacts:
    place = shown_url(url)
    try:
        with make_engine(url).connect() as connection:
            made = inspect(connection).has_table("alembic_version")
            row = (
                made and connection.execute(text("SELECT version_num FROM alembic_version")).first()
            )
    except (SQLAlchemyError, EpicError) as problem:
        return StoreFacts(place, error=reason_of(problem), head=head)
    return StoreFacts(place, exists=made, revision=str(row[0]) if row else None, head=head)
