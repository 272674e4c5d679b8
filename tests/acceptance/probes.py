"""Run inside a node: tries what a tenant must not reach, and prints what it did reach as JSON.

Its argument is JSON: `tcp` ("address:port"), `udp` (likewise, to something that answers), `ping`
and `arp` (addresses), `names` and `files`. Each kind is answered with the list of those that were
reached. `vxlan` ("host:network:address") sends a packet that pretends to come from within another
network of that host; whether it was taken for one is seen at that address alone, at port 9999.
"""

import json
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 3.0
ARP = 0x0806


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


def arp(address):
    """Whether an address answers on any link; it takes raw sockets, which nodes do not have."""
    return any(asked_on(link, address) for _, link in socket.if_nameindex() if link != "lo")


def asked_on(link, address):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP)) as probe:
        probe.bind((link, ARP))
        probe.settimeout(SECONDS)
        own = probe.getsockname()[4]
        if len(own) != 6:
            return False
        # Request of hardware type 1 (Ethernet) for protocol 0x0800 (IPv4), from an address that
        # means a probe (RFC 5227) and so disturbs nobody.
        question = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, own, b"\0" * 4, b"\0" * 6,
                               socket.inet_aton(address))  # fmt: skip
        probe.send(b"\xff" * 6 + own + struct.pack("!H", ARP) + question)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                answer = probe.recv(2048)
            except TimeoutError:
                return False
            if answer[20:22] == b"\0\2" and answer[28:32] == socket.inet_aton(address):
                return True
    return False


def vxlan(target):
    """Send a forged packet; nothing comes back in any case."""
    host, network, address = target.split(":")
    to = socket.inet_aton(address)
    data = struct.pack("!HHHH", 9999, 9999, 8 + 6, 0) + b"forged"
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0,
                         to[:2] + b"\x00\xfe", to)  # fmt: skip
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    frame = b"\x02\x42" + to + b"\x02\x42\x00\x00\x00\xfe" + b"\x08\x00" + header + data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.sendto(struct.pack("!II", 0x08000000, int(network) << 8) + frame, (host, 4789))
    return False


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
    with ThreadPoolExecutor(96) as pool:
        found = pool.map(lambda target: reached(kind, target), targets)
        return [target for target, is_there in zip(targets, found, strict=True) if is_there]


wanted = json.loads(sys.argv[1])
with ThreadPoolExecutor() as kinds:
    json.dump(
        dict(zip(wanted, kinds.map(all_reached, wanted, wanted.values()), strict=True)), sys.stdout
    )
