"""Opening the database, migrating it, and transactions that exclude each other.

SQLite is the embedded default; `EPIC_DATABASE_URL` names a PostgreSQL for several controllers.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from epic_runner.errors import EpicError, InputError, StoreUnavailable
from epic_runner.resources import home, private_directory
from epic_runner.store.schema import HEAD

# How long a controller waits for another one's transaction before it gives up.
LOCK_SECONDS = 30
# A server that does not answer a connection, or that has gone silent, is down after this long.
ANSWER_SECONDS = 10
# With less room than this SQLite cannot even read: a file beside the store's tells who does.
FULL_BYTES = 2**20
# What a server says that will have us in a moment: it is starting, or has no connection free.
_LATER = ("starting up", "too many clients", "remaining connection slots")
_LATER_PAUSE_SECONDS = 0.2
_ADVISORY_LOCK = 0x65706963  # "epic": one lock for every writing transaction on PostgreSQL


def database_url() -> str:
    """Return the store's SQLAlchemy URL: `EPIC_DATABASE_URL`, else a file under `EPIC_HOME`."""
    return named_url() or _file_url(private_directory(home()))


def _file_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def named_url() -> str | None:
    """Return the SQLAlchemy URL that `EPIC_DATABASE_URL` names, if it does."""
    named = os.environ.get("EPIC_DATABASE_URL")
    if named and named.startswith(("postgresql://", "postgres://")):
        # The driver that the extra `postgresql` installs; SQLAlchemy's own default is another one.
        return "postgresql+psycopg://" + named.partition("://")[2]
    return named or None


def shown_url(url: str | URL) -> str:
    """Return a database's URL as people may see it: no password, wherever it stands."""
    made = make_url(url)
    hidden = {name: "***" for name in made.query if "password" in name}
    return made.update_query_dict(hidden).render_as_string(hide_password=True)


def make_engine(url: str) -> Engine:
    """Return SQLAlchemy's engine for a store's URL; nothing is opened yet.

    Raises:
        InputError: It is no such URL, or its driver is not installed.
    """
    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend not in ("sqlite", "postgresql"):
        raise InputError(
            "EPIC_DATABASE_URL is not the URL of a PostgreSQL or SQLite database.",
            "Write postgresql://USER@HOST/DATABASE, or unset it for a file under EPIC_HOME.",
        )
    if backend == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        # A connection is kept for a transaction alone: many controllers share a server that has a
        # hundred, most wait for their plays, and a server may restart meanwhile.
        return create_engine(url, poolclass=NullPool, connect_args=_server_options())
    except ImportError as problem:
        raise InputError(
            f"The driver of {shown_url(url)} is not installed: {problem}.",
            "For PostgreSQL: pip install 'epic-runner[postgresql]'.",
        ) from problem


def open_engine(url: str) -> Engine:
    """Open the database and bring its tables up to date.

    Raises:
        EpicError: It cannot be reached, or a newer version of epic-runner made it.
    """
    engine = make_engine(url)
    try:
        with _connected(engine) as connection:
            current = _revision(connection)
        if current != HEAD:
            _migrate(engine, current)
    except SQLAlchemyError as problem:
        raise unreachable(engine, problem) from problem
    return engine


def existing_engine(url: str | None = None) -> Engine:
    """Open a database that is there, as it is.

    Raises:
        EpicError: There is none, it cannot be reached, or its tables are of another version.
    """
    engine = make_engine(url or named_url() or _file_url(home()))
    # SQLite would make the file.
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        raise StoreUnavailable(f"There is no store at {shown_url(engine.url)}.")
    try:
        with _connected(engine) as connection:
            current = _revision(connection)
    except SQLAlchemyError as problem:
        raise unreachable(engine, problem) from problem
    if current != HEAD:
        raise StoreUnavailable(f"The store at {shown_url(engine.url)} is of another version.")
    return engine


def unreachable(engine: Engine, problem: SQLAlchemyError) -> StoreUnavailable:
    """Return the error that tells people which store failed and what to look at."""
    reason = reason_of(problem)
    if engine.dialect.name == "sqlite" and _is_full(engine.url.database):
        reason = f"its disk is full ({reason})"
    check = (
        "that it exists, is writable and not full, damaged or locked"
        if engine.dialect.name == "sqlite"
        else "that the server runs, is not full, and lets this user in"
    )
    return StoreUnavailable(
        f"The store at {shown_url(engine.url)} cannot be used: {reason}.",
        f"Check {check} (epic-run doctor), then run the same command again.",
    )


def _is_full(path: str | None) -> bool:
    """Whether there is no room beside a file; SQLite then fails in reading as well."""
    try:
        return bool(path) and shutil.disk_usage(Path(str(path)).parent).free < FULL_BYTES
    except OSError:
        return False


def reason_of(problem: Exception) -> str:
    """Return what the database said, in one line."""
    said = str(getattr(problem, "orig", None) or problem)
    return " ".join(said.split()).rstrip(".")


def _server_options() -> dict[str, int]:
    """Return libpq's options that end the wait for a server which is gone without a word."""
    return {
        "connect_timeout": ANSWER_SECONDS,
        "keepalives_idle": ANSWER_SECONDS,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": ANSWER_SECONDS * 1000,
    }


@contextmanager
def _connected(engine: Engine, **options: Any) -> Iterator[Connection]:
    """A connection; a server that will have us in a moment is asked again until then."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection = engine.connect()
            break
        except DBAPIError as problem:
            later = any(word in str(problem.orig) for word in _LATER)
            if not later or time.monotonic() > end:
                raise
        time.sleep(_LATER_PAUSE_SECONDS)
    with connection.execution_options(**options):
        yield connection


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
        with _connected(engine, exclusive=True) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            yield connection
    except DBAPIError as problem:
        raise unreachable(engine, problem) from problem


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, one state; raises EpicError when there is no way to it."""
    # A transaction of SQLite sees one state by itself.
    server = engine.dialect.name == "postgresql"
    options = {"isolation_level": "REPEATABLE READ"} if server else {}
    try:
        with _connected(engine, **options) as connection:
            yield connection
    except DBAPIError as problem:
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
