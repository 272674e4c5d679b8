"""Pure functions on the Docker hosts' places in their swarm; they know nothing of epic_runner."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# What the role docker_host registers on each host, the newest first.
REGISTERED = ("__docker_host_joined", "__docker_host_made", "__docker_host_seen")
HostVars = Mapping[str, Mapping[str, Any]]


def swarm_states(
    hosts: Iterable[str], hostvars: HostVars, others: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Mapping[str, Any] | None]:
    """Return by host what it knows of its swarm; None for one that did not answer.

    Args:
        hosts: All hosts.
        hostvars: Their variables.
        others: The results for hosts that the play does not run on, by their `item`.
    """
    elsewhere = {result["item"]: result.get("swarm") for result in others}
    return {
        host: next(
            (
                hostvars[host][name]["swarm"]
                for name in REGISTERED
                if host in hostvars and "swarm" in hostvars[host].get(name, {})
            ),
            elsewhere.get(host),
        )
        for host in hosts
    }


def swarm_plan(
    states: Mapping[str, Mapping[str, Any] | None], acting: Sequence[str]
) -> dict[str, Any]:
    """Decide who makes the swarm and who joins.

    Args:
        states: What `swarm_states` has found, in the order of the inventory.
        acting: The hosts that the play runs on.

    Returns:
        `first`, the host that makes a swarm, or none; `manager`, the host that has it or will have
        it; `joining`, the hosts that join; `problem`, why nothing shall be done.
    """
    plan: dict[str, Any] = {"first": "", "manager": "", "joining": [], "problem": ""}
    known = {host: state for host, state in states.items() if state}
    members = [host for host, state in known.items() if state["state"] != "inactive"]
    locked = [host for host in members if known[host]["state"] == "locked"]
    managers = [host for host in members if known[host]["control"]]
    free = [host for host in acting if known.get(host, {}).get("state") == "inactive"]
    if locked:
        plan["problem"] = (
            f"The swarm of {', '.join(locked)} is locked. On each of them: docker swarm unlock, "
            "then prepare again."
        )
    elif members and not managers:
        plan["problem"] = managers_are_gone(members)
    elif members:
        strangers = of_other_swarms(known, managers)
        if strangers:
            plan["problem"] = (
                f"{', '.join(strangers)} and {managers[0]} are in different swarms. Decide for "
                "one, and on the hosts of the other: docker swarm leave --force, then prepare "
                "again."
            )
        plan |= {"manager": managers[0], "joining": free}
    elif unknown := [host for host, state in states.items() if not state]:
        plan["problem"] = (
            f"{', '.join(unknown)} did not answer, and no other host is in a swarm: a new one "
            "could be a second one. Bring them back or take them out of the inventory, then "
            "prepare again."
        )
    elif free:
        plan |= {"first": free[0], "manager": free[0], "joining": free[1:]}
    return plan


def managers_are_gone(members: Sequence[str]) -> str:
    """Return what to say when hosts are in a swarm of which no manager answers."""
    return (
        f"{', '.join(members)}: in a swarm none of whose managers answers, or too few. Bring them "
        "back. If they are lost for good, on each of these hosts: docker swarm leave --force, then "
        "prepare again."
    )


def of_other_swarms(known: Mapping[str, Mapping[str, Any]], managers: Sequence[str]) -> list[str]:
    """Return the hosts that are in another swarm than the first manager.

    A worker knows no more of its swarm than its managers' addresses.
    """
    own = known[managers[0]]
    addresses = {address for host in managers for address in known[host]["managers"]
                 if known[host]["cluster"] == own["cluster"]}  # fmt: skip
    return [
        host
        for host, state in known.items()
        if state["state"] != "inactive"
        and (
            state["cluster"] != own["cluster"]
            if state["control"]
            else not addresses & set(state["managers"])
        )
    ]


def swarm_names(
    states: Mapping[str, Mapping[str, Any] | None], hostvars: HostVars
) -> dict[str, dict[str, str]]:
    """Return the labels of the swarm's nodes by their ids: what the inventory calls a host."""
    labels = {}
    for host, state in states.items():
        if state and state["node_id"]:
            rack = hostvars.get(host, {}).get("epic_rack")
            labels[state["node_id"]] = {"epic.host": host} | (
                {"epic.rack": str(rack)} if rack is not None else {}
            )
    return labels


def removal_plan(states: Mapping[str, Mapping[str, Any] | None], name: str) -> dict[str, Any]:
    """Decide who takes a host out of the swarm.

    Args:
        states: What `swarm_states` has found, in the order of the inventory.
        name: The host to remove, in the inventory or not.

    Returns:
        `alive`, whether the host can leave by itself; `manager`, which manager to ask, another one
        if there is any, or none; `problem`, why nothing shall be done.
    """
    known = {host: state for host, state in states.items() if state}
    members = [host for host, state in known.items() if state["state"] != "inactive"]
    managers = [host for host in members if known[host]["control"]]
    problem = ""
    if not known:
        problem = (
            f"None of the hosts answers, so {name} cannot be taken out of the swarm: "
            "bring one of the swarm's managers back."
        )
    elif set(members) - {name} and not managers:
        problem = managers_are_gone([host for host in members if host != name])
    return {
        "alive": name in members,
        "manager": next((host for host in managers if host != name), "".join(managers[:1])),
        "problem": problem,
    }


def peer_addresses(hosts: Iterable[str], hostvars: HostVars, own: str) -> list[str]:
    """Return the addresses by which a host reaches the others."""
    return [
        str(hostvars[host].get("epic_address", hostvars[host].get("ansible_host", host)))
        for host in hosts
        if host != own
    ]


def host_addresses(hosts: Iterable[str], hostvars: HostVars) -> list[str]:
    """Return the IPv4 addresses of hosts: what they say themselves, and how they are reached.

    What they say is in the variable `host_check`, registered by the module epic_host_facts.
    """
    found = set()
    for host in hosts:
        of = hostvars[host]
        found.update(of.get("host_check", {}).get("epic_facts", {}).get("addresses", ()))
        for name in ("epic_address", "ansible_host"):
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.IPv4Address(str(of.get(name, "")))))
    return sorted(found)


def successor(hosts: Iterable[str], managers: Iterable[str], name: str) -> str:
    """Return a host that is a manager and stays in the swarm; none if there is none."""
    able = set(managers) - {name}
    return next((host for host in hosts if host in able), "")


def other_storage(hosts: Iterable[str], hostvars: HostVars, first: str) -> list[str]:
    """Return the hosts that see another storage than the first one, as far as they have looked."""

    def mark(host: str) -> Any:
        seen = hostvars.get(host, {}).get("__docker_host_storage", {}).get("storage", {})
        return seen.get("mark")

    wanted = mark(first)
    if wanted is None:
        # The first host is not in this play: no mark at all is as bad as another one.
        return [host for host in hosts if mark(host) == ""]
    return [host for host in hosts if mark(host) not in (None, wanted)]


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "host_addresses": host_addresses,
            "other_storage": other_storage,
            "peer_addresses": peer_addresses,
            "removal_plan": removal_plan,
            "successor": successor,
            "swarm_names": swarm_names,
            "swarm_plan": swarm_plan,
            "swarm_states": swarm_states,
        }
