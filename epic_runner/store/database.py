"""Opening the database, migrating it, and transactions that exclude each other.

SQLite is the embedded default; `EPIC_DATABASE_URL` names a PostgreSQL for several controllers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from epic_runner.errors import EpicError
from epic_runner.resources import home, private_directory
from epic_runner.store.schema import HEAD

# How long a controller waits for another one's transaction before it gives up.
LOCK_SECONDS = 30
_ADVISORY_LOCK = 0x65706963  # "epic": one lock for every writing transaction on PostgreSQL


def database_url() -> str:
    """Return the store's SQLAlchemy URL: `EPIC_DATABASE_URL`, else a file under `EPIC_HOME`."""
    named = os.environ.get("EPIC_DATABASE_URL")
    if named and named.startswith(("postgresql://", "postgres://")):
        # The driver that the extra `postgresql` installs; SQLAlchemy's own default is another one.
        return "postgresql+psycopg://" + named.partition("://")[2]
    return named or f"sqlite:///{private_directory(home()) / 'store.db'}"


def open_engine(url: str) -> Engine:
    """Open the database and bring its tables up to date.

    Raises:
        EpicError: It cannot be reached, or a newer version of epic-runner made it.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.connect() as connection:
            current = _revision(connection)
        if current != HEAD:
            _migrate(engine, current)
    except SQLAlchemyError as problem:
        raise unreachable(engine, problem) from problem
    return engine


def unreachable(engine: Engine, problem: SQLAlchemyError) -> EpicError:
    """Return the error that tells people which store failed and what to look at."""
    where = make_url(str(engine.url)).render_as_string(hide_password=True)
    reason = str(getattr(problem, "orig", None) or problem)
    return EpicError(
        f"The store at {where} cannot be used: {reason}.",
        "Check that it exists, is writable and not full, damaged or locked (epic-run doctor), "
        "then run the same command again.",
    )


def _prepare_sqlite(connection: object, _record: object) -> None:
    # SQLAlchemy begins transactions itself (below), not the driver.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    exclusive = connection.get_execution_options().get("exclusive", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other writing transaction runs beside.

    Reservations read what is used and then write: two of them at once must not both find room.

    Raises:
        EpicError: The store cannot be reached, or stayed locked for `LOCK_SECONDS`.
    """
    try:
        with engine.connect().execution_options(exclusive=True) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection
    except DatabaseError as problem:
        raise unreachable(engine, problem) from problem


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads; raises EpicError when the store cannot be reached."""
    try:
        with engine.connect() as connection:
            yield connection
    except DatabaseError as problem:
        raise unreachable(engine, problem) from problem


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return str(row[0]) if row else None


def _migrate(engine: Engine, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with exclusive(engine) as connection:
        if _revision(connection) == HEAD:
            return  # another process migrated while this one waited
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as problem:
            raise EpicError(
                f"The store is at revision {current}, which this version does not know.",
                "A newer epic-run made it: upgrade this installation.",
            ) from problem
