"""Pure functions for the gateway's maps; they know nothing of epic_runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def gateway_map(routes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return routes as entries of the gateway's map, as the module epic_gateway takes them.

    Args:
        routes: With `path` (`/TENANT/CLUSTER/NODE/ENDPOINT`), `container`, `port`, `keeps_path`
            (whether the service knows its path, which is else taken off) and `member` (the one
            whom it is for, or `*`).
    """
    return {
        route["path"].lstrip("/"): "|".join(
            (
                route["container"],
                str(route["port"]),
                "keep" if route["keeps_path"] else "strip",
                route["member"],
            )
        )
        for route in routes
    }


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"gateway_map": gateway_map}
