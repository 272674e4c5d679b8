"""Pure functions for the gateway's maps; they know nothing of epic_runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def gateway_map(routes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return routes as entries of the gateway's map, as the module epic_gateway takes them.

    Args:
        routes: With `path` (`/TENANT/CLUSTER/NODE/ENDPOINT`), `container`, `port`, `mode` (`keep`
            where the service knows its path, `strip` where that is taken off, `ssh` for one that
            an upgrade leads to), `member` (the one whom it is for, or `*`) and `since` (the oldest
            session that it opens to, in seconds since the epoch; any if absent).
    """
    return {
        route["path"].lstrip("/"): "|".join(
            (
                route["container"],
                str(route["port"]),
                route["mode"],
                route["member"],
                str(route.get("since", 0)),
            )
        )
        for route in routes
    }


class FilterModule:
    """Ansible's entry to this file's filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"gateway_map": gateway_map}
