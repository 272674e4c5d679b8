"""Ports of a host's loopback address at which endpoints are published."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable

from epic_runner.cluster import Endpoint
from epic_runner.errors import EpicError, InputError

# Below the kernel's ephemeral ports (32768 up), so that no client's socket is in the way.
FIRST, LAST = 20000, 29999
HIGHEST = 65535


def span() -> range:
    """Return the ports that may be chosen: those of `EPIC_PORTS`, as 21000-21999, else ours.

    Two stores on one machine do not know each other's ports; with parts of their own they do not
    meet, also while a cluster is stopped.

    Raises:
        InputError: It is no such part.
    """
    text = os.environ.get("EPIC_PORTS") or f"{FIRST}-{LAST}"
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if not found or not 0 < int(found[1]) <= int(found[2]) <= HIGHEST:
        raise InputError(f"EPIC_PORTS={text} is no range of ports.", "Give one as 21000-21999.")
    return range(int(found[1]), int(found[2]) + 1)


def is_free(port: int) -> bool:
    """Whether this machine's loopback address has `port` free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(
    endpoints: Iterable[Endpoint], taken: set[int], free: Callable[[int], bool] = is_free
) -> dict[str, int]:
    """Return a port for each endpoint by name, and add them to `taken`.

    Raises:
        EpicError: All ports of the range are taken, or `EPIC_PORTS` names none.
    """
    chosen, wanted = {}, span()
    for endpoint in endpoints:
        port = next((number for number in wanted if number not in taken and free(number)), None)
        if port is None:
            raise EpicError(
                f"All loopback ports from {wanted[0]} to {wanted[-1]} are taken.",
                "EPIC_PORTS=FIRST-LAST names others.",
            )
        taken.add(port)
        chosen[endpoint.name] = port
    return chosen
