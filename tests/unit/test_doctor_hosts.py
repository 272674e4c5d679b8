"""What `doctor` tells of the hosts of an inventory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from epic_runner import doctor_hosts, hosting
from epic_runner.cli import cli
from epic_runner.doctor import CatalogFacts, ImageFacts, State
from epic_runner.doctor_hosts import HostReport, judge_host, look_at_hosts, reach
from epic_runner.errors import DockerUnavailable, EpicError, OperationFailed
from epic_runner.hosting import findings
from epic_runner.hosts import Host

GIB = 2**30
SPAN = (99.0, 101.0)
SAID: dict[str, Any] = {
    "cores": 4, "memory_bytes": 16 * GIB, "memory_available_bytes": 8 * GIB,
    "disk_bytes": 100 * GIB, "disk_free_bytes": 50 * GIB, "disk_path": "/var/lib/docker",
    "disk_quota": "none", "clock": 100.0, "docker_version": "26.1.5", "docker_error": "",
    "mtu": 1500, "ports": {}, "firewall": [],
    "swarm": {"state": "active", "role": "manager", "managers": ["192.0.2.1:2377"], "error": ""},
    "storage": {"kind": "none", "place": "", "error": "", "elsewhere": {}},
}  # fmt: skip
FRESH = ImageFacts("spark", "epic/spark:1", present=True, fresh=True)


def report(said: dict[str, Any] | None, images: CatalogFacts | None = None) -> HostReport:
    facts = {} if said is None else {"h1": said}
    silent = {"h1": "No route to host"} if said is None else {}
    return judge_host("h1", said, findings(facts, silent, SPAN), images, SPAN)


def test_a_host_with_all_in_order_is_told_in_one_line() -> None:
    found = report(SAID, CatalogFacts((FRESH,)))
    assert found.state is State.OK
    assert found.seen == (
        "Docker 26.1.5, 4 cores, 8g of 16g, 50g of 100g disk free, clock +0.0 s, "
        "manager of the swarm"
    )
    assert [item.check for item in found.findings if item.mend] == []


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"docker_error": "no socket", "docker_version": None}, "docker", State.FAIL),
        ({"docker_version": "19.3.1"}, "docker", State.FAIL),
        ({"swarm": {"state": "inactive", "role": ""}}, "swarm", State.FAIL),
        ({"swarm": {**SAID["swarm"], "error": "no leader"}}, "swarm", State.FAIL),
        ({"clock": 110.0}, "clock", State.WARN),
        ({"disk_free_bytes": GIB}, "disk", State.WARN),
        ({"memory_available_bytes": GIB}, "memory", State.WARN),
        ({"storage": {**SAID["storage"], "kind": "folder", "mark": "", "place": "/x"}}, "storage",
         State.WARN),
    ],
)  # fmt: skip
def test_what_a_host_lacks_is_told_with_its_mend(
    changes: dict[str, Any], check: str, state: State
) -> None:
    found = report({**SAID, **changes})
    assert found.state is state
    assert [item.check for item in found.findings if item.mend] == [check]


def test_a_silent_host_fails_with_the_reason() -> None:
    found = report(None)
    assert (found.state, found.seen) == (State.FAIL, "silent")
    assert "No route to host" in found.findings[0].seen
    assert found.findings[0].mend


def test_images_that_a_launch_brings_are_nothing_to_mend() -> None:
    stale = CatalogFacts((FRESH, ImageFacts("jupyter", "x", present=True, fresh=False)))
    assert report(SAID, stale).state is State.OK
    assert any("older builds of jupyter" in item.seen for item in report(SAID, stale).findings)
    old = report(SAID, CatalogFacts((FRESH,), ("lab worker-1",)))
    assert old.state is State.WARN
    assert any("lab worker-1" in item.seen for item in old.findings)


def test_hosts_of_two_swarms_are_told_apart() -> None:
    other = {**SAID, "swarm": {**SAID["swarm"], "managers": ["192.0.2.9:2377"]}}
    found = findings({"h1": SAID, "h2": SAID, "h3": other}, {}, SPAN)
    assert [(item.host, item.what) for item in found if item.check == "swarm"] == [
        ("h3", "It is in another swarm than h1.")
    ]


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    path = tmp_path / "hosts.yml"
    path.write_text("docker_hosts: {hosts: {h1: {}, h2: {}}}", encoding="utf-8")
    monkeypatch.setenv("EPIC_INVENTORY", str(path))
    monkeypatch.setattr(doctor_hosts, "catalog_facts", lambda *_: None)
    return path


def answering(*names: str) -> Any:
    def ask(host: Host) -> bool:
        if host.name not in names:
            raise DockerUnavailable("no answer within 8 s")
        return True

    return ask


def test_only_hosts_that_answer_are_looked_at(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del inventory
    looked: list[str] = []

    def look(_hosts: Any, names: Any, _folder: Path) -> Any:
        looked.extend(names)
        return {"h1": SAID}, {}, SPAN

    monkeypatch.setattr(hosting, "look", look)
    monkeypatch.setattr(doctor_hosts, "reach", answering("h1"))
    assert [(item.host, item.state) for item in look_at_hosts()] == [
        ("h1", State.OK), ("h2", State.FAIL),
    ]  # fmt: skip
    assert looked == ["h1"]
    monkeypatch.setattr(doctor_hosts, "reach", answering())
    assert [item.seen for item in look_at_hosts()] == ["silent", "silent"]
    assert looked == ["h1"]


def test_a_play_that_fails_is_told_and_no_end_of_the_rest(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del inventory

    def look(*_: Any) -> Any:
        raise OperationFailed("host h1: there is no Python")

    monkeypatch.setattr(hosting, "look", look)
    monkeypatch.setattr(doctor_hosts, "reach", answering("h1", "h2"))
    assert all("there is no Python" in item.findings[0].seen for item in look_at_hosts())


def test_without_an_inventory_there_are_no_hosts_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    monkeypatch.delenv("EPIC_INVENTORY", raising=False)
    assert look_at_hosts() == []


@pytest.mark.parametrize(("code", "says"), [(255, "No route to host"), (None, "within 8 s")])
def test_a_host_that_cannot_be_reached_says_why(
    monkeypatch: pytest.MonkeyPatch, code: int | None, says: str
) -> None:
    def run(command: list[str], **_: Any) -> Any:
        assert command[:3] == ["ssh", "-o", "ControlPath=none"]
        if code is None:
            raise subprocess.TimeoutExpired(command, 8)
        return subprocess.CompletedProcess(command, code, "", "warning\nssh: No route to host\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(EpicError, match=says):
        reach(Host("h1", 1, 1))
    assert reach(Host("local", 1, 1, variables={"ansible_connection": "local"}))


def test_hosts_are_in_text_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    from epic_runner.cli import doctor as verb

    monkeypatch.setattr(verb, "gather", lambda: None)
    monkeypatch.setattr(verb, "judge", lambda _: [])
    monkeypatch.setattr(verb, "look_at_hosts", lambda: [report(None)])
    text = CliRunner().invoke(cli, ["doctor"])
    assert text.exit_code == 1
    assert "host h1  fail   silent" in text.output
    assert "ssh h1 has to work without a password." in text.output
    data = json.loads(CliRunner().invoke(cli, ["doctor", "-o", "json"]).output)
    assert data["state"] == "fail"
    assert data["hosts"][0]["host"] == "h1"
    assert data["hosts"][0]["findings"][0]["check"] == "reach"
