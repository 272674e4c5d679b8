"""Servers for all tests that ask for them; they run as long as a process of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import OpenBao, PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server; a test that stops it starts it again."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """An unsealed OpenBao; a test that seals or stops it puts it right again."""
    server = OpenBao(tmp_path_factory.mktemp("openbao"))
    try:
        yield server
    finally:
        server.close()
