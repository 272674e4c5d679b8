"""The modules and filters of Docker hosts: who makes the swarm, who manages it, what is found."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from content_modules import load, utility
from hypothesis import given
from hypothesis import strategies as st

swarm = load("epic_swarm", "library/epic_swarm.py")
facts = load("epic_host_facts", "library/epic_host_facts.py")
kernel = load("epic_kernel", "library/epic_kernel.py")
ports = load("epic_open_ports", "library/epic_open_ports.py")
filters = load("epic_hosts_filters", "filter_plugins/hosts.py")


# -- who is manager --------------------------------------------------------------------------------


def node(
    name: str,
    role: str = "worker",
    *,
    rack: str = "",
    state: str = "ready",
    label: str | None = None,
    reachable: bool = True,
) -> dict[str, Any]:
    labels = {"epic.host": name if label is None else label, "epic.rack": rack}
    made: dict[str, Any] = {
        "ID": f"id-{name}",
        "Version": {"Index": 1},
        "Spec": {"Role": role, "Labels": {key: value for key, value in labels.items() if value}},
        "Description": {"Hostname": name},
        "Status": {"State": state, "Addr": f"192.0.2.{len(name)}"},
    }
    if role == "manager":
        made["ManagerStatus"] = {
            "Reachability": "reachable" if reachable else "unreachable",
            "Addr": f"192.0.2.{len(name)}:2377",
        }
    return made


def names(chosen: list[dict[str, Any]]) -> list[str]:
    return [item["Description"]["Hostname"] for item in chosen]


@pytest.mark.parametrize(
    ("hosts", "managers"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (100, 5)]
)
def test_a_swarm_has_as_many_managers_as_survive_losses(hosts: int, managers: int) -> None:
    assert swarm.managers_wanted(hosts) == managers


def test_the_third_host_makes_all_three_managers() -> None:
    nodes = [node("a", "manager"), node("b"), node("c")]
    promoted, demoted = swarm.role_changes(nodes, "id-a")
    assert (sorted(names(promoted)), demoted) == (["b", "c"], [])


def test_new_managers_are_alive_and_in_other_racks() -> None:
    nodes = [
        node("a", "manager", rack="1"), node("b", rack="1"), node("c", rack="1"),
        node("d", rack="2"), node("e", rack="3", state="down"),
    ]  # fmt: skip
    promoted, _ = swarm.role_changes(nodes, "id-a")
    # Five are wanted and four are alive; the one of another rack comes first.
    assert names(promoted) == ["d", "b", "c"]


def test_of_too_many_managers_the_unreachable_goes() -> None:
    nodes = [node("a", "manager"), node("b", "manager", reachable=False), node("c", "manager"),
             node("d", "manager")]  # fmt: skip
    promoted, demoted = swarm.role_changes(nodes, "id-d")
    assert (promoted, names(demoted)) == ([], ["b"])


def test_another_host_takes_over_from_one_that_leaves() -> None:
    nodes = [node("a", "manager"), node("b", "manager"), node("c", "manager"), node("d")]
    promoted, demoted = swarm.role_changes(nodes, "id-a", "id-b")
    assert (names(promoted), names(demoted)) == (["d"], ["b"])


def test_the_dead_are_demoted_before_those_whose_votes_that_needs() -> None:
    nodes = [node("a", "manager"), node("b", "manager"), node("c", "manager", reachable=False)]
    assert names(swarm.role_changes(nodes, "id-a", "id-c")[1]) == ["c", "b"]


def test_the_last_manager_promotes_its_successor_and_leaves_its_own_demotion_to_it() -> None:
    nodes = [node("a", "manager"), node("b")]
    promoted, demoted = swarm.role_changes(nodes, "id-a", "id-a")
    assert (names(promoted), demoted) == (["b"], [])
    nodes[1] = node("b", "manager")
    assert names(swarm.role_changes(nodes, "id-b", "id-a")[1]) == ["a"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("xyz")), max_size=9))
def test_changing_roles_once_is_enough(rest: list[tuple[bool, bool, str]]) -> None:
    nodes = [node("h0", "manager")] + [
        node(f"h{number}", "manager" if manages else "worker", rack=rack,
             state="ready" if lives else "down", reachable=lives)
        for number, (manages, lives, rack) in enumerate(rest, 1)
    ]  # fmt: skip
    promoted, demoted = swarm.role_changes(nodes, "id-h0")
    for item in promoted:
        item["Spec"]["Role"] = "manager"
        item["ManagerStatus"] = {"Reachability": "reachable", "Addr": "192.0.2.1:2377"}
    for item in demoted:
        item["Spec"]["Role"] = "worker"
    assert swarm.role_changes(nodes, "id-h0") == ([], [])
    managers = [item for item in nodes if swarm.is_manager(item)]
    assert nodes[0] in managers
    alive = [item for item in nodes if item["Status"]["State"] == "ready" or item in managers]
    assert len(managers) == min(swarm.managers_wanted(len(nodes)), len(alive))


def test_a_host_is_found_by_id_label_address_or_name() -> None:
    nodes = [node("web", "manager", label="rack1-a"), node("storage")]
    assert [swarm.find(nodes, name, [])["ID"] for name in ("id-web", "rack1-a", "192.0.2.3")] == [
        "id-web", "id-web", "id-web",
    ]  # fmt: skip
    assert swarm.find(nodes, "rack9", ["192.0.2.7"])["ID"] == "id-storage"
    assert swarm.find(nodes, "storage", [])["ID"] == "id-storage"
    # The inventory calls it otherwise, so its own name is not what is meant.
    assert swarm.find(nodes, "web", []) is None


def test_a_name_that_fits_two_hosts_is_refused() -> None:
    with pytest.raises(swarm.SwarmError, match="give one of id-a, id-b"):
        swarm.find([node("a", label="x"), node("b", label="x")], "x", [])


def test_the_entry_of_an_earlier_life_is_stale() -> None:
    nodes = [node("a", "manager"), node("b"), node("old", label="b", state="down"),
             node("c", state="down")]  # fmt: skip
    known = {"id-a": {"epic.host": "a"}, "id-b": {"epic.host": "b"}}
    assert names(swarm.stale(nodes, known)) == ["old"]


def test_an_address_that_others_cannot_reach_is_refused() -> None:
    with pytest.raises(swarm.SwarmError, match="epic_address"):
        swarm.own_address("localhost")
    assert swarm.own_address("192.0.2.1") == "192.0.2.1"


# -- the module before an engine that remembers ----------------------------------------------------


class Engine:
    """An engine whose swarm is what a test says, and that does what it is told."""

    def __init__(self, info: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
        self.info = info
        self.nodes = {item["ID"]: item for item in nodes}
        self.asked: list[tuple[str, Any]] = []
        self.refusal: Exception | None = None

    def request(self, method: str, url: str, body: Any = None, query: Any = None) -> Any:
        del query
        if method != "GET":
            self.asked.append((f"{method} {url}", body))
            if self.refusal:
                raise self.refusal
        if url == "/info":
            return {"Swarm": self.info}
        if url == "/swarm":
            return {"JoinTokens": {"Worker": "SWMTKN-w", "Manager": "SWMTKN-m"}}
        if url == "/nodes":
            return list(self.nodes.values())
        found = self.nodes.get(url.split("/")[2])
        if found and url.endswith("/update"):
            found["Spec"] = {key: body[key] for key in ("Role", "Labels")}
            manages = {"Reachability": "reachable", "Addr": "192.0.2.1:2377"}
            found["ManagerStatus"] = manages if body["Role"] == "manager" else None
        return found


def call(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, *, check: bool = False, **given: Any
) -> Any:
    monkeypatch.setattr(swarm, "Docker", lambda _: engine)
    params = {name: option.get("default") for name, option in swarm.ARGUMENT_SPEC.items()}
    return swarm.run({**params, **given}, check_mode=check)


MANAGER = {"LocalNodeState": "active", "ControlAvailable": True, "NodeID": "id-a",
           "NodeAddr": "192.0.2.1", "Cluster": {"ID": "c1"},
           "RemoteManagers": [{"NodeID": "id-a", "Addr": "192.0.2.1:2377"}]}  # fmt: skip


def test_joining_sends_the_token_and_tells_it_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine({"LocalNodeState": "inactive"}, [])
    given = {
        "state": "present",
        "address": "192.0.2.2",
        "token": "SWMTKN-w",
        "managers": ["m:2377"],
    }
    result = call(monkeypatch, engine, **given)
    assert result["changed"]
    assert engine.asked == [
        ("POST /swarm/join", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.2",
                              "RemoteAddrs": ["m:2377"], "JoinToken": "SWMTKN-w"}),
    ]  # fmt: skip
    assert "SWMTKN" not in str(result)
    engine.refusal = utility.DockerError(500, "invalid join token SWMTKN-w")
    assert "SWMTKN" not in str(call(monkeypatch, engine, **given))


def test_a_host_that_is_in_a_swarm_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MANAGER, [])
    assert not call(monkeypatch, engine, state="present", address="192.0.2.1")["changed"]
    assert engine.asked == []


def test_a_half_joined_host_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine({"LocalNodeState": "pending", "Error": "no answer"}, [])
    result = call(monkeypatch, engine, state="present", address="192.0.2.1")
    assert result["failed"]
    assert "pending: no answer" in result["msg"]


def test_a_manager_labels_and_promotes_and_then_has_nothing_left_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(MANAGER, [node("a", "manager", label=""), node("b", label=""), node("c")])
    given = {"state": "managers", "names": {"id-b": {"epic.host": "rack1-b", "epic.rack": "1"}}}
    tried = call(monkeypatch, engine, check=True, **given)
    assert tried["changed"]
    assert engine.asked == []
    result = call(monkeypatch, engine, **given)
    assert result["actions"] == ["labelled b", "made rack1-b a manager", "made c a manager"]
    assert result["manager_names"] == ["a", "c", "rack1-b"]
    assert not call(monkeypatch, engine, **given)["changed"]


def test_a_manager_without_a_majority_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine({**MANAGER, "Error": "The swarm does not have a leader"}, [])
    found = call(monkeypatch, engine)["swarm"]
    assert (found["role"], found["control"]) == ("manager", False)


def test_who_is_not_in_the_swarm_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MANAGER, [node("a", "manager"), node("b", "manager", state="down")])
    result = call(monkeypatch, engine, state="removed", node="z")
    assert (result["changed"], result["found"], result["nodes"]) == (False, False, ["a", "b"])
    result = call(monkeypatch, engine, state="removed", node="b")
    assert (result["changed"], result["found"], result["nodes"]) == (True, True, ["a"])
    # It is demoted first, or the managers would go on to count it.
    assert [what for what, _ in engine.asked] == ["POST /nodes/id-b/update", "DELETE /nodes/id-b"]


# -- plans -----------------------------------------------------------------------------------------


def state(kind: str = "inactive", **values: Any) -> dict[str, Any]:
    return {"state": kind, "control": False, "cluster": "", "node_id": "", "managers": [], **values}


HEAD = state("active", control=True, cluster="c1", node_id="n1", managers=["192.0.2.1:2377"])
LIMB = state("active", node_id="n2", managers=["192.0.2.1:2377"])


@pytest.mark.parametrize(
    ("states", "first", "manager", "joining"),
    [
        ({"a": state(), "b": state(), "c": state()}, "a", "a", ["b", "c"]),
        ({"a": state(), "b": HEAD, "c": LIMB}, "", "b", ["a"]),
        ({"a": None, "b": HEAD, "c": state()}, "", "b", ["c"]),
        ({"a": HEAD}, "", "a", []),
        # It was removed while it was dead, or will be back in a moment: the manager knows.
        ({"a": {**LIMB, "state": "pending"}, "b": HEAD}, "", "b", []),
    ],
)
def test_the_first_host_makes_the_swarm_unless_there_is_one(
    states: dict[str, Any], first: str, manager: str, joining: list[str]
) -> None:
    plan = filters.swarm_plan(states, list(states))
    assert plan == {"first": first, "manager": manager, "joining": joining, "problem": ""}


def test_hosts_that_the_play_does_not_run_on_do_not_join() -> None:
    states = {"a": state(), "b": state(), "c": state()}
    plan = filters.swarm_plan(states, ["b"])
    assert (plan["first"], plan["joining"]) == ("b", [])


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ({"a": None, "b": state()}, "a did not answer"),
        ({"a": LIMB, "b": state()}, "none of whose managers"),
        ({"a": HEAD, "b": state("active", control=True, cluster="c2", managers=["x:1"])},
         "b and a are in different swarms"),
        ({"a": HEAD, "b": state("active", managers=["192.0.2.9:2377"])}, "different swarms"),
        ({"a": HEAD, "b": state("pending", managers=["192.0.2.9:2377"])}, "different swarms"),
        ({"a": state("pending", managers=["192.0.2.9:2377"])}, "or too few"),
        ({"a": HEAD, "b": state("locked")}, "docker swarm unlock"),
    ],
)  # fmt: skip
def test_what_would_do_harm_is_refused(states: dict[str, Any], word: str) -> None:
    assert word in filters.swarm_plan(states, list(states))["problem"]


def test_what_a_host_learned_last_counts() -> None:
    hostvars = {
        "a": {"__docker_host_seen": {"swarm": state()}, "__docker_host_made": {"swarm": HEAD},
              "__docker_host_joined": {"skipped": True}, "epic_rack": 1},
        "b": {"__docker_host_seen": {"unreachable": True}},
        "c": {},
    }  # fmt: skip
    found = filters.swarm_states("abc", hostvars, [{"item": "c", "swarm": LIMB}])
    assert found == {"a": HEAD, "b": None, "c": LIMB}
    assert filters.swarm_names(found, hostvars) == {
        "n1": {"epic.host": "a", "epic.rack": "1"}, "n2": {"epic.host": "c"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "name", "alive", "manager"),
    [
        ({"a": HEAD, "b": HEAD, "c": LIMB}, "a", True, "b"),
        ({"a": HEAD, "b": LIMB}, "a", True, "a"),
        ({"a": HEAD, "b": None}, "b", False, "a"),
        ({"a": HEAD, "b": state()}, "b", False, "a"),
        ({"a": HEAD}, "a", True, "a"),
        ({"a": state(), "b": state()}, "a", False, ""),
    ],
)
def test_another_manager_takes_a_host_out_of_the_swarm(
    states: dict[str, Any], name: str, *, alive: bool, manager: str
) -> None:
    plan = filters.removal_plan(states, name)
    assert plan == {"alive": alive, "manager": manager, "problem": ""}


@pytest.mark.parametrize(
    ("states", "word"),
    [({"a": None, "b": None}, "None of the hosts"), ({"a": None, "b": LIMB}, "b: in a swarm")],
)
def test_a_removal_that_nobody_can_do_is_refused(states: dict[str, Any], word: str) -> None:
    assert word in filters.removal_plan(states, "a")["problem"]


def test_a_successor_stays_in_the_swarm() -> None:
    assert filters.successor("abc", ["a", "c"], "a") == "c"
    assert filters.successor("abc", ["a"], "a") == ""


def test_hosts_reach_one_another_by_the_address_between_them() -> None:
    hostvars = {"a": {}, "b": {"ansible_host": "192.0.2.2"},
                "c": {"ansible_host": "192.0.2.3", "epic_address": "198.51.100.3"}}  # fmt: skip
    assert filters.peer_addresses("abc", hostvars, "a") == ["192.0.2.2", "198.51.100.3"]
    assert filters.peer_addresses("abc", hostvars, "c") == ["a", "192.0.2.2"]


def test_hosts_have_the_addresses_that_they_tell_and_those_by_which_they_are_reached() -> None:
    hostvars = {
        "a": {"ansible_host": "a.test", "host_check": {"unreachable": True}},
        "b": {"ansible_host": "192.0.2.2", "epic_address": "198.51.100.2",
              "host_check": {"epic_facts": {"addresses": ["172.17.0.1", "192.0.2.2"]}}},
        "c": {},
    }  # fmt: skip
    assert filters.host_addresses("abc", hostvars) == ["172.17.0.1", "192.0.2.2", "198.51.100.2"]


# -- facts -----------------------------------------------------------------------------------------

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth2\t000200C0\t00000000\t0001\t0\t0\t10\t00FFFFFF\t0\t0\t0
lo\t006433C6\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("address", "interface"),
    [("192.0.2.7", "eth1"), ("203.0.113.1", "eth0"), (None, "eth0"), ("198.51.100.1", "eth0")],
)
def test_the_interface_is_that_of_the_narrowest_route(address: str | None, interface: str) -> None:
    assert facts.route_interface(ROUTES, address) == interface


def test_without_a_route_there_is_no_interface() -> None:
    assert facts.route_interface(ROUTES.splitlines()[0], "192.0.2.7") is None


def test_the_system_is_named_as_it_names_itself() -> None:
    text = 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n'
    assert facts.os_release(text + "PRETTY_NAME='Rocky Linux 9.5'\n") == {
        "id": "rocky", "id_like": "rhel centos fedora", "version": "9.5", "name": "Rocky Linux 9.5",
    }  # fmt: skip


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_is_open_or_refused(listening: int) -> None:
    assert facts.tcp("127.0.0.1", listening, 2) == "open"
    with socket.socket() as unused:
        # Bound and not listening: nobody else can take it meanwhile.
        unused.bind(("127.0.0.1", 0))
        assert facts.tcp("127.0.0.1", unused.getsockname()[1], 2) == "refused"
    assert facts.tcp("no-such-host.invalid", 1, 2) == "error"


def test_a_connection_without_an_answer_is_silent() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(address)
        assert facts.tcp(*address, 0.2) == "silent"
        for one in waiting:
            one.close()


def test_of_packets_only_a_refusal_is_known() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        assert facts.udp("127.0.0.1", port, 0.2) == "unknown"
    assert facts.udp("127.0.0.1", port, 0.2) == "refused"


def test_the_managers_port_is_tried_where_managers_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []
    lock = threading.Lock()

    def note(address: str, port: int, _: float) -> str:
        with lock:
            tried.append((address, port))
        return "open"

    monkeypatch.setattr(facts, "tcp", note)
    monkeypatch.setattr(facts, "udp", lambda *_: "unknown")
    peers = ["192.0.2.1", "192.0.2.2"]
    found = facts.port_facts(peers, {"managers": ["192.0.2.1:2377"]}, 1)
    assert found["192.0.2.1"]["tcp_2377"] == "open"
    assert found["192.0.2.2"] == {
        "tcp_2377": None, "tcp_7946": "open", "udp_7946": "unknown", "udp_4789": "unknown",
    }  # fmt: skip
    assert ("192.0.2.2", 2377) not in tried
    # Who is in no swarm yet may meet a manager anywhere.
    found = facts.port_facts(peers, {"managers": []}, 1)
    assert {item["tcp_2377"] for item in found.values()} == {"open"}
    assert facts.port_facts([], {"managers": []}, 1) == {}


def test_rules_that_drop_the_rest_have_to_name_the_ports() -> None:
    assert facts.input_hints("-P INPUT ACCEPT\n") == []
    closed = "-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
    assert len(facts.input_hints(closed)) == 3
    opened = closed + "".join(
        f"-A INPUT -p udp -m multiport --dports {ports} -j ACCEPT\n"
        for ports in ("2377,7946", "4789")
    )
    assert facts.input_hints(opened) == []


def test_a_machine_without_an_engine_has_facts_as_well(tmp_path: Path) -> None:
    found = facts.run(
        {"peers": [], "timeout": 1.0, "storage": "", "socket": str(tmp_path / "none")},
        check_mode=False,
    )["epic_facts"]
    assert found["docker_version"] is None
    assert str(tmp_path) in found["docker_error"]
    assert found["swarm"]["state"] == "unknown"
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 2**20
    assert 0 < found["disk_free_bytes"] <= found["disk_bytes"]


# -- the kernel ------------------------------------------------------------------------------------


def test_no_setting_is_lowered() -> None:
    wanted = {"vm.max_map_count": 262144, "kernel.pid_max": 100, "net.missing": 1}
    current = {"vm.max_map_count": 65530, "kernel.pid_max": 4194304}
    assert kernel.settings_to_raise(wanted, current) == {"vm.max_map_count": 262144}
    # Something else keeps the higher one high: this file would lower it at the next start.
    assert kernel.settings_to_keep(wanted, current, "") == {"vm.max_map_count": 262144}


def test_what_the_file_keeps_stays_in_it() -> None:
    old = "# reason\nvm.max_map_count = 262144\n"
    kept = kernel.settings_to_keep({"vm.max_map_count": 262144}, {"vm.max_map_count": 999999}, old)
    assert kept == {"vm.max_map_count": 262144}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "max_map_count").write_text("65530\n")
    monkeypatch.setattr(kernel, "CONTAINER_MARKS", ())
    monkeypatch.setattr(kernel, "setting_path", lambda name: tmp_path / name.replace(".", "/"))
    monkeypatch.setattr(kernel, "is_loaded", lambda name, _: name == "overlay")
    monkeypatch.setattr(kernel.shutil, "which", lambda *_, **__: None)
    return tmp_path


def kernel_params(folder: Path) -> dict[str, Any]:
    return {
        "modules": {"overlay": "layers", "vxlan": "networks"},
        "settings": {"vm.max_map_count": 262144, "vm.nothing": 1},
        "modules_file": str(folder / "etc" / "modules.conf"),
        "settings_file": str(folder / "etc" / "sysctl.conf"),
    }


def test_settings_are_raised_and_kept_once(machine: Path) -> None:
    params = kernel_params(machine)
    assert kernel.run(params, check_mode=True)["changed"]
    assert not (machine / "etc").exists()
    result = kernel.run(params, check_mode=False)
    assert "raised vm.max_map_count from 65530 to 262144" in result["actions"]
    assert result["skipped_items"] == {
        "vxlan": "the kernel does not show it, and there is no modprobe",
        "vm.nothing": "the kernel does not have it",
    }
    assert (machine / "vm" / "max_map_count").read_text() == "262144"
    assert (machine / "etc" / "sysctl.conf").read_text().splitlines()[1:] == [
        "vm.max_map_count = 262144"
    ]
    assert (machine / "etc" / "modules.conf").read_text().splitlines()[1:] == [
        "# layers",
        "overlay",
    ]
    assert not kernel.run(params, check_mode=False)["changed"]


def test_a_container_leaves_the_machine_below_it_alone(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "CONTAINER_MARKS", (str(machine),))
    result = kernel.run(kernel_params(machine), check_mode=False)
    assert "machine below" in result["skipped_items"]["vm.max_map_count"]
    assert (machine / "vm" / "max_map_count").read_text() == "65530\n"


# -- ports between hosts ---------------------------------------------------------------------------


# firewalld and ufw, as far as they are asked: rules are lines of files.
FIREWALL_CMD = """#!/bin/sh
here=$(dirname "$0")/..
[ "$LC_ALL" = C ] || exit 1
kept=$here/now
for word; do
    case "$word" in
        --permanent) kept=$here/permanent ;;
        --state) cat "$here/state" && exit ;;
        --get-default-zone) echo public && exit ;;
        --get-active-zones) cat "$here/zones" && exit ;;
        --zone=*) zone=${word#--zone=} ;;
        --list-rich-rules) cat "$kept.$zone" 2>/dev/null; exit 0 ;;
        --add-rich-rule=*) echo "${word#--add-rich-rule=}" >>"$kept.$zone" ;;
    esac
done
"""
UFW = """#!/bin/sh
here=$(dirname "$0")/..
case "$*" in
    status) cat "$here/ufw" ;;
    "show added") echo "Added user rules:" && cat "$here/added" ;;
    *) echo "ufw $*" | sed "s/comment \\(.*\\)/comment '\\1'/" >>"$here/added" ;;
esac
"""
ZONES = """docker
  interfaces: docker0 docker_gwbridge
public (default)
  interfaces: eth1
hosts
  interfaces: eth0
racks
  sources: 192.0.2.128/25 00:11:22:33:44:55 ipset:others
"""


@pytest.fixture
def firewalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which firewalld and ufw are there, and neither runs; all peers are behind eth0."""
    for name, text in {
        "firewall-cmd": FIREWALL_CMD, "ufw": UFW, "ip": "#!/bin/sh\necho $4 dev eth0 src 192.0.2.1"
    }.items():  # fmt: skip
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setattr(ports, "PROGRAMS", f"{program.parent}:{ports.PROGRAMS}")
    (tmp_path / "zones").write_text(ZONES)
    (tmp_path / "state").write_text("not running\n")
    (tmp_path / "ufw").write_text("Status: inactive\n")
    (tmp_path / "added").touch()
    return tmp_path


def opened(*peers: str, check: bool = False) -> list[str]:
    done = ports.run({"peers": list(peers)}, check_mode=check)
    assert done["changed"] == bool(done["actions"])
    return list(done["actions"])


def test_firewalls_that_do_not_run_are_left_alone(firewalls: Path) -> None:
    assert opened("192.0.2.12") == []
    assert (firewalls / "added").read_text() == ""
    assert not list(firewalls.glob("now.*"))


def test_firewalld_lets_the_other_hosts_in_now_and_for_good(firewalls: Path) -> None:
    (firewalls / "state").write_text("running\n")
    told = opened("192.0.2.12", "192.0.2.200", check=True)
    assert len(told) == 2 * 2 * 4
    assert not list(firewalls.glob("now.*"))
    assert opened("192.0.2.12", "192.0.2.200") == told
    # One is in the zone of the interface that leads to it, the other in that of its network.
    for kept in ("now", "permanent"):
        assert (firewalls / f"{kept}.hosts").read_text().splitlines() == [
            f'rule family="ipv4" source address="192.0.2.12" port port="{port}" '
            f'protocol="{protocol}" accept'
            for port, protocol in ((2377, "tcp"), (7946, "tcp"), (7946, "udp"), (4789, "udp"))
        ]
        assert "192.0.2.200" in (firewalls / f"{kept}.racks").read_text()
    assert opened("192.0.2.12", "192.0.2.200") == []
    # What only a reload or a restart took away is brought back, and nothing else.
    (firewalls / "now.hosts").write_text("")
    assert len(opened("192.0.2.12", "192.0.2.200")) == 4
    assert len((firewalls / "permanent.hosts").read_text().splitlines()) == 4


def test_ufw_lets_the_other_hosts_in_once(firewalls: Path) -> None:
    (firewalls / "ufw").write_text("Status: active\n\n")
    (firewalls / "added").write_text("ufw allow from 192.0.2.12 to any port 2377 proto tcp\n")
    told = opened("192.0.2.12", check=True)
    assert told == [
        "ufw allow from 192.0.2.12 to any port 7946 proto tcp",
        "ufw allow from 192.0.2.12 to any port 7946 proto udp",
        "ufw allow from 192.0.2.12 to any port 4789 proto udp",
    ]
    assert opened("192.0.2.12") == told
    assert "port 4789 proto udp comment 'epic-runner'" in (firewalls / "added").read_text()
    assert opened("192.0.2.12") == []


def test_a_firewall_that_refuses_a_rule_is_told(firewalls: Path) -> None:
    (firewalls / "state").write_text("running\n")
    (firewalls / "zones").unlink()
    done = ports.run({"peers": ["192.0.2.12"]}, check_mode=False)
    assert done["failed"]
    assert "firewall-cmd --get-active-zones" in done["msg"]


def test_a_host_whose_name_leads_nowhere_is_told_and_the_others_are_let_in(
    firewalls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(name: str) -> str:
        if name == "gone":
            raise socket.gaierror(-2, "Name or service not known")
        return "192.0.2.12"

    monkeypatch.setattr(ports.socket, "gethostbyname", known)
    (firewalls / "ufw").write_text("Status: active\n")
    done = ports.run({"peers": ["gone", "rack1-b"]}, check_mode=False)
    assert list(done["skipped_items"]) == ["gone"]
    assert len(done["actions"]) == 4
