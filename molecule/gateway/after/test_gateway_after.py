"""A gateway to whose only cluster the way was closed."""

from __future__ import annotations

import os


def test_nothing_is_there_any_more(ask):
    assert ask("stripped/")[0] == 404


def test_it_has_left_the_network_of_the_tenant(gateway):
    assert f"epic.{os.environ['MOLECULE_TENANT']}" not in gateway["NetworkSettings"]["Networks"]
