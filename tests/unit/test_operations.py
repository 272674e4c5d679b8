"""Operations: one at a time on a cluster, and every end of one is recorded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from life_samples import document
from servers import PostgreSQL

from epic_runner import operations, processes
from epic_runner.errors import ClusterBusy, EpicError, StoreUnavailable
from epic_runner.events import Step
from epic_runner.operations import is_alive, operate
from epic_runner.store import OperationRecord, Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    made = Store(f"sqlite:///{tmp_path}/store.db")
    yield made
    made.close()


def begin(store: Store, cluster: str = "lab", **values: Any):
    defaults: dict[str, Any] = {
        "tenant": "work", "verb": "expand", "arguments": {"by": 1}, "user": "ada",
        "prepare": lambda _: None, "listener": lambda _: None,
    }  # fmt: skip
    return operate(store, cluster=cluster, **{**defaults, **values})


def last(store: Store, cluster: str = "lab") -> OperationRecord:
    with store.read() as transaction:
        return transaction.operations("work", cluster)[0]


def put(store: Store, **values: Any) -> None:
    now = time.time()
    defaults: dict[str, Any] = {
        "id": "old", "tenant": "work", "cluster": "lab", "verb": "launch", "user": "bob",
        "controller": "elsewhere", "pid": 1, "pid_started": "1", "phase": "Create nodes",
        "started_at": now, "heartbeat_at": now,
    }  # fmt: skip
    with store.transaction() as transaction:
        transaction.add_operation(OperationRecord(**{**defaults, **values}))


@pytest.mark.parametrize(
    ("problem", "state"),
    [
        (None, "done"),
        (EpicError("no room"), "failed"),
        (RuntimeError("a fault"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_every_end_is_recorded(store: Store, problem: BaseException | None, state: str) -> None:
    with (
        contextlib.nullcontext() if problem is None else pytest.raises(type(problem)),
        begin(store),
    ):
        assert last(store).state == "running"
        if problem is not None:
            raise problem
    assert last(store).state == state
    assert last(store).ended_at


def test_what_the_preparation_refuses_leaves_no_trace(store: Store) -> None:
    def refuse(transaction: Any) -> None:
        transaction.apply_tenant(document())
        raise EpicError("no room")

    with pytest.raises(EpicError, match="no room"), begin(store, prepare=refuse):
        pass
    with store.read() as transaction:
        assert transaction.operations() == []
        assert transaction.tenants() == []


def test_a_second_operation_is_told_who_holds_the_cluster(store: Store) -> None:
    with begin(store), pytest.raises(ClusterBusy) as busy, begin(store, verb="stop"):
        pass
    assert "lab is busy: ada runs expand on it" in busy.value.message
    assert f"process {os.getpid()}" in busy.value.message
    with begin(store), begin(store, cluster="other"):
        pass


def test_an_operation_on_the_tenant_keeps_all_others_away(store: Store) -> None:
    with (
        begin(store, cluster="", verb="tenant-remove"),
        pytest.raises(ClusterBusy, match="Tenant work is busy: ada runs tenant-remove"),
        begin(store),
    ):
        pass


def test_the_account_acts_when_nobody_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "eve")
    with begin(store, user=""):
        assert last(store).user == "eve"


def test_a_dead_process_of_this_machine_is_taken_over_at_once(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    put(store, controller=operations.here(), pid=dead.pid)
    with begin(store):
        pass
    with store.read() as transaction:
        found = {item.id: item for item in transaction.operations()}
    assert found["old"].state == "interrupted"
    assert last(store).state == "done"


def test_a_process_id_that_was_given_to_another_is_no_sign_of_life() -> None:
    record = OperationRecord(
        "x", "work", "lab", "launch", controller=operations.here(), pid=os.getpid(),
        pid_started="1",
    )  # fmt: skip
    assert not is_alive(record, time.time())


def test_another_machine_lives_as_long_as_its_heart_beats(store: Store) -> None:
    put(store)
    with pytest.raises(ClusterBusy, match="on elsewhere, phase: Create nodes"), begin(store):
        pass
    with store.transaction() as transaction:
        transaction.set_operation("old", heartbeat_at=time.time() - operations.STALE_SECONDS - 1)
    with begin(store):
        pass


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_machine_or_container_of_this_ones_name_lives_as_long_as_its_heart_beats(
    store: Store, part: int
) -> None:
    host, _, rest = processes.here().partition("/")
    parts = rest.split(".")
    parts[part] = "0"
    put(store, controller=f"{host}/{'.'.join(parts)}", pid=999999999)
    with pytest.raises(ClusterBusy, match=f"process 999999999 on {host}, phase"), begin(store):
        pass
    with store.transaction() as transaction:
        transaction.set_operation("old", heartbeat_at=time.time() - operations.STALE_SECONDS - 1)
    with begin(store):
        pass


def test_what_has_no_heartbeat_is_looked_after_by_its_own_machine() -> None:
    host, _, rest = processes.here().partition("/")
    boot, namespace, machine = rest.split(".")
    assert len(boot) == len(machine) == 8
    assert processes.is_ours(processes.here())
    assert processes.is_ours(f"{host}/0.{namespace}.{machine}")  # before its last start
    assert processes.is_ours(host)  # an earlier version
    assert not processes.is_ours(f"{host}/{boot}.1.{machine}")
    assert not processes.is_ours(f"{host}/0.{namespace}.1")
    assert not processes.is_ours(f"elsewhere/{rest}")
    assert not processes.is_ours("")


def test_a_process_lives_where_it_runs_alone() -> None:
    pid, since, place = os.getpid(), processes.started(os.getpid()), processes.here()
    assert processes.drives(place, pid, since)
    assert not processes.drives(place, pid, "1")
    assert not processes.drives(place, 999999999, "")
    host, _, rest = place.partition("/")
    assert processes.host_of(place) == host
    assert not processes.drives(f"{host}/0.{rest.partition('.')[2]}", pid, since)


def test_what_a_dead_operation_left_running_ends_before_another_begins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env={**os.environ, processes.OPERATION_VARIABLE: "old"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert left.stdout
    left.stdout.readline()
    put(store, controller=operations.here(), pid=999999999)
    # Who is killed before all is recorded leaves it to the next one to find.
    ended = []
    real = operations.end_leftovers
    monkeypatch.setattr(
        operations, "end_leftovers",
        lambda name, mark: ended.append((name, last(store).id, real(name, mark))),
    )  # fmt: skip
    with begin(store):
        assert left.wait(10) < 0
    assert ended == [("old", "old", 1)]
    left.stdout.close()
    assert left.stdin
    left.stdin.close()


def test_steps_are_recorded_and_passed_on(store: Store) -> None:
    seen: list[Step] = []
    with begin(store, listener=seen.append) as running:
        running.listener(Step("Create nodes"))
        running.listener(Step("Create nodes", "worker-1", "created"))
    assert [(step.cluster, step.node) for step in seen] == [("lab", ""), ("lab", "worker-1")]
    with store.read() as transaction:
        events = transaction.events(running.record.id)
    assert [event["message"] for event in events] == ["", "created"]
    assert last(store).phase == "Create nodes"


def test_a_reader_who_leaves_does_not_end_the_operation(store: Store) -> None:
    def broken(_: Step) -> None:
        raise BrokenPipeError

    with begin(store, listener=broken) as running:
        running.listener(Step("Create nodes"))
    assert last(store).state == "done"


def test_steps_wait_for_a_store_that_fails_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "HEARTBEAT_SECONDS", 0.01)
    real, broken, tried = store.transaction, threading.Event(), threading.Event()

    def transaction():
        if broken.is_set():
            tried.set()
            raise EpicError("locked")
        return real()

    monkeypatch.setattr(store, "transaction", transaction)
    with begin(store) as running:
        broken.set()
        running.listener(Step("Create nodes"))
        assert tried.wait(10)
        broken.clear()
    with store.read() as reading:
        assert [event["phase"] for event in reading.events(running.record.id)] == ["Create nodes"]


def test_old_folders_of_operations_go(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "operations"
    for number in range(operations.KEPT_DIRECTORIES + 5):
        (folder / f"20200101-000000-{number:08}").mkdir(parents=True)
    with begin(store):
        pass
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == operations.KEPT_DIRECTORIES
    assert kept[-1].endswith(f"{operations.KEPT_DIRECTORIES + 4:08}")


def test_plays_see_nothing_secret_of_the_environment() -> None:
    seen = processes.seen_by_plays(
        {"PATH": "/bin", "VAULT_TOKEN": "s", "EPIC_DATABASE_URL": "s", "EPIC_HOME": "/h",
         "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "s"}
    )  # fmt: skip
    assert set(seen) == {"PATH", "EPIC_HOME", "LC_ALL"}
    assert seen["PATH"].startswith(str(Path(sys.executable).parent))


def with_store(url: str) -> Store:
    return Store(url.replace("postgresql://", "postgresql+psycopg://"))


def test_an_operation_waits_for_its_store_and_tells_so(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(operations, "PATIENCE_PAUSE_SECONDS", 0.1)
    store = with_store(postgresql.new_database())
    told: list[Step] = []

    def listen(step: Step) -> None:
        told.append(step)
        if step.node == "store":
            postgresql.start()

    with begin(store, listener=listen) as running:
        running.listener(Step("Create nodes", "worker-1", "created"))
        postgresql.stop()
        running.settle(lambda transaction: transaction.apply_tenant(document()))
        running.listener(Step("Wait until ready"))
        postgresql.stop()
    assert last(store).state == "done"
    waits = [step for step in told if step.node == "store"]
    assert len(waits) == 2
    assert all("waiting: The store at" in step.message for step in waits)
    with store.read() as transaction:
        assert [item.name for item in transaction.tenants()] == ["work"]
        phases = [event["phase"] for event in transaction.events(last(store).id)]
    assert phases == ["Create nodes", "Record the result", "Wait until ready"]


def test_work_that_could_not_be_recorded_is_told_as_done(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(operations, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(operations, "PATIENCE_PAUSE_SECONDS", 0.1)
    store = with_store(postgresql.new_database())
    try:
        with pytest.raises(StoreUnavailable) as refused, begin(store):
            postgresql.stop()
    finally:
        postgresql.start()
    assert "The expand is done, but could not be recorded. The store at" in refused.value.message
    assert "same command again" in (refused.value.hint or "")
    assert last(store).state == "running"


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), StoreUnavailable("away")])
def test_who_leaves_does_not_wait_for_the_store(
    problem: BaseException,
    postgresql: PostgreSQL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(operations, "PATIENCE_PAUSE_SECONDS", 0.1)
    store = with_store(postgresql.new_database())

    def leave() -> None:
        with begin(store):
            postgresql.stop()
            raise problem

    begun = time.monotonic()
    try:
        with pytest.raises(type(problem)):
            leave()
    finally:
        postgresql.start()
    assert time.monotonic() - begun < operations.PATIENCE_SECONDS / 10


def test_a_heartbeat_that_looks_stopped_is_looked_at_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of the store nobody's heartbeat is fresh, not even that of the living."""
    monkeypatch.setattr(operations, "HEARTBEAT_SECONDS", 0.2)
    put(store, heartbeat_at=time.time() - operations.STALE_SECONDS - 1)

    def beat() -> None:
        time.sleep(0.2)
        with store.transaction() as transaction:
            transaction.set_operation("old", heartbeat_at=time.time())

    living = threading.Thread(target=beat)
    living.start()
    with pytest.raises(ClusterBusy, match="bob runs launch"), begin(store):
        pass
    living.join()
    with store.transaction() as transaction:
        transaction.set_operation("old", heartbeat_at=0.0)
    with begin(store):
        pass


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device."),
        (OSError(13, "Permission denied", "/x"), "Permission denied: /x."),
        (EpicError("host-3 is away"), "host-3 is away"),
        (KeyError("x"), "KeyError('x')"),
    ],
)
def test_why_an_operation_failed_is_kept_in_words(problem: BaseException, told: str) -> None:
    assert operations.in_words(problem) == told
