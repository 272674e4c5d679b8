#!/usr/bin/python
"""Ansible module: a tenant's network that spans the hosts of a swarm."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_network
short_description: Make or remove a tenant's network across hosts
description:
  - Makes an overlay network that only containers of this toolkit attach to. It is internal, since
    an overlay with a way out also has a way to the hosts and to other tenants' traffic.
  - Has to run on a manager of the swarm. It does not matter on which, nor on how many at once.
options:
  tenant:
    description: The tenant's name.
    type: str
    required: true
  name:
    description: The network's name.
    type: str
    required: true
  state:
    description: Whether it is to be there.
    type: str
    choices: [present, absent]
    default: present
  subnet:
    description: Its addresses, such as C(10.112.0.0/21).
    type: str
  ip_range:
    description: The part of them that the engine may give away by itself.
    type: str
  mtu:
    description: The largest packet that it carries, in bytes; the engine's own choice if 0.
    type: int
    default: 0
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Make a tenant's network
  epic_network:
    tenant: analytics
    name: epic_analytics
    subnet: 10.112.0.0/21
    ip_range: 10.112.4.0/22
"""

RETURN = r"""
id:
  description: The network's id; empty when it is absent.
  type: str
  returned: success
leaderless:
  description:
    - What the engine said, where it has found no leader of the swarm for 40 seconds. Nothing was
      done then; another manager may have done it.
  type: str
  returned: when it knows no leader
"""

import ipaddress
import json
import re
import time
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

CONFLICT = 409
POOL_HINT = (
    "Remove the tenant from this store, name addresses of its own with EPIC_NETWORK_POOL and "
    "EPIC_BRIDGE_POOL, and launch again."
)
# How long the swarm may take to tell all of its managers of a change.
RELEASE_SECONDS = 20.0
# How long its managers may take to choose another leader, when a host has died or is back.
ELECTION_SECONDS = 40.0
ELECTION_PAUSE_SECONDS = 1.0
LEADERLESS = re.compile(r"not have a leader|lost leader|no leader|context deadline exceeded")
# Of what another manager removes at this moment, engines tell by a 404 or by the swarm's own words.
GONE = re.compile(r"network \S+ not found")

ARGUMENT_SPEC: dict[str, Any] = {
    "tenant": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "subnet": {"type": "str"},
    "ip_range": {"type": "str"},
    "mtu": {"type": "int", "default": 0},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    docker = Docker(params["socket"])
    end = time.monotonic() + ELECTION_SECONDS
    while True:
        result = converge(docker, params, check_mode=check_mode)
        if not (result.get("failed") and LEADERLESS.search(result["msg"])):
            return result
        if time.monotonic() > end:
            # A manager that was cut off takes minutes to find the others again, which need no help.
            return {"changed": False, "id": "", "leaderless": result["msg"]}
        time.sleep(ELECTION_PAUSE_SECONDS)


def converge(docker: Docker, params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Make or remove the network as wanted, once; return the module's result."""
    try:
        found = docker.request("GET", f"/networks/{params['name']}", missing_ok=True)
        if params["state"] == "absent":
            if found and not check_mode:
                remove(docker, found["Id"])
            return {"changed": bool(found), "id": ""}
        if not found:
            subnet = params["subnet"]
            other = holder(docker, params["name"], subnet) if subnet else ""
            if other:
                return {
                    "failed": True,
                    "msg": f"the addresses {subnet} for {params['name']} are those of "
                    f"the network {other} of this swarm, which another store has made",
                    "hint": POOL_HINT,
                }
            return {"changed": True, "id": "" if check_mode else make(docker, params)}
    except DockerError as problem:
        return {"failed": True, "msg": str(problem), **docker.absence()}
    # A network that was made a moment ago has no addresses to tell of yet.
    have = [item["Subnet"] for item in found["IPAM"]["Config"] or [] if item.get("Subnet")]
    if params["subnet"] and have and have != [params["subnet"]]:
        return {
            "failed": True,
            "msg": f"network {params['name']} has the addresses {', '.join(have)}, not "
            f"{params['subnet']}: remove it when no container uses it any more",
        }
    return {"changed": False, "id": found["Id"]}


def holder(docker: Docker, name: str, subnet: str) -> str:
    """Return another network of the swarm that has addresses of a subnet; empty where none has.

    The swarm's managers would take the new one all the same, and never give it addresses.
    """
    wanted = ipaddress.ip_network(subnet)
    query = {"filters": json.dumps({"driver": ["overlay"]})}
    for network in docker.request("GET", "/networks", query=query) or []:
        for part in (network.get("IPAM") or {}).get("Config") or []:
            has = ipaddress.ip_network(part["Subnet"], strict=False) if part.get("Subnet") else None
            # Of its own name is what another manager has made this moment.
            is_other = has and has.version == wanted.version and network["Name"] != name
            if is_other and has.overlaps(wanted):
                return str(network["Name"])
    return ""


def make(docker: Docker, params: dict[str, Any]) -> str:
    """Make the network; return its id, also when another manager was faster."""
    try:
        answer = docker.request("POST", "/networks/create", description(params))
        return str(answer["Id"])
    except DockerError as problem:
        # Engines tell of it by a status, or by a sentence of the swarm's.
        if problem.status != CONFLICT and "conflict" not in str(problem):
            raise
        end = time.monotonic() + RELEASE_SECONDS
        while not (found := docker.request("GET", f"/networks/{params['name']}", missing_ok=True)):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        return str(found["Id"])


def description(params: dict[str, Any]) -> dict[str, Any]:
    """Return the network in Docker's terms."""
    mtu = params["mtu"]
    addresses = {"Subnet": params["subnet"], "IPRange": params["ip_range"]}
    return {
        "Name": params["name"],
        "CheckDuplicate": True,
        "Driver": "overlay",
        "Attachable": True,
        "Internal": True,
        "Labels": {"epic.tenant": params["tenant"]},
        "Options": {"com.docker.network.driver.mtu": str(mtu)} if mtu else {},
        "IPAM": {"Config": [{key: value for key, value in addresses.items() if value}]},
    }


def remove(docker: Docker, key: str) -> None:
    """Remove the network as soon as the swarm has seen its last container go."""
    end = time.monotonic() + RELEASE_SECONDS
    while True:
        try:
            docker.request("DELETE", f"/networks/{key}", missing_ok=True)
        except DockerError as problem:
            if GONE.search(str(problem)):
                return
            if "in use" not in str(problem) or time.monotonic() > end:
                raise
            time.sleep(0.3)
        else:
            return


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
