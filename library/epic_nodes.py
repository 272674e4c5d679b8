#!/usr/bin/python
"""Ansible module: all nodes of a cluster on one Docker host, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_nodes
short_description: Converge the nodes of a cluster on this Docker host
description:
  - Makes the tenant's network and volumes, then all nodes of a cluster that this host is to
    have, in parallel, over the engine's local socket. One call handles a whole host, which is
    three to four times as fast as one module call per container.
  - A hash of what is wanted, kept in the label C(epic.spec), tells whether a node is as wanted.
    A node that is, is not touched. A node that differs is made anew; its volumes are kept.
  - Everything carries the labels C(epic.tenant), C(epic.cluster), C(epic.role), C(epic.index).
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  tenant:
    description: The tenant's name.
    type: str
    required: true
  state:
    description:
      - C(started) makes and starts the nodes that are missing or stopped.
      - C(stopped) stops the nodes and keeps them.
      - C(absent) removes the nodes with their volumes; without O(nodes), everything that
        carries the cluster's labels on this host, and the tenant's network when it was the last.
    type: str
    choices: [started, stopped, absent]
    default: started
  network:
    description:
      - The tenant's network. Keys C(name), and C(spans) for one that spans hosts; the module
        epic_network makes that, and a bridge of one host is O(egress), too.
    type: dict
    default: {}
  egress:
    description:
      - The bridge by which nodes reach what is outside of the tenant's network, which is the
        tenant's network itself where that does not span hosts.
      - Keys C(network) (its name), C(allow) (a list of C(to), C(port)), C(closed) (networks that
        stay closed in any case), C(image) (of the firewall), and if wanted C(subnet) with
        C(gateway), C(mtu).
      - Without it, a network that does not span hosts is an ordinary bridge of Docker's.
      - Nodes are only made once the host's firewall has the rules in force.
    type: dict
    default: {}
  volumes:
    description:
      - Volumes of the tenant that every node mounts, as a list of C(name), C(target), and for one
        that is not each host's own C(storage), a folder or C(nfs://SERVER/PATH), in which the
        tenant gets a folder, and C(marks), whether it may be taken into use here as such.
    type: list
    elements: dict
    default: []
  node_roles:
    description:
      - What the nodes of each node role have in common. Keys C(image), C(cores),
        C(memory_bytes), C(pids_limit), C(disk_bytes) (kept to where the engine can, and watched, if
        not 0; a volume that is there keeps the size it was made with), C(files) (path to
        C(content), C(mode), C(uid), C(gid), C(quiet) for one that no service reads),
        C(secrets) (files that nobody shall see, which is why the option is never logged).
    type: dict
    default: {}
  nodes:
    description:
      - The nodes of this host. Keys C(name), C(short_name), C(container), C(role), C(index),
        C(ports) (a list of C(container_port), C(host_port)), C(address) on the network,
        C(keep_volume) for one that is removed without its volume.
    type: list
    elements: dict
  labels:
    description: More labels for each container.
    type: dict
    default: {}
  verify:
    description: Also compare the files inside existing nodes, and mend those that differ.
    type: bool
    default: false
  leave_running:
    description: Leave running nodes as they are, even when they differ from what is wanted.
    type: bool
    default: false
  disk_seconds:
    description: Seconds between two looks at what a node holds on disk.
    type: int
    default: 300
  stop_timeout:
    description: Seconds that a node's services have for ending before they are killed.
    type: int
    default: 10
  parallel:
    description: How many nodes are handled at once.
    type: int
    default: 6
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Bring up the nodes of a cluster
  epic_nodes:
    cluster: lab
    tenant: analytics
    network: {name: epic.analytics}
    egress:
      network: epic.analytics
      image: epic/firewall:1.0-r1
      allow: [{to: 10.1.0.0/16, port: 8020}]
      closed: [192.0.2.11]
    node_roles:
      worker: {image: "epic/spark:3.5.9-r6", cores: 1, memory_bytes: 2147483648, files: {}}
    nodes:
      - name: lab-worker-1
        short_name: worker-1
        container: epic.analytics.lab.worker-1
        role: worker
        index: 1
"""

RETURN = r"""
nodes:
  description: What was done with each node, by its short name.
  type: dict
  returned: always
  sample: {worker-1: created, worker-2: unchanged}
files_changed:
  description: The files that were not as wanted in nodes that are kept, by the nodes' short names.
  type: dict
  returned: always
  sample: {worker-1: [/etc/epic/passwd]}
failed_nodes:
  description: Why nodes failed, by their short names.
  type: dict
  returned: failure
port_clashes:
  description: The failed nodes of which another program has a port.
  type: list
  returned: failure
missing_images:
  description: The images that nodes are to be made of and that the host does not have.
  type: list
  returned: failure
"""

import contextlib
import fcntl
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.epic_disk import has_size, limits_layers, new_volume
from ansible.module_utils.epic_docker import Docker, DockerError, hold, tenant_lock
from ansible.module_utils.epic_egress import (
    BRIDGE_OPTION,
    Firewall,
    FirewallError,
    bridge_options,
    host_resolvers,
    policy_of,
)
from ansible.module_utils.epic_overlay import Stay
from ansible.module_utils.epic_volumes import ensure_volume

CONFLICT = 409
PORT_TAKEN = re.compile(r"port is already allocated|address already in use")
NETWORK_LEAVING = re.compile(
    r"network \S+ not found|attaching to network failed|[Cc]ould not attach to network"
)
# An engine asks the managers for 20 seconds before it gives up by itself.
NETWORK_SECONDS = 60.0
# An engine that was killed while it started a container takes it for one that runs already.
UNSTARTABLE = re.compile(r"task \S+: already exists")
MANIFEST = "/etc/epic/manifest.json"
# An engine that was killed takes the containers that it finds alive for stopped by hand (seen with
# Docker 26), so that only this policy has it start them again; it would start stopped ones as well.
COMES_BACK = {"Name": "always"}
STAYS_STOPPED = {"Name": "no"}

# Prints the bytes on the node's volume and those that it has written beside its image, and fails
# where they are more than $1. What cannot be counted in time is no failure.
DISK_CHECK = """
count() { timeout 100 "$@" 2>/dev/null; }
used=$({
    count du -sxk /data
    count find / -xdev -type f -newercc /.dockerenv -printf '%k\\n'
} | awk '{ sum += $1 } END { printf "%.0f", sum * 1024 }')
echo "$used"
[ "$used" -le "$1" ]
"""
DISK_CHECK_SECONDS = 240

# The server of names of nodes that nothing is open to: their own loopback, where none is. Docker
# asks those that it is told of from within the node, but those of the host's resolv.conf from the
# host, past all rules (of its loopback before Docker 27, of any address since). It answers for
# containers itself as before.
NO_RESOLVER = "127.0.0.1"

# What root inside a node needs to set up users, run services under their own accounts and use
# sudo; everything else that Docker grants by default is dropped.
CAPABILITIES = [
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL",
    "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT",
]  # fmt: skip

ARGUMENT_SPEC: dict[str, Any] = {
    "cluster": {"type": "str", "required": True},
    "tenant": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["started", "stopped", "absent"],
        "default": "started",
    },
    "network": {"type": "dict", "default": {}},
    "egress": {"type": "dict", "default": {}},
    "volumes": {"type": "list", "elements": "dict", "default": []},
    "node_roles": {"type": "dict", "default": {}, "no_log": True},
    "nodes": {"type": "list", "elements": "dict"},
    "labels": {"type": "dict", "default": {}},
    "verify": {"type": "bool", "default": False},
    "leave_running": {"type": "bool", "default": False},
    "disk_seconds": {"type": "int", "default": 300},
    "stop_timeout": {"type": "int", "default": 10},
    "parallel": {"type": "int", "default": 6},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


class Converger:
    """Brings one host's part of a cluster to the wanted state."""

    def __init__(self, params: dict[str, Any], *, check: bool) -> None:
        self.p = params
        self.check = check
        self.docker = Docker(params["socket"])
        self.firewall = Firewall(self.docker)
        self.bridge: dict[str, Any] = {}
        self.info: dict[str, Any] | None = None
        self.told = False
        self.volumes: dict[str, dict[str, Any]] = {}
        self.stay = Stay(
            self.docker,
            params["network"].get("name", ""),
            f"epic.{params['tenant']}.{params['cluster']}.stay",
        )
        self.owner = {"epic.tenant": params["tenant"], "epic.cluster": params["cluster"]}
        self.done: dict[str, str] = {}
        self.files_changed: dict[str, list[str]] = {}
        self.failed: dict[str, str] = {}
        self.missing_images: list[str] = []
        self.port_clashes: list[str] = []

    # -- the three states ------------------------------------------------------------------

    def started(self) -> None:
        """Make what is missing and start what does not run."""
        # Together with other launches of the tenant, but not with the removal of its network.
        with self.held(tenant_lock(self.p["tenant"]), fcntl.LOCK_SH):
            live = self.live()
            self.missing_images = self.images_to_get(live)
            if self.missing_images and not self.check:
                return
            if not self.check:
                self.ensure_network()
            with self.firewalled(), contextlib.ExitStack() as ended:
                ended.callback(self.stay.end)
                if not self.check:
                    self.ensure_volumes()
                    self.volumes = {
                        volume["Labels"].get("epic.node"): volume
                        for volume in self.docker.labelled("volumes", self.owner)
                    }
                # Masters come first in the list: others wait for them, so they get a head start.
                self.each(self.p["nodes"] or [], lambda node: self.start(node, live))

    def stopped(self) -> None:
        """Stop the nodes and keep them."""
        wanted = self.wanted_names()
        self.each(
            [c for name, c in self.live().items() if wanted is None or name in wanted], self.stop
        )

    def absent(self) -> None:
        """Remove the nodes with their volumes, and an unused network with the last."""
        wanted = self.wanted_names()
        containers = [c for name, c in self.live().items() if wanted is None or name in wanted]
        self.each(containers, self.remove)
        if self.failed:
            return
        if wanted is None and not self.check:
            self.stay.remove()  # of a run that was killed
        kept = {n["short_name"] for n in self.p["nodes"] or [] if n.get("keep_volume")}
        for volume in self.docker.labelled("volumes", self.owner):
            name = volume["Labels"].get("epic.node")
            if wanted is None or (name in wanted and name not in kept):
                self.remove_volume(volume["Name"])
        if wanted is None:
            self.remove_network()

    # -- parts -----------------------------------------------------------------------------

    def held(self, name: str, how: int) -> contextlib.AbstractContextManager[None]:
        """Hold a lock of this host, unless it is only looked: that must keep nobody from work."""
        return contextlib.nullcontext() if self.check else hold(name, how)

    def wanted_names(self) -> set[str] | None:
        """Return the short names the task speaks of; None for all."""
        if self.p["nodes"] is None:
            return None
        return {node["short_name"] for node in self.p["nodes"]}

    def live(self) -> dict[str, dict[str, Any]]:
        """The cluster's containers on this host, by short name; other people's are not seen."""
        return {
            f"{c['Labels']['epic.role']}-{c['Labels']['epic.index']}": c
            for c in self.docker.labelled("containers", self.owner)
        }

    def each(self, items: list[Any], act: Callable[[Any], tuple[str, str]]) -> None:
        """Do something with every item at once, and keep what came of each."""

        def guarded(item: Any) -> None:
            try:
                name, outcome = act(item)
                self.done[name] = outcome
            except DockerError as problem:
                self.failed[short_name(item)] = str(problem)

        with ThreadPoolExecutor(self.p["parallel"]) as pool:
            list(pool.map(guarded, items))

    def images_to_get(self, live: dict[str, Any]) -> list[str]:
        """Return the images that nodes are to be made of and that this host does not have."""
        wanted = set()
        for node in self.p["nodes"] or []:
            spec = self.container_spec(node)
            found = live.get(node["short_name"])
            if not found or self.is_other(found, spec):
                wanted.add(spec["Image"])
        if wanted and self.p["egress"]:
            wanted.add(self.p["egress"]["image"])
        return sorted(
            image
            for image in wanted
            if not self.docker.request("GET", f"/images/{image}/json", missing_ok=True)
        )

    def ensure_network(self) -> None:
        """Make the tenant's bridge where it is missing; what spans hosts is made by others."""
        wanted = self.p["egress"] or self.p["network"]
        if not wanted or wanted.get("spans"):
            return
        body: dict[str, Any] = {
            "Name": wanted.get("network") or wanted["name"],
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Labels": {"epic.tenant": self.p["tenant"]},
            "Options": {},
        }
        if self.p["egress"]:
            inside = wanted["network"] == self.p["network"]["name"]
            body["Options"] = bridge_options(
                wanted["network"], inside=inside, mtu=int(wanted.get("mtu") or 0)
            )
            if not inside:
                # Only nodes are on a bridge that is there for the way out.
                body["Labels"]["epic.egress"] = "1"
            if wanted.get("subnet"):
                addresses = {"Subnet": wanted["subnet"], "Gateway": wanted["gateway"]}
                body["IPAM"] = {"Config": [addresses]}
        # Docker's own check for duplicates does not hold between two requests at once.
        with hold(tenant_lock(self.p["tenant"], ""), fcntl.LOCK_EX):
            found = self.docker.request("GET", f"/networks/{body['Name']}", missing_ok=True)
            if found and self.p["egress"] and BRIDGE_OPTION not in found["Options"]:
                self.remove_older(found)
                found = None
            if not found:
                self.docker.request("POST", "/networks/create", body)
                found = self.docker.request("GET", f"/networks/{body['Name']}")
        self.bridge = found

    def remove_older(self, network: dict[str, Any]) -> None:
        """Remove a network of a version that had no firewall."""
        owner = {"epic.tenant": self.p["tenant"]}
        if self.docker.labelled("containers", owner):
            raise FirewallError(
                f"the network {network['Name']} was made by an older version, which had no "
                "firewall: destroy the tenant's clusters, then launch them again"
            )
        self.docker.remove_network(network["Id"])

    @contextlib.contextmanager
    def firewalled(self) -> Iterator[None]:
        """Have the tenant's rules in force on this host by the end of the block.

        Its nodes are started meanwhile: a new bridge has neither an address nor a translation of
        addresses before it has rules, so there is no way out of it, and an older one has the
        tenant's rules of before.
        """
        wanted = self.p["egress"]
        if self.check or not wanted:
            yield
            return
        policy = policy_of(self.p["tenant"], self.bridge, wanted, host_resolvers())
        with ThreadPoolExecutor(1) as aside:
            telling = aside.submit(self.firewall.tell, wanted["image"], policy)
            yield
            self.told = telling.result()

    def ensure_volumes(self) -> None:
        """Make the tenant's volumes where they are missing."""
        images = [self.p["node_roles"][node["role"]]["image"] for node in self.p["nodes"] or []]
        # A host that none of the nodes is on needs no volume.
        for volume in self.p["volumes"] if images else []:
            ensure_volume(self.docker, volume, self.p["tenant"], images[0])

    def start(self, node: dict[str, Any], live: dict[str, Any]) -> tuple[str, str]:
        """Bring one node to where it should be; return its name and what was done."""
        name = node["short_name"]
        spec = self.container_spec(node)
        found = live.get(name)
        if not found:
            return name, self.create(node, spec, "created")
        if self.p["leave_running"] and found["State"] == "running":
            return name, "unchanged"
        if self.is_other(found, spec):
            if not self.check:
                self.keep_network(node, found["State"])
                self.remove(found)
            return name, self.create(node, spec, "recreated")
        try:
            return name, self.wake(node, found["State"])
        except DockerError as problem:
            if not UNSTARTABLE.search(str(problem)):
                raise
            self.remove(found)
            return name, self.create(node, spec, "recreated")

    def wake(self, node: dict[str, Any], state: str) -> str:
        """Mend a node's files where they are not as wanted, and make it run if it does not."""
        if state == "paused" and not self.check:
            self.docker.request("POST", f"/containers/{node['container']}/unpause")
        files = self.files(node)
        drifted = self.drifted(node, files)
        if drifted:
            self.files_changed[node["short_name"]] = sorted(drifted)
        if any(not files.get(path, {}).get("quiet") for path in drifted):
            return self.mend(node, state, "started" if state == "created" else "mended")
        if drifted and not self.check:
            # No service reads them, so nothing is restarted.
            quiet = {path: file for path, file in files.items() if file.get("quiet")}
            self.docker.put_files(node["container"], {**quiet, **remembered(files)})
        if self.p["verify"] and state == "running" and not self.check:
            # One of an earlier version has another policy.
            self.set_policy(node["container"], COMES_BACK)
        if state in ("running", "paused"):
            fine = "updated" if drifted else "unchanged"
            return fine if state == "running" else "resumed"
        if not self.check:
            self.power(node, "start")
        return "started"

    def is_other(self, found: dict[str, Any], spec: dict[str, Any]) -> bool:
        """Whether a container is not what it should be, and has to be made anew."""
        return (
            found["State"] == "dead"
            or found["Labels"].get("epic.spec") != spec["Labels"]["epic.spec"]
        )

    def keep_network(self, node: dict[str, Any], state: str) -> None:
        """Keep a network that spans hosts here while a running node is stopped and started."""
        if state == "running" and self.p["network"].get("spans"):
            self.stay.begin(self.p["node_roles"][node["role"]]["image"])

    def power(self, node: dict[str, Any], how: str, **query: Any) -> None:
        """Start or restart a node, which comes back from now on whenever its engine starts."""
        self.set_policy(node["container"], COMES_BACK)
        path = f"/containers/{node['container']}/{how}"
        self.set_running(node, lambda: self.docker.request("POST", path, query=query))

    def set_policy(self, container: str, policy: dict[str, str]) -> None:
        """Tell what becomes of a container when its engine starts."""
        body = {"RestartPolicy": policy}
        try:
            self.docker.request("POST", f"/containers/{container}/update", body, missing_ok=True)
        except DockerError as problem:
            if problem.status != CONFLICT:
                raise  # one that is being removed has no need of it

    def set_running(self, node: dict[str, Any], begin: Callable[[], Any]) -> None:
        """Have a node begin to run.

        A network that spans hosts leaves a host with its last container there, and while it does,
        the engine cannot start one that is to bring it back; nor can it attach a container while
        the swarm's managers choose another leader, since a host has died.
        """
        end = time.monotonic() + NETWORK_SECONDS
        while True:
            try:
                with self.noting_clashes(node):
                    begin()
            except DockerError as problem:
                if not NETWORK_LEAVING.search(str(problem)) or time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    @contextlib.contextmanager
    def noting_clashes(self, node: dict[str, Any]) -> Iterator[None]:
        """Note when another program has one of the ports of a node that is being started."""
        try:
            yield
        except DockerError as problem:
            if PORT_TAKEN.search(str(problem)):
                self.port_clashes.append(node["short_name"])
            raise

    def create(self, node: dict[str, Any], spec: dict[str, Any], outcome: str) -> str:
        """Make a node's volume and container, fill it and start it."""
        if self.check:
            return outcome
        labels = {**self.owner, "epic.node": node["short_name"]}
        size = int(self.p["node_roles"][node["role"]].get("disk_bytes") or 0)
        # One that is there stays as it is, with its own size or none.
        volume = self.volumes.get(node["short_name"]) or new_volume(
            self.docker, node["container"], labels, size
        )
        # No part of the hash: whether a size can be kept to is the host's matter, and the name
        # follows from it; and stop and start change the policy.
        spec["HostConfig"]["Mounts"][0]["Source"] = volume["Name"]
        spec["HostConfig"]["RestartPolicy"] = COMES_BACK
        if has_size(volume) and self.limits_layers():
            spec["HostConfig"]["StorageOpt"] = {"size": str(size)}
        self.docker.request("POST", "/containers/create", spec, query={"name": node["container"]})
        bridge = spec["HostConfig"]["NetworkMode"]
        if bridge != self.p["network"]["name"]:
            body = {"Container": node["container"]}
            self.docker.request("POST", f"/networks/{bridge}/connect", body)
        files = self.files(node)
        filled = {**files, **remembered(files)}
        self.set_running(node, lambda: self.docker.start_with(node["container"], filled))
        return outcome

    def limits_layers(self) -> bool:
        """Whether the engine limits what containers write beside their volumes; asked once."""
        if self.info is None:
            self.info = self.docker.request("GET", "/info")
        return limits_layers(self.info)

    def files(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return all files of a node, secret ones too."""
        role = node["role"]
        return {
            **self.p["node_roles"][role].get("files", {}),
            **self.p["node_roles"][role].get("secrets", {}),
        }

    def drifted(self, node: dict[str, Any], files: dict[str, Any]) -> set[str]:
        """Return the files that the node was last filled with otherwise, or (`verify`) holds so."""
        wanted = digests(files)
        try:
            had = json.loads(self.docker.read_file(node["container"], MANIFEST) or b"")
        except ValueError:
            return {MANIFEST, *wanted}  # never filled to the end
        changed = {path for path in {*wanted, *had} if wanted.get(path) != had.get(path)}
        if self.p["verify"]:
            changed |= {
                path
                for path, file in files.items()
                if path not in changed and not self.docker.has_file(node["container"], path, file)
            }
        return changed

    def mend(self, node: dict[str, Any], state: str, outcome: str) -> str:
        """Write the wanted files again; the restart makes every service read them."""
        if not self.check:
            files = self.files(node)
            self.keep_network(node, state)
            self.discard(node, state, files)
            self.docker.put_files(node["container"], files)
            self.power(node, "restart", t=self.p["stop_timeout"])
            # Last: a run that is cut off before the restart has not mended the node.
            self.docker.put_files(node["container"], remembered(files))
        return outcome

    def discard(self, node: dict[str, Any], state: str, files: dict[str, Any]) -> None:
        """Remove files that a node was filled with and that are not wanted any more."""
        gone = sorted(
            filled_with(self.docker.read_file(node["container"], MANIFEST)) - files.keys()
        )
        if not gone:
            return
        if state not in ("running", "paused"):
            self.power(node, "start")
        code, _, problem = self.docker.execute(node["container"], ["rm", "-f", "--", *gone])
        if code:
            raise DockerError(0, f"Files that are not wanted any more stay: {problem.strip()}")

    def stop(self, container: dict[str, Any]) -> tuple[str, str]:
        """Stop one container."""
        name = short_name(container)
        if not self.check and container["State"] not in ("dead", "removing"):
            # Also of one that has ended by itself, which would come back otherwise.
            self.set_policy(container["Id"], STAYS_STOPPED)
        if container["State"] not in ("running", "restarting", "paused"):
            return name, "unchanged"
        if not self.check:
            self.docker.request(
                "POST",
                f"/containers/{container['Id']}/stop",
                query={"t": self.p["stop_timeout"]},
            )
        return name, "stopped"

    def remove(self, container: dict[str, Any]) -> tuple[str, str]:
        """Remove one container, whatever state it is in."""
        name = short_name(container)
        if not self.check:
            try:
                self.docker.request(
                    "DELETE",
                    f"/containers/{container['Id']}",
                    query={"force": "1"},
                    missing_ok=True,
                )
            except DockerError as problem:
                if problem.status != CONFLICT:
                    raise
                # Docker is at this very removal already, for somebody else.
                self.docker.request(
                    "POST",
                    f"/containers/{container['Id']}/wait",
                    query={"condition": "removed"},
                    missing_ok=True,
                )
        return name, "removed"

    def remove_volume(self, name: str) -> None:
        """Remove one volume."""
        if not self.check:
            self.docker.request("DELETE", f"/volumes/{name}", missing_ok=True)
        self.done.setdefault(f"volume {name}", "removed")

    def remove_network(self) -> None:
        """Remove the tenant's network, unless a container of the tenant is left or being made."""
        with contextlib.ExitStack() as held:
            try:
                name = tenant_lock(self.p["tenant"])
                held.enter_context(hold(name, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                return
            self.remove_unused_network()

    def remove_unused_network(self) -> None:
        """Remove the tenant's network, unless a container of the tenant is left."""
        for network in self.docker.labelled("networks", {"epic.tenant": self.p["tenant"]}):
            if network["Scope"] != "local":
                continue  # it stays for the other hosts, until the tenant goes
            if self.docker.labelled("containers", {"epic.tenant": self.p["tenant"]}):
                return
            if not self.check:
                self.docker.remove_network(network["Id"])
                self.firewall.forget(self.p["tenant"])
            self.done[f"network {network['Name']}"] = "removed"

    def container_spec(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return the container's description in Docker's terms, with its hash in a label."""
        role = self.p["node_roles"][node["role"]]
        mounts = [
            {"Type": "volume", "Source": node["container"], "Target": "/data"},
            *(
                {"Type": "volume", "Source": volume["name"], "Target": volume["target"]}
                for volume in self.p["volumes"]
            ),
        ]
        for mount in mounts:
            mount["VolumeOptions"] = {"NoCopy": True}
        ports = {
            f"{port['container_port']}/tcp": [
                {"HostIp": "127.0.0.1", "HostPort": str(port["host_port"])}
            ]
            for port in node.get("ports", [])
        }
        spec: dict[str, Any] = {
            "Hostname": node["name"],
            "Image": role["image"],
            "Env": [
                f"EPIC_TENANT={self.p['tenant']}",
                f"EPIC_CLUSTER={self.p['cluster']}",
                f"EPIC_ROLE={node['role']}",
                f"EPIC_NODE={node['short_name']}",
                f"EPIC_INDEX={node['index']}",
            ],
            "ExposedPorts": {port: {} for port in ports},
            # The node's files come this way, once.
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "HostConfig": {
                "NanoCpus": int(role["cores"]) * 10**9,
                "Memory": int(role["memory_bytes"]),
                "MemorySwap": int(role["memory_bytes"]),
                "ShmSize": int(role["memory_bytes"]) // 4,
                "PidsLimit": int(role["pids_limit"]),
                "CapDrop": ["ALL"],
                "CapAdd": CAPABILITIES,
                "Mounts": mounts,
                "PortBindings": ports,
                # The one that every engine finds when it starts: Docker 26 knows nothing of those
                # that span hosts before a container is on them.
                "NetworkMode": self.p["egress"].get("network") or self.p["network"]["name"],
                # Of earlier versions, whose nodes are not made anew for it.
                "RestartPolicy": {"Name": "unless-stopped"},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
            },
            "NetworkingConfig": {
                "EndpointsConfig": {
                    self.p["network"]["name"]: {
                        "Aliases": [node["name"]],
                        **(
                            {"IPAMConfig": {"IPv4Address": node["address"]}}
                            if node.get("address")
                            else {}
                        ),
                    }
                }
            },
        }
        if self.reaches_nothing():
            spec["HostConfig"]["Dns"] = [NO_RESOLVER]
        if role.get("disk_bytes"):
            spec["Healthcheck"] = self.disk_check(int(role["disk_bytes"]))
        # Files are not part of it: they can be mended without making the node anew.
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
        spec["Labels"] = {
            **self.p["labels"],
            **self.owner,
            "epic.role": node["role"],
            "epic.index": str(node["index"]),
            "epic.spec": digest,
        }
        return spec

    def reaches_nothing(self) -> bool:
        """Whether all that is outside of the tenant's network is closed to its nodes."""
        if self.p["egress"]:
            return not self.p["egress"]["allow"]
        return bool(self.p["network"].get("spans"))

    def disk_check(self, disk_bytes: int) -> dict[str, Any]:
        """Return the check by which the engine tells that a node holds more than its flavor's disk.

        The engine runs it, so no program waits in the node for it, and who lists containers is
        told of it by the way.
        """
        second = 10**9
        return {
            "Test": ["CMD", "nice", "-n", "19", "sh", "-c", DISK_CHECK, "sh", str(disk_bytes)],
            "Interval": self.p["disk_seconds"] * second,
            "Timeout": DISK_CHECK_SECONDS * second,
            "Retries": 1,
        }


def digests(files: dict[str, Any]) -> dict[str, str]:
    """Return a digest of each file's content, mode and owner."""
    return {
        path: hashlib.sha256(json.dumps(file, sort_keys=True).encode()).hexdigest()
        for path, file in files.items()
    }


def manifest(files: dict[str, Any]) -> str:
    """Return what a node remembers of its files."""
    return json.dumps(digests(files), sort_keys=True)


def filled_with(known: bytes | None) -> set[str]:
    """Return the paths that a node remembers; none where it was never filled as a whole."""
    try:
        return set(json.loads(known or b"{}"))
    except ValueError:
        return set()


def remembered(files: dict[str, Any]) -> dict[str, Any]:
    """Return the file by which a node remembers what it was filled with."""
    return {MANIFEST: {"content": manifest(files), "mode": "0600"}}


def short_name(item: dict[str, Any]) -> str:
    """Return a node's short name, from its wish or from its container."""
    if "short_name" in item:
        return item["short_name"]
    return f"{item['Labels']['epic.role']}-{item['Labels']['epic.index']}"


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    converger = Converger(params, check=check_mode)
    try:
        # A run whose controller died may still be at work here.
        with converger.held(tenant_lock(params["tenant"], params["cluster"]), fcntl.LOCK_EX):
            getattr(converger, params["state"])()
    except (DockerError, FirewallError) as problem:
        hint = getattr(problem, "hint", None)
        told = {"hint": hint} if hint else {}
        away = converger.docker.absence()
        return {"failed": True, "msg": str(problem), "nodes": converger.done, **told, **away}
    changed = any(outcome != "unchanged" for outcome in converger.done.values())
    result: dict[str, Any] = {
        "changed": changed or converger.told,
        "nodes": converger.done,
        "files_changed": converger.files_changed,
    }
    if converger.missing_images:
        images = converger.missing_images
        message = f"this host does not have the image {', '.join(images)}"
        result |= {"failed": True, "msg": message, "missing_images": images}
    if converger.failed:
        message = "; ".join(f"{name}: {why}" for name, why in sorted(converger.failed.items()))
        result |= {
            "failed": True,
            "msg": message,
            "failed_nodes": converger.failed,
            "port_clashes": converger.port_clashes,
            **converger.docker.absence(),
        }
    return result


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
