"""Both databases as the store: a hundred launches at once, and a database that goes away."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import life_support
import pytest
from life_support import Site, until
from servers import PostgreSQL

from epic_runner.store import Store

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]
RACING = 100
WINNING = 10


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with life_support.site(tmp_path) as made:
        if request.param == "postgresql":
            server = request.getfixturevalue("postgresql")
            made.variables["EPIC_DATABASE_URL"] = server.new_database()
        yield made


@pytest.fixture
def served(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Site]:
    with life_support.site(tmp_path) as made:
        made.variables["EPIC_DATABASE_URL"] = postgresql.new_database()
        yield made


def at_once(site: Site, commands: list[list[str]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("at_once.py"))],
        input=json.dumps(commands), env=site.environment(), cwd=site.folder,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ended: list[dict[str, Any]] = json.loads(done.stdout)
    return ended


def opened(site: Site) -> Store:
    url = site.variables.get("EPIC_DATABASE_URL", f"sqlite:///{site.home}/store.db")
    return Store(url.replace("postgresql://", "postgresql+psycopg://"))


def test_of_a_hundred_launches_at_once_exactly_as_many_win_as_the_quota_holds(site: Site) -> None:
    """A hundred real processes launch clusters of one tenant, at the same moment.

    Real are the processes, all that `epic-run launch` does from its arguments on, the database,
    and the clusters of the ten that win: a master and a worker each, launched side by side on
    Docker until Spark is ready, and destroyed. `at_once.py` tells what differs: Python is started
    once for all, Ansible not ahead of need, and the machine's own capacity does not count.
    """
    site.quota = {"clusters": WINNING, "nodes": 2 * WINNING}
    template = site.template()
    assert site.json("tenant", "list") == []  # makes the tables
    names = [f"race-{number}" for number in range(RACING)]
    ended = at_once(site, [["launch", template, "--name", name] for name in names])

    outputs = "\n".join(item["output"] for item in ended if item["code"] not in (0, 2))
    assert Counter(item["code"] for item in ended) == {0: WINNING, 2: RACING - WINNING}, outputs
    won = sorted(name for name, item in zip(names, ended, strict=True) if item["code"] == 0)
    for item in ended:
        assert "Traceback" not in item["output"]
        if item["code"]:
            assert f"The quota of tenant {site.tenant} does not hold this" in item["output"]
            assert f"clusters: {WINNING + 1} of {WINNING}" in item["output"]

    # Those that were refused are in nothing: not in the store, not in a folder, not on Docker.
    store = opened(site)
    with store.read() as transaction:
        clusters, operations = transaction.clusters(), transaction.operations(limit=2 * RACING)
    store.close()
    assert sorted(cluster.name for cluster in clusters) == won
    assert sorted(item.cluster for item in operations) == won
    assert {item.state for item in operations} == {"done"}
    assert site.operations() == {item.id for item in operations}
    secrets = (site.home / "secrets" / site.tenant).iterdir()
    assert sorted(path.stem for path in secrets) == won
    assert len(site.labelled("container")) == 2 * WINNING
    ports = [port for cluster in clusters for node in cluster.nodes for port in node.ports.values()]
    assert len(ports) == len(set(ports)) == WINNING
    assert site.json("tenant", "show", site.tenant)["usage"]["clusters"] == WINNING
    for name in (won[0], won[-1]):
        assert site.status(name)["health"] == "green"

    gone = at_once(site, [["destroy", name, "--yes"] for name in won])
    assert [item["code"] for item in gone] == [0] * WINNING, gone
    site.has_nothing()
    usage = site.json("tenant", "show", site.tenant)["usage"]
    assert (usage["clusters"], usage["nodes"]) == (0, 0)


def test_a_database_that_stops_in_a_launch_loses_nothing(
    served: Site, postgresql: PostgreSQL
) -> None:
    launch = served.begin("launch", served.template())
    assert launch.stdout is not None
    until(lambda: "Create nodes" in launch.stdout.readline(), "the play runs")
    postgresql.stop()
    try:
        until(lambda: "store: waiting: " in launch.stdout.readline(), "the launch waits")
        assert served.running() == BOTH
        refused = served.run("status", "lab", code=1)
        assert "127.0.0.1" in refused.err
        assert "cannot be used" in refused.err
        assert "that the server runs" in refused.err
        assert postgresql.password not in refused.err
        looked = served.run("doctor", code=1).out
        assert "store" in looked
        assert postgresql.password not in looked
        assert launch.poll() is None
    finally:
        postgresql.start()
    out, err = launch.communicate(timeout=life_support.LIMIT_SECONDS)
    assert launch.returncode == 0, out + err
    served.is_as_wanted(BOTH)
    operation = served.status()["operation"]
    assert (operation["state"], operation["error"]) == ("done", "")
    store = opened(served)
    with store.read() as transaction:
        phases = {event["phase"] for event in transaction.events(operation["id"])}
    store.close()
    assert {"Create nodes", "Wait until ready"} <= phases
    assert [path for path in served.home.rglob("*") if holds(path, postgresql.password)] == []


def holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()


@pytest.mark.faults
def test_a_launch_that_dies_while_the_database_is_down_is_resumed(
    served: Site, postgresql: PostgreSQL
) -> None:
    template = served.template()
    launch = served.begin("launch", template)
    assert launch.stdout is not None
    until(lambda: "Create nodes" in launch.stdout.readline(), "the play runs")
    postgresql.stop(signal.SIGKILL)
    try:
        refused = served.run("launch", template, code=1)
        assert "run the same command again" in refused.err
        launch.send_signal(signal.SIGKILL)
        launch.communicate()
    finally:
        postgresql.start()
    assert served.status()["operation"]["state"] == "interrupted"
    served.run("launch", template)
    served.is_as_wanted(BOTH)
    served.run("destroy", "lab", "--yes")
    served.has_nothing()


@pytest.mark.faults
def test_a_change_is_settled_when_the_database_is_back(
    served: Site, postgresql: PostgreSQL
) -> None:
    served.run("launch", served.template())
    more = [*BOTH, "worker-2"]
    for command, phase, running in (
        (["expand", "lab"], "Create nodes", more),
        (["stop", "lab"], "Stop nodes", []),
        (["destroy", "lab", "--yes"], "Destroy", []),
    ):
        change = served.begin(*command)
        assert change.stdout is not None
        until(lambda: phase in change.stdout.readline(), "the play runs")  # noqa: B023
        postgresql.stop()
        try:
            until(lambda: "store: waiting: " in change.stdout.readline(), "it waits")  # noqa: B023
            assert served.running() == running
        finally:
            postgresql.start()
        out, err = change.communicate(timeout=life_support.LIMIT_SECONDS)
        assert change.returncode == 0, out + err
        if command[0] != "destroy":
            status = served.status()
            assert (status["health"], status["operation"]["state"]) == ("green", "done")
            assert sorted(node["name"] for node in status["nodes"]) == more
    assert served.json("list") == []
    served.has_nothing()


@pytest.fixture
def filled(site: Site) -> Iterator[Path]:
    """A file that takes all room where the site's store is; whoever has it may remove it."""
    site.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(site.home)], check=True)
    filler = site.home / "filler"
    try:
        yield filler
    finally:
        filler.unlink(missing_ok=True)
        site.clean_up()
        subprocess.run(["umount", str(site.home)], check=True)


def fill(path: Path) -> None:
    done = subprocess.run(
        ["dd", "if=/dev/zero", f"of={path}", "bs=4k"], capture_output=True, check=False
    )
    assert b"No space left" in done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_full_disk_under_the_store_is_told_and_nothing_is_lost(site: Site, filled: Path) -> None:
    template = site.template()
    site.json("list")
    fill(filled)
    for command in (["launch", template], ["list"], ["status", "lab"]):
        refused = site.run(*command, code=1)
        assert "its disk is full" in refused.err
    assert "Make room there" in site.run("doctor", code=1).out
    assert site.labelled("container") == []
    filled.unlink()
    site.run("launch", template)
    site.is_as_wanted(BOTH)
    # In the middle of a change.
    before = site.starts()
    change = site.begin("expand", "lab")
    assert change.stdout is not None
    until(lambda: "Create nodes" in change.stdout.readline(), "the play runs")
    fill(filled)
    until(
        lambda: "its disk is full" in change.stdout.readline() or change.poll() is not None,
        "it is told",
    )
    filled.unlink()
    out, err = change.communicate(timeout=life_support.LIMIT_SECONDS)
    assert "Traceback" not in out + err
    # What did not get to its end is finished by the same command.
    assert change.returncode == 0 or site.run("expand", "lab").code == 0
    site.is_as_wanted([*BOTH, "worker-2"])
    assert {name: site.starts()[name] for name in before} == before
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


@pytest.mark.faults
@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_file_that_is_locked_when_a_launch_ends_gets_its_result_later(site: Site) -> None:
    launch = site.begin("launch", site.template())
    assert launch.stdout is not None
    until(lambda: "Create nodes" in launch.stdout.readline(), "the play runs")
    holder = sqlite3.connect(site.home / "store.db", isolation_level=None, timeout=30)
    try:
        holder.execute("BEGIN IMMEDIATE")
        until(lambda: "store: waiting: " in launch.stdout.readline(), "the launch waits")
        assert site.running() == BOTH
        assert site.status()["operation"]["state"] == "running"
    finally:
        holder.close()
    out, err = launch.communicate(timeout=life_support.LIMIT_SECONDS)
    assert launch.returncode == 0, out + err
    assert site.status()["operation"]["state"] == "done"
    site.is_as_wanted(BOTH)
