"""What the tests of all scenarios look at: the nodes that a scenario made."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

TENANT = os.environ.get("MOLECULE_TENANT", "")


@pytest.fixture(scope="session")
def machine() -> Host:
    """Look at this machine, the scenario's Docker host."""
    return testinfra.get_host("local://")


@pytest.fixture(scope="session")
def node() -> Callable[[str], Host]:
    """Look into a node as root, by its short name."""
    return lambda short_name: testinfra.get_host(f"docker://epic.{TENANT}.lab.{short_name}")


@pytest.fixture(scope="session")
def inspect(machine: Host) -> Callable[[str], dict[str, Any]]:
    """Ask Docker about a node, by its short name."""
    return lambda short_name: machine.docker(f"epic.{TENANT}.lab.{short_name}").inspect()


@pytest.fixture(scope="session")
def docker_names(machine: Host) -> Callable[[str], set[str]]:
    """List the last parts of the names of the tenant's containers, networks or volumes."""

    def listed(kind: str) -> set[str]:
        field = "{{.Names}}" if kind == "container" else "{{.Name}}"
        everything = "--all" if kind == "container" else ""
        names = machine.check_output(
            f"docker {kind} ls {everything} --filter label=epic.tenant={TENANT} --format '{field}'"
        )
        return {name.rpartition(".")[2] for name in names.splitlines()}

    return listed
