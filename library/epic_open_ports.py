#!/usr/bin/python
"""Ansible module: the ports between hosts, open to the other hosts in a firewall that runs."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_open_ports
short_description: Have firewalld or ufw let the other hosts in
description:
  - Opens 2377/tcp, 7946/tcp, 7946/udp and 4789/udp to the addresses of the other hosts and to
    nobody else, now and for good, in firewalld and ufw where they run. It installs and starts
    neither, and takes no rule away.
options:
  peers:
    description: Addresses of the other hosts, or names that lead to them here.
    type: list
    elements: str
    default: []
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Let the other hosts in
  epic_open_ports:
    peers: [192.0.2.12, 192.0.2.13]
"""

RETURN = r"""
actions:
  description: The rules that were added, a line each.
  type: list
  returned: success
skipped_items:
  description: Hosts that are let in by no rule, and why, by what was given for them.
  type: dict
  returned: success
"""

import ipaddress
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable
from typing import Any

# Managers of the swarm, its gossip, and packets between containers.
PORTS = ((2377, "tcp"), (7946, "tcp"), (7946, "udp"), (4789, "udp"))
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 60
# What ufw shows beside a rule, so that people see where it comes from.
COMMENT = "epic-runner"

ARGUMENT_SPEC: dict[str, Any] = {
    "peers": {"type": "list", "elements": "str", "default": []},
}


class PortsError(Exception):
    """A firewall does not do what it is told."""


# -- decisions ---------------------------------------------------------------------------------


def rich_rules(peer: str) -> list[str]:
    """Return what firewalld is told for another host, as firewalld itself writes it."""
    source = f'rule family="ipv4" source address="{peer}"'
    return [f'{source} port port="{port}" protocol="{protocol}" accept' for port, protocol in PORTS]


def ufw_rules(peer: str) -> list[str]:
    """Return what ufw is told for another host, as ufw itself writes it."""
    return [f"allow from {peer} to any port {port} proto {protocol}" for port, protocol in PORTS]


def ufw_has(added: str) -> set[str]:
    """Return the rules that `ufw show added` tells of, without comments."""
    return set(re.findall(r"^ufw (.+?)(?: comment '.*')?$", added, re.MULTILINE))


def zone_of(peer: str, interface: str, active: str, default: str) -> str:
    """Return the zone of firewalld that packets of another host come into.

    A zone of their source goes before that of their interface.

    Args:
        peer: The other host's address.
        interface: The interface that leads to it.
        active: What `firewall-cmd --get-active-zones` prints.
        default: The zone of all that is in no other.
    """
    by_interface = default
    for zone, lines in re.findall(r"^(\S+).*\n((?:[ \t]+.*\n?)*)", active, re.MULTILINE):
        words = dict(re.findall(r"^[ \t]+(\w+): (.*)$", lines, re.MULTILINE))
        if any(is_within(peer, source) for source in words.get("sources", "").split()):
            return str(zone)
        if interface in words.get("interfaces", "").split():
            by_interface = zone
    return by_interface


def is_within(peer: str, source: str) -> bool:
    """Whether an address is of a source, which may be a network, a MAC address or a set."""
    try:
        return ipaddress.IPv4Address(peer) in ipaddress.IPv4Network(source, strict=False)
    except ValueError:
        return False


# -- effects -----------------------------------------------------------------------------------


def run_program(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the language that is read here."""
    environment = {**os.environ, "PATH": PROGRAMS, "LC_ALL": "C"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment
    )


def told(*command: str) -> str:
    """Return what a program prints.

    Raises:
        PortsError: It fails.
    """
    done = run_program(*command)
    if done.returncode:
        why = (done.stderr or done.stdout).strip() or f"it ended with {done.returncode}"
        raise PortsError(f"{' '.join(command[:3])}: {why}")
    return done.stdout


def answers(command: list[str], sign: str) -> bool:
    """Whether a program is there and what it says begins like that of a firewall that runs."""
    if not shutil.which(command[0], path=PROGRAMS):
        return False
    return run_program(*command).stdout.startswith(sign)


def addresses(peers: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the addresses of other hosts, and those that have none here with the reason."""
    found, without = set(), {}
    for peer in peers:
        try:
            found.add(socket.gethostbyname(peer))
        except OSError as problem:
            without[peer] = f"no IPv4 address is known for it here: {problem.strerror}"
    return sorted(found), without


def route_interface(peer: str) -> str:
    """Return the interface that leads to another host; empty where none does."""
    if not shutil.which("ip", path=PROGRAMS):
        return ""
    found = re.search(r" dev (\S+)", run_program("ip", "-o", "route", "get", peer).stdout)
    return found[1] if found else ""


def open_in_firewalld(peers: list[str], *, check: bool) -> list[str]:
    """Add the rules that firewalld lacks, now and for good; return them."""
    if not answers(["firewall-cmd", "--state"], "running"):
        return []
    active = told("firewall-cmd", "--get-active-zones")
    default = told("firewall-cmd", "--get-default-zone").strip()
    wanted: dict[str, list[str]] = {}
    for peer in peers:
        zone = zone_of(peer, route_interface(peer), active, default)
        wanted.setdefault(zone, []).extend(rich_rules(peer))
    actions = []
    for zone, rules in sorted(wanted.items()):
        # A reload, which would bring what is permanent into force, disturbs Docker's rules.
        for lasting in (["--permanent"], []):
            command = ["firewall-cmd", *lasting, f"--zone={zone}"]
            there = {line.strip() for line in told(*command, "--list-rich-rules").splitlines()}
            missing = [rule for rule in rules if rule not in there]
            if missing and not check:
                told(*command, *(f"--add-rich-rule={rule}" for rule in missing))
            when = "for good" if lasting else "now"
            actions += [f"firewalld, zone {zone}, {when}: {rule}" for rule in missing]
    return actions


def open_in_ufw(peers: list[str], *, check: bool) -> list[str]:
    """Add the rules that ufw lacks, which it keeps by itself; return them."""
    if not answers(["ufw", "status"], "Status: active"):
        return []
    there = ufw_has(told("ufw", "show", "added"))
    missing = [rule for peer in peers for rule in ufw_rules(peer) if rule not in there]
    for rule in missing if not check else ():
        told("ufw", *rule.split(), "comment", COMMENT)
    return [f"ufw {rule}" for rule in missing]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    peers, without = addresses(params["peers"])
    try:
        actions = open_in_firewalld(peers, check=check_mode)
        actions += open_in_ufw(peers, check=check_mode)
    except (OSError, PortsError, subprocess.TimeoutExpired) as problem:
        return {"failed": True, "msg": str(problem)}
    return {"changed": bool(actions), "actions": actions, "skipped_items": without}


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
