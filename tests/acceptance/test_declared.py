"""Declared actions: a cluster is of use when its nodes have had them, and no node has one twice."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import life_support
import pytest
import yaml
from life_support import Site, until

pytestmark = pytest.mark.docker

INSTALL = (
    '#!/bin/bash\necho "install-$1 $EPIC_NODE $(id -un)" >>/tenant/log\nchmod a+w /tenant/log\n'
)
# It fails until something is mended, and then goes on until it is let.
ONCE = """
echo "once $EPIC_NODE $(id -un)" >>/tenant/log
[ -e /tenant/mended ] || { printf 'no licence\\033[2J here\\n'; exit 3; }
until [ -e /tenant/go ]; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("declared")) as made:
        yield made


def template(site: Site, **install: Any) -> str:
    """Write the template and its script; return its path."""
    path = Path(site.template())
    *others, wanted = yaml.safe_load_all(path.read_text())
    wanted["actions"] = [
        {"run": "scripts/install.sh", "args": ["a"], "sudo": True, "replay": True, **install},
        {"command": ONCE, "name": "once", "roles": ["worker"], "timeout": "1h"},
    ]
    path.write_text(yaml.safe_dump_all([*others, wanted]))
    (site.folder / "scripts").mkdir(exist_ok=True)
    (site.folder / "scripts" / "install.sh").write_text(INSTALL)
    return str(path)


def log(site: Site) -> Counter[str]:
    """Return what nodes have run, and how often."""
    return Counter(site.inside("master-1", "cat", "/tenant/log").splitlines())


def told(site: Site) -> dict[str, dict[str, str]]:
    """Return the state of each declared action on each node."""
    return {
        action["name"]: {node: of["state"] for node, of in action["nodes"].items()}
        for action in site.status()["actions"]
    }


def test_a_launch_whose_action_fails_tells_where_and_why_and_goes_on_when_it_is_mended(
    site: Site,
) -> None:
    path = template(site)
    planned = site.json("plan", path)["actions"]
    assert [item["nodes"] for item in planned] == [["master-1", "worker-1"], ["worker-1"]]
    failed = site.run("launch", path, code=1)
    assert "worker-1: once failed with exit code 3" in failed.err
    assert "\n  no licence^[[2J here\n" in failed.err
    assert "epic-run action logs" in failed.err
    assert "worker-1: FAILED: once: failed with exit code 3" in failed.out
    assert log(site) == Counter(
        ["install-a master-1 root", "install-a worker-1 root", "once worker-1 ada"]
    )
    status = site.status()
    assert (status["health"], status["nodes"][1]["state"]) == ("red", "error")
    assert "once: failed with exit code 3" in status["reason"]
    assert status["nodes"][0]["state"] == "ready"
    assert (status["awaits"], status["endpoints"]) == (["once"], [])
    assert "addresses are told when these are done: once." in site.run("status", "lab").out
    job = site.folder / "job.sh"
    job.write_text("echo early\n")
    refused = site.run("submit", "lab", str(job), code=2)
    assert "lab is of use when the actions that its template declares are done: once" in refused.err


def test_a_controller_that_dies_leaves_the_action_to_the_next_one_which_runs_it_no_second_time(
    site: Site,
) -> None:
    site.inside("master-1", "touch", "/tenant/mended")
    site.cut_off(lambda: log(site)["once worker-1 ada"] == 2, "launch", template(site))
    assert told(site)["once"] == {"worker-1": "running"}
    assert site.status()["health"] == "red"
    again = site.begin("launch", template(site))
    try:
        assert again.stdout
        line = next(text for text in again.stdout if "worker-1: once: running" in text)
        assert site.status()["nodes"][1]["state"] == "configuring", line
        site.inside("master-1", "touch", "/tenant/go")
        out, err = again.communicate(timeout=life_support.LIMIT_SECONDS)
    finally:
        again.kill()
    assert again.returncode == 0, out + err
    assert log(site) == Counter(
        {"install-a master-1 root": 1, "install-a worker-1 root": 1, "once worker-1 ada": 2}
    )
    site.is_as_wanted(["master-1", "worker-1"])
    assert told(site) == {
        "install.sh": {"master-1": "done", "worker-1": "done"},
        "once": {"worker-1": "done"},
    }
    assert "install.sh  " in site.run("status", "lab").out
    status = site.status()
    assert status["awaits"] == []
    assert status["endpoints"]
    assert "early" in site.run("submit", "lab", str(site.folder / "job.sh")).out
    listed = site.json("action", "list", "lab")
    assert {(item["user"], item["name"]) for item in listed} == {
        ("ada", "install.sh"), ("ada", "once"),
    }  # fmt: skip


def test_what_is_exported_declares_the_same_actions(site: Site) -> None:
    exported = site.folder / "exported.yml"
    exported.write_text(site.run("export", "lab").out)
    assert 'echo "install-$1 $EPIC_NODE $(id -un)"' in exported.read_text()
    planned = site.json("plan", str(exported))
    assert [item["nodes"] for item in planned["actions"]] == [[], []]
    assert {item["action"] for item in planned["nodes"]} == {"keep"}


def test_root_is_refused_to_who_may_not_and_the_attempt_is_kept(site: Site) -> None:
    refused = site.run("launch", template(site, args=["b"]), "--as", "bob", code=2)
    assert "install.sh is refused: bob may not become root" in refused.err
    newest = json.loads(site.run("action", "list", "lab", "--output", "json").out)[0]
    assert (newest["state"], newest["user"]) == ("refused", "bob")
    assert not any(line.startswith("install-b") for line in log(site))


def test_nodes_that_come_later_get_what_is_replayed_also_when_the_files_are_gone(
    site: Site,
) -> None:
    before = log(site)
    shutil.rmtree(site.folder / "scripts")
    site.run("expand", "lab")
    assert log(site) - before == Counter(["install-a worker-2 root"])
    assert told(site)["once"] == {"worker-1": "done", "worker-2": "passed over"}
    site.docker("rm", "--force", site.container("worker-1"))
    site.run("repair", "lab")
    assert log(site) - before == Counter(["install-a worker-2 root", "install-a worker-1 root"])
    site.run("restart", "lab")
    assert sum((log(site) - before).values()) == 2
    site.is_as_wanted(["master-1", "worker-1", "worker-2"])


def test_an_action_that_is_changed_is_another_one_and_ctrl_c_ends_it_on_all_nodes(
    site: Site,
) -> None:
    path = template(site, run=None, command="echo begun; sleep 313", on_failure="continue")
    cut = site.cut_off(
        lambda: sum("sleep" in line for line in processes(site)) == 3,
        "launch", path, with_signal=signal.SIGINT,
    )  # fmt: skip
    assert cut.code != 0
    until(lambda: not any("sleep" in line for line in processes(site)), "they have ended")
    assert set(told(site)["echo begun; sleep 313"].values()) == {"cancelled"}
    path = template(site, run=None, command="exit 4", on_failure="continue")
    site.run("launch", path)
    status = site.status()
    assert (status["health"], status["nodes"][0]["state"]) == ("yellow", "ready")
    assert "exit 4: failed with exit code 4" in status["reason"]


def processes(site: Site) -> list[str]:
    """Return the commands of what runs in the nodes as root, but for their services."""
    return [
        line
        for node in ("master-1", "worker-1", "worker-2")
        for line in site.inside(node, "ps", "-eo", "args").splitlines()
        if line == "sleep 313"
    ]
