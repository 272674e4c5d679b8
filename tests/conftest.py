"""What all tests share: servers that run as long as a process of tests, and no deadlines."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings
from servers import OpenBao, PostgreSQL

# How long an example takes tells of the machine's other work, not of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Behind nohup the tests ignore the end of their terminal, and so would what they start: but that is
# one of the things that are tested. A handler goes on doing so here, and is not inherited.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


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
