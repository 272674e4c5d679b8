"""Lifetimes on real clusters: what counts as use, warnings, ends, and how they are put off."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

import pytest
import yaml
from conftest import Cluster
from kernels import kernel
from life_support import until

pytestmark = pytest.mark.docker


def looked(cluster: Cluster) -> dict[str, Any]:
    """Look at a cluster and return what was seen."""
    return dict(cluster.site.json("lifetime", "check", cluster.name)[0])


def unused(cluster: Cluster) -> bool:
    return looked(cluster)["idle_seconds"] > 0


def await_unused(cluster: Cluster, what: str) -> None:
    """Wait until nothing counts as use; tell what does if it never ends."""
    try:
        until(lambda: unused(cluster), what)
    except AssertionError as late:
        raise AssertionError(
            f"{late}; it counts as used by {looked(cluster)['last_use']}"
        ) from late


def test_a_notebook_counts_while_it_works_and_not_while_it_lies_open(cluster: Cluster) -> None:
    url = cluster.endpoint("jupyter")
    with kernel(url, "python3") as notebook:
        notebook.run(
            "from pyspark.sql import SparkSession\n"
            "spark = SparkSession.builder.getOrCreate()\n"
            "assert spark.range(10).count() == 10"
        )
        await_unused(cluster, "a notebook with an open Spark session is no use")
        # Busy without Spark.
        working = threading.Thread(target=notebook.run, args=("import time; time.sleep(15)",))
        working.start()
        until(lambda: looked(cluster)["idle_seconds"] == 0, "a busy kernel is use")
        assert looked(cluster)["last_use"] == "a notebook"
        working.join()
        # Idle, but with a Spark job in the background.
        notebook.run(
            "import threading, time\n"
            "def crawl(n):\n"
            "    time.sleep(20)\n"
            "    return n\n"
            "work = lambda: spark.sparkContext.parallelize([1], 1).map(crawl).collect()\n"
            "thread = threading.Thread(target=work); thread.start()"
        )
        found = until(
            lambda: (seen := looked(cluster))["last_use"].startswith("the Spark app") and seen,
            "a Spark job is use",
        )
        assert found["idle_seconds"] == 0
        notebook.run("thread.join()")
    await_unused(cluster, "it is unused again")


def test_jobs_actions_and_shells_count_while_they_run(cluster: Cluster) -> None:
    action = cluster.site.run(
        "action", "run", cluster.name, "--background", "--command", "sleep 600"
    ).out.split()[-1]
    assert until(lambda: (now := looked(cluster))["idle_seconds"] == 0 and now, "an action is use")
    cluster.site.run("action", "cancel", action)
    await_unused(cluster, "the action is over")
    shell = cluster.begin("shell", "--as", "bob", "--", "sleep", "600")
    try:
        until(lambda: looked(cluster)["last_use"] == "a command of bob", "a shell is use")
        assert looked(cluster)["idle_seconds"] == 0
    finally:
        shell.send_signal(2)
        shell.communicate(timeout=60)
    # That it was there is remembered, though nothing in the node tells of it.
    known = cluster.site.json("list")
    assert {row["name"]: row["last_use"] for row in known}[cluster.name] == "a shell of bob"
    await_unused(cluster, "the shell is gone")


@pytest.fixture
def short(cluster: Cluster) -> Cluster:
    """A cluster of its own that may be ended."""
    return Cluster(cluster.site, "short")


def launch(short: Cluster, **lifetime: Any) -> None:
    """Launch it, or give it another lifetime."""
    documents = short.site.documents(short.name, 1, [])
    documents[-1]["lifetime"] = lifetime
    path = short.site.folder / "short.yml"
    path.write_text(yaml.safe_dump_all(documents))
    short.site.run("launch", str(path))


def outcome(short: Cluster) -> str:
    """Sweep, and return what became of the cluster."""
    swept = {item["name"]: item["outcome"] for item in short.site.json("lifetime", "sweep")}
    return str(swept.get(short.name, "gone"))


def test_an_unused_cluster_is_warned_of_and_ended_unless_somebody_keeps_it(short: Cluster) -> None:
    launch(short, max_idle="6s", warn="3s")
    starts = short.site.starts(short.name)
    shell = short.begin("shell", "--", "sleep", "600")
    try:
        until(lambda: looked(short)["last_use"].startswith("a command"), "the shell is there")
        time.sleep(7)
        assert outcome(short) == "kept"
    finally:
        shell.send_signal(2)
        shell.communicate(timeout=60)
    until(lambda: outcome(short) == "warned", "the warning", pause=1)
    row = next(item for item in short.site.json("list") if item["name"] == short.name)
    assert row["ends"].startswith("stops in")
    assert "epic-run extend short" in short.site.run("status", short.name).out
    told = short.site.json("extend", short.name, "--by", "40s")
    assert not told["warned"]
    assert outcome(short) == "kept"
    # A host that does not answer keeps its clusters.
    short.site.variables["DOCKER_HOST"] = "unix:///nowhere.sock"
    try:
        assert outcome(short) == "kept"
        assert "Docker" in looked(short)["doubt"]
    finally:
        del short.site.variables["DOCKER_HOST"]
    # Its nodes were not touched by any of this, nor by another lifetime.
    launch(short, max_idle="5s", warn="2s")
    assert short.site.starts(short.name) == starts
    until(lambda: outcome(short) == "stopped", "the end", pause=1)
    assert short.site.running(short.name) == []
    assert outcome(short) == "kept"


def test_a_cluster_that_is_too_old_is_destroyed_and_who_is_logged_in_is_told(
    short: Cluster,
) -> None:
    launch(short, max_age="20s", warn="10s", action="destroy")
    exported = short.site.json("export", short.name)[-1]
    assert exported["lifetime"] == {"max_age": "20s", "warn": "10s", "action": "destroy"}
    terminal = subprocess.Popen(
        ["docker", "exec", "--interactive", short.site.container("master-1", short.name),
         "script", "--quiet", "--flush", "--command", "sleep 600", "/data/seen"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: outcome(short) == "warned", "the warning", pause=1)
        seen = short.site.inside("master-1", "cat", "/data/seen", cluster=short.name)
        assert "is destroyed in" in seen
        until(lambda: outcome(short) == "destroyed", "the end", pause=1)
    finally:
        terminal.kill()
        terminal.communicate()
    assert short.site.nodes(short.name) == {}
    assert outcome(short) == "gone"
    refused = short.site.run("extend", short.name, code=2)
    assert "There is no cluster" in refused.err


def test_a_cluster_without_a_lifetime_cannot_be_extended(cluster: Cluster) -> None:
    refused = cluster.site.run("extend", cluster.name, code=2)
    assert "has no lifetime" in refused.err
    assert json.loads(cluster.site.run("lifetime", "sweep", "-o", "json").out)
