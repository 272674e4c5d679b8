"""What becomes of jobs: what their nodes tell, and what is made of it when they tell nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from life_samples import known, spec

from epic_runner import docker_exec, following, spark_apps, tracking
from epic_runner.errors import DockerUnavailable, EpicError, InputError, NotFound, OperationFailed
from epic_runner.following import Ended
from epic_runner.lifecycle import Context
from epic_runner.store import JobRecord

LAB = spec()
KEY = "20250301-101500-0a1b2c3d"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    with known(tmp_path, LAB, "master-1", "worker-1") as made:
        yield made


def added(context: Context, **values: Any) -> JobRecord:
    """Record a job that runs on the laboratory's master."""
    with context.store.transaction() as transaction:
        created = transaction.find_cluster("lab").created_at
        defaults = {"node": "master-1", "host": "local", "state": "running"}
        job = JobRecord(
            KEY, "work", "lab", "ada", "train.py", "/me/train.py",
            **{**defaults, "started_at": created + 1, **values},
        )  # fmt: skip
        transaction.add_job(job)
    return job


def recorded(context: Context) -> JobRecord:
    with context.store.read() as transaction:
        return transaction.job(KEY)


def telling(monkeypatch: pytest.MonkeyPatch, told: Any, rc: int | None = None) -> None:
    """Have the node tell something of every job, or raise it."""

    def show(*_: object) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(following, "show", show)
    monkeypatch.setattr(following, "result", lambda *_: rc)
    monkeypatch.setattr(spark_apps, "ids", lambda *_: ("app-20250301101500-0000",))


def said(state: str, rc: int | None = None) -> dict[str, Any]:
    return {"state": state, "rc": rc, "created": 1.0, "ended": 9.0, "cut": []}


@pytest.mark.parametrize(
    ("told", "state", "rc"),
    [
        (said("done", 0), "done", 0),
        (said("done", 3), "failed", 3),
        (said("vanished"), "lost", None),
        (said("running"), "running", None),
    ],
)
def test_what_a_node_tells_is_recorded(
    context: Context, monkeypatch: pytest.MonkeyPatch, told: Any, state: str, rc: int | None
) -> None:
    telling(monkeypatch, told)
    found = tracking.settle(context, added(context))
    assert (found.state, found.rc) == (state, rc)
    assert recorded(context) == found
    assert found.applications == (("app-20250301101500-0000",) if found.is_over else ())


def test_a_job_that_its_node_does_not_know_is_lost_unless_it_may_still_begin(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, None)
    job = added(context, state="starting")
    assert tracking.settle(context, job).state == "starting"
    monkeypatch.setattr(tracking, "STARTING_SECONDS", -5.0)
    assert tracking.settle(context, job).state == "lost"


def test_a_host_that_is_silent_leaves_a_job_unknown_and_nothing_is_recorded(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, DockerUnavailable("no answer"))
    found = tracking.settle(context, added(context))
    assert found.state == "unknown"
    assert not found.is_over
    assert recorded(context).state == "running"


def test_a_stopped_node_tells_what_its_job_had_left(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(monkeypatch, EpicError("container is not running"))
    job = added(context)
    assert tracking.settle(context, job).state == "unknown"
    telling(monkeypatch, EpicError("container is not running"), rc=6)
    assert (tracking.settle(context, job).state, recorded(context).rc) == ("failed", 6)


@pytest.mark.parametrize("values", [{"node": "worker-9"}, {"started_at": 1.0}])
def test_a_job_whose_node_or_cluster_is_another_by_now_is_lost(
    context: Context, values: dict[str, Any]
) -> None:
    found = tracking.settle(context, added(context, **values))
    assert (found.state, found.rc) == ("lost", None)
    assert "its node is gone" in found.reason


def test_a_job_whose_cluster_is_gone_is_lost(context: Context) -> None:
    job = added(context)
    with context.store.transaction() as transaction:
        transaction.remove_cluster(transaction.find_cluster("lab").id)
    assert tracking.settle(context, job).state == "lost"


def test_what_was_recorded_first_stands(context: Context) -> None:
    job = added(context)
    first = tracking.followed(context.store, job, Ended("done", 0), (1, 2), ())
    second = tracking.followed(context.store, job, Ended("vanished"), (1, 2), ())
    assert (first.state, second.state) == ("done", "done")


def test_a_follower_sees_a_job_end_that_somebody_cancels(context: Context) -> None:
    job = added(context, state="cancelling")
    over = tracking.followed(context.store, job, Ended("done", 143), (1 << 30, 0), ())
    assert (over.state, over.rc, over.cut) == ("cancelled", 143, ("stdout",))


def test_cancelling_waits_for_a_job_that_is_just_about_to_start(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [3, 3, 0]
    monkeypatch.setattr(docker_exec, "output_of", lambda *_, **__: (codes.pop(0), ""))
    monkeypatch.setattr(tracking.time, "sleep", lambda _seconds: None)
    telling(monkeypatch, said("done", 143))
    over = tracking.cancel(context, added(context))
    assert (over.state, over.rc, codes) == ("cancelled", 143, [])
    with pytest.raises(InputError, match="is over: cancelled"):
        tracking.cancel(context, over)


def test_a_job_that_ends_while_somebody_cancels_it_keeps_its_end(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = added(context)

    def place(context: Context, _job: JobRecord) -> Any:
        with context.store.transaction() as transaction:
            transaction.set_job(KEY, state="done", rc=0)

    monkeypatch.setattr(tracking, "place", place)
    with pytest.raises(InputError, match="is over: done"):
        tracking.cancel(context, job)
    assert recorded(context).state == "done"


def test_who_asked_before_a_job_was_cancelled_does_not_call_it_a_failure(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = added(context)
    with context.store.transaction() as transaction:
        transaction.set_job(KEY, state="cancelling")
    telling(monkeypatch, said("done", 143))
    assert tracking.settle(context, job).state == "cancelled"
    assert (recorded(context).state, recorded(context).reason) == ("cancelled", "")


def test_a_job_that_cannot_be_ended_is_told_of(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_exec, "output_of", lambda *_, **__: (1, "not yours"))
    with pytest.raises(OperationFailed, match="could not be cancelled: not yours"):
        tracking.cancel(context, added(context))


def test_a_job_that_waits_for_its_cluster_has_no_place_yet(context: Context) -> None:
    job = added(context, state="waiting", node="", is_transient=True)
    with pytest.raises(NotFound, match="has not begun yet"):
        tracking.place(context, job)
    assert tracking.settle(context, job) == job


def test_the_ids_of_applications_are_read_once_each() -> None:
    line = b"Connected to Spark cluster with app ID app-%d-%04d\n"
    text = line % (20250301101500, 0) + line % (20250301101500, 0) + line % (20250301101502, 10001)
    assert spark_apps.parsed(text) == ("app-20250301101500-0000", "app-20250301101502-10001")
    assert spark_apps.parsed(b"app-1-2 local-123") == ()


@pytest.mark.parametrize(("page", "url"), [("spark-master", "proxy"), ("spark-history", "history")])
def test_an_application_has_a_page_behind_its_service(page: str, url: str) -> None:
    application = spark_apps.Application("app-1", page=page)
    assert application.url("http://127.0.0.1:1/") == f"http://127.0.0.1:1/{url}/app-1/"
