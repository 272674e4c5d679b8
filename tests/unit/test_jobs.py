"""What may be submitted, where it runs, and how its output is followed to the end."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, node, record, spec, tenant

from epic_runner import docker_api, docker_exec, jobs
from epic_runner.cli.submit import submit
from epic_runner.cli.words import WithArguments, closed_behind
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound, OperationFailed
from epic_runner.jobs import Job, JobRequest
from epic_runner.lifecycle import Context
from epic_runner.store import Store

ROOT = Path(__file__).resolve().parents[2]
found = importlib.util.spec_from_file_location("job_filters", ROOT / "filter_plugins" / "jobs.py")
assert found
assert found.loader
filters = importlib.util.module_from_spec(found)
found.loader.exec_module(filters)

LAB = spec()
JOB = Job("20250301-101500-0a1b2c3d", node(LAB, "master-1"), "ada", 1.0)


def wanted(**values: Any) -> dict[str, Any]:
    defaults = {
        "id": "j1", "user": "ada", "file": "/home/me/train.py", "arguments": [], "conf": {},
        "py_files": [], "class": "", "name": "", "environment": {},
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
    assert Path(variables["job_file"]["__ansible_unsafe"]).is_absolute()
    context.store.close()


# -- the command -------------------------------------------------------------------------------


def test_a_python_program_is_put_into_the_node_and_submitted() -> None:
    job = wanted(
        arguments=["--rows", 5], conf={"spark.cores.max": 2}, name="train",
        py_files=["/me/a.py", "/tenant/b.zip"], environment={"SEED": "1"},
    )  # fmt: skip
    assert filters.job_command(job) == [
        "epic-job", "start", "j1", "--user", "ada", "--env", "EPIC_JOB=j1", "--env", "SEED=1", "--",
        "spark-submit", "--name", "train", "--conf", "spark.cores.max=2",
        "--py-files", "/data/jobs/j1.files/a.py,/tenant/b.zip",
        "/data/jobs/j1.files/train.py", "--rows", "5",
    ]  # fmt: skip
    assert filters.job_files(job, 20000) == {
        "/data/jobs/j1.files/train.py": {
            "src": "/home/me/train.py", "mode": "0600", "uid": 20000, "gid": 20000,
        },
        "/data/jobs/j1.files/a.py": {
            "src": "/me/a.py", "mode": "0600", "uid": 20000, "gid": 20000,
        },
    }  # fmt: skip


def test_a_jar_in_the_storage_is_submitted_from_there() -> None:
    job = wanted(file="/tenant/app.jar", **{"class": "org.example.Main"})
    assert filters.job_files(job, 1) == {}
    command = filters.job_command(job)
    assert command[command.index("--") + 1 :] == [
        "spark-submit", "--class", "org.example.Main", "/tenant/app.jar",
    ]  # fmt: skip


@pytest.mark.parametrize(("file", "program"), [("/a/x.R", "Rscript"), ("/a/x.sh", "bash")])
def test_scripts_find_the_settings_where_pyspark_looks(file: str, program: str) -> None:
    command = filters.job_command(wanted(file=file, conf={"spark.a": "b c"}, arguments=["-x"]))
    assert "PYSPARK_SUBMIT_ARGS=--conf 'spark.a=b c' pyspark-shell" in command
    assert command[command.index("--") + 1 :] == [program, f"/data/jobs/j1.files/{file[3:]}", "-x"]


def test_the_program_and_the_playbooks_agree_on_what_is_inside_the_nodes() -> None:
    assert filters.INSIDE == jobs.INSIDE


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


@given(st.lists(st.text("-ab=", max_size=4), max_size=6))
def test_a_line_is_closed_at_most_once_and_keeps_its_words(args: list[str]) -> None:
    closed = closed_behind(args, 2, lambda option: option == "-a")
    if closed != args:
        place = next(n for n, word in enumerate(closed) if word == "--")
        assert closed[:place] + closed[place + 1 :] == args


# -- following ---------------------------------------------------------------------------------


class Node:
    """A node whose connection breaks off after so many bytes of the job's output."""

    def __init__(self, output: bytes, breaks: list[int], code: int = 0) -> None:
        self.output = output
        self.breaks = breaks
        self.code = code
        self.result: bytes | None = None
        self.error: EpicError | None = None

    def stream(self, *arguments: Any, hold: bool) -> int:
        assert hold
        if self.error:
            raise self.error
        write = arguments[3]
        end = self.breaks.pop(0) if self.breaks else len(self.output)
        write(self.output[:end], False)  # noqa: FBT003 - the callback's form
        if end < len(self.output):
            raise DockerUnavailable("broke off")
        return self.code

    def read_file(self, *_: Any) -> bytes | None:
        return self.result


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Node], tuple[bytes, int]]:
    def run(of: Node) -> tuple[bytes, int]:
        monkeypatch.setattr(docker_exec, "stream", of.stream)
        monkeypatch.setattr(docker_api, "read_file", of.read_file)
        monkeypatch.setattr(jobs.time, "sleep", lambda _seconds: None)
        seen: list[bytes] = []
        code = jobs.follow(host(), JOB, lambda data, _is_error: seen.append(data))
        return b"".join(seen), code

    return run


def test_output_goes_on_where_a_broken_connection_stopped(
    follow: Callable[[Node], tuple[bytes, int]],
) -> None:
    output = bytes(range(200))
    assert follow(Node(output, [10, 0, 5, 150], code=7)) == (output, 7)


def test_following_gives_up_when_docker_stays_away(
    follow: Callable[[Node], tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RECONNECT_SECONDS", 0)
    with pytest.raises(DockerUnavailable):
        follow(Node(b"output", [3, 3, 3, 3, 3]))


@pytest.mark.parametrize("code", [3, 125, 137])
def test_a_job_that_vanished_is_no_job_that_ended_with_the_same_code(
    follow: Callable[[Node], tuple[bytes, int]], code: int
) -> None:
    gone = Node(b"", [], code)
    with pytest.raises(OperationFailed, match="gone without a result"):
        follow(gone)
    gone.result = f"{code}\n".encode()
    assert follow(gone) == (b"", code)


def test_a_job_whose_node_has_stopped_still_has_the_result_it_left(
    follow: Callable[[Node], tuple[bytes, int]],
) -> None:
    stopped = Node(b"", [])
    stopped.error = EpicError("Container is not running")
    with pytest.raises(OperationFailed, match="was lab-master-1 stopped"):
        follow(stopped)
    stopped.result = b"6\n"
    assert follow(stopped) == (b"", 6)


def test_cancelling_waits_for_a_job_that_is_just_about_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = [3, 3, 0]
    monkeypatch.setattr(docker_exec, "output_of", lambda *_, **__: (codes.pop(0), ""))
    monkeypatch.setattr(jobs.time, "sleep", lambda _seconds: None)
    jobs.cancel(host(), JOB)
    assert codes == []
    codes = [1]
    with pytest.raises(OperationFailed, match="could not be cancelled"):
        jobs.cancel(host(), JOB)
