"""A sandbox whose notebooks and jobs run on a larger cluster of its tenant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import life_support
import pytest
import yaml
from kernels import kernel
from life_support import Site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.docker

# Executors say where they are, and read what the driver's member has put into the tenant's storage.
WHERE = """
import socket
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
hosts = spark.sparkContext.parallelize(range(8), 4).map(lambda _: socket.gethostname()).distinct()
print("driver on", socket.gethostname(), "executors on", *sorted(hosts.collect()))
"""
WHERE_R = """
library(reticulate)
spark <- import("pyspark.sql")$SparkSession$builder$getOrCreate()
cat(spark$sparkContext$master, spark$range(1000L)$count())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with the clusters of two examples: `lab`, and `desk`, which is connected with it."""
    with life_support.site(tmp_path_factory.mktemp("connections")) as made:
        refused = launch(made, "connected.yml", "desk", code=2)
        assert f"desk is to be connected with lab, but tenant {made.tenant} has no" in refused.err
        assert "Launch lab first." in refused.err
        assert made.json("list") == []
        launch(made, "multi-node.yml", "lab", "--set", "roles.worker.count=1")
        refused = launch(
            made, "connected.yml", "desk", "--set", "connections.clusters=[lob]", code=2
        )
        assert 'Did you mean "lab"?' in refused.err
        launch(made, "connected.yml", "desk")
        yield made


def launch(site: Site, example: str, name: str, *more: str, code: int = 0) -> life_support.Result:
    """Launch an example for the site's own tenant, on small nodes."""
    documents = site.folder / "tenant.yml"
    documents.write_text(yaml.safe_dump_all(site.documents("unused", 1, [])[:2]))
    sizes = ["--set", "roles.master.flavor=small", "--set", "roles.worker.flavor=small"]
    return site.run(
        "launch", str(documents), str(EXAMPLES / example), "--name", name, "--tenant", site.tenant,
        *sizes, *more, code=code,
    )  # fmt: skip


def notebooks(site: Site) -> str:
    status = site.status("desk")
    return next(item["url"] for item in status["endpoints"] if item["name"] == "jupyter")


def test_a_kernel_runs_on_the_workers_of_the_connected_cluster(site: Site) -> None:
    with kernel(notebooks(site), "python3-lab") as running:
        # Bars of progress stand around it.
        assert "driver on desk-master-1 executors on lab-worker-1\n" in running.run(WHERE)
        shown = running.run("print(spark.sparkContext.getConf().get('spark.executor.memory'))")
        assert re.fullmatch(r"\d+m\n", shown)
    with kernel(notebooks(site), "python3") as running:
        assert "driver on desk-master-1 executors on desk-worker-1\n" in running.run(WHERE)


def test_so_does_one_in_r(site: Site) -> None:
    with kernel(notebooks(site), "ir-lab") as running:
        assert running.run(WHERE_R).endswith("spark://lab-master-1:7077 1000")


def test_a_job_runs_there_when_it_is_asked_to(site: Site) -> None:
    job = site.folder / "where.py"
    job.write_text(WHERE)
    there = site.run("submit", "desk", "--on", "lab", str(job))
    assert "driver on desk-master-1 executors on lab-worker-1" in there.out
    own = site.run("submit", "desk", str(job))
    assert "driver on desk-master-1 executors on desk-worker-1" in own.out
    refused = site.run("submit", "desk", "--on", "big", str(job), code=2)
    assert "desk is not connected with big" in refused.err
    assert "connected with lab" in refused.err


def test_what_becomes_of_the_other_cluster_shows(site: Site) -> None:
    assert site.status("desk")["health"] == "green"
    site.run("stop", "lab")
    status = site.status("desk")
    assert (status["health"], status["reason"]) == (
        "yellow",
        "the connected cluster lab is stopped",
    )
    site.run("destroy", "lab", "--yes")
    status = site.status("desk")
    assert (status["health"], status["reason"]) == ("yellow", "the connected cluster lab is gone")
    assert "without the connection" in site.run("status", "desk").out
    job = site.folder / "where.py"
    assert "lab is gone" in site.run("submit", "desk", "--on", "lab", str(job), code=2).err


# The last one: the connection is gone afterwards.
def test_a_launch_without_the_connection_takes_it_away(site: Site) -> None:
    launch(site, "connected.yml", "desk", "--set", "connections.clusters=[]")
    status = site.status("desk")
    assert (status["health"], status["connections"]) == ("green", [])
    find = ["find", "/usr/local/share/jupyter", "/etc/spark", "-type", "f"]
    files = site.inside("master-1", *find, cluster="desk")
    assert "lab" not in files
    assert "/etc/spark/conf/spark-defaults.conf" in files
