"""What a plan says of nodes is what a launch would do with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from life_samples import PAGE, document, host, node, role, spec

from epic_runner import plan
from epic_runner.errors import InputError
from epic_runner.events import Step
from epic_runner.plan import make_plan, otherwise, what_happens
from epic_runner.store import Store

HOSTS = {"local": host()}
OLD_IMAGE = "epic/spark:3.5.9-r0"


class Engine:
    """Stands in for Docker's reading side: a cluster of two nodes."""

    def __init__(self, state: str = "running") -> None:
        self.image, self.ports = "epic/spark:3.5.9-r1", {8080: 20000}
        self.found = [
            {"Id": name, "Names": [f"/{node(spec(), name).container}"], "State": state}
            for name in ("master-1", "worker-1")
        ]

    def containers(self, *_: Any) -> list[dict[str, Any]]:
        return self.found

    def images(self, *_: Any) -> dict[str, Any]:
        return {"epic/spark:3.5.9-r1": {}}

    def inspect(self, _: Any, container: str) -> dict[str, Any]:
        ports = self.ports if container == "master-1" else {}
        return inspected(self.image, ports)


def inspected(image: str, ports: Mapping[int, int]) -> dict[str, Any]:
    bindings = {f"{inside}/tcp": [{"HostPort": str(at)}] for inside, at in ports.items()}
    return {"Config": {"Image": image}, "HostConfig": {"PortBindings": bindings}}


class Module:
    """Stands in for the play that asks the module epic_nodes."""

    def __init__(self, outcome: str, files: tuple[str, ...] = ()) -> None:
        self.outcome, self.files = outcome, files
        self.asked: list[tuple[Mapping[str, Any], Collection[str]]] = []

    def __call__(self, inventory: Mapping[str, Any], hosts: Collection[str]) -> dict[str, Step]:
        cluster = inventory["all"]["vars"]["epic_cluster"]
        self.asked.append((cluster, hosts))
        about = {"files": list(self.files)}
        names = [item["short_name"] for item in cluster["nodes"]]
        return {name: Step("Compare nodes", name, self.outcome, result=about) for name in names}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store that knows the cluster."""
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    made = Store(f"sqlite:///{tmp_path}/store.db")
    nodes = [node(spec(), "master-1", {"spark-master": 20000}), node(spec(), "worker-1")]
    with made.transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.add_cluster(spec(), "ada", nodes)
    yield made
    made.close()


def planned(
    monkeypatch: pytest.MonkeyPatch, store: Store, module: Module, engine: Engine | None = None, *,
    workers: int = 1, tenant: Mapping[str, Any] | None = None,
) -> list[tuple[str, str, str]]:  # fmt: skip
    monkeypatch.setattr(plan, "docker_api", engine or Engine())
    made = make_plan(store, HOSTS, spec(workers), tenant, module)
    return [(item["name"], item["action"], item["reason"]) for item in made.nodes]


def test_what_the_module_would_keep_is_kept(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    module = Module("unchanged")
    assert planned(monkeypatch, store, module) == [
        ("master-1", "keep", ""),
        ("worker-1", "keep", ""),
    ]
    assert [hosts for _, hosts in module.asked] == [{"local"}]


def test_a_new_member_restarts_nodes(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    module = Module("mended", ("/etc/epic/members.json", "/etc/epic/passwd"))
    joined = document()
    joined["members"].append({"user": "cyd", "role": "member"})
    reason = "its services read other files: /etc/epic/members.json, /etc/epic/passwd"
    assert planned(monkeypatch, store, module, tenant=joined) == [
        ("master-1", "restart", reason), ("worker-1", "restart", reason)
    ]  # fmt: skip
    [(cluster, _)] = module.asked
    # It is asked about the members to be, with the ids that a launch would give.
    assert [(user["name"], user["uid"]) for user in cluster["users"]] == [
        ("ada", 20000), ("bob", 20001), ("cyd", 20002)
    ]  # fmt: skip
    with store.read() as transaction:
        assert "cyd" not in transaction.tenant("work").uids


def test_nodes_of_another_image_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    engine = Engine()
    engine.image = OLD_IMAGE
    found = planned(monkeypatch, store, Module("recreated"), engine)
    assert found == [
        ("master-1", "recreate", f"its image is {OLD_IMAGE}"),
        ("worker-1", "recreate", f"its image is {OLD_IMAGE}"),
    ]


def test_only_nodes_that_are_there_cost_a_play(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    engine, module = Engine(), Module("unchanged")
    engine.found = []
    why = "its container is missing"
    assert planned(monkeypatch, store, module, engine, workers=2) == [
        ("master-1", "create", why), ("worker-1", "create", why), ("worker-2", "create", "")
    ]  # fmt: skip
    assert module.asked == []


def test_images_that_do_not_fit_together_are_refused_as_by_a_launch(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    wanted = spec(1, image="epic/jupyter:1")
    labels = {
        "epic/jupyter:1": {"epic.java": "21"},
        wanted.role("worker").image: {"epic.java": "17"},
    }
    monkeypatch.setattr(plan.software, "image_labels", lambda _: labels)
    with pytest.raises(InputError, match="would not fit together"):
        make_plan(store, HOSTS, wanted, None, Module("unchanged"))


def test_nodes_of_a_silent_host_are_not_known() -> None:
    of = spec()
    away = replace(node(of, "worker-1"), host="away")
    cluster = plan.ClusterRecord(1, of, "ada", "running", (away,))
    [fate] = plan.fates(
        cluster,
        HOSTS,
        new=(),
        live={},
        silent={"away"},
        inventory=dict,
        compare=Module("unchanged"),
    )
    assert (fate["action"], fate["reason"]) == ("unknown", "host away does not answer")


@pytest.mark.parametrize(
    ("state", "outcome", "said"),
    [
        ("exited", "started", ("start", "its container is exited")),
        ("exited", "mended", ("start", "its container is exited")),
        ("paused", "resumed", ("start", "its container is paused")),
        ("dead", "recreated", ("recreate", "its container is dead")),
        ("running", "recreated", ("recreate", "it was made with other settings")),
        ("running", "updated", ("keep", "")),
    ],
)
def test_every_outcome_of_the_module_has_a_word(
    state: str, outcome: str, said: tuple[str, str]
) -> None:
    step = Step("Compare nodes", "worker-1", outcome)
    assert what_happens({"State": state}, step, is_new=False) == said


def test_a_long_list_of_files_is_cut() -> None:
    step = Step("Compare nodes", "worker-1", "mended", result={"files": ["/a", "/b", "/c", "/d"]})
    _, reason = what_happens({"State": "running"}, step, is_new=False)
    assert reason == "its services read other files: /a, /b, /c and 1 more"


@pytest.mark.parametrize(
    ("published", "wanted", "said"),
    [
        ({8080: 20000}, [], "it publishes ports"),
        ({}, [{"container_port": 8080, "host_port": 20000}], "it publishes no ports"),
        ({8080: 1}, [{"container_port": 8080, "host_port": 20000}], "it publishes other ports"),
        ({8080: 20000}, [{"container_port": 8080, "host_port": 20000}], ""),
    ],
)
def test_ports_that_differ_are_told(
    published: dict[int, int], wanted: list[dict[str, int]], said: str
) -> None:
    of = role("master", 1, endpoints=(PAGE,))
    assert otherwise(inspected(of.image, published), of, wanted) == said
    both = otherwise(inspected(OLD_IMAGE, published), of, wanted)
    assert both == ", ".join(filter(None, [f"its image is {OLD_IMAGE}", said]))
