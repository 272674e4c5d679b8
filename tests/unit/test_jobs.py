"""What may be submitted, where it runs, and how its output is followed to the end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, node, record, spec, tenant

from epic_runner import jobs, programs
from epic_runner.cli.shell import shell
from epic_runner.cli.submit import submit
from epic_runner.cli.words import WithArguments, closed_behind
from epic_runner.errors import InputError, NotFound
from epic_runner.lifecycle import Context
from epic_runner.programs import JobRequest
from epic_runner.store import JobRecord, Store

ROOT = Path(__file__).resolve().parents[2]
found = importlib.util.spec_from_file_location("job_filters", ROOT / "filter_plugins" / "jobs.py")
assert found
assert found.loader
filters = importlib.util.module_from_spec(found)
found.loader.exec_module(filters)

LAB = spec()
JOB = JobRecord(
    "20250301-101500-0a1b2c3d", "analytics", "lab", "ada", "job.py", "job.py", node="master-1"
)


def wanted(**values: Any) -> dict[str, Any]:
    defaults = {
        "id": "j1", "user": "ada", "file": "/home/me/train.py", "arguments": [], "conf": {},
        "py_files": [], "jars": [], "files": [], "archives": [],
        "class": "", "name": "", "environment": {}, "timeout_seconds": 0,
    }  # fmt: skip
    return {**defaults, **values}


# -- what may be submitted ---------------------------------------------------------------------


def test_a_file_that_is_not_there_is_refused_with_where_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.py: No such file") as refused:
        jobs.check(JobRequest(str(tmp_path / "gone.py")))
    assert "/tenant/" in str(refused.value.hint)


def test_a_file_that_is_too_large_is_refused_with_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LARGEST_BYTES", 2**20)
    jar = tmp_path / "huge.jar"
    jar.write_bytes(b"x" * (3 * 2**20))
    with pytest.raises(InputError, match="has 3 MiB; at most 1") as refused:
        jobs.check(JobRequest(str(jar)))
    assert "tee /tenant/huge.jar" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda _job: JobRequest("notes.txt"), "not clear how to run"),
        (lambda _job: JobRequest("."), "not clear how to run"),
        (lambda job: JobRequest(job, py_files=("lib.tar",)), r"lib\.tar is none of"),
        (lambda job: JobRequest(job, py_files=(job,)), r"Two files of the job are called job\.py"),
        (lambda job: JobRequest(job, jars=("/no/udf.jar",)), "udf.jar: No such file"),
        (lambda job: JobRequest(job, archives=("/no/env.zip#env",)), "env.zip: No such file"),
        (lambda job: JobRequest(job, conf={"a b": "1"}), '"a b" is no name of a Spark property'),
        (lambda job: JobRequest(job, environment={"1A": ""}), "no name of an environment"),
    ],
)
def test_what_cannot_run_is_refused(
    tmp_path: Path, request_of: Callable[[str], JobRequest], message: str
) -> None:
    job = tmp_path / "job.py"
    job.write_text("")
    with pytest.raises(InputError, match=message):
        jobs.check(request_of(str(job)))


def test_files_inside_the_nodes_are_not_looked_for_here() -> None:
    jobs.check(JobRequest("/tenant/train.py", py_files=("/data/lib.zip",)))


@pytest.mark.parametrize(("state", "hint"), [("stopped", "start lab"), ("absent", "destroy lab")])
def test_a_cluster_that_does_not_run_takes_no_job(state: str, hint: str, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    with store.transaction() as transaction:
        transaction.apply_tenant(tenant().document)
        key = transaction.add_cluster(LAB, "ada", [node(LAB, "master-1")])
        transaction.set_cluster(key, wanted=state)
    with pytest.raises(InputError) as refused:
        jobs.start(Context(store, {"local": host()}), "lab", JobRequest("/tenant/job.sh"))
    store.close()
    assert hint in str(refused.value.hint)


# -- where it runs -----------------------------------------------------------------------------


def test_a_job_is_submitted_where_the_notebooks_are() -> None:
    cluster = record(LAB, "worker-1", "master-1")
    assert jobs.submitting_node(cluster).short_name == "master-1"
    with pytest.raises(NotFound):
        jobs.submitting_node(record(LAB))


def test_the_inventory_of_a_job_lets_nothing_be_taken_for_a_template() -> None:
    request = JobRequest("job.py", ("{{ evil }}",), conf={"spark.a": "{{ evil }}"}, name="{{ n }}")
    cluster = record(LAB, "master-1", "worker-1")
    context = Context(Store("sqlite://"), {"local": host()})
    inventory = jobs.job_inventory(context, cluster, tenant(), JOB, request)
    variables = inventory["all"]["vars"]
    assert variables["job_arguments"] == [{"__ansible_unsafe": "{{ evil }}"}]
    assert variables["job_conf"] == {"spark.a": {"__ansible_unsafe": "{{ evil }}"}}
    assert variables["job_name"] == {"__ansible_unsafe": "{{ n }}"}
    assert Path(variables["job_file"]).is_absolute()
    context.store.close()


# -- the command -------------------------------------------------------------------------------


def started_by(command: list[str]) -> list[str]:
    """Return what a node's command becomes when the node is tidy."""
    return command[command.index("epic-job") :]


def test_a_python_program_is_put_into_the_node_and_submitted() -> None:
    job = wanted(
        arguments=["--rows", 5], conf={"spark.cores.max": 2}, name="train",
        py_files=["/me/a.py", "/tenant/b.zip"], environment={"SEED": "1"},
    )  # fmt: skip
    command = started_by(filters.job_command(job, 5))
    assert command[:4] == ["epic-job", "start", "j1", "--user"]
    assert "SEED=1" in command
    assert command[command.index("--") :] == [
        "--", "spark-submit", "--name", "train", "--conf", "spark.cores.max=2",
        "--py-files", "/data/jobs/j1.files/a.py,/tenant/b.zip",
        "/data/jobs/j1.files/train.py", "--rows", "5",
    ]  # fmt: skip
    assert filters.job_files(job, 20000, "runner.py") == {
        "/data/jobs/j1.files/train.py": {
            "src": "/home/me/train.py", "mode": "0600", "uid": 20000, "gid": 20000,
        },
        "/data/jobs/j1.files/a.py": {
            "src": "/me/a.py", "mode": "0600", "uid": 20000, "gid": 20000,
        },
    }  # fmt: skip


def test_jars_files_and_archives_go_along_with_a_program() -> None:
    job = wanted(
        jars=["/me/udf.jar", "/tenant/big.jar"], files=["/me/rates.csv"],
        archives=["/me/env.tar.gz#env"],
    )  # fmt: skip
    command = started_by(filters.job_command(job, 5))
    folder = "/data/jobs/j1.files/"
    assert command[command.index("spark-submit") + 1 : -1] == [
        "--jars", f"{folder}udf.jar,/tenant/big.jar", "--files", f"{folder}rates.csv",
        "--archives", f"{folder}env.tar.gz#env",
    ]  # fmt: skip
    files = filters.job_files(job, 20000, "runner.py")
    assert {path.removeprefix(folder): file["src"] for path, file in files.items()} == {
        "train.py": "/home/me/train.py", "udf.jar": "/me/udf.jar", "rates.csv": "/me/rates.csv",
        "env.tar.gz": "/me/env.tar.gz",
    }  # fmt: skip


def test_a_jar_in_the_storage_is_submitted_from_there() -> None:
    job = wanted(file="/tenant/app.jar", **{"class": "org.example.Main"})
    assert filters.job_files(job, 1, "runner.py") == {}
    command = started_by(filters.job_command(job, 5))
    assert command[command.index("--") + 1 :] == [
        "spark-submit", "--class", "org.example.Main", "/tenant/app.jar",
    ]  # fmt: skip


@pytest.mark.parametrize(("file", "program"), [("/a/x.R", "Rscript"), ("/a/x.sh", "bash")])
def test_scripts_find_the_settings_where_pyspark_looks(file: str, program: str) -> None:
    job = wanted(file=file, conf={"spark.a": "b c"}, arguments=["-x"], timeout_seconds=90)
    command = started_by(filters.job_command(job, 5))
    assert command[command.index("--timeout") + 1] == "90"
    assert "PYSPARK_SUBMIT_ARGS=--conf 'spark.a=b c' pyspark-shell" in command
    assert command[command.index("--") + 1 :] == [program, f"/data/jobs/j1.files/{file[3:]}", "-x"]


def test_a_notebook_is_run_by_a_program_that_goes_along_and_keeps_what_it_shows() -> None:
    job = wanted(file="/me/report.ipynb")
    command = started_by(filters.job_command(job, 5))
    folder = "/data/jobs/j1.files/"
    assert command[command.index("--") + 1 :] == [
        "/opt/jupyter/bin/python", f"{folder}notebook.py", f"{folder}report.ipynb",
        f"{folder}output/report.ipynb",
    ]  # fmt: skip
    assert filters.job_files(job, 1, "runner.py")[f"{folder}notebook.py"]["src"] == "runner.py"


def left_of(folder: Path, keep: int) -> list[str]:
    """Return which jobs are there after another one was started in a folder of jobs."""
    [item] = filters.jobs_kept([{"node": "n", "command": ["echo", "started"]}], keep)
    script = item["command"][2].replace("/data/jobs", str(folder))
    # What goes on in the background has the test's pipe, and so is waited for.
    script = script.replace("</dev/null &>/dev/null &", "</dev/null; ")
    run = subprocess.run(
        ["bash", "-c", script, *item["command"][3:]], capture_output=True, text=True, check=True
    )
    assert run.stdout == "started\n"
    return sorted(path.name for path in folder.iterdir())


def test_a_node_keeps_the_newest_jobs_and_all_that_run(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "old", "runs", "vanished", "oldest"]):
        job = tmp_path / name
        job.mkdir()
        (tmp_path / f"{name}.files").mkdir()
        (job / "command.json").touch()
        os.utime(job / "command.json", (1e9 - age, 1e9 - age))
        (job / "pid").write_text({"runs": str(os.getpid())}.get(name, "999999999"))
        if name not in ("runs", "vanished"):
            (job / "rc").touch()
    for name, at in (("begins.files", time.time()), ("unstarted.files", 1e9)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (at, at))
    assert len(left_of(tmp_path, 5)) == 12
    assert left_of(tmp_path, 1) == [
        "begins.files", "new", "new.files", "runs", "runs.files",
    ]  # fmt: skip


def test_the_program_and_the_playbooks_agree_on_what_is_inside_the_nodes() -> None:
    assert filters.INSIDE == programs.INSIDE


# -- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("lab job.py", {}, ()),
        ("lab job.py --name x -t y", {}, ("--name", "x", "-t", "y")),
        ("lab --name x job.py --name y", {"name": "x"}, ("--name", "y")),
        ("--name x -t t lab --conf a=b job.py", {"name": "x", "tenant": "t"}, ()),
        ("lab --conf=a=b --env=C=d job.py --help", {"environment": ("C=d",)}, ("--help",)),
        ("lab job.py -- --x", {}, ("--x",)),
        ("lab job.py -", {}, ("-",)),
    ],
)
def test_options_behind_the_file_are_the_jobs_own(
    line: str, ours: dict[str, Any], theirs: tuple[str, ...]
) -> None:
    assert isinstance(submit, WithArguments)
    # As `epic-run` itself calls it; click keeps a verb's help option once it is made.
    context = submit.make_context("submit", line.split(), help_option_names=["-h", "--help"])
    assert (context.params["cluster"], context.params["file"]) == ("lab", "job.py")
    assert context.params["arguments"] == theirs
    assert ours.items() <= context.params.items()


@pytest.mark.parametrize("line", ["lab worker-1 ls", "lab ls -l"])
def test_a_shells_command_is_told_where_it_belongs(line: str) -> None:
    with pytest.raises(click.UsageError, match="A command stands behind --: "):
        shell.make_context("shell", line.split(), help_option_names=["-h", "--help"])


@given(st.lists(st.text("-ab=", max_size=4), max_size=6))
def test_a_line_is_closed_at_most_once_and_keeps_its_words(args: list[str]) -> None:
    closed = closed_behind(args, 2, lambda option: option == "-a")
    if closed != args:
        place = next(n for n, word in enumerate(closed) if word == "--")
        assert closed[:place] + closed[place + 1 :] == args


def test_a_start_in_the_background_that_is_interrupted_names_what_tells_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def start(*_: Any, **__: Any) -> JobRecord:
        raise KeyboardInterrupt

    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(jobs, "start", start)
    told = CliRunner().invoke(
        submit, ["lab", "job.py", "--background"], help_option_names=["-h", "--help"]
    )
    assert told.exit_code == 130
    assert "epic-run job list tells whether it runs" in told.output
