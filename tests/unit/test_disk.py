"""Nodes kept to their flavor's disk: what engines are asked for, by what they can."""

from __future__ import annotations

from typing import Any

import pytest
from content_modules import disk, load, utility

nodes = load("epic_nodes", "library/epic_nodes.py")

GIB = 2**30
ROLE = {"image": "epic/spark:1", "cores": 1, "memory_bytes": GIB, "pids_limit": 99, "files": {}}
NODE = {"name": "lab-worker-1", "short_name": "worker-1", "container": "epic.work.lab.worker-1",
        "role": "worker", "index": 1, "ports": []}  # fmt: skip
XFS = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "xfs"]]}
EXT4 = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}


class Engine:
    """An engine that keeps volumes, and gives them a size where its file system can."""

    def __init__(self, info: dict[str, Any], *, sizes: bool) -> None:
        self.info, self.sizes = info, sizes
        self.volumes: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.refusal: Exception | None = None

    def request(self, method: str, url: str, body: Any = None, query: Any = None, *,
                missing_ok: bool = False) -> Any:  # fmt: skip
        del query, missing_ok
        if url == "/info":
            return self.info
        if url == "/volumes/create":
            return self._volume(body)
        if method == "DELETE" and url.startswith("/volumes/"):
            return self.volumes.pop(url.rpartition("/")[2])
        if url == "/containers/create":
            self.created.append(body["HostConfig"])
        return {"Id": 1}

    def _volume(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.refusal:
            raise self.refusal
        if body.get("DriverOpts") and not self.sizes:
            raise utility.DockerError(400, "quota size requested but no quota support")
        made = {"Name": body["Name"], "Options": body.get("DriverOpts"), "Labels": body["Labels"]}
        return self.volumes.setdefault(body["Name"], made)

    def labelled(self, kind: str, labels: dict[str, str]) -> list[dict[str, Any]]:
        found = list(self.volumes.values()) if kind == "volumes" else []
        return [item for item in found if labels.items() <= item["Labels"].items()]

    def start_with(self, *_: Any) -> None:
        pass


def options(disk_bytes: int) -> dict[str, Any]:
    """Return the module's options for one node whose flavor has such a disk."""
    given = {"cluster": "lab", "tenant": "work", "nodes": [NODE], "network": {"name": "epic.work"},
             "node_roles": {"worker": {**ROLE, "disk_bytes": disk_bytes}}}  # fmt: skip
    return {key: given.get(key, is_.get("default")) for key, is_ in nodes.ARGUMENT_SPEC.items()}


def launched(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, disk_bytes: int
) -> tuple[dict[str, Any], Any]:
    """Return the volume that a new node mounts, and the options of its container's own layer."""
    monkeypatch.setattr(nodes, "Docker", lambda _: engine)
    result = nodes.run(options(disk_bytes), check_mode=False)
    assert result["nodes"]["worker-1"] == "created", result
    host_config = engine.created[-1]
    return engine.volumes[host_config["Mounts"][0]["Source"]], host_config.get("StorageOpt")


SIZE = {"size": str(20 * GIB)}


@pytest.mark.parametrize(
    ("host", "disk_bytes", "made", "fact"),
    [
        (Engine(XFS, sizes=True), 20 * GIB, (SIZE, SIZE), "nodes"),
        (Engine(EXT4, sizes=True), 20 * GIB, (SIZE, None), "volumes"),
        (Engine(XFS, sizes=False), 20 * GIB, (None, None), "none"),
        (Engine(XFS, sizes=True), 0, (None, None), "nodes"),
    ],
)
def test_a_new_node_is_kept_to_its_disk_as_far_as_its_host_can(
    monkeypatch: pytest.MonkeyPatch, host: Engine, disk_bytes: int, made: Any, fact: str
) -> None:
    volume, layer = launched(host, monkeypatch, disk_bytes)
    assert (volume["Options"], layer) == made
    assert volume["Labels"]["epic.node"] == "worker-1"
    assert disk.disk_quota(host, host.info) == fact
    # Nothing is left of the attempt by which it is known.
    assert list(host.volumes) == [volume["Name"]]


@pytest.mark.parametrize("size", [None, {"size": str(GIB)}])
def test_a_volume_that_is_there_keeps_its_size_or_none(
    monkeypatch: pytest.MonkeyPatch, size: Any
) -> None:
    engine = Engine(XFS, sizes=True)
    labels = {"epic.tenant": "work", "epic.cluster": "lab", "epic.node": "worker-1"}
    engine.volumes["before"] = {"Name": "before", "Options": size, "Labels": labels}
    made, storage = launched(engine, monkeypatch, 20 * GIB)
    assert (made["Name"], made["Options"]) == ("before", size)
    # A node is kept to its disk as a whole, or watched as a whole.
    assert storage == (SIZE if size else None)


def test_a_volume_of_a_size_has_a_name_that_none_had_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker would give no quota to one that is made again under an earlier name."""
    engine = Engine(XFS, sizes=True)
    first, _ = launched(engine, monkeypatch, 20 * GIB)
    engine.volumes.clear()  # destroyed
    again, _ = launched(engine, monkeypatch, 20 * GIB)
    assert first["Name"] != again["Name"]
    assert again["Name"].startswith(NODE["container"])


def test_a_volume_without_a_size_has_the_nodes_name(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, _ = launched(Engine(EXT4, sizes=False), monkeypatch, 20 * GIB)
    assert volume["Name"] == NODE["container"]


def test_an_engine_in_trouble_is_no_engine_without_quotas() -> None:
    engine = Engine(XFS, sizes=True)
    engine.refusal = utility.DockerError(500, "no space left on device")
    with pytest.raises(utility.DockerError, match="no space left"):
        disk.new_volume(engine, "v", {}, GIB)


def test_a_quota_does_not_make_a_node_another_one() -> None:
    """So nodes of hosts that learn to keep a size are not made anew."""
    spec = nodes.Converger(options(20 * GIB), check=False).container_spec(NODE)
    assert "StorageOpt" not in spec["HostConfig"]
