#!/usr/bin/python
"""Ansible module: what a tenant has on a Docker host beside its clusters."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_tenant
short_description: Remove a tenant's storage and network from this Docker host
description:
  - Removes the volumes and networks that carry the tenant's label. A tenant whose clusters
    still have containers here is left alone, and the module fails.
options:
  tenant:
    description: The tenant's name.
    type: str
    required: true
  state:
    description: Only C(absent) so far; storage and network are made with the first cluster.
    type: str
    choices: [absent]
    default: absent
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Remove what a tenant has left
  epic_tenant:
    tenant: analytics
"""

RETURN = r"""
removed:
  description: The volumes and networks that were removed.
  type: list
  returned: success
"""

import fcntl
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError, hold

ARGUMENT_SPEC: dict[str, Any] = {
    "tenant": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["absent"], "default": "absent"},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    with hold(params["tenant"], fcntl.LOCK_EX):
        return remove(params, check_mode=check_mode)


def remove(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Remove what the tenant has on this host, unless it has containers."""
    docker = Docker(params["socket"])
    labels = {"epic.tenant": params["tenant"]}
    try:
        containers = docker.labelled("containers", labels)
        if containers:
            names = ", ".join(container["Names"][0].lstrip("/") for container in containers)
            return {"failed": True, "msg": f"The tenant still has containers here: {names}"}
        volumes = [item["Name"] for item in docker.labelled("volumes", labels)]
        # One that spans hosts is removed by a manager of the swarm.
        networks = [n for n in docker.labelled("networks", labels) if n["Scope"] == "local"]
        targets = [
            *(f"/volumes/{name}" for name in volumes),
            *(f"/networks/{item['Name']}" for item in networks),
        ]
        if not check_mode:
            for name in volumes:
                docker.request("DELETE", f"/volumes/{name}", missing_ok=True)
            for item in networks:
                docker.remove_network(item["Id"])
    except DockerError as problem:
        return {"failed": True, "msg": str(problem), **docker.absence()}
    return {"changed": bool(targets), "removed": targets}


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
