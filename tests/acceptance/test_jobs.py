"""Jobs in the background, of every kind, and on clusters of their own that are always removed."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import life_support
import pytest
import yaml
from conftest import Cluster
from life_support import Site, until

pytestmark = pytest.mark.docker

# Jobs of a few seconds spend most of their time on compiling what hardly runs.
QUICK = "--conf=spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"

# Has two stages, and then waits for a file.
COUNTS = """
import os, sys, time
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("counts").getOrCreate()
print(spark.sparkContext.parallelize(range(10), 1).map(lambda x: (x % 2, x)).groupByKey().count())
sys.stdout.flush()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.1)
"""

# In R, PySpark is reached through reticulate.
COUNTS_R = """
library(reticulate)
sql <- import("pyspark.sql")
spark <- sql$SparkSession$builder$getOrCreate()
cat(commandArgs(trailingOnly = TRUE), spark$range(1000L)$count(), "\\n")
"""

COUNTS_SCALA = """
object Counts {
  def main(args: Array[String]): Unit = {
    val spark = org.apache.spark.sql.SparkSession.builder().getOrCreate()
    println(s"${args.mkString(" ")} ${spark.range(1000).count()}")
  }
}
"""


def job(of: Cluster | Site, verb: str, *arguments: str, code: int = 0) -> Any:
    """Run `epic-run job VERB ARGUMENT...`."""
    site = of.site if isinstance(of, Cluster) else of
    return site.run("job", verb, *arguments, code=code)


def shown(of: Cluster | Site, key: str) -> dict[str, Any]:
    return dict(json.loads(job(of, "show", key, "--output", "json").out))


def notebook(*sources: str) -> str:
    cells = [
        {"cell_type": "code", "id": f"c{number}", "metadata": {}, "source": source,
         "execution_count": None, "outputs": []}
        for number, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


# -- in the background -------------------------------------------------------------------------


def test_a_job_in_the_background_is_seen_through_to_its_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = tmp_path / "counts.py"
    program.write_text(COUNTS)
    options = ["--background", "--env", "API_TOKEN=swordfish", QUICK]
    key = cluster.run("submit", *options, str(program), "/tenant/counted").out.strip()
    try:
        until(lambda: job(cluster, "logs", key, "--stdout").out == "2\n", "it has counted", pause=2)
        running = shown(cluster, key)
        assert (running["state"], running["name"]) == ("running", "counts.py")
        assert running["application"].startswith("app-")
        assert running["stages"] == {"complete": 2}
        with urllib.request.urlopen(running["page"], timeout=30) as page:  # noqa: S310 - of Spark
            assert "<title>counts - Spark Jobs</title>" in page.read().decode()
        assert "swordfish" not in json.dumps(running)
        following = cluster.site.begin("job", "logs", key, "-f")
    finally:
        # It holds the worker's only core.
        cluster.run("shell", "--", "touch", "/tenant/counted")
    out, _ = following.communicate(timeout=life_support.LIMIT_SECONDS)
    assert (following.returncode, out) == (0, "2\n")
    over = shown(cluster, key)
    assert (over["state"], over["rc"], over["stages"]) == ("done", 0, {"complete": 2})
    assert over["applications"] == [running["application"]]
    listed = job(cluster, "list", cluster.name).out
    assert listed.splitlines()[1].startswith(key)


def test_a_job_is_cancelled_and_its_processes_with_it(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "long.sh"
    script.write_text("echo begun; sleep 12345")
    key = cluster.run("submit", "-b", str(script)).out.strip()
    assert "is cancelled" in job(cluster, "cancel", key).out
    assert shown(cluster, key)["state"] == "cancelled"
    assert cluster.run("shell", "--", "pgrep", "-f", "sleep [1]2345", code=1).out == ""
    assert "is over" in job(cluster, "cancel", key, code=2).err


def test_a_job_that_takes_too_long_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "long.sh"
    script.write_text("sleep 12346")
    cluster.run("submit", "--timeout", "1s", str(script), code=124)
    [last] = json.loads(job(cluster, "list", "-n", "1", "--output", "json").out)
    assert (last["state"], last["rc"]) == ("timed out", 124)


def test_who_may_not_is_refused_and_remembered(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "hello.sh"
    script.write_text("echo hello")
    cluster.run("submit", "--as", "eve", str(script), code=2)
    [last] = json.loads(job(cluster, "list", "-n", "1", "--output", "json").out)
    assert (last["state"], last["user"]) == ("refused", "eve")


# -- of every kind -----------------------------------------------------------------------------


def test_a_notebook_is_run_and_kept_with_what_its_cells_show(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "report.ipynb"
    path.write_text(notebook("import os\nprint('for', os.environ['WHO'])", "6 * 7", "1 / 0"))
    ran = cluster.run("submit", "-o", "json", "--env", "WHO=ada", str(path), code=1)
    assert ran.out == "for ada\n42\n"
    assert "ZeroDivisionError" in ran.err
    key = json.loads(ran.err.splitlines()[-1])["job"]
    path_there = f"/data/jobs/{key}.files/output/report.ipynb"
    kept = cluster.site.inside("master-1", "cat", path_there, cluster=cluster.name)
    cells = json.loads(kept)["cells"]
    assert cells[1]["outputs"][0]["data"]["text/plain"] == ["42"]
    assert cells[2]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert "takes no arguments" in cluster.run("submit", str(path), "x", code=2).err


def test_an_r_script_works_on_the_workers(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "counts.R"
    script.write_text(COUNTS_R)
    assert cluster.run("submit", QUICK, str(script), "rows").out == "rows 1000 \n"


def test_a_jar_works_on_the_workers(cluster: Cluster) -> None:
    cluster.run("shell", "--", "tee", "/tenant/Counts.scala", given=COUNTS_SCALA)
    compiler = ["java", "-cp", "/opt/spark/jars/*", "scala.tools.nsc.Main", "-usejavacp"]
    cluster.run("shell", "--", *compiler, "-d", "/tenant/counts.jar", "/tenant/Counts.scala")
    ran = cluster.run("submit", QUICK, "--class", "Counts", "/tenant/counts.jar", "rows", "of")
    assert ran.out == "rows of 1000\n"


# -- on clusters of their own ------------------------------------------------------------------


TEMPLATE = {"template": "own"}


class Own:
    """A site, and jobs of it that have clusters of their own."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def write(self, name: str, script: str, cluster: Mapping[str, Any] = TEMPLATE) -> str:
        """Write a job that runs a script on a cluster, of its own if nothing else is said."""
        (self.site.folder / f"{name}.sh").write_text(script)
        document = {
            "kind": "Job",
            "name": name,
            "tenant": self.site.tenant,
            "cluster": dict(cluster),
            "submit": {"file": f"{name}.sh", "args": ["a b"], "spark_version": "3.5"},
        }
        path = self.site.folder / f"{name}.job.yml"
        path.write_text(yaml.safe_dump_all([*self.site.documents("own", 1, []), document]))
        return str(path)

    def last(self) -> dict[str, Any]:
        """Return the newest job."""
        return dict(json.loads(job(self.site, "list", "-n", "1", "--output", "json").out)[0])

    def is_gone(self) -> None:
        """Wait until nothing of the site is left on the engine."""
        until(lambda: not self.site.labelled("container"), "its cluster is gone", pause=2)
        until(lambda: not self.site.labelled("network"), "its network is gone", pause=2)
        until(lambda: not self.site.leftovers(), "nobody is at it any more", pause=2)
        # Last, who removes it forgets it.
        until(lambda: self.site.json("list") == [], "it is forgotten", pause=1)
        self.site.has_nothing()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with life_support.site(tmp_path_factory.mktemp("own")) as site:
        yield Own(site)


def test_a_job_has_a_cluster_of_its_own_and_leaves_what_it_printed_and_made(own: Own) -> None:
    script = 'echo "out $1"; echo err >&2; echo made >"$EPIC_JOB_OUTPUT/made.txt"; exit 3'
    ran = own.site.run("run", own.write("leaves", script), "--output", "json", code=3)
    assert ran.out == "out a b\n"
    told = json.loads(ran.err.splitlines()[-1])
    assert (told["state"], told["exit_code"], told["is_transient"]) == ("failed", 3, True)
    own.is_gone()
    folder = Path(told["folder"])
    assert (folder / "output" / "made.txt").read_text() == "made\n"
    assert "worker" in (folder / "services" / "worker-1" / "spark-worker.log").read_text()
    logs = job(own.site, "logs", told["job"])
    assert (logs.out, logs.err) == ("out a b\n", "err\n")
    assert shown(own.site, told["job"])["state"] == "failed"


def test_a_killed_runs_job_goes_on_and_its_cluster_is_removed_by_the_one_who_waits(
    own: Own,
) -> None:
    script = "echo begun; for n in $(seq 50); do sleep 0.1; done; echo ended; exit 4"
    own.site.cut_off("begun", "run", own.write("killed", script))
    own.is_gone()
    over = own.last()
    assert (over["state"], over["rc"]) == ("failed", 4)
    assert job(own.site, "logs", over["id"]).out == "begun\nended\n"


def test_when_all_are_killed_the_next_command_removes_the_cluster(own: Own) -> None:
    run = own.site.begin("run", own.write("swept", "sleep 300"))
    until(lambda: own.site.labelled("container"), "a node is made", pause=0.2)
    # The run, what it plays, and who waits for its end.
    life_support.kill_marked(f"EPIC_HOME={own.site.home}".encode())
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    assert own.site.labelled("container")
    assert "has lost its epic-run" in own.site.run("list").err
    own.is_gone()
    over = own.last()
    assert over["state"] == "failed"
    assert "before the job had begun" in over["reason"]


def test_interrupting_a_run_cancels_the_job_and_removes_the_cluster(own: Own) -> None:
    ended = own.site.cut_off(
        "begun", "run", own.write("interrupted", "echo begun; sleep 300"),
        with_signal=signal.SIGINT,
    )  # fmt: skip
    assert ended.code == 130, ended.err
    own.is_gone()
    assert own.last()["state"] == "cancelled"


def test_a_job_that_cannot_run_leaves_nothing(own: Own) -> None:
    path = own.write("refused", "echo never")
    old = own.site.run("run", path, "--set", 'submit.spark_version="3.4"', code=2)
    assert "The job needs Spark 3.4" in old.err
    huge = own.site.run("run", path, "--set", "roles.worker.count=500", code=2)
    assert "capacity" in huge.err or "room" in huge.err or "memory" in huge.err
    own.is_gone()
    assert own.last()["state"] == "failed"


def test_a_job_runs_on_a_cluster_that_is_there(cluster: Cluster) -> None:
    own = Own(cluster.site)
    path = own.write("there", 'echo "$1 in $EPIC_CLUSTER"', {"name": cluster.name})
    ran = cluster.site.run("run", path)
    assert ran.out == f"a b in {cluster.name}\n"
    assert cluster.name in [item["name"] for item in cluster.site.json("list")]


# -- when nodes go -----------------------------------------------------------------------------


def test_a_job_whose_node_was_restarted_is_lost_and_never_a_success(
    other: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "long.sh"
    script.write_text("sleep 300")
    key = other.run("submit", "-b", str(script)).out.strip()
    other.site.docker("restart", "--time", "0", other.site.container("master-1", other.name))
    lost = shown(other, key)
    assert (lost["state"], lost["rc"]) == ("lost", None)
    assert "no result" in lost["reason"]
