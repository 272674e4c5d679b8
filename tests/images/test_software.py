"""What is inside the images: versions that agree, daemons that start fast, kernels that work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import docker
import pytest

from epic_runner import images
from epic_runner.catalog import load_catalog
from epic_runner.docker_build import connect
from epic_runner.resources import content_root

from .conftest import ACCOUNTS, Node

pytestmark = pytest.mark.docker

# As the spark role does it; an archive of classes must fit any host name.
MASTER = """#!/bin/bash
exec 2>&1
cd /data/spark
exec s6-setuidgid spark /opt/spark/bin/epic-spark-daemon master --host $(hostname) \
    --port 7077 --webui-port 8080
"""
WORKER = """#!/bin/bash
exec 2>&1
cd /data/spark
epic-wait tcp MASTER 7077
export SPARK_DAEMON_JAVA_OPTS=-Xlog:class+load:file=/tmp/classes
exec s6-setuidgid spark /opt/spark/bin/epic-spark-daemon worker --host $(hostname) \
    --webui-port 8081 --cores 1 --memory 1g --work-dir /data/spark spark://MASTER:7077
"""
HISTORY = """#!/bin/bash
exec 2>&1
cd /data/history
export SPARK_CONF_DIR=/data/history SPARK_USER=spark-history
export SPARK_DAEMON_JAVA_OPTS="-Dspark.history.fs.logDirectory=file:/data/history \
    -Xlog:class+load:file=/tmp/history"
exec s6-setuidgid spark-history /opt/spark/bin/epic-spark-daemon history
"""
DIRECTORIES = "0755 spark spark /data/spark\n"


@pytest.fixture(scope="module")
def cluster(make: Callable[..., Node]) -> tuple[Node, Node]:
    files = {**ACCOUNTS, "dirs": DIRECTORIES}
    master = make("jupyter", {**files, "services/spark-master/run": MASTER})
    run = WORKER.replace("MASTER", master.name)
    worker = make("spark", {**files, "services/spark-worker/run": run})
    url = f"http://{master.name}:8080/json/"
    code, _, err = master.run(
        "epic-wait", "http", url, "--timeout", "60", "--json", "aliveworkers", "==", "1"
    )
    assert code == 0, err + worker.sh("cat /data/log/spark-worker/current")
    return master, worker


def test_labels_tell_what_is_inside(
    reference: Callable[[str], str], engine: docker.DockerClient, cluster: tuple[Node, Node]
) -> None:
    master, worker = cluster
    names = [app.name for app in load_catalog(content_root() / "images")]
    labels = {name: engine.images.get(reference(name)).labels for name in names}
    for node, name in ((master, "jupyter"), (worker, "spark")):
        python = node.sh("$PYSPARK_PYTHON -c 'import platform; print(platform.python_version())'")
        assert labels[name]["epic.python"] == python
        java = node.sh("java -version 2>&1 | head -1")
        assert f'"{labels[name]["epic.java"]}"' in java
    # Driver and executors must run the same Python and the same Java.
    for label in ("epic.python", "epic.java"):
        assert labels["spark"][label] == labels["jupyter"][label] != ""
    assert all(item["epic.app"] == name for name, item in labels.items())


def test_the_bill_of_materials_lists_what_is_there(reference: Callable[[str], str]) -> None:
    catalog = load_catalog(content_root() / "images")
    engine = connect()
    state = next(s for s in images.states(catalog, engine) if s.app.name == "spark")
    assert state.app.reference == reference("spark")
    bill = images.read_sbom(state, engine)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "epic/spark"
    found = {item["purl"].partition("?")[0] for item in bill["components"] if "purl" in item}
    assert "pkg:pypi/pyspark@3.5.9" in found
    assert any(item.startswith("pkg:deb/debian/openjdk-17-jre-headless@") for item in found)
    assert any(re.match(r"pkg:maven/.*spark-avro_2.12@3.5.9", item) for item in found)


def test_python_packages_are_compiled(cluster: tuple[Node, Node]) -> None:
    master, worker = cluster
    script = (
        "import pathlib, sys\n"
        "files = [p for p in pathlib.Path(sys.argv[1]).rglob('*.py')]\n"
        "cached = sum((p.parent / '__pycache__' / f'{p.stem}.cpython-311.pyc').exists()\n"
        "             for p in files)\n"
        "print(cached / len(files))\n"
    )
    for node, folder in ((worker, "/opt/venv/lib"), (master, "/opt/jupyter/lib")):
        code, out, err = node.run("python3", "-c", script, folder)
        assert code == 0, err
        assert float(out) > 0.9


def test_the_class_archive_is_used(cluster: tuple[Node, Node]) -> None:
    _, worker = cluster
    lines = worker.sh("cat /tmp/classes").splitlines()
    shared = sum("shared objects file" in line for line in lines)
    assert shared / len(lines) > 0.98
    assert not re.search("(?i)shared class paths mismatch|error", worker.sh("head -5 /tmp/classes"))


def test_the_history_server_maps_its_classes_and_knows_its_pages(make: Callable[..., Node]) -> None:
    directories = "0755 spark-history spark-history /data/history\n"
    files = {**ACCOUNTS, "dirs": directories, "services/spark-history/run": HISTORY}
    node = make("spark", files)
    code, _, err = node.run(
        "epic-wait", "http", "http://localhost:18080/api/v1/version", "--timeout", "60"
    )
    assert code == 0, err + node.sh("cat /data/log/spark-history/current")
    lines = node.sh("cat /tmp/history").splitlines()
    shared = sum("shared objects file" in line for line in lines)
    assert shared / len(lines) > 0.9
    assert "Exception" not in node.sh("cat /data/log/spark-history/current")


def test_a_daemon_is_one_process(cluster: tuple[Node, Node]) -> None:
    for node in cluster:
        assert node.sh("pgrep -c java") == "1"


JOB = """
import socket
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

spark = SparkSession.builder.getOrCreate()

@pandas_udf("long")
def twice(x: pd.Series) -> pd.Series:
    return x * 2

frame = spark.range(100).select(twice("id").alias("n"))
print("sum", frame.groupBy().sum("n").collect()[0][0])
hosts = spark.sparkContext.parallelize([1], 1).map(lambda _: socket.gethostname())
print("host", *hosts.collect())
print("avro", spark._jvm.org.apache.spark.sql.avro.SchemaConverters)
"""


def test_a_job_runs_on_the_worker(cluster: tuple[Node, Node]) -> None:
    master, worker = cluster
    master.sh(f"cat >/home/ada/job.py <<'X'\n{JOB}X\n")
    code, _, err = master.run(
        "epic-job", "start", "count", "--user", "ada", "--",
        "spark-submit", "--master", f"spark://{master.name}:7077",
        "--conf", "spark.executor.memory=512m", "/home/ada/job.py",
    )  # fmt: skip
    assert code == 0, err
    code, out, err = master.run("epic-job", "follow", "count", "--from-start")
    assert code == 0, err[-4000:]
    assert f"host {worker.name}" in out
    assert "sum 9900" in out
    assert "avro" in out


def test_drivers_and_executors_map_their_classes(cluster: tuple[Node, Node]) -> None:
    master, worker = cluster
    worker.sh("install -d -m 1777 /data/seen")
    archive = "-XX:SharedArchiveFile=/opt/spark/cds/job.jsa -Xlog:class+load:file="
    options = {
        "spark.driver.extraClassPath": "/opt/spark/cds/spark.jar",
        "spark.driver.defaultJavaOptions": f"{archive}/home/ada/classes",
        "spark.executor.extraClassPath": "/opt/spark/cds/spark.jar",
        "spark.executor.defaultJavaOptions": f"{archive}/data/seen/classes",
        "spark.executor.memory": "512m",
    }
    words = [word for item in options.items() for word in ("--conf", "=".join(item))]
    master.sh(f"cat >/home/ada/job.py <<'X'\n{JOB}X\n")
    submit = ["spark-submit", "--master", f"spark://{master.name}:7077", *words]
    assert master.run("epic-job", "start", "maps", "--user", "ada", "--", *submit,
                      "/home/ada/job.py")[0] == 0  # fmt: skip
    code, _, err = master.run("epic-job", "follow", "maps", "--from-start")
    assert code == 0, err[-4000:]
    for node, seen in ((master, "/home/ada/classes"), (worker, "/data/seen/classes")):
        lines = node.sh(f"cat {seen}").splitlines()
        # The rest is made while it runs: Spark's own code of queries, Scala's lambdas.
        sources = [line for line in lines if "source: " in line and "Lambda" not in line]
        shared = sum("shared objects file" in line for line in sources)
        assert shared / len(sources) > 0.8, f"{node.name}: {shared} of {len(sources)}"


def test_users_find_the_programs(cluster: tuple[Node, Node]) -> None:
    master, worker = cluster
    for node in (master, worker):
        found = node.sh("su - ada -c 'type -p python spark-submit java'")
        assert found.splitlines() == [
            "/opt/venv/bin/python",
            "/opt/venv/bin/spark-submit",
            "/opt/java/bin/java",
        ]
        assert node.sh("command -v spark-submit", user="ada") == "/opt/venv/bin/spark-submit"


def kernels(node: Node) -> dict[str, Any]:
    listing = node.sh("/opt/jupyter/bin/jupyter kernelspec list --json", user="ada")
    return dict(json.loads(listing)["kernelspecs"])


def test_kernels(cluster: tuple[Node, Node]) -> None:
    master, _ = cluster
    found = kernels(master)
    assert set(found) == {"ir", "python3"}
    assert found["python3"]["spec"]["argv"][0] == "/opt/venv/bin/python"
    script = (
        "from jupyter_client.manager import start_new_kernel\n"
        "import sys\n"
        "manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)\n"
        "out = []\n"
        "def hook(message):\n"
        "    content = message['content']\n"
        "    out.append(str(content.get('text') or content.get('data') or\n"
        "                   content.get('evalue') or ''))\n"
        "client.execute_interactive(sys.argv[2], timeout=120, output_hook=hook)\n"
        "print(' '.join(out))\n"
        "manager.shutdown_kernel(now=True)\n"
    )
    python = "import pyspark, ssl; print('PySpark', pyspark.__version__)"
    r = 'library(reticulate); cat("PySpark", import("pyspark")$`__version__`)'
    for kernel, code in (("python3", python), ("ir", r)):
        status, out, err = master.run(
            "/opt/jupyter/bin/python", "-c", script, kernel, code, user="ada"
        )
        assert status == 0, err[-3000:]
        assert "PySpark 3.5.9" in out


def test_jupyterlab_starts(cluster: tuple[Node, Node]) -> None:
    master, _ = cluster
    master.sh(
        "cd /home/ada; HOME=/home/ada nohup /opt/jupyter/bin/jupyter-lab --no-browser "
        "--ip=127.0.0.1 --port=8888 --IdentityProvider.token=secret >/tmp/lab.log 2>&1 &",
        user="ada",
    )
    code, _, err = master.run(
        "epic-wait", "http", "http://127.0.0.1:8888/api/status?token=secret", "--timeout", "60"
    )
    assert code == 0, err + master.sh("cat /tmp/lab.log")


def test_nodes_with_daemons_stop_within_seconds(cluster: tuple[Node, Node]) -> None:
    for node in cluster[::-1]:
        seconds, code = node.stop()
        assert seconds < 6
        assert code == 0
