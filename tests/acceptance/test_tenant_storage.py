"""Tenants' storage that several hosts have in common, on the laboratory's three."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from laboratory import HOSTS, Spread
from life_support import Site, until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("lab")]

FOLDER = "/srv/shared/epic"
# Covers the folder as on a host on which the shared file system is not mounted.
COVER = f"mount -t tmpfs none /srv/shared && mkdir {FOLDER}"
UNCOVER = "umount /srv/shared"

# Has a part of the table written on each worker.
WRITE = """
import socket, time
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
def where(number):
    time.sleep(0.3)
    return number, socket.gethostname()
end = time.monotonic() + 120
seen = set()
while len(seen) < 3 and time.monotonic() < end:
    seen |= {host for _, host in spark.sparkContext.parallelize(range(12), 12).map(where).collect()}
rows = spark.sparkContext.parallelize(range(60), 12).map(where)
spark.createDataFrame(rows, "number long, host string").write.parquet("/tenant/table")
"""
READ = """
from pyspark.sql import SparkSession
table = SparkSession.builder.getOrCreate().read.parquet("/tenant/table")
hosts = sorted({row.host for row in table.select("host").distinct().collect()})
print("read", table.count(), table.selectExpr("sum(number)").first()[0], *hosts)
"""


def inside(site: Site, cluster: str, node: str, line: str) -> str:
    return site.run("shell", cluster, node, "--", "bash", "-c", line).out.strip()


@pytest.fixture(scope="module")
def older(spread: Spread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A tenant whose cluster was launched before the site had a storage in common."""
    site = spread.another(tmp_path_factory.mktemp("older"))
    spread.site.run("host", "prepare")
    site.run("launch", site.template("old"))
    inside(site, "old", "worker-1", "echo kept > /tenant/file")
    yield site
    site.run("destroy", "old", "--yes", code=None)
    site.run("tenant", "remove", site.tenant, "--yes", code=None)


@pytest.fixture(scope="module")
def shared(spread: Spread, older: Site) -> Iterator[Spread]:
    """The hosts with a storage in common."""
    del older
    file = spread.site.home / "hosts.yml"
    before = file.read_text(encoding="utf-8")
    inventory = yaml.safe_load(before)
    inventory["docker_hosts"]["vars"] |= {"epic_storage": FOLDER, "node_disk_seconds": 2}
    file.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    spread.on("host-1", "mkdir", FOLDER)
    yield spread
    file.write_text(before, encoding="utf-8")
    spread.on("host-1", "rm", "-rf", FOLDER)


@pytest.fixture(scope="module")
def ours(shared: Spread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A tenant with a cluster on all hosts."""
    shared.site.run("host", "prepare")
    site = shared.another(tmp_path_factory.mktemp("ours"))
    site.run("launch", site.template("wide", workers=3))
    yield site
    site.run("tenant", "remove", site.tenant, "--with-clusters", "--yes", code=None)


def told(spread: Spread, *, code: int) -> dict[str, str]:
    """Return what `host check` says of the storage, by host."""
    said = spread.site.run("host", "check", "--output", "json", code=code).out
    found: dict[str, str] = {}
    for item in json.loads(said):
        if item["check"] == "storage":
            found[item["host"]] = f"{found.get(item['host'], '')}{item['what']} "
    return found


def test_without_a_storage_in_common_a_check_says_so(spread: Spread, older: Site) -> None:
    del older
    assert set(told(spread, code=0).values()) == {
        "/tenant is a folder of each host: epic_storage names one for all. "
    }


def test_a_folder_that_hosts_do_not_have_in_common_is_refused(shared: Spread) -> None:
    assert all("is not marked" in told(shared, code=1)[host] for host in HOSTS)
    shared.on("host-3", COVER)
    try:
        refused = shared.site.run("host", "prepare", code=1)
        assert (
            "host host-3: /srv/shared/epic is not usable as the storage of tenants" in refused.err
        )
        # What only one host sees is no mark.
        assert shared.on("host-1", "ls", "-A", FOLDER) == ""
    finally:
        shared.on("host-3", UNCOVER)
    # It is ready then; that a tenant has files elsewhere is left to mend.
    shared.site.run("host", "prepare", code=1)
    marks = {shared.on(host, "cat", f"{FOLDER}/.epic-storage") for host in HOSTS}
    assert len(marks) == 1
    shared.on("host-2", COVER)
    try:
        found = told(shared, code=1)
        assert [host for host in HOSTS if "is not marked" in found.get(host, "")] == ["host-2"]
    finally:
        shared.on("host-2", UNCOVER)


def test_a_volume_with_its_files_elsewhere_is_told_and_keeps_them(
    shared: Spread, older: Site
) -> None:
    refused = older.run("repair", "old", code=1)
    assert (
        f"the storage of tenant {older.tenant} is a volume of this host alone here" in refused.err
    )
    assert "docs/hosts.md" in refused.err
    assert inside(older, "old", "worker-1", "cat /tenant/file") == "kept"
    where = older.status("old")["nodes"]
    assert set(told(shared, code=1)) == {node["host"] for node in where}
    older.run("tenant", "remove", older.tenant, "--with-clusters", "--yes")
    assert told(shared, code=0) == {}


def limited(site: Site, name: str, disk: str) -> str:
    """Write the template of a cluster whose nodes may have so much on disk."""
    path = Path(site.template(name))
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    documents[0] |= {"name": "narrow", "disk": disk}
    for role in documents[2]["roles"].values():
        role["flavor"] = "narrow"
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return str(path)


def watched(site: Site) -> None:
    """Assert that what a node holds beyond its flavor's disk is told, wherever it has it."""
    assert site.status("narrow")["health"] == "green"
    inside(site, "narrow", "worker-1", "head -c 40m /dev/zero > /data/jobs/large")
    inside(site, "narrow", "worker-1", "head -c 40m /dev/zero > /tmp/large")
    until(lambda: site.status("narrow")["health"] == "yellow", "it is told", pause=0.5)
    told = site.status("narrow")
    assert re.fullmatch(
        r"worker-1 holds [89]\d.* on disk, more than its flavor's 64m", told["reason"]
    )
    assert [node["name"] for node in told["nodes"] if node["warning"]] == ["worker-1"]
    assert {node["state"] for node in told["nodes"]} == {"ready"}
    shown = site.json("tenant", "show", site.tenant, "--volumes")
    assert shown["over_disk"] == ["narrow worker-1"]
    inside(site, "narrow", "worker-1", "rm /tmp/large")
    until(lambda: site.status("narrow")["health"] == "green", "it is well again", pause=0.5)


def test_what_executors_of_all_hosts_write_is_read_whole_by_another_cluster(
    ours: Site, tmp_path: Path
) -> None:
    for name, code in (("write.py", WRITE), ("read.py", READ)):
        (tmp_path / name).write_text(code, encoding="utf-8")
    hosts = {node["host"] for node in ours.status("wide")["nodes"]}
    assert hosts == set(HOSTS)
    ours.run("submit", "wide", str(tmp_path / "write.py"))
    ours.run("launch", limited(ours, "narrow", "64m"))
    said = ours.run("submit", "narrow", str(tmp_path / "read.py")).out
    assert "read 60 1770 wide-worker-1 wide-worker-2 wide-worker-3" in said
    watched(ours)
    ours.run("destroy", "narrow", "--yes")
    # Members of the tenant may write to what another one's job has made a folder for.
    assert inside(ours, "wide", "worker-1", "stat -c '%a %U %G' /tenant") == "2770 root tenant"


def test_a_tenant_sees_its_own_folder_alone_and_takes_it_along_when_it_goes(
    shared: Spread, ours: Site, tmp_path: Path
) -> None:
    theirs = shared.another(tmp_path)
    theirs.run("launch", theirs.template("theirs"))
    inside(ours, "wide", "worker-1", "echo ours > /tenant/ours")
    inside(theirs, "theirs", "worker-1", "echo theirs > /tenant/theirs")
    assert inside(theirs, "theirs", "master-1", "ls -A /tenant /tenant/..").count("ours") == 0
    assert inside(theirs, "theirs", "master-1", "ls -A /tenant") == "theirs"
    assert inside(ours, "wide", "worker-2", "cat /tenant/ours") == "ours"
    assert sorted(shared.on("host-1", "ls", FOLDER).split()) == sorted([ours.tenant, theirs.tenant])

    theirs.run("destroy", "theirs", "--yes")
    assert shared.on("host-2", "cat", f"{FOLDER}/{theirs.tenant}/theirs") == "theirs"
    plan = theirs.json("tenant", "remove", theirs.tenant, "--plan")
    assert plan["storage"] == [f"{FOLDER}/{theirs.tenant}"]
    theirs.run("tenant", "remove", theirs.tenant, "--yes")
    assert shared.on("host-3", "ls", "-A", FOLDER).split() == [".epic-storage", ours.tenant]
    assert inside(ours, "wide", "worker-3", "cat /tenant/ours") == "ours"
