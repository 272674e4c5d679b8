"""`epic-run doctor` with an inventory of hosts, on the laboratory's three."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from laboratory import HOSTS, Spread

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("lab")]

# Seconds that people wait at most to be told of a silent host, on a busy machine too.
SILENT_SECONDS = 30


def told(spread: Spread, *, code: int) -> dict[str, dict[str, Any]]:
    """Return what is told of each host."""
    said = json.loads(spread.site.run("doctor", "--output", "json", code=code).out)
    assert said["state"] == ("fail" if code else "warn")
    return {report["host"]: report for report in said["hosts"]}


def test_every_host_is_looked_at_and_a_silent_one_named_in_time(spread: Spread, third: str) -> None:
    spread.site.run("host", "prepare")
    found = told(spread, code=0)
    assert list(found) == HOSTS
    for report in found.values():
        assert report["state"] in ("ok", "warn"), report
        assert "of the swarm" in report["seen"]
        checks = {finding["check"] for finding in report["findings"]}
        assert {"images", "storage", "disk"} <= checks

    before = (spread.site.home / "store.db").read_bytes()
    spread.machine("pause", third)
    try:
        began = time.monotonic()
        found = told(spread, code=1)
        assert time.monotonic() - began < SILENT_SECONDS
    finally:
        spread.machine("unpause", third)
    assert (found[third]["state"], found[third]["seen"]) == ("fail", "silent")
    [silent] = found[third]["findings"]
    assert "no answer within" in silent["seen"]
    assert silent["mend"]
    # The others are looked at all the same, and nothing of it is remembered.
    assert all(found[host]["seen"].startswith("Docker ") for host in HOSTS if host != third)
    assert (spread.site.home / "store.db").read_bytes() == before
