"""Hosts that come, go or are taken away while clusters change, as the store sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from life_samples import document, host, node, role, spec

from epic_runner import docker_api, hosting, lifecycle
from epic_runner.errors import DockerUnavailable, InputError
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context, taking_nodes
from epic_runner.store import HostRecord, Store

HOSTS = {name: host(name) for name in ("h1", "h2", "h3")}
OF = replace(spec(1), roles=(role("master", 1, maximum=1), role("worker", 1)))


class Site:
    """A site whose hosts only remember which playbooks acted on them.

    Attributes:
        played: The playbooks, in their order.
        silent: The hosts that do not answer.
        left: What hosts have of the cluster beyond its nodes, by host.
        meanwhile: Called by each playbook.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.context = Context(store, HOSTS)
        self.played: list[str] = []
        self.silent: set[str] = set()
        self.left: dict[str, list[dict[str, Any]]] = {}
        self.meanwhile = lambda: None

    def containers(self, host: Host, _labels: Any) -> list[dict[str, Any]]:
        self.answer(host)
        return self.left.get(host.name, [])

    def answer(self, host: Host) -> dict[str, Any]:
        if host.name in self.silent:
            raise DockerUnavailable(f"Docker on host {host.name} does not answer")
        return {}

    def play(self, verb: str, *_: Any, **__: Any) -> None:
        self.played.append(verb)
        self.meanwhile()

    @property
    def cluster(self) -> Any:
        with self.store.read() as transaction:
            return transaction.find_cluster("lab", "work")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    store = Store(f"sqlite:///{tmp_path}/store.db")
    made = Site(store)
    monkeypatch.setattr(docker_api, "containers", made.containers)
    monkeypatch.setattr(docker_api, "engine_version", made.answer)
    monkeypatch.setattr(docker_api, "volumes", lambda *_: [])
    monkeypatch.setattr(lifecycle, "run_playbook", made.play)
    with store.transaction() as transaction:
        transaction.apply_tenant(document())
    yield made
    store.close()


def with_a_lost_node(site: Site) -> None:
    nodes = [replace(node(OF, name), host="h1") for name in ("master-1", "worker-1")]
    gone = replace(node(OF, "worker-2"), host="h3")
    with site.store.transaction() as transaction:
        key = transaction.add_cluster(OF, "ada", [*nodes, gone])
        transaction.set_lost(key, [gone])


def remains(of: Any) -> dict[str, Any]:
    return {
        "Labels": {
            "epic.tenant": of.tenant, "epic.cluster": of.cluster, "epic.role": of.role,
            "epic.index": str(of.index),
        }
    }  # fmt: skip


def test_what_comes_back_during_a_repair_keeps_its_number_until_it_is_removed(site: Site) -> None:
    with_a_lost_node(site)
    [lost] = site.cluster.lost
    site.silent = {"h3"}

    def comes_back() -> None:
        site.silent.clear()
        site.left = {"h3": [remains(lost)]}

    site.meanwhile = comes_back
    lifecycle.repair(site.context, "lab")
    # Its container runs on h3, with an address that nobody else may get.
    assert site.played == ["repair"]
    assert site.cluster.lost == (lost,)
    lifecycle.repair(site.context, "lab")
    assert site.played[1:] == ["shrink", "repair"]
    assert site.cluster.lost == ()


def test_a_node_that_is_lost_while_strays_are_looked_for_stays_so(site: Site) -> None:
    with_a_lost_node(site)
    [lost] = site.cluster.lost
    other = next(item for item in site.cluster.nodes if item.role == "worker")

    def loses_it() -> None:
        with site.store.transaction() as transaction:
            transaction.set_lost(site.cluster.id, [other])
            transaction.add_nodes(site.cluster.id, [replace(node(OF, "worker-3"), host="h2")])

    looked_for = docker_api.containers

    def containers(host: Host, labels: Any) -> list[dict[str, Any]]:
        if host.name == "h1" and other in site.cluster.nodes:
            loses_it()
        return looked_for(host, labels)

    docker_api.containers = containers
    try:
        lifecycle.repair(site.context, "lab")
    finally:
        docker_api.containers = looked_for
    assert lost not in site.cluster.lost
    assert site.cluster.lost == (other,)


def far(name: str) -> Host:
    return replace(HOSTS["h1"], name=name, variables={"ansible_host": "192.0.2.11"})


def test_a_launch_that_has_begun_places_no_nodes_on_a_host_that_is_drained_since(
    site: Site,
) -> None:
    hosts = {"h1": HOSTS["h1"], "h3": replace(HOSTS["h3"], cores=640, memory_bytes=2**50)}
    begun = Context(site.store, hosts)
    hosting.drain(site.context, "h3")
    lifecycle.launch(begun, OF)
    assert {item.host for item in site.cluster.nodes} == {"h1"}
    hosting.undrain(site.context, "h3")
    lifecycle.launch(begun, replace(OF, roles=(role("master", 1, maximum=1), role("worker", 2))))
    assert "h3" in {item.host for item in site.cluster.nodes}


def test_a_host_that_is_removed_since_takes_no_nodes() -> None:
    hosts = {"far": far("far"), "h1": HOSTS["h1"]}
    assert not taking_nodes(hosts, {"far": HostRecord("far")})["far"].draining
    # A host of an inventory is forgotten with its removal; this machine was perhaps never known.
    assert {name: item.draining for name, item in taking_nodes(hosts, {}).items()} == {
        "far": True, "h1": False,
    }  # fmt: skip


def test_a_host_that_is_being_removed_takes_no_nodes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def play(context: Context, *_: Any, **__: Any) -> None:
        with context.store.read() as transaction:
            seen.append(transaction.hosts()["far"].draining)

    monkeypatch.setattr(hosting, "_play", play)
    context = Context(site.store, {"far": far("far"), "h1": HOSTS["h1"]})
    hosting.remove(context, "far")
    assert seen == [True]
    with site.store.read() as transaction:
        assert "far" not in transaction.hosts()


def test_a_host_with_nodes_is_refused_as_it_is(site: Site) -> None:
    with_a_lost_node(site)
    with pytest.raises(InputError, match="Host h1 still has nodes of lab"):
        hosting.remove(site.context, "h1")
    with site.store.read() as transaction:
        assert "h1" not in transaction.hosts()
