"""What docs/hosts.md tells a new reader to do, done to the letter on the laboratory's machines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import HOSTS, ROOT, Spread
from life_support import Site

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("lab")]

STEPS_SECONDS = 900
# In their order on the page.
SECTIONS = ("From bare machines to hosts", "Clusters on several hosts")


def steps(section: str) -> list[str]:
    """Return the blocks of shell lines of a section of the page."""
    page = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    text = page.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def reader(spread: Spread, tmp_path: Path) -> Iterator[Site]:
    """A new reader: a state folder of their own, and a checkout with an inventory beside it."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copy(spread.call("inventory"), tmp_path / "hosts.yml")
    # The tenant of the example, whose networks are in a part of the pool that nobody here has.
    site = Site(
        tmp_path, tenant="analytics",
        variables={
            "EPIC_INVENTORY": str(tmp_path / "hosts.yml"),
            "EPIC_NETWORK_POOL": "10.120.0.0/16", "EPIC_BRIDGE_POOL": "10.110.0.0/16",
        },
    )  # fmt: skip
    yield site
    site.run("destroy", "lab", "--yes", code=None)
    site.run("tenant", "remove", "analytics", "--yes", code=None)


def test_whoever_follows_the_page_gets_from_machines_to_a_spread_cluster(reader: Site) -> None:
    blocks = [block for section in SECTIONS for block in steps(section)]
    assert any("host prepare" in block for block in blocks)
    assert any("launch" in block for block in blocks)
    # One shell for all, as the reader's, in which what is exported stays.
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=reader.folder, capture_output=True, text=True, check=False, timeout=STEPS_SECONDS,
        env={**reader.environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    status = reader.status("lab")
    assert status["health"] == "green"
    assert {node["host"] for node in status["nodes"]} == set(HOSTS)
    reader.run("destroy", "lab", "--yes")
