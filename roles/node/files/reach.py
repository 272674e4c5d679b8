"""Whether other nodes are reached: small packets, and the largest that the network is to carry.

Arguments: SECONDS, "early" or "late", then HOST=ADDRESS for a node of each other host. Prints why
for those that are not reached; early, that they are waited for.
"""

import contextlib
import errno
import select
import socket
import struct
import sys
import time

HEADERS = 28  # IPv4 and ICMP
DONT_FRAGMENT = (10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO


def mtu_of(address: str) -> int:
    """Return the largest packet of the way to an address, in bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((address, 9))
        return way.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU


def echo(sequence: int, size: int) -> bytes:
    """Return an echo request with `size` bytes of data."""
    packet = struct.pack("!BBHHH", 8, 0, 0, 0, sequence) + bytes(size)
    words = struct.unpack(f"!{len(packet) // 2}H", packet[: len(packet) // 2 * 2])
    total = sum(words) + (packet[-1] << 8 if len(packet) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:2] + struct.pack("!H", ~total & 0xFFFF) + packet[4:]


def reached(address: str, sizes: tuple[int, ...], end: float) -> set[int]:
    """Return the sizes of those packets that came back."""
    seen: set[int] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as way:
        way.setsockopt(socket.IPPROTO_IP, *DONT_FRAGMENT)
        way.connect((address, 0))
        while seen != set(sizes) and time.monotonic() < end:
            for number, size in enumerate(sizes):
                if size not in seen:
                    try:
                        way.send(echo(number, size))
                    except OSError as problem:
                        if problem.errno != errno.EHOSTUNREACH:
                            return seen
            until = min(end, time.monotonic() + 0.3)
            while seen != set(sizes) and time.monotonic() < until:
                if select.select([way], [], [], max(0, until - time.monotonic()))[0]:
                    with contextlib.suppress(OSError):
                        seen.add(len(way.recv(65536)) - 8)
    return seen


def main() -> None:
    """Look for all that the arguments name."""
    end = time.monotonic() + float(sys.argv[1])
    early = sys.argv[2] == "early"
    problems = []
    for item in sys.argv[3:]:
        host, _, address = item.partition("=")
        small, large = 8, mtu_of(address) - HEADERS
        seen = reached(address, (small, large), max(end, time.monotonic() + 0.5))
        if early and len(seen) < len({small, large}):
            problems.append(f"waits for an answer of {host}: a network may need a minute to form")
        elif small not in seen:
            problems.append(
                f"no packet comes back from {address} on host {host}: is 4789/udp open between "
                "the two hosts, and 7946/tcp and udp? epic-run host check"
            )
        elif large not in seen:
            problems.append(
                f"packets of {large + HEADERS} bytes to {address} on host {host} are lost and "
                "small ones are not: the hosts' network carries less than their interfaces say; "
                "give all of them its MTU, then epic-run host check"
            )
    sys.exit("; ".join(problems) or 0)


main()
