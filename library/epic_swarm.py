#!/usr/bin/python
"""Ansible module: a Docker host's membership in the swarm of all hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_swarm
short_description: Join, leave and keep the swarm that connects the Docker hosts
description:
  - Docker Swarm is the control plane of the networks that span hosts, and nothing else; no
    services run in it.
  - Hosts join as workers. A manager then promotes as many of them as keep the swarm alive when
    hosts fail, so the token of managers never leaves an engine.
options:
  state:
    description:
      - C(info) only tells what swarm the host is in.
      - C(present) brings the host into a swarm, with O(token) and O(managers) into an existing
        one, without them into a new one. A host that is in a swarm already stays there.
      - C(token) returns what a host needs to join; a task with it needs C(no_log).
      - C(managers), on a manager, promotes and demotes hosts until there are as many managers as
        a swarm of this size should have, and labels the hosts with O(names).
      - C(absent) takes the host out of its swarm. It must not be needed as manager any more,
        unless it is the last host.
      - C(removed), on a manager, deletes the entry of O(node), living or dead.
    type: str
    choices: [info, present, token, managers, absent, removed]
    default: info
  address:
    description:
      - The address by which the other hosts reach this one; needed by C(present). A name is
        looked up on this host.
    type: str
  token:
    description: The join token; it is in no result, but a task with it needs C(no_log).
    type: str
  managers:
    description: The managers to join by, as C(ADDRESS:PORT).
    type: list
    elements: str
    default: []
  address_pools:
    description: Networks of which a new swarm's overlays get a part; Docker's choice if empty.
    type: list
    elements: str
    default: []
  names:
    description: Labels for the nodes of the swarm, by node id; for C(managers).
    type: dict
    default: {}
  node:
    description:
      - A host of the swarm by node id, by its label C(epic.host), by address or by host name. With
        C(managers), one that is to leave, so it must not stay manager; with C(removed), the one
        whose entry is deleted.
    type: str
  addresses:
    description: Addresses by which O(node) is known, beside its name.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds within which a promoted host is a manager, or a leaving one has gone.
    type: int
    default: 60
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Tell what swarm the host is in
  epic_swarm:
  register: seen

- name: Keep enough managers
  epic_swarm:
    state: managers
    names: {x4d1k0: {epic.host: host-1}}
"""

RETURN = r"""
swarm:
  description: What the host knows of its swarm.
  type: dict
  returned: success
  sample:
    state: active
    role: manager
    control: true
    node_id: x4d1k0
    cluster: q9v2m7
    address: 192.0.2.11
    managers: ["192.0.2.11:2377"]
    error: ""
actions:
  description: What was done, a line each.
  type: list
  returned: success
found:
  description: Whether the swarm has the host that O(node) names; for C(removed).
  type: bool
  returned: success
nodes:
  description: The names of all hosts of the swarm; for C(managers) and C(removed).
  type: list
  returned: success
manager_names:
  description: The names of those that are managers; for C(managers).
  type: list
  returned: success
join:
  description: The token, the managers and the ids of all nodes, for C(token).
  type: dict
  returned: success
"""

import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

PORT = 2377
POLL_SECONDS = 0.2
# How long a host that was demoted may take to notice, until it leaves by force.
NOTICE_SECONDS = 15
HOST_LABEL, RACK_LABEL = "epic.host", "epic.rack"

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {
        "type": "str",
        "choices": ["info", "present", "token", "managers", "absent", "removed"],
        "default": "info",
    },
    "address": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "managers": {"type": "list", "elements": "str", "default": []},
    "address_pools": {"type": "list", "elements": "str", "default": []},
    "names": {"type": "dict", "default": {}},
    "node": {"type": "str"},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 60},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}

Node = Mapping[str, Any]


class SwarmError(Exception):
    """The swarm cannot be brought to what is wanted."""


# -- decisions -------------------------------------------------------------------------------------


def managers_wanted(hosts: int) -> int:
    """Return how many of a swarm's hosts should be managers.

    A majority of them has to live: 3 survive the loss of one, 5 of two. More only make agreeing
    slower, and of 2 either one's loss would be fatal.
    """
    if hosts <= 2:  # noqa: PLR2004 - the docstring tells why
        return 1
    return 3 if hosts <= 4 else 5  # noqa: PLR2004 - likewise


def is_manager(node: Node) -> bool:
    """Whether a host is meant to be a manager."""
    return node["Spec"]["Role"] == "manager"


def is_reachable(node: Node) -> bool:
    """Whether a host acts as a manager."""
    return (node.get("ManagerStatus") or {}).get("Reachability") == "reachable"


def name_of(node: Node) -> str:
    """Return what the inventory calls a host, or what it calls itself."""
    return (node["Spec"].get("Labels") or {}).get(HOST_LABEL) or node["Description"]["Hostname"]


def rack_of(node: Node) -> str:
    """Return a host's rack; without a name all are in one."""
    return str((node["Spec"].get("Labels") or {}).get(RACK_LABEL, ""))


def address_of(node: Node) -> str:
    """Return a host's address; a manager's own entry has it in another place."""
    manager = (node.get("ManagerStatus") or {}).get("Addr", "")
    if manager:
        return str(manager).rpartition(":")[0].strip("[]")
    return str((node.get("Status") or {}).get("Addr", ""))


def find(nodes: Sequence[Node], name: str, addresses: Sequence[str]) -> Node | None:
    """Return the host that is meant: by id, by its label, by address, or by host name.

    Raises:
        SwarmError: Several hosts answer to it.
    """
    ways = [
        lambda node: node["ID"] == name,
        lambda node: (node["Spec"].get("Labels") or {}).get(HOST_LABEL) == name,
        lambda node: address_of(node) in {name, *addresses},
        # A host that is known under another name is not meant, whatever it calls itself.
        lambda node: name_of(node) == name,
    ]
    for way in ways:
        fitting = [node for node in nodes if way(node)]
        if len(fitting) > 1:
            ids = ", ".join(node["ID"] for node in fitting)
            raise SwarmError(f'Several hosts of the swarm are called "{name}": give one of {ids}')
        if fitting:
            return fitting[0]
    return None


def stale(nodes: Sequence[Node], names: Mapping[str, Mapping[str, str]]) -> list[Node]:
    """Return the entries of earlier lives: their hosts have been made anew and joined again."""
    alive = {labels[HOST_LABEL] for labels in names.values() if HOST_LABEL in labels}
    return [
        node
        for node in nodes
        if node["ID"] not in names and name_of(node) in alive and node["Status"]["State"] == "down"
    ]


def role_changes(
    nodes: Sequence[Node], own_id: str, leaving_id: str = ""
) -> tuple[list[Node], list[Node]]:
    """Choose whom to promote and whom to demote, so that there are as many managers as wanted.

    Who is manager stays so where that fits. New ones are alive, and in the racks that have fewest.
    Of too many the unreachable go first. The manager that is asked never demotes itself: it could
    not see it through.

    Args:
        nodes: All hosts of the swarm.
        own_id: The manager that is asked.
        leaving_id: A host that is to leave, and may be no manager.
    """
    staying = sorted(
        (node for node in nodes if node["ID"] != leaving_id),
        key=lambda node: (node["ID"] != own_id, not is_reachable(node), name_of(node)),
    )
    managers = [node for node in staying if is_manager(node)]
    wanted = managers_wanted(len(staying))
    ready = [
        node for node in staying if not is_manager(node) and node["Status"]["State"] == "ready"
    ]
    promoted: list[Node] = []
    while ready and len(managers) + len(promoted) < wanted:
        racks = Counter(rack_of(node) for node in managers + promoted)
        promoted.append(min(ready, key=lambda node: racks[rack_of(node)]))
        ready.remove(promoted[-1])
    demoted = [
        node
        for node in nodes
        if node["ID"] == leaving_id and is_manager(node) and leaving_id != own_id
    ]
    # The dead first: of two that are left of three, none can be spared before the third is gone.
    demoted += [node for node in reversed(managers[wanted:]) if node["ID"] != own_id]
    return promoted, demoted


# -- deeds -----------------------------------------------------------------------------------------


class Swarm:
    """The swarm as one host's engine sees it."""

    def __init__(self, params: dict[str, Any], *, check: bool) -> None:
        self.p = params
        self.check = check
        self.docker = Docker(params["socket"])
        self.actions: list[str] = []
        self.extra: dict[str, Any] = {}

    def info(self) -> dict[str, Any]:
        """Return what this host knows of its swarm."""
        try:
            swarm = self.docker.request("GET", "/info").get("Swarm") or {}
        except DockerError as problem:
            # What is only tried has not installed the engine, which would be in no swarm.
            if problem.status or not self.check:
                raise
            swarm = {}
        state = swarm.get("LocalNodeState") or "inactive"
        manager = bool(swarm.get("ControlAvailable"))
        return {
            "state": state,
            "role": ("manager" if manager else "worker") if state != "inactive" else "",
            # A manager without most of the others, or one that they have removed, can do nothing.
            "control": manager and not swarm.get("Error"),
            "node_id": swarm.get("NodeID") or "",
            "cluster": (swarm.get("Cluster") or {}).get("ID") or "",
            "address": swarm.get("NodeAddr") or "",
            "managers": sorted(item["Addr"] for item in swarm.get("RemoteManagers") or []),
            "error": swarm.get("Error") or "",
        }

    def nodes(self) -> list[dict[str, Any]]:
        """Return all hosts of the swarm; only a manager knows."""
        found: list[dict[str, Any]] = self.docker.request("GET", "/nodes")
        return found

    def present(self) -> None:
        """Bring this host into a swarm, unless it is in one."""
        seen = self.info()
        if seen["state"] == "active":
            return
        if seen["state"] != "inactive":
            raise SwarmError(
                f"This host's membership in a swarm is {seen['state']}: {seen['error'] or '-'}. "
                "Mend it, or leave that swarm: docker swarm leave --force"
            )
        if not self.p["address"]:
            raise SwarmError(
                "`address` is missing: by which address do other hosts reach this one?"
            )
        own = own_address(self.p["address"])
        body: dict[str, Any] = {"ListenAddr": f"0.0.0.0:{PORT}", "AdvertiseAddr": own}
        if self.p["managers"]:
            self.actions.append(f"joined by {', '.join(self.p['managers'])}")
            self.post(
                "/swarm/join",
                {**body, "RemoteAddrs": self.p["managers"], "JoinToken": self.p["token"]},
            )
        else:
            self.actions.append(f"made a swarm at {own}")
            pools = {"DefaultAddrPool": self.p["address_pools"]} if self.p["address_pools"] else {}
            self.post("/swarm/init", {**body, **pools})

    def absent(self) -> None:
        """Take this host out of its swarm."""
        seen = self.info()
        if seen["state"] == "inactive":
            return
        self.actions.append("left the swarm")
        if self.check:
            return
        if seen["control"] and not self.is_alone() and self.is_needed():
            raise SwarmError(
                "This host is still a manager of a swarm with other hosts: have another manager "
                "demote it first (state: managers, node: this host)"
            )
        # By force, since a host that was demoted may still take itself for a manager.
        self.docker.request("POST", "/swarm/leave", query={"force": "1"})

    def is_alone(self) -> bool:
        """Whether this manager is the swarm's only host."""
        try:
            return len(self.nodes()) == 1
        except DockerError:  # no manager any more, or one of many of which most are gone
            return False

    def is_needed(self) -> bool:
        """Whether this host still is a manager after it had time to notice that it is none."""
        end = time.monotonic() + NOTICE_SECONDS
        while self.info()["control"]:
            if time.monotonic() > end:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def token(self) -> None:
        """Tell what another host needs to join as a worker, and who is in the swarm."""
        seen = self.info()
        if not seen["control"]:
            if self.check and seen["state"] == "inactive":
                return
            raise SwarmError("This host is no manager of a swarm, so it has no join token")
        token = self.docker.request("GET", "/swarm")["JoinTokens"]["Worker"]
        self.extra["join"] = {
            "token": token,
            "managers": seen["managers"],
            "node_ids": [node["ID"] for node in self.nodes()],
        }

    def managers(self) -> None:
        """Label the hosts; promote and demote until there are as many managers as wanted."""
        own = self.info()
        if self.check and own["state"] == "inactive":
            return
        own = self.when_manager(own)
        for node in stale(self.nodes(), self.p["names"]):
            self.delete(node)
        self.label(self.nodes())
        nodes = self.nodes()
        leaving = self.p["node"] and find(nodes, self.p["node"], self.p["addresses"])
        leaving_id = leaving["ID"] if leaving else ""
        promoted, demoted = role_changes(nodes, own["node_id"], leaving_id)
        for node in promoted:
            self.change_role(node, "manager")
        for node in demoted:
            self.change_role(node, "worker")
        self.extra["nodes"] = sorted(name_of(node) for node in nodes)
        now = nodes if self.check else self.nodes()
        self.extra["manager_names"] = sorted(name_of(node) for node in now if is_manager(node))

    def when_manager(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return what this host knows once it is a manager: just promoted, it takes a moment."""
        end = time.monotonic() + NOTICE_SECONDS
        while not own["control"]:
            if time.monotonic() > end:
                raise SwarmError("This host is no manager of a swarm")
            time.sleep(POLL_SECONDS)
            own = self.info()
        return own

    def label(self, nodes: Sequence[Node]) -> None:
        """Write the inventory's names of hosts into the swarm, so that the dead keep them."""
        for node in nodes:
            wanted = self.p["names"].get(node["ID"]) or {}
            spec = node["Spec"]
            labels = {**(spec.get("Labels") or {}), **wanted}
            if labels != (spec.get("Labels") or {}):
                self.actions.append(f"labelled {node['Description']['Hostname']}")
                self.update(node["ID"], Labels=labels)

    def change_role(self, node: Node, role: str) -> None:
        """Promote or demote a host and wait: one after the other keeps a majority."""
        self.update(node["ID"], Role=role)
        self.actions.append(f"made {name_of(node)} a {role}")
        if self.check:
            return
        end = time.monotonic() + self.p["timeout"]
        while True:
            seen = self.docker.request("GET", f"/nodes/{node['ID']}")
            if is_reachable(seen) if role == "manager" else not seen.get("ManagerStatus"):
                return
            if time.monotonic() > end:
                raise SwarmError(
                    f"{name_of(node)} ({address_of(node)}) is not a {role} after "
                    f"{self.p['timeout']} s: is {PORT}/tcp open between it and the managers?"
                )
            time.sleep(POLL_SECONDS)

    def removed(self) -> None:
        """Delete the entry of a host that has left or is dead."""
        nodes = self.nodes()
        found = find(nodes, self.p["node"], self.p["addresses"])
        self.extra |= {
            "found": bool(found),
            "nodes": sorted(name_of(node) for node in nodes if node is not found),
        }
        if found:
            self.delete(found)

    def delete(self, node: Node) -> None:
        """Delete the entry of a host, which is no manager from then on."""
        self.actions.append(f"removed {name_of(node)} ({address_of(node)})")
        if self.check:
            return
        if is_manager(node):
            self.update(node["ID"], Role="worker")
        end = time.monotonic() + self.p["timeout"]
        while True:
            try:
                self.docker.request("DELETE", f"/nodes/{node['ID']}", query={"force": "1"})
            except DockerError as problem:
                # It takes a moment until the managers have forgotten one of theirs.
                if "is a cluster manager" not in str(problem) or time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return

    def post(self, url: str, body: dict[str, Any]) -> None:
        """Send a request that changes something, if something may be changed."""
        if not self.check:
            self.docker.request("POST", url, body)

    def update(self, node_id: str, **changes: Any) -> None:
        """Change a host's entry. Whoever changed it in between is not overwritten."""
        if self.check:
            return
        end = time.monotonic() + self.p["timeout"]
        while True:
            seen = self.docker.request("GET", f"/nodes/{node_id}")
            try:
                self.docker.request(
                    "POST",
                    f"/nodes/{node_id}/update",
                    {**seen["Spec"], **changes},
                    query={"version": seen["Version"]["Index"]},
                )
            except DockerError as problem:
                if "update out of sequence" not in str(problem) or time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return


def own_address(name: str) -> str:
    """Return the address behind a name of this host.

    Raises:
        SwarmError: It is none, or one that other hosts cannot reach.
    """
    try:
        found = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as problem:
        raise SwarmError(f"The address {name} is not known here: {problem}") from problem
    if ipaddress.ip_address(found).is_loopback:
        raise SwarmError(
            f"{name} is {found} on this host, which other hosts cannot reach: give the host's "
            "address on the network between the hosts (epic_address in the inventory)"
        )
    return found


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    swarm = Swarm(params, check=check_mode)
    try:
        if params["state"] != "info":
            getattr(swarm, params["state"])()
        seen = swarm.info()
    except (DockerError, SwarmError) as problem:
        message = str(problem)
        if params["token"]:
            message = message.replace(params["token"], "TOKEN")
        return {"failed": True, "msg": message, "actions": swarm.actions}
    return {
        "changed": bool(swarm.actions),
        "swarm": seen,
        "actions": swarm.actions,
        **swarm.extra,
    }


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
