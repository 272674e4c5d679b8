"""Ports of a host's loopback address at which endpoints are published."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from epic_runner.cluster import Endpoint
from epic_runner.errors import EpicError

# Below the kernel's ephemeral ports (32768 up), so that no client's socket is in the way.
FIRST, LAST = 20000, 29999


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
        EpicError: All ports of the range are taken.
    """
    chosen = {}
    for endpoint in endpoints:
        port = next(
            (number for number in range(FIRST, LAST + 1) if number not in taken and free(number)),
            None,
        )
        if port is None:
            raise EpicError(f"All loopback ports from {FIRST} to {LAST} are taken.")
        taken.add(port)
        chosen[endpoint.name] = port
    return chosen
