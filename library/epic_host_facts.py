#!/usr/bin/python
"""Ansible module: what a machine has to offer as a Docker host, and what it lacks."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_host_facts
short_description: Tell what this Docker host has, in one call
description:
  - Looks at the machine, its Docker engine, its place in the swarm and its way to the other hosts.
    It changes nothing, needs no root, and works where Docker is not there yet.
options:
  peers:
    description: Addresses of the other hosts, to which the way is tried.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that another host has for answering; all are asked at once.
    type: float
    default: 2
  storage:
    description: The storage that hosts have in common for tenants, a folder or C(nfs://SERVER/PATH).
    type: str
    default: ""
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: See what the host has
  epic_host_facts:
    peers: [192.0.2.12, 192.0.2.13]
"""

RETURN = r"""
epic_facts:
  description:
    - What Docker alone knows is null where no engine answers, and C(docker_error) says why.
  type: dict
  returned: always
  contains:
    clock:
      description: Seconds since 1970 on this host, taken when the module starts.
      type: float
    cores:
      description: Processors that containers can use.
      type: int
    memory_bytes:
      description: The machine's memory.
      type: int
    memory_available_bytes:
      description: What new programs can have of it.
      type: int
    disk_path:
      description: Docker's root, or the folder nearest to it that is there.
      type: str
    disk_bytes:
      description: Size of the file system that holds it.
      type: int
    disk_free_bytes:
      description: What is free there, as far as Docker may take it.
      type: int
    disk_quota:
      description:
        - What of a node the engine keeps to its flavor's disk. C(nodes) for all of it, C(volumes)
          for its volume alone, or C(none). A volume that is made and removed tells.
      type: str
    docker_version:
      description: The engine's version.
      type: str
    api_version:
      description: The newest version of its API.
      type: str
    docker_error:
      description: Why no engine answers; empty where one does.
      type: str
    storage_driver:
      description: How it keeps layers of images.
      type: str
    cgroup_version:
      description: C(1) or C(2).
      type: str
    kernel:
      description: The kernel's release.
      type: str
    os:
      description: C(id), C(id_like), C(version) and C(name), as /etc/os-release has them.
      type: dict
    python_version:
      description: The Python that ran the module.
      type: str
    init:
      description: C(systemd) where it runs, else C(other).
      type: str
    container:
      description: Whether the machine is itself a container, which shares another one's kernel.
      type: bool
    interface:
      description: The network interface with the route to the other hosts.
      type: str
    mtu:
      description: Its largest packet in bytes.
      type: int
    addresses:
      description: All IPv4 addresses of the host but those of its loopback.
      type: list
    swarm:
      description:
        - C(state), C(role), C(node_id) and C(address); C(managers), their addresses, and
          C(managers_reachable), how many of them this host reaches.
      type: dict
    ports:
      description:
        - By address of another host. C(tcp_2377) and C(tcp_7946) are C(open), C(refused) (nothing
          listens, or a firewall says no), C(silent) or C(error); the first is null where that host
          is known to be no manager. C(udp_7946) and C(udp_4789) are C(refused), or C(unknown),
          since nothing answers there when all is well.
      type: dict
    storage:
      description:
        - The storage of tenants. C(kind), C(place), C(error); of a folder its C(mark), the same on
          all hosts, and C(writable); of an NFS export C(server), whether its port is open; and
          C(elsewhere), the tenants whose volume here is another one, with where it is.
      type: dict
    ways_out:
      description: What is wrong with the rules for tenants' bridges; empty where all is well.
      type: str
    closed:
      description: Networks that are closed to all tenants with rules here; null without any.
      type: list
    firewall:
      description: What was found on this host that may keep other hosts out, a line each.
      type: list
"""

import errno
import os
import platform
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.epic_disk import disk_quota
from ansible.module_utils.epic_docker import Docker, DockerError
from ansible.module_utils.epic_egress import BRIDGE_OPTION, Firewall
from ansible.module_utils.epic_volumes import described, is_other, storage_facts

MANAGEMENT_PORT, GOSSIP_PORT, VXLAN_PORT = 2377, 7946, 4789
PORTS = "2377/tcp, 7946/tcp, 7946/udp and 4789/udp"
DOCKER_ROOT = "/var/lib/docker"
ENGINE_SECONDS = 10.0
FIREWALL_SECONDS = 3
LABELLED = {"filters": '{"label": ["epic.tenant"]}'}
ALL_PARALLEL = 64

ARGUMENT_SPEC: dict[str, Any] = {
    "peers": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 2.0},
    "storage": {"type": "str", "default": ""},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


# -- the machine -----------------------------------------------------------------------------------


def os_release(text: str) -> dict[str, str]:
    """Return id, version and name of an operating system, from its /etc/os-release."""
    values = dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE))
    return {
        "id": values.get("ID", ""),
        "id_like": values.get("ID_LIKE", ""),
        "version": values.get("VERSION_ID", ""),
        "name": values.get("PRETTY_NAME", ""),
    }


def route_interface(table: str, address: str | None) -> str | None:
    """Return the interface by which an IPv4 address is reached, by the kernel's /proc/net/route.

    Without an address, that of the default route.
    """
    target = struct.unpack("<L", socket.inet_aton(address))[0] if address else 0
    best: tuple[int, int, str] | None = None
    for line in table.splitlines()[1:]:
        name, network, _, flags, _, _, metric, mask = line.split()[:8]
        is_up, is_reject = int(flags, 16) & 1, int(flags, 16) & 0x200
        if not is_up or is_reject or (target & int(mask, 16)) != int(network, 16):
            continue
        # The mask is in network order: its number of ones is what counts.
        rank = (bin(int(mask, 16)).count("1"), -int(metric))  # noqa: FURB161 - Python 3.10 has it
        if best is None or rank > best[:2]:
            best = (*rank, name)
    return best[2] if best else None


def local_addresses(trie: str) -> list[str]:
    """Return the host's own IPv4 addresses, by the kernel's /proc/net/fib_trie."""
    found = re.findall(r"\|-- (\S+)\s+/32 host LOCAL", trie)
    return sorted({address for address in found if not address.startswith("127.")})


def way_to(peers: Iterable[str]) -> tuple[str | None, int | None]:
    """Return the interface to the other hosts, or of the default route, and its MTU."""
    try:
        table = Path("/proc/net/route").read_text(encoding="ascii")
        address = next((socket.gethostbyname(peer) for peer in peers), None)
        name = route_interface(table, address)
        if name is None:
            return None, None
        return name, int(Path(f"/sys/class/net/{name}/mtu").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None, None


def nearest_folder(path: str) -> str:
    """Return a folder, or the nearest one above it that is there and may be looked at."""
    folder = Path(path)
    while True:
        try:
            os.statvfs(folder)
        except OSError:
            if folder == folder.parent:
                raise
            folder = folder.parent
        else:
            return str(folder)


def machine_facts(docker_root: str) -> dict[str, Any]:
    """Return what the machine has, without Docker's help."""
    path = nearest_folder(docker_root)
    disk = os.statvfs(path)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo, re.MULTILINE)
    release = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    return {
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "memory_available_bytes": int(available[1]) * 1024 if available else memory,
        "disk_path": path,
        "disk_bytes": disk.f_blocks * disk.f_frsize,
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "kernel": os.uname().release,
        "os": os_release(release),
        "python_version": platform.python_version(),
        "init": "systemd" if Path("/run/systemd/system").is_dir() else "other",
        "container": any(
            Path(mark).exists()
            for mark in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
        ),
    }


# -- the engine ------------------------------------------------------------------------------------


def engine_facts(path: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return what an engine says of itself, its swarm, and Docker's root; or why it does not."""
    docker = Docker(path, ENGINE_SECONDS)
    try:
        info = docker.request("GET", "/info")
        version = docker.request("GET", "/version")
    except DockerError as problem:
        nothing = dict.fromkeys(
            ("docker_version", "api_version", "storage_driver", "cgroup_version")
        )
        unusable = {**nothing, "docker_error": str(problem), "disk_quota": "none"}
        return unusable, no_swarm("unknown"), DOCKER_ROOT
    facts = {
        "cores": info["NCPU"],
        "memory_bytes": info["MemTotal"],
        "docker_version": version["Version"],
        "api_version": version["ApiVersion"],
        "docker_error": "",
        "storage_driver": info["Driver"],
        "disk_quota": kept_to(docker, info),
        # Engines before 20.10 knew only the first.
        "cgroup_version": info.get("CgroupVersion") or "1",
    }
    return facts, swarm_facts(docker, info.get("Swarm") or {}), info["DockerRootDir"]


def kept_to(docker: Docker, info: dict[str, Any]) -> str:
    """Return what of a node this engine keeps to a size; nothing where it has no room to try."""
    try:
        return disk_quota(docker, info)
    except DockerError:
        return "none"


def elsewhere(path: str, storage: str) -> dict[str, str]:
    """Return by tenant where its volume here has its files, if that is not in the storage."""
    try:
        volumes = Docker(path, ENGINE_SECONDS).request("GET", "/volumes")["Volumes"] or []
    except DockerError:
        return {}
    tenants = {
        volume["Labels"]["epic.tenant"]: volume
        for volume in volumes
        # What belongs to a cluster is a node's own.
        if "epic.tenant" in (volume["Labels"] or {}) and "epic.cluster" not in volume["Labels"]
    }
    return {
        tenant: described(volume.get("Options"))
        for tenant, volume in sorted(tenants.items())
        if is_other(volume, storage, tenant)
    }


def ways_out(docker: Docker) -> str:
    """Return what is wrong with the firewall, where nodes are on bridges that it is for."""
    try:
        networks = docker.request("GET", "/networks", query=LABELLED) or []
        nodes = docker.request("GET", "/containers/json", query={**LABELLED, "all": "1"})
        bridges = [item for item in networks if BRIDGE_OPTION in (item["Options"] or {})]
        if bridges and nodes:
            return Firewall(docker).check()
    except DockerError as problem:
        return str(problem)
    return ""


def closed(docker: Docker) -> list[str] | None:
    """Return what is closed to all tenants with rules here; None where nobody has any, or tells."""
    try:
        return Firewall(docker).closed()
    except DockerError:
        return None


def no_swarm(state: str) -> dict[str, Any]:
    """Return the facts of a host that is in no swarm."""
    nothing = dict.fromkeys(("role", "node_id", "address"), "")
    return {"state": state, **nothing, "managers": [], "managers_reachable": 0, "error": ""}


def swarm_facts(docker: Docker, swarm: dict[str, Any]) -> dict[str, Any]:
    """Return a host's place in its swarm; who is reachable is counted by whoever is a manager."""
    state = swarm.get("LocalNodeState") or "inactive"
    if state == "inactive":
        return no_swarm(state)
    facts = {
        "state": state,
        "role": "manager" if swarm.get("ControlAvailable") else "worker",
        "node_id": swarm.get("NodeID") or "",
        "address": swarm.get("NodeAddr") or "",
        "managers": sorted(item["Addr"] for item in swarm.get("RemoteManagers") or []),
        "managers_reachable": None,
        "error": swarm.get("Error") or "",
    }
    if facts["role"] == "manager":
        try:
            managers = [node.get("ManagerStatus") for node in docker.request("GET", "/nodes")]
        except DockerError as problem:
            # Most of the managers are gone: the engine answers, but not for the swarm.
            return {**facts, "managers_reachable": 0, "error": str(problem)}
        here = [status for status in managers if status]
        facts["managers"] = sorted(status["Addr"] for status in here)
        facts["managers_reachable"] = sum(item["Reachability"] == "reachable" for item in here)
    return facts


# -- the way to the other hosts --------------------------------------------------------------------


def tcp(address: str, port: int, timeout: float) -> str:
    """Tell what becomes of a connection: open, refused, silent, or error."""
    try:
        with socket.create_connection((address, port), timeout):
            return "open"
    except ConnectionRefusedError:
        return "refused"
    except (TimeoutError, socket.timeout):  # noqa: UP041 - two classes up to Python 3.9
        return "silent"
    except OSError as problem:
        return "refused" if problem.errno == errno.EACCES else "error"


def udp(address: str, port: int, timeout: float) -> str:
    """Tell whether a host refuses packets. All else is unknown: when all is well nobody answers."""
    try:
        kind = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(kind[0], kind[1], kind[2]) as probe:
            probe.settimeout(timeout)
            probe.connect(kind[4])
            # No packet of VXLAN or of Docker's gossip, so whoever gets it drops it.
            probe.send(b"\0")
            probe.recv(1)
    except (ConnectionRefusedError, PermissionError):
        return "refused"
    except OSError as problem:
        return "refused" if problem.errno == errno.EHOSTUNREACH else "unknown"
    return "unknown"


def port_facts(peers: list[str], swarm: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Try the ports of all other hosts at once; that of managers only where there may be one."""
    managers = {item.rpartition(":")[0].strip("[]") for item in swarm["managers"]}
    tries: list[tuple[str, str, Any, int]] = []
    for peer in peers:
        if not managers or resolved(peer) in managers:
            tries.append((peer, f"tcp_{MANAGEMENT_PORT}", tcp, MANAGEMENT_PORT))
        tries.append((peer, f"tcp_{GOSSIP_PORT}", tcp, GOSSIP_PORT))
        # An answer "refused" comes at once: more waiting would tell no more.
        tries += [(peer, f"udp_{port}", udp, port) for port in (GOSSIP_PORT, VXLAN_PORT)]
    facts: dict[str, Any] = {peer: {f"tcp_{MANAGEMENT_PORT}": None} for peer in peers}
    if not tries:
        return facts

    def attempt(item: tuple[str, str, Any, int]) -> None:
        peer, name, way, port = item
        facts[peer][name] = way(peer, port, timeout if way is tcp else min(timeout, 0.5))

    with ThreadPoolExecutor(min(len(tries), ALL_PARALLEL)) as pool:
        list(pool.map(attempt, tries))
    return facts


def resolved(name: str) -> str:
    """Return the address behind a name, or the name where it is not known."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return name


def firewall_hints() -> list[str]:
    """Tell of firewalls of this host that may keep the other hosts out."""
    hints = []
    if program_runs("firewalld"):
        hints.append(
            f"firewalld runs: it has to let the other hosts in at {PORTS}, which epic-run host "
            "prepare sees to"
        )
    try:
        ufw = Path("/etc/ufw/ufw.conf").read_text(encoding="utf-8")
    except OSError:
        ufw = ""
    if re.search(r"^ENABLED=yes", ufw, re.MULTILINE | re.IGNORECASE):
        hints.append(
            f"ufw is enabled: it has to let the other hosts in at {PORTS}, which epic-run host "
            "prepare sees to"
        )
    if not hints and os.geteuid() == 0 and shutil.which("iptables"):
        hints += input_hints(input_rules())
    return hints


def input_rules() -> str:
    """Return the rules for packets to this host, as `iptables -S INPUT` prints them."""
    try:
        done = subprocess.run(
            ["iptables", "-w", "1", "-S", "INPUT"],
            capture_output=True,
            text=True,
            check=False,
            timeout=FIREWALL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def input_hints(rules: str) -> list[str]:
    """Tell of rules that drop what no rule lets in, where none names a port that is needed."""
    drops = re.search(r"^-P INPUT (DROP|REJECT)|^-A INPUT -j (DROP|REJECT)", rules, re.MULTILINE)
    if not drops:
        return []
    closed = [
        port
        for port in (MANAGEMENT_PORT, GOSSIP_PORT, VXLAN_PORT)
        if not re.search(rf"^-A INPUT .*\b{port}\b.* -j ACCEPT", rules, re.MULTILINE)
    ]
    return [
        f"iptables drops what no rule of INPUT lets in, and none names port {port}"
        for port in closed
    ]


def program_runs(name: str) -> bool:
    """Tell whether a program of that name runs."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                return True
        except OSError:
            continue
    return False


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    del check_mode  # nothing that lasts is ever changed
    clock = time.time()
    engine, swarm, root = engine_facts(params["socket"])
    interface, mtu = way_to(params["peers"])
    storage = storage_facts(params["storage"], params["timeout"])
    is_usable = storage["kind"] != "unknown" and not engine["docker_error"]
    facts = {
        "clock": clock,
        **machine_facts(root),
        **engine,
        "interface": interface,
        "mtu": mtu,
        "addresses": local_addresses(Path("/proc/net/fib_trie").read_text(encoding="ascii")),
        "swarm": swarm,
        "ports": port_facts(params["peers"], swarm, params["timeout"]),
        "storage": {
            **storage,
            "elsewhere": elsewhere(params["socket"], params["storage"]) if is_usable else {},
        },
        "ways_out": "" if engine["docker_error"] else ways_out(Docker(params["socket"])),
        "closed": None if engine["docker_error"] else closed(Docker(params["socket"])),
        "firewall": firewall_hints(),
    }
    return {"changed": False, "epic_facts": facts}


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
