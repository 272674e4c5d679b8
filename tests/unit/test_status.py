"""Status: what is missing, and why, from data alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from life_samples import host, node, record, spec

from epic_runner import docker_api
from epic_runner.cli.show import next_step
from epic_runner.errors import DockerUnavailable
from epic_runner.gateway import site
from epic_runner.hosts import Host
from epic_runner.spec.models import AppProbe
from epic_runner.status import (
    ClusterStatus,
    NodeStatus,
    Place,
    cluster_status,
    disk_warnings,
    evaluate,
    health,
    node_status,
    probe_all,
)

PROBE = AppProbe(
    endpoint="spark-master", path="/json/", list="workers", node="host", match={"state": "ALIVE"}
)


def state_of(container: dict[str, Any] | None, **values: Any) -> tuple[str, str]:
    defaults: dict[str, Any] = {
        "services": ("spark-worker",), "answers": {}, "wanted": "running", "leaving": False,
        "busy": False,
    }  # fmt: skip
    found = node_status(node(spec(), "worker-1"), container, **{**defaults, **values})
    return found.state, found.reason


UP = {"State": "running", "Status": "Up 3 minutes"}
DEAD = {"State": "exited", "Status": "Exited (137) 3 minutes ago"}
NOT_REGISTERED = {("spark-worker", "lab-worker-1"): "not registered"}


@pytest.mark.parametrize(
    ("container", "values", "state", "reason"),
    [
        (UP, {}, "ready", ""),
        (None, {}, "pending", "its container on host local is missing"),
        (None, {"busy": True}, "pending", ""),
        (DEAD, {}, "error", "Exited (137) 3 minutes ago"),
        (DEAD, {"wanted": "stopped"}, "stopped", ""),
        (None, {"wanted": "stopped"}, "pending",
         "its container on host local is missing, a start makes it anew"),
        (UP, {"wanted": "stopped"}, "stopping", ""),
        ({"State": "created"}, {}, "creating", "its container was made but never started"),
        (UP, {"answers": NOT_REGISTERED}, "error", "spark-worker: not registered"),
        (UP, {"answers": NOT_REGISTERED, "busy": True}, "configuring",
         "spark-worker: not registered"),
        (UP, {"leaving": True}, "deleting", "its removal was cut off"),
        (UP, {"wanted": "absent", "busy": True}, "deleting", ""),
        (UP, {"unreachable": "no answer"}, "error", "no answer"),
    ],
)  # fmt: skip
def test_every_state_has_its_reason(container, values, state, reason) -> None:
    assert state_of(container, **values) == (state, reason)


@pytest.mark.parametrize(
    ("container", "step"),
    [(None, "epic-run start lab"), (UP, "epic-run stop lab"), (DEAD, None)],
)
def test_what_brings_a_stopped_cluster_back(
    container: dict[str, Any] | None, step: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = record(spec(), "master-1", wanted="stopped")
    named = {"Names": [f"/{cluster.nodes[0].container}"], "Ports": []}
    monkeypatch.setattr(
        docker_api, "containers", lambda *_: [{**container, **named}] if container else []
    )
    assert next_step(cluster_status(cluster, {"local": host()}, {}, None)) == step


def nodes(**states: str) -> list[NodeStatus]:
    return [
        NodeStatus(name.replace("_", "-"), name.split("_")[0], "local", name, state)
        for name, state in states.items()
    ]


@pytest.mark.parametrize(
    ("states", "strays", "colour"),
    [
        ({"master_1": "ready", "worker_1": "ready"}, [], "green"),
        ({"master_1": "ready", "worker_1": "ready", "worker_2": "error"}, [], "yellow"),
        ({"master_1": "ready", "worker_1": "error"}, [], "red"),
        ({"master_1": "error", "worker_1": "ready"}, [], "red"),
        ({"master_1": "ready", "worker_1": "ready"}, ["epic.work.lab.worker-9"], "yellow"),
        ({}, [], "red"),
    ],
)
def test_a_cluster_is_red_when_a_node_role_is_down(states, strays, colour) -> None:
    found, why = health(nodes(**states), "running", strays)
    assert found == colour
    assert bool(why) == (colour != "green")


def test_a_worker_is_ready_when_its_master_says_so() -> None:
    alive = {"host": "lab-worker-1", "state": "ALIVE"}
    dead = {"host": "lab-worker-1", "state": "DEAD"}
    assert evaluate(PROBE, {"workers": [dead, alive]}, "lab-worker-1") is None
    assert evaluate(PROBE, {"workers": [dead]}, "lab-worker-1") == "state is DEAD"
    assert evaluate(PROBE, {"workers": [alive]}, "lab-worker-2") == "not registered"
    assert evaluate(PROBE, None, "lab-worker-1") == "not registered"


def test_every_address_is_asked_once() -> None:
    cluster = record(spec(3), "master-1", "worker-1", "worker-2", "worker-3")
    asked = []

    def ask(place: Place) -> tuple[Any, str | None]:
        asked.append((place.published, place.paths))
        return {"workers": [{"host": "lab-worker-2", "state": "ALIVE"}]}, None

    answers = probe_all(cluster, {"spark-worker": PROBE}, ask)
    assert asked == [(20000, ("/json/",))]
    assert answers["spark-worker", "lab-worker-2"] is None
    assert answers["spark-worker", "lab-worker-3"] == "not registered"


def test_a_node_over_its_disk_makes_a_cluster_yellow_and_is_told_with_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = record(spec(2), "master-1", "worker-1", "worker-2")
    limited = tuple(
        replace(role, size=replace(role.size, disk_bytes=2**30)) for role in cluster.spec.roles
    )
    cluster = replace(cluster, spec=replace(cluster.spec, roles=limited))
    live = {
        node.container: {"State": "running", "Status": f"Up 2 hours ({state})"}
        for node, state in zip(
            cluster.nodes, ("healthy", "unhealthy", "health: starting"), strict=True
        )
    }
    looks = [{"ExitCode": 0, "Output": "5\n"}, {"ExitCode": 1, "Output": f"{3 * 2**30}\n"}]
    asked: list[str] = []

    def inspect(_host: Host, container: str) -> Any:
        asked.append(container)
        return {"State": {"Health": {"Log": looks}}}

    monkeypatch.setattr(docker_api, "inspect", inspect)
    warnings = disk_warnings(cluster, {"local": host()}, live)
    told = "holds 3g on disk, more than its flavor's 1g"
    assert warnings == {"worker-1": told}
    assert asked == [cluster.nodes[1].container]
    looks.clear()
    more = "holds more on disk than its flavor's 1g"
    assert disk_warnings(cluster, {"local": host()}, live) == {"worker-1": more}
    nodes = [
        NodeStatus(node.short_name, node.role, "local", node.container, "ready",
                   warning=warnings.get(node.short_name, ""))
        for node in cluster.nodes
    ]  # fmt: skip
    assert health(nodes, "running", ()) == ("yellow", f"worker-1 {told}")
    # What does not work at all comes first.
    assert health([replace(nodes[0], state="error"), *nodes[1:]], "running", ())[0] == "red"


def test_a_gateway_whose_host_is_silent_makes_what_runs_yellow_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    site.keep(site.Gateway("gw", "far", site.ANY_ADDRESS, 8443, "gw.test", has_own_authority=True))
    cluster = record(spec(0), "master-1")
    silent = {"far"}

    def silent_where(host: Host) -> None:
        if host.name in silent:
            raise DockerUnavailable(f"Docker on host {host.name} does not answer")

    def containers(host: Host, _labels: Any) -> list[dict[str, Any]]:
        silent_where(host)
        return [{**UP, "Names": [f"/{cluster.nodes[0].container}"], "Ports": []}]

    monkeypatch.setattr(docker_api, "containers", containers)
    monkeypatch.setattr(docker_api, "read_file", lambda of, *_: silent_where(of))
    hosts = {name: host(name) for name in ("local", "far")}

    def seen() -> ClusterStatus:
        return cluster_status(cluster, hosts, {}, None)

    away = seen()
    assert (away.health, away.nodes[0].state) == ("yellow", "ready")
    assert away.reason == "the gateway is away: Docker on host far does not answer"
    assert next_step(away) == "epic-run gateway status tells what to do."
    # A host that has nodes as well is told with them.
    cluster = replace(cluster, nodes=(replace(cluster.nodes[0], host="far"),))
    assert "gateway" not in seen().reason
    # No repair mends a host that does not answer.
    assert next_step(seen()) == "epic-run doctor tells what is wrong with far."
    silent.clear()
    assert seen().health == "green"
