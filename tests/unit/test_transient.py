"""Jobs on clusters of their own: their names, whose they are, and what is brought home of them."""

from __future__ import annotations

import io
import os
import platform
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import host, node, spec, tenant

from epic_runner import jobs, lifecycle, tracking, transient
from epic_runner.archives import unpacked
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import EpicError, InputError, NotFound, OperationFailed
from epic_runner.lifecycle import Context
from epic_runner.processes import started
from epic_runner.programs import JobRequest
from epic_runner.store import JobRecord, Store
from epic_runner.transient import JobPlan

KEY = "20250301-101500-0a1b2c3d"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    store = Store()
    with store.transaction() as transaction:
        transaction.apply_tenant(tenant().document)
    yield Context(store, {"local": host()})
    store.close()


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were handed over to a process of their own."""
    keys: list[str] = []
    monkeypatch.setattr(transient, "detached", lambda words, _log: keys.append(words[-1]))
    return keys


def plan(**values: Any) -> JobPlan:
    return JobPlan("retrain", JobRequest("/tenant/train.py"), spec=spec(), **values)


def waiting(**values: Any) -> JobRecord:
    job = JobRecord(
        KEY, "work", "retrain-1", "ada", "retrain", "/tenant/train.py", state="waiting",
        is_transient=True, is_settled=False, controller=platform.node(), pid=os.getpid(),
        pid_started=started(os.getpid()), started_at=1.0,
    )  # fmt: skip
    return replace(job, **values)


def failing(problem: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise problem

    return fail


@given(st.from_regex(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True))
def test_a_cluster_of_a_jobs_own_has_a_name_that_clusters_may_have(job: str) -> None:
    from epic_runner.spec.models import check_name

    name = transient.cluster_name(job)
    assert check_name(name) == name
    assert name.startswith(job[:24].rstrip("-"))
    assert transient.cluster_name(job) != name


def test_a_job_of_a_living_process_is_left_to_it(context: Context, handed_over: list[str]) -> None:
    with context.store.transaction() as transaction:
        transaction.add_job(waiting())
    assert transient.sweep(context.store) == []
    assert handed_over == []


@pytest.mark.parametrize(
    ("values", "swept"),
    [
        ({"pid_started": "1"}, [KEY]),
        ({"pid": 0, "pid_started": ""}, [KEY]),
        ({"pid_started": "1", "is_settled": True}, []),
        ({"pid_started": "1", "controller": "elsewhere"}, []),
    ],
)
def test_a_job_that_nobody_drives_is_finished(
    context: Context, handed_over: list[str], values: dict[str, Any], swept: list[str]
) -> None:
    with context.store.transaction() as transaction:
        transaction.add_job(waiting(**values))
    assert [job.id for job in transient.sweep(context.store)] == swept
    assert handed_over == swept


def test_who_finishes_a_job_that_had_not_begun_records_that_and_leaves_nothing(
    context: Context,
) -> None:
    with context.store.transaction() as transaction:
        transaction.add_job(waiting(pid_started="1"))
    transient.finish(context, KEY)
    with context.store.read() as transaction:
        job = transaction.job(KEY)
    assert (job.state, job.is_settled) == ("failed", True)
    assert "before the job had begun" in job.reason


def test_a_cluster_that_could_not_be_made_is_removed_and_the_reason_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def launch(context: Context, wanted: Any, **_: Any) -> None:
        with context.store.transaction() as transaction:
            transaction.add_cluster(wanted, "ada", ())
        raise OperationFailed("the image is missing")

    monkeypatch.setattr(lifecycle, "launch", launch)
    monkeypatch.setattr(lifecycle, "destroy", lambda _c, name, _t: removed.append(name))
    with pytest.raises(OperationFailed, match="the image is missing"):
        transient.run_job(context, plan())
    with context.store.read() as transaction:
        [job] = transaction.jobs()
    assert removed == [job.cluster]
    assert (job.state, job.reason, job.is_settled) == ("failed", "the image is missing", True)
    assert job.user == "ada"


def test_a_cluster_that_cannot_be_removed_is_left_to_the_next_command(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with context.store.transaction() as transaction:
        transaction.add_cluster(spec(name="retrain-1"), "ada", ())
        transaction.add_job(waiting(pid_started="1"))
    monkeypatch.setattr(lifecycle, "destroy", failing(EpicError("its host is away")))
    transient.finish(context, KEY)
    with context.store.read() as transaction:
        assert not transaction.job(KEY).is_settled


def test_a_job_that_is_cancelled_while_its_cluster_is_made_never_starts(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(context: Context, wanted: ClusterSpec, **__: Any) -> None:
        with context.store.transaction() as transaction:
            [job] = transaction.jobs()
            transaction.add_cluster(wanted, "ada", [node(wanted, "master-1")])
        assert tracking.settle(context, job).state == "waiting"
        assert tracking.cancel(context, job).state == "cancelling"

    monkeypatch.setattr(lifecycle, "launch", launch)
    monkeypatch.setattr(lifecycle, "destroy", lambda *_: None)
    monkeypatch.setattr(transient.logs, "tails", lambda *_: [])
    for name in ("refuse_dead", "_check_inside"):
        monkeypatch.setattr(jobs, name, lambda *_: None)
    monkeypatch.setattr(jobs, "run_playbook", failing(AssertionError("it was started")))
    outcome = transient.run_job(context, plan())
    assert (outcome.job.state, outcome.exit_code, outcome.left) == ("cancelled", 130, "")
    assert outcome.job.is_settled


def test_a_job_of_somebody_who_is_no_member_is_refused_before_anything_is_made(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "launch", failing(AssertionError("a cluster was made")))
    with pytest.raises(InputError, match="eve is not a member of tenant work"):
        transient.run_job(context, plan(user="eve"))
    with context.store.read() as transaction:
        [job] = transaction.jobs()
    assert (job.user, job.state, job.is_settled) == ("eve", "refused", True)


def test_a_job_that_others_cancelled_is_no_failure() -> None:
    job = replace(waiting(), state="cancelled", rc=143)
    assert transient.JobOutcome(job).exit_code == 130


def test_an_interrupted_job_is_cancelled(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "launch", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        transient.run_job(context, plan())
    with context.store.read() as transaction:
        [job] = transaction.jobs()
    assert (job.state, job.is_settled) == ("cancelled", True)


def test_a_job_that_needs_another_spark_is_refused_before_anything_is_made(
    context: Context,
) -> None:
    with pytest.raises(InputError, match=r"needs Spark 3\.4, but the cluster has spark 3\.5\.9"):
        transient.run_job(context, plan(spark_version="3.4"))
    with context.store.read() as transaction:
        assert transaction.jobs() == []


def test_a_record_keeps_no_secrets() -> None:
    request = JobRequest(
        "/tenant/train.py",
        conf={"spark.cores.max": "2", "spark.hadoop.fs.s3a.secret.key": "s3cr3t"},
        environment={"SEED": "7", "DB_PASSWORD": "s3cr3t", "API_KEY": "s3cr3t"},
    )
    kept = jobs.new_record(request, tenant="work", cluster="lab", user="ada").options
    assert "s3cr3t" not in str(kept)
    assert kept["conf"]["spark.cores.max"] == "2"
    assert kept["environment"]["SEED"] == "7"


def test_only_files_and_folders_below_the_folder_are_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (
            ("output", tarfile.DIRTYPE), ("output/a.txt", tarfile.REGTYPE),
            ("../outside.txt", tarfile.REGTYPE), ("/absolute.txt", tarfile.REGTYPE),
            ("output/link", tarfile.SYMTYPE), ("output/link/b.txt", tarfile.REGTYPE),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, 4 if kind == tarfile.REGTYPE else 0
            member.linkname = "/etc" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member, io.BytesIO(b"text"))
    home = tmp_path / "home"
    home.mkdir()
    files = unpacked(buffer.getvalue(), home)
    assert files == [home / "output" / "a.txt", home / "output" / "link" / "b.txt"]
    assert files[0].read_bytes() == b"text"
    assert not (tmp_path / "outside.txt").exists()
    assert not (home / "output" / "link").is_symlink()


# -- from the YAML -----------------------------------------------------------------------------

FILES = """\
kind: Job
name: retrain
tenant: work
cluster: {template: small, keep: true}
submit: {file: train.py, args: [x], py_files: [/tenant/lib.zip], class: A, on: big}
user: bob
timeout: 2h
---
kind: Flavor
name: tiny
cores: 1
memory: 1g
---
kind: Template
name: small
tenant: work
app: spark
roles: {master: {flavor: tiny}, worker: {count: 3, flavor: tiny}}
---
kind: Template
name: large
tenant: work
app: spark
"""


def test_a_job_is_read_with_the_template_that_it_names(context: Context, tmp_path: Path) -> None:
    from epic_runner.cli.reading import read_job

    (tmp_path / "train.py").write_text("")
    (tmp_path / "job.yml").write_text(FILES)
    sets = ["timeout=3h", "submit.args=[y]"]
    read = read_job(context.store, [str(tmp_path / "job.yml")], sets)
    assert read.request == JobRequest(
        str(tmp_path / "train.py"), ("y",), py_files=("/tenant/lib.zip",), main_class="A",
        name="retrain", on="big", timeout_seconds=10800, title="retrain",
    )  # fmt: skip
    assert read.spec is not None
    assert (read.spec.name, read.spec.role("worker").count) == ("small", 3)
    assert (read.user, read.keep, read.cluster) == ("bob", True, None)
    assert [flavor["name"] for flavor in read.flavors] == ["tiny"]


def test_a_job_on_a_cluster_that_is_there_makes_none(context: Context, tmp_path: Path) -> None:
    from epic_runner.cli.reading import read_job

    path = tmp_path / "job.yml"
    path.write_text("kind: Job\nname: a\ncluster: {name: lab}\nsubmit: {file: /tenant/a.sh}\n")
    read = read_job(context.store, [str(path)], tenant="work")
    assert (read.cluster, read.spec, read.tenant) == ("lab", None, "work")
    path.write_text(FILES.split("---")[1])
    with pytest.raises(InputError, match="The files hold no Job"):
        read_job(context.store, [str(path)])


# -- the store ---------------------------------------------------------------------------------


def test_jobs_are_found_by_the_beginning_of_their_ids_and_listed_newest_first(
    context: Context,
) -> None:
    with context.store.transaction() as transaction:
        for number, cluster in enumerate(("lab", "lab", "big")):
            transaction.add_job(
                replace(waiting(), id=f"2025030{number}-0", cluster=cluster, started_at=number)
            )
        assert transaction.job("20250301").cluster == "lab"
        with pytest.raises(InputError, match="More than one job begins with 2025"):
            transaction.job("2025")
        with pytest.raises(NotFound, match="There is no job 1999"):
            transaction.job("1999")
        listed = [job.id for job in transaction.jobs("work", "lab")]
        assert listed == ["20250301-0", "20250300-0"]
        transaction.set_job("20250301-0", applications=("app-1",), stages={"complete": 2})
        changed = transaction.job("20250301-0")
    assert (changed.applications, changed.stages) == (("app-1",), {"complete": 2})
