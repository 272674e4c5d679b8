"""A Spark job in a cluster against the same job in processes of this host, outside Docker.

The processes are the very same software: the image's files, unpacked into a folder and entered by
chroot, with the settings of Spark that the cluster's nodes have, so that only the containers
differ: their network, their limits, their file system. Both have one worker with all the host's
cores, and do the same work: sorting, grouping and shuffles of numbers in several passes, timed by
the job's own clock from its session's start to its last result. Needs root.

A shuffle writes one file for each of its tasks here. Spark's own setting writes one for each task
and partition, at this size some 100,000, and then the job times the search for a free inode
(`perf` showed ext4's `recently_deleted` with a third of all samples, where ext4 has no journal),
which differs from folder to folder, not from container to process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from common import (
    EPIC_RUN,
    IMAGE,
    TEMPLATE,
    alive_workers,
    median,
    own_home,
    removed,
    report,
    run,
    wait_for,
)
from common import parser as options

CORES = os.cpu_count() or 1
EXECUTOR_MEMORY = "2g"
PORT, PAGE = 17077, 18080
# The node on which the cluster's driver runs, and what its settings name as Spark's scratch folder.
NODE = "epic.benchmark.bench.master-1"
SETTINGS, SCRATCH = "/etc/spark/conf", "/data/tmp"
PROPERTIES = {
    "spark.executor.memory": EXECUTOR_MEMORY,
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "16",
    "spark.shuffle.sort.bypassMergeThreshold": "1",
}

JOB = """\
import time
from pyspark.sql import SparkSession, functions as F
spark = SparkSession.builder.config("spark.ui.enabled", "false").getOrCreate()
spark.range(1000).count()
start = time.monotonic()
for _ in range({passes}):
    numbers = spark.range(0, {rows}, 1, 16).withColumn("key", F.xxhash64("id") % 100003)
    grouped = numbers.groupBy("key").agg(F.count("*").alias("n"), F.sum("id").alias("s"))
    total = grouped.orderBy("s").agg(F.sum("n")).first()[0]
    joined = numbers.join(grouped, "key").agg(F.max("s")).first()
print("SECONDS", time.monotonic() - start, total)
"""


def seconds_of(output: str) -> float:
    """Return what the job's own clock said."""
    line = next(line for line in output.splitlines() if line.startswith("SECONDS"))
    return float(line.split()[1])


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Launch the cluster, and give the environment to submit in."""
    with own_home() as env:
        template = folder / "bench.yml"
        template.write_text(TEMPLATE.format(workers=1, cores=CORES, memory="3g"))
        try:
            run(EPIC_RUN, "launch", str(template), env=env)
            yield env
        finally:
            removed(env)


@contextmanager
def processes(folder: Path) -> Iterator[list[str]]:
    """Start master and worker outside Docker, and give the command that submits to them.

    The cluster has to be there: its settings are theirs.
    """
    root = folder / "root"
    root.mkdir()
    container = run("docker", "create", IMAGE).strip()
    try:
        export = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(root)], stdin=export.stdout, check=True)
    finally:
        run("docker", "rm", container)
    mounts = ["proc", "dev"]
    for name in mounts:
        run("mount", "--rbind", "--make-rslave", f"/{name}", str(root / name))
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    settings = root / SETTINGS.lstrip("/")
    settings.mkdir(parents=True, exist_ok=True)
    run("docker", "cp", f"{NODE}:{SETTINGS}/.", str(settings))
    (root / SCRATCH.lstrip("/")).mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": "/opt/venv/bin:/opt/spark/bin:/opt/java/bin:/usr/bin:/bin",
        "SPARK_HOME": "/opt/spark",
        "SPARK_CONF_DIR": SETTINGS,
        "SPARK_LOCAL_DIRS": SCRATCH,
        "PYSPARK_PYTHON": "/opt/venv/bin/python",
        "JAVA_HOME": "/opt/java",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    inside = ["chroot", str(root), "env", "-i", *(f"{k}={v}" for k, v in environment.items())]
    daemon = [*inside, "/opt/spark/bin/epic-spark-daemon"]
    started = [
        subprocess.Popen(
            [*daemon, "master", "--host", "localhost", "--port", str(PORT),
             "--webui-port", str(PAGE)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    ]  # fmt: skip
    try:
        url = f"http://127.0.0.1:{PAGE}/json/"
        wait_for(lambda: listening(PORT))
        started.append(
            subprocess.Popen(
                [*daemon, "worker", "--host", "localhost", "--webui-port", "18081",
                 "--cores", str(CORES), "--memory", EXECUTOR_MEMORY, "--work-dir", "/data",
                 f"spark://localhost:{PORT}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        wait_for(lambda: alive_workers(url) == 1)
        yield [*inside, "/opt/spark/bin/spark-submit", "--master", f"spark://localhost:{PORT}"]
    finally:
        for process in started:
            process.terminate()
            process.wait()
        for name in mounts:
            run("umount", "--recursive", str(root / name))


def listening(port: int) -> bool:
    """Tell whether something listens on a port of the loopback address."""
    return subprocess.run(
        ["bash", "-c", f": <>/dev/tcp/127.0.0.1/{port}"], check=False, capture_output=True
    ).returncode == 0  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    made = options(__doc__, rounds=11)
    made.add_argument("--rows", type=int, default=4_000_000, help="how many numbers")
    made.add_argument("--passes", type=int, default=4, help="how often the job does its work")
    arguments = made.parse_args()
    conf = [word for name, value in PROPERTIES.items() for word in ("--conf", f"{name}={value}")]
    inside: list[float] = []
    outside: list[float] = []
    with TemporaryDirectory(prefix="epic-benchmark-") as name:
        folder = Path(name)
        job = folder / "job.py"
        job.write_text(JOB.format(rows=arguments.rows, passes=arguments.passes))
        with cluster(folder) as env, processes(folder) as submit:
            (folder / "root/job.py").write_text(job.read_text())
            ways = (
                (inside, lambda: run(EPIC_RUN, "submit", *conf, "bench", str(job), env=env)),
                (outside, lambda: run(*submit, *conf, "/job.py")),
            )
            for turn in range(arguments.rounds):
                # Each goes first in every other pair: a host that slows down hurts both alike.
                for seconds, work in ways if turn % 2 else reversed(ways):
                    seconds.append(seconds_of(work()))
    ratio = round(median([a / b for a, b in zip(inside, outside, strict=True)]), 3)
    figures = {"cluster": median(inside), "processes": median(outside), "ratio": ratio}
    rows = [["cluster", "processes outside Docker", "ratio, pair by pair"], list(figures.values())]
    report(
        {"benchmark": "job", "rounds": arguments.rounds, **figures}, rows, as_json=arguments.json
    )


if __name__ == "__main__":
    main()
