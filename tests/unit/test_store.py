"""The store: what is written is read again, all of it or nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from life_samples import document, node, record, spec, tenant
from sqlalchemy import create_engine, inspect

from epic_runner.errors import EpicError, InputError, NotFound
from epic_runner.store import Store, TenantRecord, database, schema
from epic_runner.store.store import Transaction

MIGRATIONS = Path(schema.__file__).parent / "migrations" / "versions"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path):
    made = Store(f"sqlite:///{path}")
    yield made
    made.close()


def test_the_head_is_the_newest_migration() -> None:
    newest = max(file.stem.split("_")[0] for file in MIGRATIONS.glob("[0-9]*.py"))
    assert newest == schema.HEAD


@pytest.mark.usefixtures("store")
def test_migrations_make_the_tables_that_the_program_uses(path: Path) -> None:
    fresh = create_engine("sqlite://")
    migrated = create_engine(f"sqlite:///{path}")
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
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.05)
    second = Store(f"sqlite:///{path}")
    with (
        store.transaction(),
        pytest.raises(EpicError, match="locked") as refused,
        second.transaction(),
    ):
        pass
    assert "same command again" in (refused.value.hint or "")
    second.close()


@pytest.mark.usefixtures("store")
def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(EpicError, match="9999") as refused:
        Store(f"sqlite:///{path}")
    assert "newer epic-run" in (refused.value.hint or "")


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\0" * 500])
def test_a_damaged_store_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EpicError, match="cannot be used"):
        Store(f"sqlite:///{path}")


def test_passwords_of_the_database_are_not_told() -> None:
    with pytest.raises(EpicError) as refused:
        Store("sqlite:////nowhere/at/all/store.db")
    assert "/nowhere/at/all/store.db" in refused.value.message


def test_the_default_user_is_the_first_administrator() -> None:
    assert tenant().default_user() == "ada"
    assert TenantRecord("work", {"members": []}, {}).default_user() is None
    assert record(spec(), "master-1").staying()[0].container == "epic.work.lab.master-1"
