"""The store: what is written is read again, all of it or nothing."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from life_samples import document, node, record, spec, tenant
from servers import PostgreSQL
from sqlalchemy import create_engine, inspect, text

from epic_runner.cli import cli
from epic_runner.errors import EpicError, InputError, NotFound, StoreUnavailable
from epic_runner.store import (
    ActionRecord,
    JobRecord,
    NodeOutcome,
    OperationRecord,
    RunRecord,
    ScheduleRecord,
    Store,
    TenantRecord,
    Timing,
    database,
    schema,
)
from epic_runner.store.store import Transaction

MIGRATIONS = Path(schema.__file__).parent / "migrations" / "versions"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    return with_driver(request.getfixturevalue("postgresql").new_database())


def with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def store(url: str):
    made = Store(url)
    yield made
    made.close()


def test_the_head_is_the_newest_migration() -> None:
    newest = max(file.stem.split("_")[0] for file in MIGRATIONS.glob("[0-9]*.py"))
    assert newest == schema.HEAD


@pytest.mark.usefixtures("store")
def test_migrations_make_the_tables_that_the_program_uses(
    url: str, request: pytest.FixtureRequest
) -> None:
    server = url.startswith("postgresql")
    fresh = create_engine(
        with_driver(request.getfixturevalue("postgresql").new_database()) if server else "sqlite://"
    )
    migrated = create_engine(url)
    with fresh.connect() as wanted, migrated.connect() as have:
        schema.metadata.create_all(wanted)

        def columns(connection):
            return {
                table: {(c["name"], str(c["type"]), c["nullable"]) for c in
                        inspect(connection).get_columns(table)}
                for table in schema.metadata.tables
            }  # fmt: skip

        assert columns(have) == columns(wanted)
    fresh.dispose()
    migrated.dispose()


def test_user_ids_are_kept_and_never_given_to_others(store: Store) -> None:
    with store.transaction() as transaction:
        first = transaction.apply_tenant(document())
        assert first.uids == {"ada": 20000, "bob": 20001}
        gone = document()
        gone["members"] = [gone["members"][0], {"user": "cyd", "role": "member"}]
        assert transaction.apply_tenant(gone).uids == {"ada": 20000, "bob": 20001, "cyd": 20002}
        assert transaction.apply_tenant(document()).uids["bob"] == 20001


def test_who_owns_a_cluster_stays_a_member(store: Store) -> None:
    changed = document()
    changed["members"] = changed["members"][1:]
    with store.transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.add_cluster(spec(), "ada", ())
        with pytest.raises(InputError, match="ada owns the cluster lab"):
            transaction.apply_tenant(changed)


def test_a_lost_tenant_comes_back_with_its_user_ids(store: Store) -> None:
    lost = TenantRecord("work", document(), {"ada": 20005, "bob": 20007, "old": 20001})
    with store.transaction() as transaction:
        transaction.restore_tenant(lost)
        assert transaction.tenant("work").uids == lost.uids


def test_a_tenant_that_is_known_only_learns_of_people_it_does_not_know(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.apply_tenant(document(quota={"nodes": 3}))
        transaction.restore_tenant(
            TenantRecord("work", document(), {"ada": 30000, "old": 20007, "twin": 20001})
        )
        known = transaction.tenant("work")
        assert known.uids == {"ada": 20000, "bob": 20001, "old": 20007}
        assert known.quota == {"nodes": 3}


def test_a_cluster_is_read_as_it_was_written(store: Store) -> None:
    of = spec(2)
    nodes = [node(of, "worker-2"), node(of, "master-1", {"spark-master": 20000})]
    with store.transaction() as transaction:
        key = transaction.add_cluster(of, "ada", nodes)
        transaction.add_nodes(key, [node(of, "worker-1")])
        transaction.set_leaving(key, [node(of, "worker-2")])
        transaction.set_ports(key, [node(of, "master-1", {"spark-master": 20009})])
    with store.read() as transaction:
        found = transaction.find_cluster("work/lab")
    assert found.spec == of
    assert [item.short_name for item in found.nodes] == ["master-1", "worker-1", "worker-2"]
    assert [item.short_name for item in found.staying()] == ["master-1", "worker-1"]
    assert found.nodes[0].ports == {"spark-master": 20009}
    with store.transaction() as transaction:
        transaction.remove_nodes(key, [node(of, "worker-2")])
        assert len(transaction.find_cluster("lab").nodes) == 2
        transaction.remove_cluster(key)
        with pytest.raises(NotFound):
            transaction.find_cluster("lab")


def test_lost_nodes_are_none_of_the_cluster_s_until_they_are_forgotten(store: Store) -> None:
    of = spec(2)
    nodes = [node(of, name) for name in ("master-1", "worker-1", "worker-2")]
    with store.transaction() as transaction:
        key = transaction.add_cluster(of, "ada", nodes)
        transaction.set_lost(key, [nodes[2]])
        found = transaction.find_cluster("lab")
        assert [item.short_name for item in found.nodes] == ["master-1", "worker-1"]
        assert [item.short_name for item in found.lost] == ["worker-2"]
        assert found.staying() == found.nodes
        transaction.forget_lost(key, "elsewhere")
        assert transaction.find_cluster("lab").lost
        transaction.forget_lost(key, "local")
        found = transaction.find_cluster("lab")
        assert (len(found.nodes), found.lost) == (2, ())


def test_a_name_that_two_tenants_use_has_to_be_told_apart(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.add_cluster(spec(), "ada", ())
        transaction.add_cluster(spec(tenant="away"), "ada", ())
        with pytest.raises(InputError, match="away/lab and work/lab"):
            transaction.find_cluster("lab")
        assert transaction.find_cluster("away/lab").tenant == "away"
        assert transaction.find_cluster("lab", "work").tenant == "work"


def test_what_fails_within_a_transaction_leaves_no_trace(store: Store) -> None:
    def fail(transaction: Transaction) -> None:
        transaction.apply_tenant(document())
        transaction.add_cluster(spec(), "ada", ())
        raise KeyError

    with pytest.raises(KeyError), store.transaction() as transaction:
        fail(transaction)
    with store.read() as transaction:
        assert transaction.tenants() == []
        assert transaction.clusters() == []


def test_a_locked_store_is_told_after_a_while(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 1)
    second = Store(url)
    with (
        store.transaction(),
        pytest.raises(StoreUnavailable, match=r"locked|lock timeout") as refused,
        second.transaction(),
    ):
        pass
    assert "same command again" in (refused.value.hint or "")
    second.close()


@pytest.mark.usefixtures("store")
def test_a_store_of_a_newer_version_is_refused(url: str) -> None:
    raw = create_engine(url)
    with raw.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    raw.dispose()
    with pytest.raises(EpicError, match="9999") as refused:
        Store(url)
    assert "newer epic-run" in (refused.value.hint or "")


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\0" * 500])
def test_a_damaged_store_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EpicError, match="cannot be used"):
        Store(f"sqlite:///{path}")


def test_a_store_that_cannot_be_made_is_named() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        Store("sqlite:////nowhere/at/all/store.db")
    assert "/nowhere/at/all/store.db" in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://epic:hush@127.0.0.1:1/epic",
        "postgresql+psycopg://epic@127.0.0.1:1/epic?password=hush&sslpassword=hush",
    ],
)
def test_passwords_of_the_database_are_not_told(url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1") as refused:
        Store(url)
    assert "hush" not in refused.value.message + (refused.value.hint or "")
    assert "refused" in refused.value.message


def test_a_wrong_password_is_told_without_it(postgresql: PostgreSQL) -> None:
    url = with_driver(postgresql.url().replace(postgresql.password, "hush"))
    with pytest.raises(StoreUnavailable, match="authentication failed") as refused:
        Store(url)
    assert "hush" not in refused.value.message
    assert "lets this user in" in (refused.value.hint or "")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://h:nonsense/d", "mysql://h/d"])
def test_what_is_no_url_of_a_store_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match="not the URL"):
        Store(url)


def test_a_server_without_its_driver_says_how_to_get_it() -> None:
    with pytest.raises(InputError, match="asyncpg") as refused:
        Store("postgresql+asyncpg://epic@127.0.0.1/epic")
    assert "epic-runner[postgresql]" in (refused.value.hint or "")


def test_both_ways_to_write_a_server_mean_the_driver_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for written in ("postgresql://ada@db/epic", "postgres://ada@db/epic"):
        monkeypatch.setenv("EPIC_DATABASE_URL", written)
        assert database.database_url() == "postgresql+psycopg://ada@db/epic"


def test_a_reader_sees_one_state(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.apply_tenant(document())
    with store.read() as reader:
        assert len(reader.tenants()) == 1
        with store.transaction() as transaction:
            transaction.apply_tenant(document(name="away"))
        assert len(reader.tenants()) == 1
    with store.read() as reader:
        assert len(reader.tenants()) == 2


def test_what_plays_say_is_kept_as_far_as_it_fits(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.add_operation(OperationRecord("one", "work", "lab", "launch"))
        transaction.add_event("one", "P" * 100, "n" * 100, "a\0b" * 1000)
        transaction.set_operation("one", phase="P" * 100, error="no\0thing", ended_at=1.0)
    with store.read() as transaction:
        [event] = transaction.events("one")
        [operation] = transaction.operations()
    assert event["message"] == "ab" * 1000
    assert (event["phase"], operation.phase, operation.error) == ("P" * 64, "P" * 64, "nothing")


def test_writers_exclude_one_another(store: Store, url: str) -> None:
    """Eight at once, each of which reads, waits and writes what it read and one more."""

    def add(_: int) -> None:
        own = Store(url)
        with own.transaction() as transaction:
            count = len(transaction.clusters())
            time.sleep(0.02)
            transaction.add_cluster(spec(name=f"c{count}"), "ada", ())
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    with store.read() as transaction:
        assert {cluster.name for cluster in transaction.clusters()} == {f"c{n}" for n in range(8)}


def test_a_server_whose_connections_are_all_taken_is_asked_again() -> None:
    import psycopg

    server = PostgreSQL(connections=5)
    try:
        store = Store(with_driver(server.url()))
        held = [psycopg.connect(server.url()) for _ in range(5)]
        threading.Timer(0.6, held[0].close).start()
        with store.transaction() as transaction:
            assert transaction.tenants() == []
        for connection in held:
            connection.close()
    finally:
        server.close()


def test_a_server_that_comes_back_is_used_again(store_of: Store, postgresql: PostgreSQL) -> None:
    postgresql.stop()
    try:
        with pytest.raises(StoreUnavailable, match="refused"), store_of.read():
            pass
    finally:
        postgresql.start()
    with store_of.transaction() as transaction:
        transaction.apply_tenant(document())


def test_a_transaction_that_a_dying_server_cuts_off_leaves_no_trace(
    store_of: Store, postgresql: PostgreSQL
) -> None:
    def write_twice() -> None:
        with store_of.transaction() as transaction:
            transaction.apply_tenant(document())
            postgresql.stop(signal.SIGKILL)
            postgresql.start()
            transaction.apply_tenant(document(name="away"))

    with pytest.raises(StoreUnavailable):
        write_twice()
    with store_of.read() as transaction:
        assert transaction.tenants() == []


@pytest.fixture
def store_of(postgresql: PostgreSQL):
    made = Store(with_driver(postgresql.new_database()))
    yield made
    made.close()


def test_the_default_user_is_the_first_administrator() -> None:
    assert tenant().default_user() == "ada"
    assert TenantRecord("work", {"members": []}, {}).default_user() is None
    assert record(spec(), "master-1").staying()[0].container == "epic.work.lab.master-1"


def test_of_an_action_what_is_cancelled_stays_so_whatever_its_driver_sees(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.add_action(
            ActionRecord("x-1", "analytics", "lab", "ada", "a", "0" * 64, b"1", {}, {})
        )
        transaction.set_action("x-1", {"w-1": NodeOutcome("cancelled", None)})
        transaction.set_action(
            "x-1", {"w-1": NodeOutcome("failed", 143), "w-2": NodeOutcome("done", 0)}
        )
        found = transaction.action("x-1").nodes
    assert {name: outcome.state for name, outcome in found.items()} == {
        "w-1": "cancelled", "w-2": "done",
    }  # fmt: skip


def test_the_plan_of_a_removal_lists_schedules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr("epic_runner.cli.tenant._volumes", lambda *_, **__: [])
    with Store().transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.put_schedule(
            ScheduleRecord("work", "nightly", "ada", Timing("0 2 * * *", "UTC"), (), next_at=1.0),
            {},
        )
    done = CliRunner().invoke(cli, ["tenant", "remove", "work", "--plan"], catch_exceptions=False)
    assert "  schedules:\n    nightly\n" in done.output


def test_nothing_of_a_tenant_that_is_removed_serves_the_next_of_its_name(store: Store) -> None:
    timing = Timing("0 2 * * *", "UTC")
    with store.transaction() as transaction:
        for name in ("work", "other"):
            transaction.apply_tenant(document(name))
            transaction.put_schedule(
                ScheduleRecord(name, "nightly", "ada", timing, ({"kind": "Job"},), next_at=1.0),
                {"job.py": b"1"},
            )
            transaction.add_run(
                RunRecord(f"{name}-run", name, "nightly", "schedule", planned_at=1.0, state="done")
            )
            transaction.add_action(
                ActionRecord(f"{name}-action", name, "lab", "ada", "a", "0" * 64, b"1", {}, {})
            )
            transaction.add_job(
                JobRecord(f"{name}-job", name, "lab", "ada", "a.py", "a.py", node="master-1")
            )
    with store.transaction() as transaction:
        before = transaction.tenant("work").created_at
        transaction.remove_tenant("work")
        transaction.apply_tenant(document("work"))
        assert transaction.tenant("work").created_at > before
    with store.read() as transaction:
        for name, kept in (("work", 0), ("other", 1)):
            assert len(transaction.schedules(name)) == kept
            assert len(transaction.schedule_files(name, "nightly")) == kept
            assert len(transaction.runs(name, "nightly")) == kept
            assert len(transaction.actions(name, "lab")) == kept
            assert len(transaction.jobs(name)) == kept
