#!/usr/bin/python
"""Ansible module: the firewall of a host, which keeps what tenants may reach."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_firewall
short_description: Check, tighten or remove the firewall of this Docker host
description:
  - The module epic_nodes makes the firewall and tells it the tenants' rules; here it is looked at,
    or taken away with its rules. Bridges of tenants lead nowhere without it.
options:
  state:
    description:
      - C(checked) fails where the kernel does not have the rules that are wanted.
      - C(closed) closes O(closed) to all tenants with rules on this host, beside what is closed to
        them already; it does nothing on a host without a firewall.
      - C(absent) removes container, volume and rules.
    type: str
    choices: [checked, closed, absent]
    default: checked
  closed:
    description: Addresses and networks that no tenant is to reach, such as those of a new host.
    type: list
    elements: str
    default: []
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: See that what tenants may reach is as wanted
  epic_firewall:
    state: checked

- name: Close the addresses of a new host to tenants
  epic_firewall:
    state: closed
    closed: [192.0.2.14]
"""

RETURN = r"""
problem:
  description: What is wrong; empty where all is well.
  type: str
  returned: always
"""

from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError
from ansible.module_utils.epic_egress import Firewall, FirewallError

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["checked", "closed", "absent"], "default": "checked"},
    "closed": {"type": "list", "elements": "str", "default": []},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    docker = Docker(params["socket"])
    firewall = Firewall(docker)
    try:
        if params["state"] == "closed":
            closed = firewall.close(set(params["closed"]), check=check_mode)
            return {"changed": closed, "problem": ""}
        if params["state"] == "absent":
            there = bool(firewall.inspect()) if check_mode else firewall.remove()
            return {"changed": there, "problem": ""}
        problem = firewall.check()
    except (DockerError, FirewallError) as failure:
        problem = str(failure)
        return {"failed": True, "msg": problem, "problem": problem, **docker.absence()}
    if problem:
        return {"failed": True, "msg": problem, "problem": problem}
    return {"changed": False, "problem": ""}


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
