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
    description: The tenant's network; made when missing. Keys C(name), C(options).
    type: dict
    default: {}
  volumes:
    description: Volumes of the tenant that every node mounts, as a list of C(name), C(target).
    type: list
    elements: dict
    default: []
  node_roles:
    description:
      - What the nodes of each node role have in common. Keys C(image), C(cores),
        C(memory_bytes), C(pids_limit), C(files) (path to C(content), C(mode), C(uid), C(gid)).
    type: dict
    default: {}
  nodes:
    description:
      - The nodes of this host. Keys C(name), C(short_name), C(container), C(role), C(index),
        C(ports) (a list of C(container_port), C(host_port)).
    type: list
    elements: dict
  labels:
    description: More labels for each container.
    type: dict
    default: {}
  secrets:
    description: Files as in O(node_roles), but secret, by node role.
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
  stop_timeout:
    description: Seconds that a node's services have for ending before they are killed.
    type: int
    default: 10
  parallel:
    description: How many nodes are handled at once.
    type: int
    default: 6
  socket:
    description: The Docker engine's socket.
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
    node_roles:
      worker: {image: "epic/spark:3.5.9-r1", cores: 1, memory_bytes: 2147483648, files: {}}
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
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

CONFLICT = 409
NOT_MODIFIED = 304
MANIFEST = "/etc/epic/manifest.json"

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
    "volumes": {"type": "list", "elements": "dict", "default": []},
    "node_roles": {"type": "dict", "default": {}},
    "nodes": {"type": "list", "elements": "dict"},
    "labels": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "verify": {"type": "bool", "default": False},
    "leave_running": {"type": "bool", "default": False},
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
        self.owner = {"epic.tenant": params["tenant"], "epic.cluster": params["cluster"]}
        self.done: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    # -- the three states ------------------------------------------------------------------

    def started(self) -> None:
        """Make what is missing and start what does not run."""
        live = self.live()
        if not self.check:
            self.ensure_network()
            self.ensure_volumes()
        # Masters come first in the list: the others wait for them, so they get a head start.
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
        volumes = self.docker.labelled("volumes", self.owner)
        for volume in volumes:
            if wanted is None or volume["Labels"].get("epic.node") in wanted:
                self.remove_volume(volume["Name"])
        if wanted is None:
            self.remove_network()

    # -- parts -----------------------------------------------------------------------------

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

    def ensure_network(self) -> None:
        """Make the tenant's network where it is missing."""
        network = self.p["network"]
        if not network:
            return
        body = {
            "Name": network["name"],
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Labels": {"epic.tenant": self.p["tenant"]},
            "Options": network.get("options", {}),
        }
        if self.docker.request("GET", f"/networks/{network['name']}", missing_ok=True):
            return
        try:
            self.docker.request("POST", "/networks/create", body)
        except DockerError as problem:
            # A launch of the same tenant at the same moment made it: as wanted.
            if problem.status != CONFLICT:
                raise

    def ensure_volumes(self) -> None:
        """Make the tenant's volumes where they are missing."""
        for volume in self.p["volumes"]:
            self.make_volume(volume["name"], {"epic.tenant": self.p["tenant"]})

    def make_volume(self, name: str, labels: dict[str, str]) -> None:
        """Make a volume; Docker answers with the existing one where there is one."""
        self.docker.request("POST", "/volumes/create", {"Name": name, "Labels": labels})

    def start(self, node: dict[str, Any], live: dict[str, Any]) -> tuple[str, str]:
        """Bring one node to where it should be; return its name and what was done."""
        name = node["short_name"]
        spec = self.container_spec(node)
        found = live.get(name)
        if not found:
            return name, self.create(node, spec, "created")
        if self.p["leave_running"] and found["State"] == "running":
            return name, "unchanged"
        if (
            found["State"] == "dead"
            or found["Labels"].get("epic.spec") != spec["Labels"]["epic.spec"]
        ):
            if not self.check:
                self.remove(found)
            return name, self.create(node, spec, "recreated")
        if self.drifted(node):
            return name, self.mend(node, "started" if found["State"] == "created" else "mended")
        if found["State"] == "running":
            return name, "unchanged"
        if not self.check:
            self.docker.request("POST", f"/containers/{node['container']}/start")
        return name, "started"

    def create(self, node: dict[str, Any], spec: dict[str, Any], outcome: str) -> str:
        """Make a node's volume and container, fill it and start it."""
        if self.check:
            return outcome
        data = spec["HostConfig"]["Mounts"][0]["Source"]
        self.make_volume(data, {**self.owner, "epic.node": node["short_name"]})
        self.docker.request("POST", "/containers/create", spec, query={"name": node["container"]})
        self.fill(node)
        self.docker.request("POST", f"/containers/{node['container']}/start")
        return outcome

    def fill(self, node: dict[str, Any]) -> None:
        """Write a node's files, and the manifest of what they are."""
        files = self.files(node)
        self.docker.put_files(
            node["container"], {**files, MANIFEST: {"content": manifest(files), "mode": "0600"}}
        )

    def files(self, node: dict[str, Any]) -> dict[str, Any]:
        """Return all files of a node, secret ones too."""
        role = node["role"]
        return {
            **self.p["node_roles"][role].get("files", {}),
            **self.p["secrets"].get(role, {}),
        }

    def drifted(self, node: dict[str, Any]) -> bool:
        """Whether the node was last filled with other files, or (`verify`) holds other ones now."""
        files = self.files(node)
        if self.docker.read_file(node["container"], MANIFEST) != manifest(files).encode():
            return True
        return self.p["verify"] and any(
            self.docker.read_file(node["container"], path) != file["content"].encode()
            for path, file in files.items()
        )

    def mend(self, node: dict[str, Any], outcome: str) -> str:
        """Write the wanted files again; the restart makes every service read them."""
        if not self.check:
            self.fill(node)
            self.docker.request(
                "POST",
                f"/containers/{node['container']}/restart",
                query={"t": self.p["stop_timeout"]},
            )
        return outcome

    def stop(self, container: dict[str, Any]) -> tuple[str, str]:
        """Stop one container."""
        name = short_name(container)
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
                # Docker is at this very removal already.
                if problem.status != CONFLICT:
                    raise
        return name, "removed"

    def remove_volume(self, name: str) -> None:
        """Remove one volume."""
        if not self.check:
            self.docker.request("DELETE", f"/volumes/{name}", missing_ok=True)
        self.done.setdefault(f"volume {name}", "removed")

    def remove_network(self) -> None:
        """Remove the tenant's network, unless a container of the tenant is left."""
        for network in self.docker.labelled("networks", {"epic.tenant": self.p["tenant"]}):
            if self.docker.labelled("containers", {"epic.tenant": self.p["tenant"]}):
                return
            if not self.check:
                try:
                    self.docker.request("DELETE", f"/networks/{network['Id']}", missing_ok=True)
                except DockerError:
                    # Another launch of the tenant has just attached to it: it is in use.
                    return
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
                "NetworkMode": self.p["network"]["name"],
                "RestartPolicy": {"Name": "unless-stopped"},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
            },
            "NetworkingConfig": {
                "EndpointsConfig": {self.p["network"]["name"]: {"Aliases": [node["name"]]}}
            },
        }
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


def manifest(files: dict[str, Any]) -> str:
    """Return what a node remembers of its files: a digest of each one's content, mode and owner."""
    digests = {
        path: hashlib.sha256(json.dumps(file, sort_keys=True).encode()).hexdigest()
        for path, file in files.items()
    }
    return json.dumps(digests, sort_keys=True)


def short_name(item: dict[str, Any]) -> str:
    """Return a node's short name, from its wish or from its container."""
    if "short_name" in item:
        return item["short_name"]
    return f"{item['Labels']['epic.role']}-{item['Labels']['epic.index']}"


def lock(cluster: str, tenant: str) -> int:
    """Wait until no other run handles the cluster on this host; the kernel frees a dead one's."""
    folder = "/run/epic"
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs start-up time
    handle = os.open(f"{folder}/{tenant}.{cluster}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    handle = lock(params["cluster"], params["tenant"])
    converger = Converger(params, check=check_mode)
    try:
        getattr(converger, params["state"])()
    except DockerError as problem:
        return {"failed": True, "msg": str(problem), "nodes": converger.done}
    finally:
        os.close(handle)
    changed = any(outcome != "unchanged" for outcome in converger.done.values())
    result = {"changed": changed, "nodes": converger.done}
    if converger.failed:
        message = "; ".join(f"{name}: {why}" for name, why in sorted(converger.failed.items()))
        result |= {"failed": True, "msg": message, "failed_nodes": converger.failed}
    return result


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
