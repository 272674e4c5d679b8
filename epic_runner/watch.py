"""Watching a cluster's nodes while an operation is at work on it, for the live display.

A play reports a node when its task ends; what happens in between is read from Docker and the
services, as `epic-run status` does, and only when a person is looking.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from epic_runner.errors import EpicError
from epic_runner.events import Step
from epic_runner.hosts import Host
from epic_runner.progress import Live
from epic_runner.spec.models import AppProbe
from epic_runner.status import cluster_status, last_operation
from epic_runner.store import Store

PAUSE_SECONDS = 0.5


class Watcher:
    """Feeds a live display with the states of the nodes of the cluster at work."""

    def __init__(
        self,
        store: Store,
        hosts: Mapping[str, Host],
        probes: Mapping[str, AppProbe],
        display: Live,
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._probes = probes
        self._display = display
        self._thread: threading.Thread | None = None

    def step(self, step: Step) -> None:
        """Pass a step on; the first one starts the watching."""
        self._display.step(step)
        if self._thread is None and step.cluster:
            self._thread = threading.Thread(
                target=self._watch, args=(step.cluster, step.tenant), daemon=True
            )
            self._thread.start()

    def _watch(self, name: str, tenant: str) -> None:
        pause = threading.Event()
        while not self._display.is_over:
            try:
                with self._store.read() as transaction:
                    cluster = transaction.find_cluster(name, tenant)
                    history = transaction.declared_history(cluster)
                found = cluster_status(
                    cluster,
                    self._hosts,
                    self._probes,
                    last_operation(self._store, cluster),
                    history=history,
                )
            except EpicError:
                return  # the operation itself says what is wrong
            self._display.states({node.name: node.state for node in found.nodes})
            pause.wait(PAUSE_SECONDS)
