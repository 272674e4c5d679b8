"""Several at once, and a store that cannot be used: nobody gets half of anything."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator

import life_support
import pytest
import yaml
from life_support import Site, until

from epic_runner.store.schema import HEAD

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("races")) as made:
        yield made


def test_the_quota_holds_when_launches_race(site: Site) -> None:
    site.quota = {"clusters": 2, "nodes": 5}
    files = {name: site.template(name) for name in ("a", "b", "c", "d")}
    racing = {name: site.begin("launch", file) for name, file in files.items()}
    ended = {
        name: (*process.communicate(timeout=life_support.LIMIT_SECONDS), process.returncode)
        for name, process in racing.items()
    }
    codes = sorted(code for _, _, code in ended.values())
    assert codes == [0, 0, 2, 2], ended
    for name, (_, err, code) in ended.items():
        if code:
            assert f"The quota of tenant {site.tenant} does not hold this" in err
            assert "clusters: 3 of 2" in err
            assert site.nodes(name) == {}
        else:
            site.is_as_wanted(BOTH, name)
    winners = [name for name, (_, _, code) in ended.items() if not code]
    assert sorted(item["name"] for item in site.json("list")) == sorted(winners)
    # Nodes of both clusters come to one more than the quota: one of the two expands wins.
    expands = [site.begin("expand", name) for name in winners]
    errors = [process.communicate(timeout=life_support.LIMIT_SECONDS)[1] for process in expands]
    assert sorted(process.returncode for process in expands) == [0, 2], errors
    assert "nodes: 6 of 5" in "".join(errors)
    assert sum(len(site.nodes(name)) for name in winners) == 5
    gone = [site.begin("destroy", name, "--yes") for name in winners]
    told = [process.communicate(timeout=life_support.LIMIT_SECONDS) for process in gone]
    assert [process.returncode for process in gone] == [0, 0], told
    site.has_nothing()


def test_the_second_operation_is_told_who_holds_the_cluster(site: Site) -> None:
    site.quota = {}
    template = site.template()
    first = site.begin("launch", template)
    until(site.operations, "the launch has begun")
    until(lambda: site.json("list"), "the launch has reserved")
    # However fast it is, it cannot end meanwhile; and who is halted is not dead.
    first.send_signal(signal.SIGSTOP)
    try:
        for verb in (["launch", template], ["expand", "lab"], ["destroy", "lab", "--yes"]):
            refused = site.run(*verb, code=1)
            assert "lab is busy: " in refused.err
            assert "runs launch on it" in refused.err
            assert f"process {first.pid} on " in refused.err
        refused = site.run("tenant", "remove", site.tenant, "--yes", code=2)
        assert "still has clusters" in refused.err
    finally:
        first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=life_support.LIMIT_SECONDS)
    assert first.returncode == 0, out + err
    site.is_as_wanted(BOTH)


def test_a_store_that_stays_locked_is_told_and_nothing_is_lost(site: Site) -> None:
    before = site.starts()
    holder = sqlite3.connect(site.home / "store.db", isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        refused = site.run("expand", "lab", code=1)
    finally:
        holder.close()
    assert "locked" in refused.err
    assert site.starts() == before
    site.is_as_wanted(BOTH)


def test_a_store_that_is_locked_for_a_while_does_not_harm_an_operation(site: Site) -> None:
    process = site.begin("expand", "lab")
    assert process.stdout is not None
    until(lambda: "Create nodes" in process.stdout.readline(), "the play runs")
    holder = sqlite3.connect(site.home / "store.db", isolation_level=None, timeout=30)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        until(lambda: "worker-2" in site.running(), "the new node is made")
    finally:
        holder.close()
    out, err = process.communicate(timeout=life_support.LIMIT_SECONDS)
    assert process.returncode == 0, out + err
    assert err == ""
    site.is_as_wanted([*BOTH, "worker-2"])


def test_a_quota_that_was_lowered_lets_nothing_start_and_everything_be_mended(site: Site) -> None:
    site.run("launch", site.template())
    nodes = site.running()
    site.quota = {"nodes": 1, "disk": "1g"}
    of_tenant = site.folder / "tenant.yml"
    of_tenant.write_text(yaml.safe_dump(site.documents("lab", 1, [])[1]))
    site.run("tenant", "apply", str(of_tenant))
    site.run("repair", "lab")
    site.is_as_wanted(nodes)
    assert f"nodes: {len(nodes) + 1} of 1" in site.run("expand", "lab", code=2).err
    site.run("stop", "lab")
    refused = site.run("start", "lab", code=2)
    assert f"The quota of tenant {site.tenant} does not hold this" in refused.err
    assert f"nodes: {len(nodes)} of 1" in refused.err
    assert site.running() == []
    assert site.json("list")[0]["wanted"] == "stopped"
    shown = site.run("tenant", "show", site.tenant).out
    assert f"nodes     {len(nodes)}     1" in shown
    assert "host list tells which hosts enforce it" in shown
    site.quota = {}
    site.run("tenant", "apply", site.template())
    site.run("start", "lab")
    site.is_as_wanted(nodes)


def test_destroy_is_refused_while_another_works_and_cleans_up_after_its_death(site: Site) -> None:
    process = site.begin("restart", "lab")
    assert process.stdout is not None
    process.stdout.readline()
    assert "restart" in site.run("destroy", "lab", "--yes", code=1).err
    process.send_signal(signal.SIGKILL)
    process.communicate()
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


def test_a_store_of_a_newer_version_is_left_alone(site: Site) -> None:
    site.run("list")
    with sqlite3.connect(site.home / "store.db") as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    try:
        refused = site.run("list", code=1)
        assert "9999" in refused.err
        assert "newer epic-run" in refused.err
    finally:
        with sqlite3.connect(site.home / "store.db") as store:
            store.execute("UPDATE alembic_version SET version_num = ?", [HEAD])
    assert site.json("list") == []


def test_a_damaged_store_is_told(site: Site) -> None:
    path = site.home / "store.db"
    for extra in ("-wal", "-shm"):
        path.with_name(f"store.db{extra}").unlink(missing_ok=True)
    path.write_bytes(b"not a database at all" * 500)
    refused = site.run("list", code=1)
    assert "cannot be used" in refused.err
    assert "not a database" in refused.err
