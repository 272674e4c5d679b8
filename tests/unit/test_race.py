"""A hundred launches at once against a quota for ten, on both databases, without a node."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from life_samples import document, host, spec

from epic_runner import lifecycle
from epic_runner.errors import QuotaExceeded
from epic_runner.lifecycle import Context
from epic_runner.store import Store

RACING = 100
WINNING = 10
HOSTS = {"local": host(cores=1024)}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_of_a_hundred_launches_at_once_exactly_ten_get_a_quota_for_ten(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.setattr(lifecycle, "run_playbook", lambda *_, **__: None)
    url = f"sqlite:///{tmp_path}/store.db"
    if database == "postgresql":
        made = request.getfixturevalue("postgresql").new_database()
        url = made.replace("postgresql://", "postgresql+psycopg://")
    store = Store(url)
    with store.transaction() as transaction:
        transaction.apply_tenant(document(quota={"clusters": WINNING}))
    gate = threading.Barrier(RACING)

    def launch(number: int) -> str:
        own = Store(url)
        gate.wait()
        try:
            lifecycle.launch(Context(own, HOSTS), spec(name=f"race-{number}"))
        except QuotaExceeded as refusal:
            return refusal.message
        finally:
            own.close()
        return ""

    with ThreadPoolExecutor(RACING) as pool:
        said = list(pool.map(launch, range(RACING)))
    assert said.count("") == WINNING
    assert all(f"clusters: {WINNING + 1} of {WINNING}" in why for why in said if why)
    with store.read() as transaction:
        names = {cluster.name for cluster in transaction.clusters()}
        operations = transaction.operations(limit=2 * RACING)
    store.close()
    assert names == {f"race-{number}" for number, why in enumerate(said) if not why}
    assert sorted(item.cluster for item in operations) == sorted(names)
