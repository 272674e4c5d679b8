"""Looks at the swarm's managers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
import testinfra
from testinfra.host import Host


@pytest.fixture(scope="session")
def manager() -> Callable[[str], Host]:
    """Look into a host of the laboratory, by its name."""
    lab = re.sub("[^a-z0-9]", "", os.environ.get("MOLECULE_TENANT", ""))
    return lambda name: testinfra.get_host(f"docker://epic-{lab}-{name}")
