"""Run inside a node: tries what a tenant must not reach, and prints what it did reach as JSON.

Its argument is JSON: `tcp` ("address:port"), `udp` (likewise, to something that answers), `ping`
(addresses), `names` and `files`. Each kind is answered with the list of those that were reached.
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 3.0


def tcp(target):
    address, port = target.rsplit(":", 1)
    with socket.create_connection((address, int(port)), SECONDS):
        return True


def udp(target):
    """Whether something comes back; where nothing listens, a refusal comes back as well."""
    address, port = target.rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(SECONDS)
        probe.connect((address, int(port)))
        probe.send(b"?")
        try:
            probe.recv(16)
        except ConnectionRefusedError:
            return True
    return True


def ping(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as probe:
        probe.settimeout(SECONDS)
        # Echo request, code, checksum and id (the kernel's to fill in), sequence 1.
        probe.sendto(b"\x08\x00\xf7\xfe\x00\x00\x00\x01", (address, 0))
        probe.recv(64)
    return True


def names(name):
    return bool(socket.getaddrinfo(name, None))


def files(path):
    return Path(path).exists()


def reached(kind, target):
    try:
        return globals()[kind](target)
    except OSError:
        return False


def all_reached(kind, targets):
    with ThreadPoolExecutor(32) as pool:
        found = pool.map(lambda target: reached(kind, target), targets)
        return [target for target, is_there in zip(targets, found, strict=True) if is_there]


json.dump({kind: all_reached(kind, to) for kind, to in json.loads(sys.argv[1]).items()}, sys.stdout)
