#!/usr/bin/python
"""Ansible module: what a tenant has on a Docker host beside its clusters."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_tenant
short_description: Remove a tenant's storage and network from this Docker host
description:
  - Removes the volumes and networks that carry the tenant's label, and the tenant's folder in the
    storage that hosts have in common, whichever host comes to it first. A tenant whose clusters
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
  storage:
    description: The storage that hosts have in common, a folder or C(nfs://SERVER/PATH).
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
- name: Remove what a tenant has left
  epic_tenant:
    tenant: analytics
"""

RETURN = r"""
removed:
  description: The volumes, networks and folders that were removed.
  type: list
  returned: success
"""

import fcntl
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError, hold, tenant_lock
from ansible.module_utils.epic_egress import Firewall
from ansible.module_utils.epic_volumes import (
    StorageError,
    described,
    erase_folder,
    volume_options,
)

# As long as the files of a large storage take.
ERASE_SECONDS = 24 * 3600.0

ARGUMENT_SPEC: dict[str, Any] = {
    "tenant": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["absent"], "default": "absent"},
    "storage": {"type": "str", "default": ""},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    with hold(tenant_lock(params["tenant"]), fcntl.LOCK_EX):
        return remove(params, check_mode=check_mode)


def remove(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Remove what the tenant has on this host, unless it has containers."""
    docker = Docker(params["socket"], ERASE_SECONDS)
    labels = {"epic.tenant": params["tenant"]}
    try:
        containers = docker.labelled("containers", labels)
        if containers:
            names = ", ".join(container["Names"][0].lstrip("/") for container in containers)
            return {"failed": True, "msg": f"The tenant still has containers here: {names}"}
        volumes = docker.labelled("volumes", labels)
        # One that spans hosts is removed by a manager of the swarm.
        networks = [n for n in docker.labelled("networks", labels) if n["Scope"] == "local"]
        targets = [
            *(f"/volumes/{item['Name']}" for item in volumes),
            *(f"/networks/{item['Name']}" for item in networks),
        ]
        folders = shared_folders(volumes, params)
        if not check_mode:
            targets += erase(docker, folders, params["tenant"], needed=bool(volumes))
            # Last: a run that was cut off finds by them what is left to do.
            for item in volumes:
                docker.request("DELETE", f"/volumes/{item['Name']}", missing_ok=True)
            for item in networks:
                docker.remove_network(item["Id"])
            if networks:
                Firewall(docker).forget(params["tenant"])
    except DockerError as problem:
        hint = getattr(problem, "hint", None)
        told = {"hint": hint} if hint else {}
        return {"failed": True, "msg": str(problem), **told, **docker.absence()}
    return {"changed": bool(targets), "removed": targets}


def shared_folders(volumes: list[dict[str, Any]], params: dict[str, Any]) -> list[dict[str, str]]:
    """Return the tenant's folders that are not Docker's own, as options of volumes.

    The inventory's is among them, also where a volume has never been, or is none any more.
    """
    own = [item["Options"] for item in volumes if (item.get("Options") or {}).get("device")]
    wanted = volume_options(params["storage"], params["tenant"])
    found: list[dict[str, str]] = []
    for options in [*own, *([wanted] if wanted else [])]:
        # A volume of another name is none of ours to look behind.
        if options["device"].rpartition("/")[2] == params["tenant"] and options not in found:
            found.append(options)
    return found


def erase(docker: Docker, folders: list[dict[str, str]], tenant: str, *, needed: bool) -> list[str]:
    """Remove the tenant's folders; return where they were."""
    done = []
    for options in folders:
        if erase_folder(docker, options, tenant):
            done.append(described(options))
        elif needed:
            raise StorageError(
                f"{described(options)} cannot be removed: this host has no image to do it with",
                "epic-run image push, then try again.",
            )
    return done


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
