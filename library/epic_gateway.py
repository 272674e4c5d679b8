#!/usr/bin/python
"""Ansible module: the gateway of a site, and the routes through it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_gateway
short_description: Converge the gateway of a site on this Docker host, and a cluster's routes
description:
  - Makes the container that all people come in by, with a network and a volume of its own; what
    it needs to know is in files of the volume, which nobody but the gateway can read.
  - Routes of clusters are changed in the files and in the running gateway, which is not
    reloaded, so that no connection ends.
  - A hash of what is wanted of the container, kept in the label C(epic.spec), tells whether it is
    as wanted; one that differs is made anew, and its routes stay.
options:
  name:
    description: The gateway's name; its container, network and volume are C(epic-NAME).
    type: str
    required: true
  state:
    description:
      - C(started) makes and starts the gateway, or hands a running one its new files.
      - C(absent) removes it with its network and its volume.
      - C(routed) makes the routes of one cluster what is given; C(unrouted) removes them, and
        leaves the tenant's network with its last cluster.
    type: str
    choices: [started, absent, routed, unrouted]
    default: started
  image:
    description: The image of a gateway to start.
    type: str
  publish:
    description: Where a gateway to start is reached. Keys C(address), C(port).
    type: dict
    default: {}
  memory_bytes:
    description: How much memory a gateway to start may use.
    type: int
    default: 536870912
  labels:
    description: More labels for the container.
    type: dict
    default: {}
  files:
    description: Names of files in the volume, and what is in them. Never logged.
    type: dict
    default: {}
  network:
    description: The tenant's network, which the routes lead into.
    type: str
  prefix:
    description: What the keys of all routes of the cluster begin with, C(TENANT/CLUSTER).
    type: str
  routes:
    description: The cluster's routes, by key.
    type: dict
    default: {}
  token:
    description: The cluster's token, which the gateway hands to services that ask for one.
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
- name: Open the way to a cluster
  epic_gateway:
    name: gateway
    state: routed
    network: epic.analytics
    prefix: analytics/lab
    routes:
      analytics/lab/master-1/spark-master: epic.analytics.lab.master-1|8080|strip|*
"""

RETURN = r"""
done:
  description: What was changed.
  type: list
  returned: always
missing_images:
  description: The image that a gateway is to be made of and that the host does not have.
  type: list
  returned: failure
"""

import fcntl
import hashlib
import json
import time
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError, archive, hold

FOLDER = "/var/lib/gateway"
ROUTES = "routes.map"
TOKENS = "tokens.map"
ACCOUNT = 901
PORT = 8443
READY_SECONDS = 20

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {
        "type": "str",
        "choices": ["started", "absent", "routed", "unrouted"],
        "default": "started",
    },
    "image": {"type": "str"},
    "publish": {"type": "dict", "default": {}},
    "memory_bytes": {"type": "int", "default": 512 * 2**20},
    "labels": {"type": "dict", "default": {}},
    "files": {"type": "dict", "default": {}, "no_log": True},
    "network": {"type": "str"},
    "prefix": {"type": "str"},
    "routes": {"type": "dict", "default": {}},
    "token": {"type": "str", "default": "", "no_log": True},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


class GatewayError(Exception):
    """The gateway is not as it has to be."""


class Converger:
    """Brings the gateway, or one cluster's routes, to the wanted state."""

    def __init__(self, params: dict[str, Any], *, check: bool) -> None:
        self.p = params
        self.check = check
        self.docker = Docker(params["socket"])
        self.name = f"epic-{params['name']}"
        self.done: list[str] = []
        self.missing_images: list[str] = []

    # -- the four states -------------------------------------------------------------------

    def started(self) -> None:
        """Make the gateway, or bring the one there is to what is wanted."""
        spec = self.container_spec()
        found = self.container()
        image = spec["Image"]
        if not self.docker.request("GET", f"/images/{image}/json", missing_ok=True):
            self.missing_images.append(image)
            raise GatewayError(f"this host does not have the image {image}")
        if found and found["Config"]["Labels"].get("epic.spec") != spec["Labels"]["epic.spec"]:
            self.act("container removed", "DELETE", f"/containers/{self.name}", force="1")
            found = None
        if not found:
            self.make(spec)
        # An older gateway's routes are in the volume still.
        maps = {name: self.file(name) for name in (ROUTES, TOKENS)}
        changed = self.write({**self.p["files"], **maps}, old=found)
        self.join(found, maps[ROUTES])
        if found and found["State"]["Running"]:
            if changed:
                self.act("reloaded", "POST", f"/containers/{self.name}/kill", signal="USR2")
        else:
            self.act("started", "POST", f"/containers/{self.name}/start")
        if self.done and not self.check:
            self.wait()

    def absent(self) -> None:
        """Remove the gateway with all that is its own."""
        if self.container():
            self.act("container removed", "DELETE", f"/containers/{self.name}", force="1")
        if self.docker.request("GET", f"/networks/{self.name}", missing_ok=True):
            self.act("network removed", "DELETE", f"/networks/{self.name}")
        if self.has_volume():
            self.act("volume removed", "DELETE", f"/volumes/{self.name}")

    def routed(self) -> None:
        """Make the cluster's routes what is wanted."""
        found = self.container()
        if not found:
            raise GatewayError(f"there is no gateway {self.name}; `epic-run gateway up` makes it")
        if self.p["network"] not in found["NetworkSettings"]["Networks"]:
            self.connect(self.p["network"])
        token = {self.p["prefix"]: self.p["token"]} if self.p["token"] else {}
        self.change(found, self.p["routes"], token)

    def unrouted(self) -> None:
        """Remove the cluster's routes; leave the tenant's network with the last."""
        found = self.container()
        if not found:
            return
        self.change(found, {}, {})
        tenant = f"{self.p['prefix'].split('/')[0]}/"
        others = any(key.startswith(tenant) for key in entries(self.file(ROUTES)))
        if not others and self.p["network"] in found["NetworkSettings"]["Networks"]:
            self.act(
                "network left",
                "POST",
                f"/networks/{self.p['network']}/disconnect",
                {"Container": self.name, "Force": True},
            )

    # -- parts -----------------------------------------------------------------------------

    def act(self, what: str, method: str, url: str, body: Any = None, **query: Any) -> None:
        """Change something by one request, and note what."""
        self.done.append(what)
        if not self.check:
            self.docker.request(method, url, body, query or None, missing_ok=method == "DELETE")

    def container(self) -> dict[str, Any] | None:
        """Return what Docker knows of the gateway's container; None where there is none."""
        found: dict[str, Any] | None = self.docker.request(
            "GET", f"/containers/{self.name}/json", missing_ok=True
        )
        return found

    def join(self, found: dict[str, Any] | None, routes: str) -> None:
        """Join the networks of all tenants that have routes."""
        joined = found["NetworkSettings"]["Networks"] if found else {}
        for tenant in sorted({key.split("/")[0].rstrip(".") for key in entries(routes)}):
            for network in self.docker.labelled("networks", {"epic.tenant": tenant}):
                if network["Name"] not in joined and "epic.egress" not in network["Labels"]:
                    self.connect(network["Name"])

    def connect(self, network: str) -> None:
        """Join a network."""
        body = {"Container": self.name}
        self.act("network joined", "POST", f"/networks/{network}/connect", body)

    def make(self, spec: dict[str, Any]) -> None:
        """Make the container with its network and volume."""
        own = {"epic.gateway": self.p["name"]}
        if not self.docker.request("GET", f"/networks/{self.name}", missing_ok=True):
            body = {"Name": self.name, "CheckDuplicate": True, "Driver": "bridge", "Labels": own}
            self.act("network made", "POST", "/networks/create", body)
        if not self.has_volume():
            body = {"Name": self.name, "Labels": own}
            self.act("volume made", "POST", "/volumes/create", body)
        self.act("container made", "POST", "/containers/create", spec, name=self.name)

    def has_volume(self) -> bool:
        """Whether there is the gateway's volume.

        All of its label are listed: asked for one that is missing, an engine from Docker 23 on
        asks the swarm, and fails where an older one leads that (seen with 26 and 20.10).
        """
        volumes = self.docker.labelled("volumes", {"epic.gateway": self.p["name"]})
        return any(volume["Name"] == self.name for volume in volumes)

    def file(self, name: str) -> str:
        """Return what a file of the volume holds; nothing where there is none."""
        return (self.docker.read_file(self.name, f"{FOLDER}/{name}") or b"").decode()

    def write(self, files: dict[str, str], *, old: Any) -> bool:
        """Write those files that differ; tell whether there were any."""
        wanted = {
            name: content
            for name, content in files.items()
            if not old or self.docker.read_file(self.name, f"{FOLDER}/{name}") != content.encode()
        }
        if not wanted:
            return False
        members = {
            name: {"content": content, "mode": "0600", "uid": ACCOUNT, "gid": ACCOUNT}
            for name, content in wanted.items()
        }
        self.act(
            f"wrote {', '.join(sorted(wanted))}",
            "PUT",
            f"/containers/{self.name}/archive",
            archive(members),
            path=FOLDER,
        )
        return True

    def change(self, found: dict[str, Any], routes: dict[str, str], tokens: dict[str, str]) -> None:
        """Put the cluster's entries into the maps: into the files, and into the running gateway.

        Also where the files were as wanted: a run that was cut off behind them has not told the
        gateway, which alone knows what it leads to.
        """
        self.write(
            {ROUTES: self.merged(ROUTES, routes), TOKENS: self.merged(TOKENS, tokens)}, old=found
        )
        if found["State"]["Running"] and not self.check:
            code, told, problem = self.docker.execute(
                self.name, ["/usr/local/sbin/epic-gateway-sync"], user=str(ACCOUNT)
            )
            if code:
                raise GatewayError(f"the gateway did not take its new routes: {problem.strip()}")
            if any(count for changed in json.loads(told).values() for count in changed.values()):
                self.done.append("told the running gateway")

    def merged(self, name: str, own: dict[str, str]) -> str:
        """Return a map's file with other clusters' entries as they are, and `own` for ours."""
        prefix = self.p["prefix"]
        others = {
            key: value
            for key, value in entries(self.file(name)).items()
            if key != prefix and not key.startswith(f"{prefix}/")
        }
        return "".join(f"{key} {value}\n" for key, value in sorted({**others, **own}.items()))

    def wait(self) -> None:
        """Wait until the gateway serves.

        Raises:
            GatewayError: It ended instead, or took too long.
        """
        end = time.monotonic() + READY_SECONDS
        command = ["curl", "-sk", "--max-time", "2", f"https://127.0.0.1:{PORT}/-/health"]
        while True:
            found = self.container()
            if not found or not found["State"]["Running"] or found["State"]["Restarting"]:
                break
            if self.docker.execute(self.name, command, user=str(ACCOUNT))[0] == 0:
                return
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        raise GatewayError(f"the gateway does not start; see `docker logs {self.name}`")

    def container_spec(self) -> dict[str, Any]:
        """Return the container's description in Docker's terms, with its hash in a label."""
        publish = self.p["publish"]
        binding = {"HostIp": publish["address"], "HostPort": str(publish["port"])}
        spec: dict[str, Any] = {
            "Hostname": self.name,
            "Image": self.p["image"],
            "User": f"{ACCOUNT}:{ACCOUNT}",
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "HostConfig": {
                "Memory": self.p["memory_bytes"],
                "MemorySwap": self.p["memory_bytes"],
                "PidsLimit": 128,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "ReadonlyRootfs": True,
                "Tmpfs": {"/run/gateway": f"uid={ACCOUNT},gid={ACCOUNT},mode=0700,size=1m"},
                # It is in the networks of all tenants, and must lead from none to another.
                "Sysctls": {"net.ipv4.ip_forward": "0"},
                "Mounts": [{"Type": "volume", "Source": self.name, "Target": FOLDER}],
                "PortBindings": {f"{PORT}/tcp": [binding]},
                # Its name sorts before those of tenants' networks (epic.TENANT), so that Docker
                # takes this one's way out for answers.
                "NetworkMode": self.name,
                # Of an engine that was killed, nothing else brings it back (seen with Docker 26).
                "RestartPolicy": {"Name": "always"},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}},
            },
        }
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
        spec["Labels"] = {
            **self.p["labels"],
            "epic.gateway": self.p["name"],
            "epic.spec": digest,
        }
        return spec


def entries(text: str) -> dict[str, str]:
    """Return the entries of a map's file."""
    return dict(line.split(" ", 1) for line in text.splitlines() if line)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    converger = Converger(params, check=check_mode)
    try:
        # Launches of many clusters change the same files.
        with hold(f"gateway.{params['name']}", fcntl.LOCK_EX):
            getattr(converger, params["state"])()
    except (DockerError, GatewayError) as problem:
        return {
            "failed": True,
            "msg": str(problem),
            "done": converger.done,
            "missing_images": converger.missing_images,
            **converger.docker.absence(),
        }
    return {"changed": bool(converger.done), "done": converger.done}


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
