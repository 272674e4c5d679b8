# ruff: noqa: INP001, T201 - a program of the image, no part of a package
"""Keeps what tenants may reach on this host: one table of nftables, and the gateways' addresses.

    firewall.py keep     puts the table there, and back whenever it is gone or altered
    firewall.py check    tells whether the kernel has what is wanted; exits 1 if not
    firewall.py clear    takes table and addresses away, once `keep` was told so by USR1

A tenant's policy is a file of /var/lib/epic-firewall, which the launcher writes before it sends
HUP. The bridges of tenants are made without an address (`inhibit_ipv4`): their nodes have a default
route that leads nowhere until this program, once its table is in the kernel, gives the bridge its
address. So what does not run opens nothing, also while a host starts; and when the table cannot be
put back, the addresses are taken away again.

The last line of its output tells what is in force: `ok BRIDGE=DIGEST...`, or `broken WHY`.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Policy = dict[str, Any]
# By name, each address with the moment when it was seen last.
Sights = dict[str, dict[str, float]]

POLICIES = Path("/var/lib/epic-firewall")
EXPECTED = Path("/run/epic-firewall")
TABLE = "inet epic"
PREFIX = "epo"
CHECK_SECONDS = 5.0
RESOLVE_SECONDS = 30.0
# Names that are asked for at the same time.
ASKING = 16
# Names of content networks have other addresses every minute, and nodes still use those of before.
KEPT_SECONDS = 3600.0
SETTLE_SECONDS = 0.05
GET_ADDRESS = 0x8915  # SIOCGIFADDR

# Closed to everybody: this host and its links, multicast, and what clouds answer metadata on.
NEVER = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
    "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
)  # fmt: skip
REJECT = "reject with icmpx admin-prohibited"
OTHER_BRIDGES = ('"docker0"', '"docker_gwbridge"', '"br-*"', f'"{PREFIX}*"')


# -- decisions ---------------------------------------------------------------------------------


def networks(addresses: Iterable[str]) -> str:
    """Return addresses and networks as nftables takes them in a set: none within another."""
    found = ipaddress.collapse_addresses(ipaddress.IPv4Network(item) for item in addresses)
    return "{ " + ", ".join(str(item) for item in found) + " }"


def is_network(to: str) -> bool:
    """Whether a destination is an address or a network, and no name."""
    return not to.strip("0123456789./")


def opened(policy: Policy, addresses: Mapping[str, Iterable[str]]) -> dict[int, list[str]]:
    """Return what a tenant may reach: networks by port, 0 for all ports."""
    by_port: dict[int, list[str]] = {}
    for item in policy["allow"]:
        to = item["to"]
        targets = [to] if is_network(to) else sorted(addresses.get(to, ()))
        if targets:
            by_port.setdefault(item["port"], []).extend(targets)
    return by_port


def tenant_chain(policy: Policy, addresses: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the rules for what comes from a tenant's bridge, the first that matches decides."""
    bridge = policy["bridge"]
    rules = [f"ip saddr != {policy['subnet']} drop"]
    if policy["inside"]:
        rules.append(f'oifname "{bridge}" accept')
    rules += [f"oifname {other} {REJECT}" for other in OTHER_BRIDGES]
    if policy["allow"] and policy["resolvers"]:
        rules.append(f"ip daddr {networks(policy['resolvers'])} meta l4proto {{ tcp, udp }} "
                     "th dport 53 accept")  # fmt: skip
    closed = networks([*NEVER, *policy["closed"]])
    rules.append(f"ip daddr {closed} {REJECT}")
    # What a host publishes has the address behind it by now; what was asked for is remembered. So
    # it is closed also where the bridge behind it has a name that nobody knows. Servers of names
    # may be hosts, and come first.
    rules.append(f"ct original ip daddr {closed} {REJECT}")
    for port, targets in sorted(opened(policy, addresses).items()):
        ports = f" meta l4proto {{ tcp, udp }} th dport {port}" if port else ""
        rules.append(f"ip daddr {networks(targets)}{ports} accept")
    return [*rules, REJECT]


def rules(policies: Iterable[Policy], addresses: Mapping[str, Iterable[str]]) -> str:
    """Return the whole table as nftables reads it: it takes the place of the one before at once.

    Connections are looked at by every packet that a tenant sends, so that what is closed ends;
    only replies are known by their connection.
    """
    policies = sorted(policies, key=lambda policy: policy["bridge"])
    replies = "ct direction reply ct state established,related accept"
    local = [
        f'iifname "{policy["bridge"]}" ip daddr {networks(policy["resolvers"])} '
        "meta l4proto { tcp, udp } th dport 53 accept"
        for policy in policies
        if policy["allow"] and policy["resolvers"]
    ]
    jumps = ", ".join(f'"{policy["bridge"]}" : goto {policy["bridge"]}' for policy in policies)
    chains = {
        "input": [
            "type filter hook input priority filter - 10; policy accept;",
            f'iifname "{PREFIX}*" goto to_host',
        ],
        "to_host": [replies, *local, REJECT],
        "forward": [
            "type filter hook forward priority filter - 10; policy accept;",
            f'iifname "{PREFIX}*" goto from_tenants',
            f'oifname "{PREFIX}*" goto to_tenants',
        ],
        "to_tenants": ["ct state established,related accept", "drop"],
        "from_tenants": [
            replies,
            *([f"iifname vmap {{ {jumps} }}"] if jumps else []),
            REJECT,
        ],
        **{policy["bridge"]: tenant_chain(policy, addresses) for policy in policies},
    }
    if policies:
        inside = networks(policy["subnet"] for policy in policies)
        chains["postrouting"] = [
            "type nat hook postrouting priority srcnat; policy accept;",
            f'ip saddr {inside} oifname != "{PREFIX}*" masquerade',
        ]
    # Chains are made before others lead to them.
    led_to = ["to_host", "to_tenants", "from_tenants", *(policy["bridge"] for policy in policies)]
    names = "".join(f"add chain {TABLE} {name}\n" for name in led_to)
    body = "".join(
        f"  chain {name} {{\n" + "".join(f"    {rule}\n" for rule in lines) + "  }\n"
        for name, lines in chains.items()
    )
    return (
        f"table {TABLE}\ndelete table {TABLE}\ntable {TABLE}\n{names}table {TABLE} {{\n{body}}}\n"
    )


def names_of(policies: Iterable[Policy]) -> set[str]:
    """Return the names that have to be resolved."""
    return {
        item["to"] for policy in policies for item in policy["allow"] if not is_network(item["to"])
    }


def remembered(known: Sights, found: Mapping[str, Iterable[str]], now: float) -> Sights:
    """Return the addresses of names with the time of their last sight, without the oldest."""
    merged = {}
    for name, addresses in found.items():
        old = {
            address: seen for address, seen in known.get(name, {}).items()
            if now - seen < KEPT_SECONDS
        }  # fmt: skip
        merged[name] = old | dict.fromkeys(addresses, now)
    return merged


# -- effects -----------------------------------------------------------------------------------


class FirewallError(Exception):
    """The kernel does not do what is wanted."""


def read_policies() -> dict[str, Policy]:
    """Return the policies by the digests of their files; an empty file's is removed."""
    found = {}
    for path in sorted(POLICIES.glob("*.json")):
        content = path.read_bytes()
        policy = json.loads(content or b"{}")
        if policy:
            found[hashlib.sha256(content).hexdigest()[:8]] = policy
        else:
            path.unlink()
    return found


def nft(*arguments: str, given: str | None = None) -> str:
    """Run nft; return what it prints."""
    done = subprocess.run(
        ["nft", *arguments], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FirewallError((done.stderr.strip().splitlines() or ["nft failed"])[0])
    return done.stdout


def listed(*, required: bool = False) -> str:
    """Return the table as the kernel has it; empty where there is none and none is required."""
    try:
        return nft("--stateless", "list", "table", *TABLE.split())
    except FirewallError:
        if required:
            raise
        return ""


def addresses_of(name: str) -> set[str]:
    """Return the addresses that a name leads to now; none where no server answers."""
    try:
        return {str(item[4][0]) for item in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        return set()


class Resolver:
    """Asks for names aside: a server that is silent takes ten seconds and more for each.

    Its threads are daemons, so that the program ends while they wait.
    """

    def __init__(self, waker: int) -> None:
        """Take the end of a pipe that is written to whenever a name has its answer."""
        self.waker = waker
        # Those that are under way; only who asks changes it.
        self.asked: set[str] = set()
        self.names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[tuple[str, set[str]]] = queue.SimpleQueue()
        for _ in range(ASKING):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        """Ask for one name after the other."""
        while True:
            name = self.names.get()
            self.answers.put((name, addresses_of(name)))
            # A full pipe wakes as well.
            with contextlib.suppress(BlockingIOError):
                os.write(self.waker, b"\0")

    def ask(self, names: Iterable[str]) -> None:
        """Have names looked up that are not under way."""
        for name in sorted(set(names) - self.asked):
            self.asked.add(name)
            self.names.put(name)

    def answered(self) -> dict[str, set[str]]:
        """Return what was found since the last time, without waiting."""
        found = {}
        with contextlib.suppress(queue.Empty):
            while True:
                name, addresses = self.answers.get_nowait()
                self.asked.discard(name)
                found[name] = addresses
        return found


def has_address(bridge: str, address: str) -> bool | None:
    """Whether a bridge has this address; None where there is no such bridge."""
    if not Path("/sys/class/net", bridge).exists():
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("256s", bridge.encode())
        try:
            answer = fcntl.ioctl(asking.fileno(), GET_ADDRESS, request)
        except OSError:
            return False
    return socket.inet_ntoa(answer[20:24]) == address


def ip(*arguments: str) -> None:
    """Change the addresses of an interface."""
    subprocess.run(["ip", *arguments], check=False, capture_output=True)


def open_gateways(policies: Iterable[Policy]) -> None:
    """Give bridges the addresses that their nodes' default routes lead to."""
    for policy in policies:
        if has_address(policy["bridge"], policy["gateway"]) is False:
            length = policy["subnet"].partition("/")[2]
            ip("address", "replace", f"{policy['gateway']}/{length}", "dev", policy["bridge"])


def close_gateways() -> None:
    """Take the addresses of all tenants' bridges away."""
    for path in Path("/sys/class/net").glob(f"{PREFIX}*"):
        ip("-4", "address", "flush", "dev", path.name)


class Keeper:
    """Keeps the table as wanted."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.policies: dict[str, Policy] = {}
        self.addresses: Sights = {}
        self.expected = ""
        self.said = ""

    def load(self) -> None:
        """Take up the policies as they are in the files now."""
        self.policies = read_policies()
        # At once with the addresses that are known; a slow resolver shall not hold up a launch.
        self.put()
        self.resolve()

    def resolve(self) -> None:
        """Have the names looked up anew; what is known of them stays in force meanwhile."""
        self.resolver.ask(names_of(self.policies.values()))

    def learn(self) -> None:
        """Take up what the resolver has found since the last time."""
        found = self.resolver.answered()
        if not found:
            return
        before = {name: set(known) for name, known in self.addresses.items()}
        names = names_of(self.policies.values())
        self.addresses = remembered(
            self.addresses, {name: found.get(name, ()) for name in names}, time.monotonic()
        )
        if before != {name: set(known) for name, known in self.addresses.items()}:
            self.put()

    def put(self) -> None:
        """Put the table into the kernel, then open the gateways; or close them."""
        try:
            nft("--file", "-", given=rules(self.policies.values(), self.addresses))
            self.expected = listed(required=True)
        except FirewallError as problem:
            close_gateways()
            self.say(f"broken {problem}")
            return
        EXPECTED.mkdir(parents=True, exist_ok=True)
        (EXPECTED / "table").write_text(self.expected)
        open_gateways(self.policies.values())
        pairs = (f"{policy['bridge']}={digest}" for digest, policy in self.policies.items())
        self.say(" ".join(["ok", *sorted(pairs)]), always=True)

    def say(self, line: str, *, always: bool = False) -> None:
        """Tell what is in force."""
        if always or line != self.said:
            print(line, flush=True)
        self.said = line

    def look(self) -> None:
        """Put the table back where it is not as wanted."""
        if listed() != self.expected or not self.expected:
            print("the table was altered", file=sys.stderr)
            self.put()
        else:
            open_gateways(self.policies.values())


def keep() -> None:
    """Run until told to end; the table stays."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    ended, leaving = [], []
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda *_: leaving.append(1))
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    keeper = Keeper(Resolver(waker))
    # Changes from now on wake this up; those of before are seen by the first look.
    monitor = subprocess.Popen(
        ["nft", "monitor"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    keeper.load()
    next_resolve = time.monotonic() + RESOLVE_SECONDS
    while not ended:
        watched = [wake] + ([monitor.stdout] if monitor.poll() is None and not leaving else [])
        ready, _, _ = select.select(watched, [], [], CHECK_SECONDS)
        # A byte is the number of a signal, or 0 for names.
        told = os.read(wake, 64) if wake in ready else b""
        if ended or leaving:
            continue
        keeper.learn()
        if signal.SIGHUP in told:
            keeper.load()
        else:
            if monitor.stdout in ready:
                time.sleep(SETTLE_SECONDS)
                monitor.stdout.read(1 << 16)
            keeper.look()
        if time.monotonic() > next_resolve:
            keeper.resolve()
            next_resolve = time.monotonic() + RESOLVE_SECONDS
    monitor.terminate()


def check() -> str:
    """Return what is wrong; empty where all is as wanted."""
    with contextlib.suppress(OSError):
        if (EXPECTED / "table").read_text() != listed():
            return f"the table {TABLE} is not as it is wanted"
        for policy in read_policies().values():
            if has_address(policy["bridge"], policy["gateway"]) is False:
                return f"the bridge {policy['bridge']} of {policy['tenant']} has no address"
        return ""
    return f"the table {TABLE} was never put there"


def main() -> None:
    """Do what the first argument says."""
    verb = sys.argv[1]
    if verb == "keep":
        keep()
    elif verb == "check":
        problem = check()
        print(problem or "ok")
        sys.exit(1 if problem else 0)
    elif verb == "clear":
        close_gateways()
        with contextlib.suppress(FirewallError):
            nft("delete", "table", *TABLE.split())
    else:
        sys.exit(f"firewall.py: what is {verb}?")


if __name__ == "__main__":
    main()
