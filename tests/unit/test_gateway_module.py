"""The module of the gateway, before an engine that only remembers what it was asked."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from content_modules import load

LAB = {"prefix": "work/lab", "network": "epic.work"}
OTHERS = "work/labor/n-1/x c|1|strip|*\nwork/other/n-1/x c|1|strip|*\n"

gateway = load("epic_gateway", "library/epic_gateway.py")
filters = load("gateway_filters", "filter_plugins/gateway.py")


class Engine:
    """An engine with a gateway that runs, whose volume holds `files`."""

    def __init__(self, *networks: str, **files: str) -> None:
        self.files = {name.replace("_", "."): text for name, text in files.items()}
        self.held = dict(self.files)
        self.fails = False
        self.has_volume = True
        self.networks = {"epic-gw", *networks}
        self.asked: list[str] = []
        self.found: dict[str, Any] | None = {
            "State": {"Running": True},
            "NetworkSettings": {"Networks": {name: {} for name in self.networks}},
        }

    def request(self, method: str, url: str, body: Any = None, query: Any = None, *,
                missing_ok: bool = False) -> Any:  # fmt: skip
        del missing_ok
        if method == "GET":
            # What an engine says in a swarm that an older one leads.
            assert not url.startswith("/volumes/"), "rpc error: unknown method ListVolumes"
            return self.found
        self.asked.append(f"{method} {url}")
        if method == "PUT":
            assert query == {"path": "/var/lib/gateway"}
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                for member in tar:
                    assert (member.mode, member.uid) == (0o600, 901)
                    content = tar.extractfile(member)
                    assert content
                    self.files[member.name] = content.read().decode()
        return None

    def labelled(self, kind: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        assert labels == {"epic.gateway": "gw"}
        return [{"Name": "epic-gw"}] if kind == "volumes" and self.has_volume else []

    def read_file(self, container: str, path: str) -> bytes | None:
        del container
        text = self.files.get(path.rpartition("/")[2])
        return None if text is None else text.encode()

    def execute(self, container: str, command: list[str], **options: Any) -> tuple[int, str, str]:
        del container, options
        self.asked.append(command[0])
        if self.fails:
            return 1, "", "no socket"
        changed = {name: int(self.held.get(name) != text) for name, text in self.files.items()}
        self.held = dict(self.files)
        return 0, json.dumps({name: {"changed": count} for name, count in changed.items()}), ""

    @staticmethod
    def absence() -> dict[str, Any]:
        return {}


def run(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, check: bool = False, **params: Any
) -> dict[str, Any]:
    defaults = {name: item.get("default") for name, item in gateway.ARGUMENT_SPEC.items()}
    monkeypatch.setattr(gateway, "Docker", lambda _: engine)
    return gateway.run({**defaults, "name": "gw", **params}, check)


def test_a_clusters_routes_replace_its_own_and_no_others(monkeypatch) -> None:
    old = "work/lab/worker-9/x c|1|strip|*\n"
    engine = Engine("epic.work", routes_map=old + OTHERS, tokens_map="work/other o\n")
    routes = {"work/lab/master-1/jupyter": "epic.work.lab.master-1|8888|keep|ada"}
    result = run(engine, monkeypatch, state="routed", routes=routes, token="secret", **LAB)
    assert result["changed"]
    new = "work/lab/master-1/jupyter epic.work.lab.master-1|8888|keep|ada\n"
    assert engine.files["routes.map"] == new + OTHERS
    assert engine.files["tokens.map"] == "work/lab secret\nwork/other o\n"
    assert engine.asked == ["PUT /containers/epic-gw/archive", "/usr/local/sbin/epic-gateway-sync"]
    assert "secret" not in json.dumps(result)
    engine.asked.clear()
    again = run(engine, monkeypatch, state="routed", routes=routes, token="secret", **LAB)
    assert (again["changed"], engine.asked) == (False, ["/usr/local/sbin/epic-gateway-sync"])


def test_a_gateway_that_did_not_take_its_routes_is_told_them_by_the_next_run(monkeypatch) -> None:
    engine = Engine("epic.work", routes_map=OTHERS)
    engine.fails = True
    routed = {"state": "routed", "routes": {"work/lab/n-1/x": "c|1|strip|*"}, **LAB}
    assert "no socket" in run(engine, monkeypatch, **routed)["msg"]
    # The file is as wanted by now.
    assert "work/lab/n-1/x" in engine.files["routes.map"]
    assert "work/lab/n-1/x" not in engine.held["routes.map"]
    engine.fails = False
    assert run(engine, monkeypatch, **routed)["changed"]
    assert engine.held == engine.files
    assert not run(engine, monkeypatch, **routed)["changed"]


def test_the_gateway_joins_a_network_it_is_not_in(monkeypatch) -> None:
    engine = Engine()
    run(engine, monkeypatch, state="routed", **LAB)
    assert engine.asked[0] == "POST /networks/epic.work/connect"


def test_it_leaves_a_tenants_network_with_the_last_cluster(monkeypatch) -> None:
    mine = "work/lab/n-1/x c|1|strip|*\n"
    engine = Engine("epic.work", routes_map=mine + OTHERS)
    run(engine, monkeypatch, state="unrouted", **LAB)
    assert engine.files["routes.map"] == OTHERS
    assert "POST /networks/epic.work/disconnect" not in engine.asked
    engine = Engine("epic.work", routes_map=mine + "working/a/n-1/x c|1|strip|*\n")
    run(engine, monkeypatch, state="unrouted", **LAB)
    assert "POST /networks/epic.work/disconnect" in engine.asked


def test_without_a_gateway_a_destroy_goes_on_and_a_launch_says_what_to_do(monkeypatch) -> None:
    engine = Engine()
    engine.found = None
    assert not run(engine, monkeypatch, state="unrouted", **LAB).get("failed")
    assert "epic-run gateway up" in run(engine, monkeypatch, state="routed", **LAB)["msg"]


def test_a_check_changes_nothing(monkeypatch) -> None:
    engine = Engine(routes_map=OTHERS)
    assert run(engine, monkeypatch, check=True, state="routed", routes={"a": "b"}, **LAB)["changed"]
    assert engine.asked == []


def test_routes_become_entries_of_the_map() -> None:
    route = {"path": "/work/lab/master-1/jupyter", "container": "c", "port": 8888}
    made = filters.gateway_map(
        [
            {**route, "mode": "keep", "member": "ada"},
            {**route, "path": "/a/b/c/d", "mode": "strip", "member": "*", "since": 1700000000},
        ]
    )
    assert made == {
        "work/lab/master-1/jupyter": "c|8888|keep|ada|0",
        "a/b/c/d": "c|8888|strip|*|1700000000",
    }


def test_a_volume_is_looked_for_among_those_that_are_there(monkeypatch) -> None:
    engine = Engine()
    run(engine, monkeypatch, state="absent")
    assert "DELETE /volumes/epic-gw" in engine.asked
    engine.asked.clear()
    engine.has_volume = False
    run(engine, monkeypatch, state="absent")
    assert [item for item in engine.asked if "volumes" in item] == []
    made = gateway.Converger({"socket": "", "name": "gw"}, check=False)
    made.make({})
    assert "POST /volumes/create" in engine.asked
