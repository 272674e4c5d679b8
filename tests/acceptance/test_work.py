"""Work on clusters: jobs, notebooks, logs, shells, and the storage of a tenant."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import JOB_SECONDS, Cluster
from kernels import kernel
from life_support import until

pytestmark = pytest.mark.docker

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
JOBS = EXAMPLES / "jobs"
# Jobs of a few seconds spend most of their time on compiling what hardly runs.
C1 = "-XX:TieredStopAtLevel=1"
QUICK = [f"--conf=spark.{side}.extraJavaOptions={C1}" for side in ("driver", "executor")]
FLOWERS = [*QUICK, "--py-files", str(JOBS / "flowers.py")]

# Tells that it runs, and ends when somebody makes a file; its end is on stderr.
WAITS = """
echo "$0 waits as $(id -un) in $EPIC_CLUSTER with $*"
until [ -e "$1" ]; do sleep 0.1; done
echo "seen $1" >&2
exit 3
"""

OVERWRITES = """
import sys
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.range(20).withColumnRenamed("id", sys.argv[1]).write.mode("overwrite").parquet(
    "/tenant/examples/flowers/parquet"
)
print(spark.read.parquet("/tenant/examples/flowers/parquet").columns)
"""


COUNTS = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("counts").getOrCreate()
spark.range(100).groupBy().sum("id").collect()
print(spark.sparkContext.applicationId)
"""

# PySpark's program is a child of the driver, and its worker a grandchild of the executor.
MAPPED = """
import os
from pathlib import Path
from pyspark.sql import SparkSession

def is_mapped(pid):
    return "/cds/job.jsa" in Path(f"/proc/{pid}/maps").read_text()

def of_executor(_):
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    return is_mapped(stat.rpartition(")")[2].split()[1])

one = SparkSession.builder.getOrCreate().sparkContext.parallelize([1], 1)
print("driver", is_mapped(os.getppid()), "executor", *one.map(of_executor).collect())
"""


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("jobs") / "waits.sh"
    path.write_text(WAITS)
    return str(path)


@pytest.fixture(scope="module")
def formats(cluster: Cluster) -> list[str]:
    """What the job that writes and reads all formats printed."""
    return cluster.run("submit", *FLOWERS, str(JOBS / "formats.py")).out.splitlines()


@pytest.fixture(scope="module")
def trained(cluster: Cluster, formats: list[str]) -> str:
    """What the job that trains a model printed."""
    assert formats
    return cluster.run("submit", *FLOWERS, str(JOBS / "train.py"), "--model", "mine").out


def accuracy(text: str) -> float:
    found = re.search(r"accuracy: ([\d.]+)", text)
    assert found, text
    return float(found[1])


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def wait_for_lines(process: subprocess.Popen[str], wanted: set[str]) -> None:
    while wanted:
        line = first_line(process)
        assert line, f"it ended without {wanted}"
        wanted.discard(line)


def add_line(cluster: Cluster, node: str, service: str, line: str) -> None:
    log = f"/data/log/{service}/current"
    write = ["bash", "-c", f"echo '{line}' >>{log}"]
    cluster.site.inside(node, *write, cluster=cluster.name)


# -- jobs --------------------------------------------------------------------------------------


def test_a_job_prints_its_result_and_little_else(cluster: Cluster) -> None:
    run = cluster.run("submit", *QUICK, str(JOBS / "pi.py"), "2")
    assert re.fullmatch(r"Pi is roughly 3\.1\d+\n", run.out)
    assert "INFO" not in run.err


def test_a_job_starts_with_the_classes_that_the_image_keeps(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "mapped.py"
    script.write_text(MAPPED)
    assert cluster.run("submit", *QUICK, str(script)).out == "driver True executor True\n"


def test_a_job_gets_its_arguments_as_they_were_typed(cluster: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "arguments.sh"
    job.write_text('printf "<%s>\\n" "$@"; echo "$GREETING"; umask; id -gn; pwd')
    arguments = ["--rows", "5", "-x", "{{ 7 * 7 }}", "two words", "$HOME", "ünï", "--as", "bob"]
    run = cluster.run("submit", "--env", "GREETING={{ 6 * 7 }}", str(job), *arguments)
    assert run.out.splitlines() == [
        *(f"<{argument}>" for argument in arguments),
        "{{ 6 * 7 }}",
        "0002",
        "ada",
        "/data/home/ada",
    ]


def test_output_is_seen_while_the_job_runs_and_its_exit_code_is_the_commands(
    cluster: Cluster, waits: str
) -> None:
    process = cluster.begin("submit", "--as", "bob", waits, "/tenant/go", "--now")
    try:
        assert "waits as bob in one with /tenant/go --now" in first_line(process)
        # Neither a change of the cluster nor another job has to wait for this one.
        cluster.site.run("repair", cluster.name)
        cluster.run("shell", "--", "touch", "/tenant/go")
        out, err = process.communicate(timeout=JOB_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (3, "", "seen /tenant/go\n")


def test_a_summary_for_programs_is_the_last_line_on_stderr(cluster: Cluster, waits: str) -> None:
    run = cluster.run("submit", "--output", "json", waits, "/etc/passwd", code=3)
    assert run.out.endswith("with /etc/passwd\n")
    *_, seen, summary = run.err.splitlines()
    assert seen == "seen /etc/passwd"
    told = json.loads(summary)
    assert (told["exit_code"], told["state"], told["user"]) == (3, "failed", "ada")
    listed = cluster.run("shell", "--", "epic-job", "list").out
    assert told["job"] in {json.loads(line)["id"] for line in listed.splitlines()}


def test_interrupting_the_command_cancels_the_job(cluster: Cluster, waits: str) -> None:
    process = cluster.begin("submit", waits, "/tenant/never")
    try:
        assert "waits as ada" in first_line(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=JOB_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "cancelled" in err
    assert cluster.run("shell", "--", "pgrep", "-f", "/tenant/[n]ever", code=1).out == ""


def test_output_of_any_size_arrives_whole(cluster: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "much.sh"
    job.write_text("seq 1000000; seq 500000 >&2")
    run = cluster.run("submit", str(job))
    assert run.out == "".join(f"{number}\n" for number in range(1, 1000001))
    assert run.err == "".join(f"{number}\n" for number in range(1, 500001))


def test_a_program_in_the_tenants_storage_can_be_submitted_by_any_member(
    cluster: Cluster, other: Cluster
) -> None:
    cluster.run("shell", "--", "tee", "/tenant/hello.sh", given='echo "hello from $(hostname)"')
    run = other.run("submit", "--as", "bob", "/tenant/hello.sh")
    assert run.out == "hello from two-master-1\n"
    missing = other.run("submit", "/tenant/missing.py", code=2)
    assert "/tenant/missing.py is no file of two-master-1" in missing.err


def test_mistakes_are_told_before_anything_starts(cluster: Cluster, other: Cluster) -> None:
    assert "missing.py: No such file" in cluster.run("submit", "missing.py", code=2).err
    assert "members are ada, bob" in cluster.run("submit", "--as", "eve", __file__, code=2).err
    script = cluster.site.folder / "plot.R"
    script.write_text("cat('R')")
    assert "runs no job of the kind R" in other.run("submit", str(script), code=2).err


def test_an_r_script_gets_arguments_and_settings(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "settings.R"
    script.write_text('cat(commandArgs(trailingOnly = TRUE), Sys.getenv("PYSPARK_SUBMIT_ARGS"))')
    run = cluster.run("submit", "--name", "in R", str(script), "--more")
    assert run.out == "--more --name 'in R' pyspark-shell"


# -- data and models ---------------------------------------------------------------------------


def test_every_format_gives_back_what_was_written(formats: list[str]) -> None:
    assert len(formats) == 6
    for line in formats:
        form, _, written, _, read = line.split()
        assert written == read, form


def test_a_model_is_trained_on_data_of_all_formats(trained: str) -> None:
    assert accuracy(trained) > 0.8
    assert re.search(r"training rows: \d{3}, test rows: \d{2}\n", trained)


def test_a_model_is_applied_by_another_member_on_another_cluster(
    trained: str, other: Cluster
) -> None:
    assert trained
    run = other.run("submit", "--as", "bob", *FLOWERS, str(JOBS / "score.py"), "--model", "mine")
    assert "rows: 30\n" in run.out
    assert accuracy(run.out) > 0.8


def test_a_member_replaces_another_members_table(
    trained: str, other: Cluster, tmp_path: Path
) -> None:
    assert trained
    job = tmp_path / "overwrite.py"
    job.write_text(OVERWRITES)
    run = other.run("submit", "--as", "bob", *QUICK, str(job), "bobs")
    assert run.out == "['bobs']\n"


def test_what_lies_in_the_storage_belongs_to_the_tenants_group(
    trained: str, cluster: Cluster
) -> None:
    assert trained
    # But for the logs of applications, which nobody but the history server shows.
    find = ["shell", "--", "find", "/tenant", "-mindepth", "1", "-path", "/tenant/spark-events",
            "-prune", "-o"]  # fmt: skip
    owners = set(cluster.run(*find, "-printf", "%u %g\n").out.splitlines())
    # Written by executors, which are the service's, and by members' drivers.
    assert {"spark tenant", "ada tenant"} <= owners
    assert {owner.split()[1] for owner in owners} == {"tenant"}
    assert cluster.run(*find, "-type", "d", "-not", "-perm", "-2775", "-print").out == ""
    assert cluster.run(*find, "-type", "f", "-not", "-perm", "-664", "-print").out == ""
    cluster.run("shell", "--as", "bob", "--", "rm", "-r", "/tenant/models/mine")


# -- history -----------------------------------------------------------------------------------


def test_a_job_that_ended_is_shown_and_its_log_is_nobody_elses(
    other: Cluster, tmp_path: Path
) -> None:
    job = tmp_path / "counts.py"
    job.write_text(COUNTS)
    application = other.run("submit", "--as", "bob", *QUICK, str(job)).out.strip()
    api = f"{other.endpoint('spark-history')}api/v1/applications"

    def told(path: str = "") -> Any:
        with urllib.request.urlopen(api + path, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    ended = until(
        lambda: [item for item in told("?status=completed") if item["id"] == application],
        "the application is shown", pause=0.5,
    )  # fmt: skip
    assert (ended[0]["name"], ended[0]["attempts"][0]["sparkUser"]) == ("counts", "bob")
    assert {job["status"] for job in told(f"/{application}/jobs")} == {"SUCCEEDED"}
    log = f"/tenant/spark-events/two/{application}.zstd"
    shown = other.site.inside("master-1", "stat", "-c", "%U %G %a", log, cluster="two")
    assert shown == "bob spark-history 660"
    # Neither as another member nor as the executors' account, as which whatever a job runs there.
    tries = f"cat {log}; echo x >>{log}; rm -f {log}; mv {log} {log}.gone; mv ${{log%/*}} /tenant/x"
    for user in ("ada", "spark"):
        other.site.inside("master-1", "bash", "-c", f"log={log}; {tries}; true", cluster="two",
                          user=user)  # fmt: skip
        assert other.site.inside("master-1", "stat", "-c", "%U %G %a", log, cluster="two") == shown
    assert {job["status"] for job in told(f"/{application}/jobs")} == {"SUCCEEDED"}


# -- notebooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "notebook", "count"),
    [("python3", "spark.ipynb", "100000"), ("ir", "spark-r.ipynb", "[1] 100000")],
)
def test_a_notebook_works_on_the_workers(
    cluster: Cluster, name: str, notebook: str, count: str
) -> None:
    with kernel(cluster.endpoint("jupyter"), name) as running:
        shown = running.run_notebook(EXAMPLES / "notebooks" / notebook)
    assert count in [line.strip() for line in shown[0].splitlines()]
    assert "driver on one-master-1" in shown[1]
    assert re.search(r"executors on one-worker-1\s*\n", shown[1])


# -- logs and shells ---------------------------------------------------------------------------


def test_logs_show_the_last_lines_of_every_service(cluster: Cluster) -> None:
    shown = cluster.run("logs", "-n", "3").out
    for title in ("one-master-1 spark-master", "one-master-1 jupyter", "one-worker-1 spark-worker"):
        assert f"==> {title} <==" in shown
    [log] = json.loads(
        cluster.run("logs", "--service", "spark-master", "-n", "2", "-o", "json").out
    )
    assert (log["node"], len(log["lines"])) == ("master-1", 2)
    mistake = cluster.run("logs", "--node", "worker-1", "--service", "jupyter", code=2)
    assert "one-worker-1 runs no service jupyter; it runs spark-worker." in mistake.err


def test_followed_logs_show_new_lines_of_several_nodes_and_leave_no_process(
    cluster: Cluster,
) -> None:
    logs = {"master-1": "spark-master", "worker-1": "spark-worker"}
    for node, service in logs.items():
        add_line(cluster, node, service, "the last line so far")
    process = cluster.begin("logs", "--follow", "-n", "1")
    try:
        wait_for_lines(
            process,
            {f"one-{node} {log} | the last line so far\n" for node, log in logs.items()},
        )
        for node, service in logs.items():
            add_line(cluster, node, service, f"news of {node}")
        wait_for_lines(
            process, {f"one-{node} {log} | news of {node}\n" for node, log in logs.items()}
        )
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=JOB_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0
    until(
        lambda: "tail" not in cluster.site.inside("worker-1", "ps", "-eo", "comm", cluster="one"),
        "no tail is left in the node",
    )


def test_a_command_in_a_shell_has_input_output_and_exit_code(cluster: Cluster) -> None:
    command = 'id -un; hostname; umask; pwd; cat; echo "on stderr" >&2; exit 4'
    run = cluster.run(
        "shell", "worker-1", "--as", "bob", "--", "bash", "-c", command, code=4, given="given\n"
    )
    assert run.out.splitlines() == ["bob", "one-worker-1", "0002", "/home/bob", "given"]
    assert run.err == "on stderr\n"


def test_a_shell_is_a_terminal(cluster: Cluster) -> None:
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "epic_runner", "shell", cluster.name],
        env=cluster.site.environment(),
        encoding="utf-8",
        dimensions=(33, 101),
        timeout=JOB_SECONDS,
    )
    terminal.expect_exact("ada@one-master-1")
    terminal.sendline("stty size")
    terminal.expect_exact("33 101")
    terminal.setwinsize(44, 77)
    terminal.sendline("until stty size | grep 77; do sleep 0.1; done; umask")
    terminal.expect_exact("44 77")
    terminal.expect_exact("0002")
    # Ctrl-C is for what has the terminal, which a program takes a moment after bash has forked it:
    # between the two bash gets it, waits, and forgets it. What cat repeats tells that it has it.
    terminal.sendline("cat")
    terminal.sendline("miaow")
    for _ in range(2):
        terminal.expect_exact("miaow")
    terminal.sendintr()
    terminal.expect_exact("ada@one-master-1")
    terminal.sendline("exit 9")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 9
