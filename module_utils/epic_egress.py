"""The firewall of a host, as modules see it: a container that is told the tenants' policies.

It is asked for nothing but its last line of output, which tells what is in force: two requests to
the engine, a few milliseconds, so that a launch on a host where all is well does not notice it.
"""

from __future__ import annotations

import calendar
import fcntl
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from ansible.module_utils.epic_docker import Docker, archive, hold

NAME = "epic-firewall"
FOLDER = "/var/lib/epic-firewall"
PROGRAM = ["/usr/bin/python3", "/usr/local/lib/epic/firewall.py"]
BRIDGE_OPTION = "com.docker.network.bridge.name"
READY_SECONDS = 20.0
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
ENGINE_SETTINGS = "/etc/docker/daemon.json"


class FirewallError(Exception):
    """The firewall is not as it has to be."""


def bridge_name(network: str) -> str:
    """Return the interface of a tenant's bridge: the prefix is what the firewall knows it by."""
    return "epo" + hashlib.sha256(network.encode()).hexdigest()[:10]


def bridge_options(network: str, *, inside: bool, mtu: int = 0) -> dict[str, str]:
    """Return the options of a tenant's bridge.

    Docker gives it no address and translates none: both are the firewall's, so that a bridge is
    closed for as long as the firewall does not run.

    Args:
        network: The network's name.
        inside: Whether its nodes reach each other by it.
        mtu: The largest packet, in bytes; the engine's own choice if 0.
    """
    return {
        BRIDGE_OPTION: bridge_name(network),
        "com.docker.network.bridge.inhibit_ipv4": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.bridge.enable_icc": "true" if inside else "false",
        **({"com.docker.network.driver.mtu": str(mtu)} if mtu else {}),
    }


def policy_of(
    tenant: str, network: Mapping[str, Any], wanted: Mapping[str, Any], resolvers: list[str]
) -> dict[str, Any]:
    """Return the policy of a tenant's bridge.

    Args:
        tenant: The tenant.
        network: The bridge, as the engine describes it.
        wanted: What is allowed and what is closed in any case, as the inventory has it.
        resolvers: The host's servers of names.
    """
    [addresses] = network["IPAM"]["Config"]
    options = network["Options"]
    return {
        "tenant": tenant,
        "bridge": options[BRIDGE_OPTION],
        "subnet": addresses["Subnet"],
        "gateway": addresses["Gateway"].partition("/")[0],
        "inside": options["com.docker.network.bridge.enable_icc"] == "true",
        "allow": list(wanted["allow"]),
        "closed": sorted(wanted["closed"]),
        "resolvers": sorted(resolvers),
    }


def host_resolvers() -> list[str]:
    """Return the servers of names that nodes of this host are led to, as Docker finds them.

    Those of the engine's settings take the place of the host's own, but only from the engine's next
    start on: both are among them.
    """
    return sorted({*engine_resolvers(), *own_resolvers()})


def engine_resolvers() -> list[str]:
    """Return the servers that the engine's settings name; none where they cannot be read."""
    try:
        with open(ENGINE_SETTINGS, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs start-up time
            named = json.load(file).get("dns") or []
        return [server for server in named if is_outside([server])]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def own_resolvers() -> list[str]:
    """Return the servers of the host's resolv.conf, or of what systemd-resolved asks."""
    for path in RESOLVERS:
        found = []
        try:
            with open(path, encoding="utf-8") as lines:  # noqa: PTH123 - pathlib costs start-up time
                for line in lines:
                    words = line.split()
                    if words[:1] == ["nameserver"] and is_outside(words[1:]):
                        found.append(words[1])
        except OSError:
            continue
        if found:
            return found
    return []


def is_outside(words: list[str]) -> bool:
    """Whether a line of resolv.conf names an IPv4 address that is not the host's loopback."""
    return bool(words) and ":" not in words[0] and not words[0].startswith("127.")


def in_writing(policy: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return a policy's file, and what the firewall says once that is in force."""
    content = json.dumps(policy, sort_keys=True).encode()
    return content, f"{policy['bridge']}={hashlib.sha256(content).hexdigest()[:8]}"


def container_spec(image: str) -> dict[str, Any]:
    """Return the container's description in Docker's terms, with its hash in a label."""
    spec: dict[str, Any] = {
        "Image": image,
        "HostConfig": {
            "NetworkMode": "host",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Memory": 256 * 2**20,
            "PidsLimit": 64,
            "Tmpfs": {"/run/epic-firewall": "mode=0755,size=4m"},
            "Mounts": [{"Type": "volume", "Source": NAME, "Target": FOLDER}],
            # Also after it was stopped by hand: a host that starts is not to be without it.
            "RestartPolicy": {"Name": "always"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
        },
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    spec["Labels"] = {"epic.firewall": "1", "epic.spec": digest}
    return spec


class Firewall:
    """The firewall of one host."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    def inspect(self) -> dict[str, Any] | None:
        """Return what Docker knows of the container; None where there is none."""
        found: dict[str, Any] | None = self.docker.request(
            "GET", f"/containers/{NAME}/json", missing_ok=True
        )
        return found

    def in_force(self, found: Mapping[str, Any]) -> str:
        """Return the last line of the firewall's output in this life of its container."""
        query = {"stdout": "1", "tail": "1", "since": _seconds(found["State"]["StartedAt"])}
        data = self.docker.request("GET", f"/containers/{NAME}/logs", query=query) or b""
        return bytes(data)[8:].decode("utf-8", "replace").strip()

    def tell(self, image: str, policy: Mapping[str, Any]) -> bool:
        """Have a tenant's policy in force; return whether something was changed for it.

        Raises:
            FirewallError: It does not come into force.
            DockerError: The engine refused.
        """
        content, pair = in_writing(policy)
        wanted = container_spec(image)
        found = self.inspect()
        if found and _is(found, wanted) and pair in self.in_force(found).split():
            return False
        # Launches of other tenants are about the same container.
        with hold("firewall", fcntl.LOCK_EX):
            found = self.inspect()
            if (
                found
                and found["Config"]["Labels"].get("epic.spec") != wanted["Labels"]["epic.spec"]
            ):
                self.docker.request("DELETE", f"/containers/{NAME}", query={"force": "1"})
                found = None
            if not found:
                self.docker.request(
                    "POST", "/volumes/create", {"Name": NAME, "Labels": {"epic.firewall": "1"}}
                )
                self.docker.request("POST", "/containers/create", wanted, query={"name": NAME})
            self.write(policy["tenant"], content)
            if found and found["State"]["Running"]:
                self.docker.request("POST", f"/containers/{NAME}/kill", query={"signal": "HUP"})
            else:
                self.docker.request("POST", f"/containers/{NAME}/start")
            self.wait({pair})
        return True

    def policies(self) -> dict[str, dict[str, Any]]:
        """Return the policies of all tenants of this host, by their names."""
        data = self.docker.request(
            "GET", f"/containers/{NAME}/archive", query={"path": FOLDER}, missing_ok=True
        )
        found: dict[str, dict[str, Any]] = {}
        if data is None:
            return found
        with tarfile.open(fileobj=io.BytesIO(data)) as files:
            for member in files:
                name = member.name.rpartition("/")[2]
                content = files.extractfile(member) if name.endswith(".json") else None
                # That of a tenant that was forgotten is empty until the program has seen it.
                if content and (policy := json.loads(content.read() or b"{}")):
                    found[name.removesuffix(".json")] = policy
        return found

    def closed(self) -> list[str] | None:
        """Return the networks that are closed to all tenants of this host; None without any."""
        lists = [set(policy["closed"]) for policy in self.policies().values()]
        return sorted(set.intersection(*lists)) if lists else None

    def close(self, networks: AbstractSet[str], *, check: bool = False) -> bool:
        """Close more networks to all tenants of this host; return whether any was open.

        What is closed already stays so: only the next launch of a tenant knows of what it need not
        keep closed any more.

        Args:
            networks: Addresses and networks.
            check: Whether only to tell.

        Raises:
            FirewallError: It does not come into force.
            DockerError: The engine refused.
        """
        with hold("firewall", fcntl.LOCK_EX):
            found = self.inspect()
            policies = self.policies() if found else {}
            changed = {
                tenant: {**policy, "closed": sorted({*policy["closed"], *networks})}
                for tenant, policy in policies.items()
                if not networks <= set(policy["closed"])
            }
            if not found or not changed or check:
                return bool(changed)
            pairs = set()
            for tenant, policy in changed.items():
                content, pair = in_writing(policy)
                pairs.add(pair)
                self.write(tenant, content)
            # One that does not run reads them when it starts, and has closed all bridges before.
            if found["State"]["Running"]:
                self.docker.request("POST", f"/containers/{NAME}/kill", query={"signal": "HUP"})
                self.wait(pairs)
        return True

    def forget(self, tenant: str) -> None:
        """Take the rules of a tenant away."""
        with hold("firewall", fcntl.LOCK_EX):
            found = self.inspect()
            if found:
                self.write(tenant, b"")
                if found["State"]["Running"]:
                    self.docker.request("POST", f"/containers/{NAME}/kill", query={"signal": "HUP"})

    def write(self, tenant: str, content: bytes) -> None:
        """Write a tenant's file into the container's volume."""
        files = {f"{tenant}.json": {"content": content.decode(), "mode": "0600"}}
        self.docker.request(
            "PUT", f"/containers/{NAME}/archive", archive(files), query={"path": FOLDER}
        )

    def wait(self, pairs: AbstractSet[str]) -> None:
        """Wait until policies are in force.

        Raises:
            FirewallError: It is broken, ended, or takes too long.
        """
        end = time.monotonic() + READY_SECONDS
        while True:
            found = self.inspect()
            line = self.in_force(found) if found and found["State"]["Running"] else ""
            if pairs <= set(line.split()):
                return
            if line.startswith("broken") or time.monotonic() > end:
                raise FirewallError(
                    f"the firewall {NAME} does not keep the tenant's rules"
                    f"{f': {line}' if line else ''}; see `docker logs {NAME}` on the host"
                )
            time.sleep(0.02)

    def check(self) -> str:
        """Return what is wrong with the firewall of this host; empty where all is well."""
        found = self.inspect()
        if not found:
            return f"there is no container {NAME}"
        if not found["State"]["Running"]:
            return f"the container {NAME} does not run"
        code, out, problem = self.docker.execute(NAME, [*PROGRAM, "check"], timeout_seconds=20)
        return "" if code == 0 else (out + problem).strip()

    def remove(self) -> bool:
        """Take the firewall away, with its table and volume; tell whether there was one."""
        with hold("firewall", fcntl.LOCK_EX):
            found = self.inspect()
            if not found:
                return False
            if found["State"]["Running"]:
                # What it keeps is taken away by a program within it, while it looks away.
                self.docker.request("POST", f"/containers/{NAME}/kill", query={"signal": "USR1"})
                self.docker.execute(NAME, [*PROGRAM, "clear"], timeout_seconds=20)
            self.docker.request("DELETE", f"/containers/{NAME}", query={"force": "1"})
            self.docker.request("DELETE", f"/volumes/{NAME}", missing_ok=True)
        return True


def _is(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    same = found["Config"]["Labels"].get("epic.spec") == wanted["Labels"]["epic.spec"]
    return bool(same and found["State"]["Running"])


def _seconds(moment: str) -> str:
    """Return an engine's moment, `2024-05-01T10:00:00.123456789Z`, as it takes it in a query."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return f"{seconds}.{fraction.ljust(9, '0')[:9]}"
