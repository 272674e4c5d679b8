"""Rebuilding the store from what Docker's containers tell of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from life_samples import document, host, node, record, spec, tenant

from epic_runner import recovery
from epic_runner.errors import NotFound
from epic_runner.inventory import labels
from epic_runner.recovery import (
    counted,
    described_tenant,
    find_remains,
    recover,
    still_wanted,
    strays,
)
from epic_runner.store import Store

HOSTS = {"local": host()}
PASSWD = b"ada:x:20000:20000:ada:/home/ada:/bin/bash\ncyd:x:20002:20002:cyd:/home/cyd:/bin/bash\n"


class Engine:
    """Stands in for Docker's reading side."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self.stores: list[dict[str, Any]] = []
        self.nets: list[dict[str, Any]] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.vanished: set[str] = set()
        self.written: dict[str, float] = {}

    def add(self, name: str, state: str = "running", address: str = "") -> None:
        cluster = record(spec(1), "master-1", "worker-1")
        of = node(cluster.spec, name)
        self.found.append(
            {
                "Id": name, "Names": [f"/{of.container}"], "State": state,
                "Created": len(self.found),
                "Labels": {
                    **labels(cluster, tenant()), "epic.tenant": "work", "epic.cluster": "lab",
                    "epic.role": of.role, "epic.index": str(of.index),
                },
                "Ports": {"8080/tcp": [{"HostPort": "20003"}]},
                "Attached": {
                    "epic_work": {"IPAMConfig": {"IPv4Address": address}, "IPAddress": ""}
                } if address else {},
            }
        )  # fmt: skip

    def leave(self, name: str) -> None:
        """Have the volume of a node without its container."""
        labels = {"epic.tenant": "work", "epic.cluster": "lab", "epic.node": name}
        self.stores.append({"Name": f"epic.work.lab.{name}", "Labels": labels})

    def networks(self, _: Any, wanted: dict[str, str | None]) -> list[dict[str, Any]]:
        return [item for item in self.nets if self._carries(item, wanted)]

    def containers(self, _: Any, wanted: dict[str, str | None]) -> list[dict[str, Any]]:
        return [item for item in self.found if self._carries(item, wanted)]

    def volumes(self, _: Any, wanted: dict[str, str | None]) -> list[dict[str, Any]]:
        return [item for item in self.stores if self._carries(item, wanted)]

    @staticmethod
    def _carries(item: dict[str, Any], wanted: dict[str, str | None]) -> bool:
        return all(
            key in item["Labels"] and value in (None, item["Labels"][key])
            for key, value in wanted.items()
        )

    def inspect(self, _: Any, container: str) -> dict[str, Any]:
        if container in self.vanished:
            raise NotFound("No such container")
        found = next(item for item in self.found if item["Id"] == container)
        return {
            "HostConfig": {"PortBindings": found["Ports"]},
            "NetworkSettings": {"Networks": found["Attached"]},
        }

    def read_file(self, _: Any, container: str, path: str) -> bytes | None:
        return self.files.get((container, path))

    def read_dated_file(self, _: Any, container: str, path: str) -> tuple[bytes | None, float]:
        return self.files.get((container, path)), self.written.get(container, 0.0)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(recovery, "docker_api", made)
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPIC_HOME", str(tmp_path))
    made = Store(f"sqlite:///{tmp_path}/store.db")
    yield made
    made.close()


@given(st.sets(st.integers(1, 20)), st.sets(st.integers(1, 3)))
def test_the_nodes_that_are_there_are_the_count_whatever_their_numbers(workers, masters) -> None:
    of = spec(5)
    nodes = [node(of, f"worker-{index}") for index in workers]
    nodes += [node(of, f"master-{index}") for index in masters]
    found = counted(of, nodes, is_whole=True)
    assert found.role("worker").count == max(len(workers), 1)
    assert found.role("master").count == max(len(masters), 1)
    # A host that is away may have some of them.
    assert counted(of, nodes, is_whole=False).role("worker").count == max(len(workers), 5)


@pytest.mark.parametrize(
    ("count", "there", "left", "found"),
    [
        (3, (1, 3), (1, 2, 3), [2]),  # somebody removed a container
        (3, (2, 3, 4), (1, 2, 3, 4), []),  # the first one was made anew while its host was away
        (2, (1, 2), (1, 2), []),
        (3, (1,), (1, 2, 3, 4), [3, 4]),
    ],
)
def test_missing_nodes_of_whom_there_are_volumes_are_told_from_those_that_have_left(
    count: int, there: tuple[int, ...], left: tuple[int, ...], found: list[int]
) -> None:
    of = spec(count)

    def named(numbers: tuple[int, ...]) -> list[Any]:
        return [node(of, f"worker-{number}") for number in numbers]

    missing = still_wanted(of, named(there), [*named(left), node(of, "gone-1")])
    assert [item.index for item in missing] == found


def test_a_node_without_container_comes_back_with_its_volume(engine: Engine, store: Store) -> None:
    engine.add("master-1")
    engine.leave("worker-1")
    engine.leave("worker-2")
    assert recover(store, HOSTS).clusters == ("work/lab",)
    with store.read() as transaction:
        cluster = transaction.find_cluster("lab")
    assert [item.short_name for item in cluster.nodes] == ["master-1", "worker-2"]
    assert cluster.spec.role("worker").count == 1
    [orphan] = recover(store, HOSTS).orphans
    assert "epic.work.lab.worker-1 on host local is that of lab-worker-1" in orphan
    assert "docker volume rm" in orphan


def test_addresses_of_a_network_that_spans_hosts_are_restored(engine: Engine, store: Store) -> None:
    engine.add("master-1", address="10.112.8.3")
    engine.add("worker-1", state="exited", address="10.112.8.2")
    engine.nets.append(
        {"Name": "epic_work", "Labels": {"epic.tenant": "work"},
         "IPAM": {"Config": [{"Subnet": "10.112.8.0/21"}]}},
    )  # fmt: skip
    engine.nets.append(
        {"Name": "epic.work", "Labels": {"epic.tenant": "work"},
         "IPAM": {"Config": [{"Subnet": "10.108.0.0/23"}]}},
    )  # fmt: skip
    recover(store, HOSTS)
    with store.read() as transaction:
        nodes, known = transaction.find_cluster("lab").nodes, transaction.tenant("work")
    assert [item.address for item in nodes] == ["10.112.8.3", "10.112.8.2"]
    assert known.subnet == "10.112.8.0/21"


def test_a_missing_node_gets_an_address_that_nobody_has(engine: Engine, store: Store) -> None:
    engine.add("master-1", address="10.112.8.2")
    engine.leave("worker-1")
    recover(store, HOSTS)
    with store.read() as transaction:
        nodes, known = transaction.find_cluster("lab").nodes, transaction.tenant("work")
    # The nodes tell of the network where no host does.
    assert known.subnet == "10.112.8.0/21"
    assert [item.address for item in nodes] == ["10.112.8.2", "10.112.8.3"]


def test_of_one_node_on_two_hosts_the_later_one_is_the_node(engine: Engine, store: Store) -> None:
    engine.add("master-1")
    engine.add("master-1")
    recover(store, HOSTS)
    with store.read() as transaction:
        assert len(transaction.find_cluster("lab").nodes) == 1


def test_a_lost_cluster_is_written_back(engine: Engine, store: Store, tmp_path: Path) -> None:
    engine.add("master-1")
    engine.add("worker-1")
    engine.files["worker-1", recovery.PASSWD_FILE] = PASSWD
    engine.files["worker-1", recovery.SUDOERS_FILE] = b"# who\ncyd ALL=(ALL) NOPASSWD: ALL\n"
    engine.files["master-1", recovery.TOKEN_FILE] = b"secret"
    assert recover(store, HOSTS).clusters == ("work/lab",)
    with store.read() as transaction:
        cluster = transaction.find_cluster("lab")
        known = transaction.tenant("work")
    assert [item.short_name for item in cluster.nodes] == ["master-1", "worker-1"]
    assert cluster.nodes[0].ports == {"spark-master": 20003}
    assert (cluster.owner, cluster.wanted) == ("ada", "running")
    assert known.uids == {"ada": 20000, "bob": 20001, "cyd": 20002}
    assert json.loads((tmp_path / "secrets/work/lab.json").read_text()) == {"token": "secret"}
    assert recover(store, HOSTS) == recovery.Recovered((), ())


def test_only_the_named_cluster_is_written_back(engine: Engine, store: Store) -> None:
    engine.add("master-1")
    assert recover(store, HOSTS, "other").clusters == ()
    assert recover(store, HOSTS, "lab", "away").clusters == ()
    assert recover(store, HOSTS, "work/lab").clusters == ("work/lab",)


def test_a_cluster_that_is_just_being_removed_is_passed_over(engine: Engine, store: Store) -> None:
    engine.add("master-1")
    engine.vanished.add("master-1")
    assert recover(store, HOSTS).clusters == ()


def test_a_cluster_that_does_not_run_comes_back_stopped(engine: Engine, store: Store) -> None:
    engine.add("master-1", state="exited")
    recover(store, HOSTS)
    with store.read() as transaction:
        assert transaction.find_cluster("lab").wanted == "stopped"


def test_members_are_those_whom_the_node_knows_by_now() -> None:
    described = {"document": document(quota={"nodes": 4}), "uids": {"ada": 20000, "bob": 20001}}
    found = described_tenant(described, PASSWD, b"")
    assert [(m["user"], m["role"], m["sudo"]) for m in found.members] == [
        ("ada", "admin", False),
        ("cyd", "member", False),
    ]
    assert found.uids == {"ada": 20000, "bob": 20001, "cyd": 20002}
    assert found.quota == {"nodes": 4}
    assert described_tenant(described, None, None).members == described["document"]["members"]


def note(**roles: str) -> bytes:
    return json.dumps(
        [{"name": user, "uid": 20000, "role": role, "principal": "hdfs@X"}
         for user, role in roles.items()]
    ).encode()  # fmt: skip


def test_what_a_node_was_told_last_counts_not_which_node_is_the_newest(
    engine: Engine, store: Store
) -> None:
    engine.add("master-1")
    engine.add("worker-1")
    for name, role, at in (("worker-1", "admin", 1.0), ("master-1", "member", 2.0)):
        engine.files[name, recovery.MEMBERS_FILE] = note(ada=role)
        engine.files[name, recovery.PASSWD_FILE] = PASSWD
        engine.written[name] = at
    recover(store, HOSTS)
    with store.read() as transaction:
        members = transaction.tenant("work").members
    assert [(m["user"], m["role"]) for m in members] == [("ada", "member"), ("cyd", "member")]


def test_root_of_a_node_gives_nobody_a_role_a_principal_or_a_user_id() -> None:
    described = {"document": document(), "uids": {"ada": 20000, "bob": 20001}}
    passwd = (
        b"ada:x:20009:20009::/:/bin/bash\nbob:x:0:0::/:/bin/bash\n"
        b"cyd:x:20002:20002::/:/bin/bash\ndan:x:0:0::/:/bin/bash\neve:x:20001:20001::/:/bin/sh\n"
        b"fay:x:20002:20002::/:/bin/bash\n"
    )
    found = described_tenant(described, passwd, b"", note(ada="admin", bob="admin", cyd="admin"))
    assert [(m["user"], m["role"], m.get("principal")) for m in found.members] == [
        ("ada", "admin", None), ("bob", "member", None), ("cyd", "member", None),
    ]  # fmt: skip
    assert found.uids == {"ada": 20000, "bob": 20001, "cyd": 20002}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"  ", b"cyd", b"cyd:x", b"cyd:x:many:1::/:/bin/sh", b":x:20005:20005::/:/bin/sh",
        b"{{ lookup('pipe','id') }}:x:20005:20005::/:/bin/sh", b"root:x:20005:20005::/:/bin/sh",
        "cyd:x:\u0662\u0660\u0660\u0660\u0665:1::/:/bin/sh".encode(), b"\xff\xfe:x:20005:1::/:/",
        b"cyd:x:99999999999999999999:1::/:/bin/sh",
    ],
)  # fmt: skip
def test_a_line_that_epic_run_cannot_have_written_is_passed_over(line: bytes) -> None:
    described = {"document": document(), "uids": {"ada": 20000, "bob": 20001}}
    found = described_tenant(described, line + b"\nada:x:20000:20000::/:/bin/bash\n", line)
    assert [member["user"] for member in found.members] == ["ada"]
    assert found.uids == described["uids"]


@pytest.mark.parametrize(
    "broken",
    [b"[", b"{}", b"7", b"[7, [], {}]", pytest.param(b"[" * 100_000, id="deep"), b"\xff"],
)
def test_a_broken_note_says_nothing(broken: bytes) -> None:
    described = {"document": document(), "uids": {"ada": 20000, "bob": 20001}}
    found = described_tenant(described, PASSWD, b" \n", broken)
    assert [(m["user"], m["role"]) for m in found.members] == [("ada", "admin"), ("cyd", "member")]


@pytest.mark.parametrize(
    "token", [b"x\nother/lab y", b"x;show stat", b"\xff", b"", pytest.param(b"x" * 300, id="long")]
)
def test_what_is_no_token_is_not_kept_as_one(
    engine: Engine, store: Store, tmp_path: Path, token: bytes
) -> None:
    engine.add("master-1")
    engine.files["master-1", recovery.TOKEN_FILE] = token
    assert recover(store, HOSTS).clusters == ("work/lab",)
    assert not (tmp_path / "secrets/work/lab.json").exists()


def test_strays_are_what_carries_the_labels_and_is_not_known(engine: Engine) -> None:
    engine.add("master-1")
    engine.add("worker-7")
    found = strays(HOSTS, record(spec(), "master-1"))
    assert [item.short_name for item in found.nodes] == ["worker-7"]
    assert found.hosts == set(HOSTS)


def test_remains_are_found_by_volumes_alone(engine: Engine) -> None:
    engine.stores.append({"Name": "v", "Labels": {"epic.tenant": "work", "epic.cluster": "gone"}})
    found = find_remains(HOSTS, "gone", None)
    assert found is not None
    assert (found.tenant, found.name, found.wanted) == ("work", "gone", "absent")
    assert find_remains(HOSTS, "work/gone", None) is not None
    assert find_remains(HOSTS, "gone", "away") is None


def test_orphans_are_told_with_the_way_to_remove_them(engine: Engine, store: Store) -> None:
    engine.stores += [
        {"Name": "epic.work.gone.worker-1",
         "Labels": {"epic.tenant": "work", "epic.cluster": "gone"}},
        {"Name": "epic.work.storage", "Labels": {"epic.tenant": "work"}},
    ]  # fmt: skip
    orphans = recover(store, HOSTS).orphans
    assert any("epic-run destroy work/gone" in item for item in orphans)
    assert any("epic.work.storage" in item for item in orphans)
