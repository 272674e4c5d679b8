"""A network that was removed."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("host", ["host-1", "host-2"])
def test_it_is_gone_on_all_managers(manager, host):
    listing = "docker network ls -q --filter name=epic_molecule"
    assert manager(host).check_output(listing) == ""
