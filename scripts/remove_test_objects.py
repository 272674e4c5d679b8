"""Removes the containers, networks and volumes that tests left: all that a name prefix has.

Usage: python scripts/remove_test_objects.py TENANT-PREFIX

Exits with 1 when something was left, since tests clean up after themselves; it is gone then.
"""

from __future__ import annotations

import sys

import docker
from docker.errors import NotFound


def main() -> int:
    """Remove every object of tenants whose name starts with the prefix; returns the exit code."""
    if len(sys.argv) != 2 or not sys.argv[1]:  # noqa: PLR2004 - the program and one argument
        sys.stderr.write(__doc__ or "")
        return 2
    # A gateway has a dash where what belongs to a tenant has a dot.
    prefix = (f"epic.{sys.argv[1]}", f"epic-{sys.argv[1]}")
    client = docker.from_env()
    removed = []
    for container in client.containers.list(all=True, ignore_removed=True):
        if (container.name or "").startswith(prefix):
            removed.append(f"container {container.name}")
            try:
                container.remove(force=True, v=True)
            except NotFound:
                continue
    for network in client.networks.list():
        if (network.name or "").startswith(prefix):
            removed.append(f"network {network.name}")
            network.remove()
    for volume in client.volumes.list():
        if volume.name.startswith(prefix):
            removed.append(f"volume {volume.name}")
            volume.remove(force=True)
    for item in removed:
        sys.stdout.write(f"Left by the tests, now removed: {item}\n")
    return 1 if removed else 0


if __name__ == "__main__":
    raise SystemExit(main())
