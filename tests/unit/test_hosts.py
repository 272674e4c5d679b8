"""Hosts: from an Ansible inventory and what is remembered to what clusters are placed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epic_runner import host_inventory, hosting, ssh
from epic_runner.errors import DockerUnavailable, EpicError, InputError
from epic_runner.events import Translator
from epic_runner.everywhere import ask_all, ask_any
from epic_runner.host_inventory import Entry, entries, inventory_path, read_inventory
from epic_runner.hosting import Finding, disk_keeping
from epic_runner.hosts import Host
from epic_runner.lifecycle import Context
from epic_runner.site import arrange, chosen, is_spread, site_hosts
from epic_runner.store import HostRecord, Store

INVENTORY = """\
docker_hosts:
  vars: {ansible_user: ops, epic_memory_overcommit: 1.5}
  children:
    rack_a: {hosts: {h1: {ansible_host: 192.0.2.1}, h2: {epic_rack: other}}}
  hosts: {h3: {epic_cores: 8, epic_memory: 32g}}
workstations: {hosts: {w1: {}}}
"""
FACTS = {"cores": 4, "memory_bytes": 2**34, "disk_bytes": 2**40, "mtu": 1500}
FINE: dict[str, Any] = {
    **FACTS, "clock": 100.0, "docker_version": "26.1.5", "disk_free_bytes": 2**40,
    "disk_path": "/var/lib/docker", "disk_quota": "nodes", "docker_error": "",
    "swarm": {"state": "active"}, "firewall": [],
    "ports": {"192.0.2.2": {"tcp_7946": "open", "udp_4789": "unknown"}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EPIC_INVENTORY", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY, encoding="utf-8")
    return path


def test_without_an_inventory_this_machine_is_the_only_host() -> None:
    assert inventory_path() is None
    hosts = arrange({}, {}, [])
    assert list(hosts) == ["local"]
    assert not is_spread(hosts)


def test_an_inventory_that_is_named_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_INVENTORY", "/no/such/hosts.yml")
    with pytest.raises(InputError, match="no such file"):
        inventory_path()


def test_ansible_reads_the_inventory_with_variables_of_groups(file: Path) -> None:
    found = read_inventory(file)
    assert {name: entry.group for name, entry in found.items()} == {
        "h3": "", "h1": "rack_a", "h2": "rack_a",
    }  # fmt: skip
    hosts = arrange(found, {"h1": HostRecord("h1", FACTS, 1.0)}, [])
    assert (hosts["h1"].rack, hosts["h2"].rack) == ("rack_a", "other")
    assert (hosts["h1"].cores, hosts["h1"].memory_overcommit) == (4, 1.5)
    assert (hosts["h3"].cores, hosts["h3"].memory_bytes) == (8, 2**35)
    assert [name for name, host in hosts.items() if host.checked] == ["h1"]
    assert is_spread(hosts)


def test_ansible_reads_a_file_again_when_it_changes_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_inventory(file)
    monkeypatch.setattr(host_inventory, "_read", lambda _: pytest.fail("It was read again."))
    assert read_inventory(file) == first
    monkeypatch.undo()
    monkeypatch.setenv("EPIC_HOME", str(file.parent / "home"))
    file.write_text(INVENTORY.replace("h3", "h4"), encoding="utf-8")
    assert "h4" in read_inventory(file)


def test_a_script_is_run_each_time(tmp_path: Path) -> None:
    script, count = tmp_path / "hosts.sh", tmp_path / "count"
    script.write_text(
        f"#!/bin/sh\necho x >> {count}\n"
        'echo \'{"docker_hosts": {"hosts": ["h1"]}, "_meta": {"hostvars": {}}}\'\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    for _ in range(2):
        assert list(read_inventory(script)) == ["h1"]
    assert count.read_text(encoding="utf-8") == "x\nx\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("docker_hosts: [", "cannot read this inventory"),
        ("docker_hosts: {hosts: {}}", "no hosts in it"),
    ],
)
def test_an_inventory_that_is_none_is_told(file: Path, text: str, says: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_inventory(file)


def test_without_the_group_all_hosts_are_docker_hosts() -> None:
    data = {"all": {"children": ["ungrouped"]}, "ungrouped": {"hosts": ["a", "b"]}}
    assert list(entries(data)) == ["a", "b"]


def test_a_host_that_left_the_inventory_with_nodes_on_it_takes_no_more() -> None:
    hosts = arrange({"h1": Entry("h1", {})}, {"h1": HostRecord("h1", FACTS, 1.0)}, ["h1", "h9"])
    assert [(name, host.draining) for name, host in hosts.items()] == [("h1", False), ("h9", True)]


@pytest.mark.parametrize(
    ("name", "value"), [("epic_cores", "many"), ("epic_memory", "32"), ("epic_cores", -1)]
)
def test_a_capacity_that_is_none_names_host_and_variable(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"Host h1 of the inventory has {name}"):
        arrange({"h1": Entry("h1", {name: value})}, {}, [])


def test_a_host_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no host host1") as caught:
        chosen({"host-1": Host("host-1", 1, 1)}, ["host1"])
    assert caught.value.hint == 'Did you mean "host-1"?'


def test_ssh_goes_where_ansible_would() -> None:
    variables = {
        "ansible_host": "192.0.2.1", "ansible_user": "ops", "ansible_port": 2222,
        "ansible_ssh_private_key_file": "~/key", "ansible_become": "true",
        "ansible_ssh_common_args": "-o ProxyJump=gate -o 'A=b c'",
    }  # fmt: skip
    command = ssh.command(Host("h1", 1, 1, variables=variables), "docker info")
    assert command[0] == "ssh"
    assert command[-2:] == ["192.0.2.1", "sudo -n docker info"]
    text = " ".join(command)
    assert "-p 2222" in text
    assert "-l ops" in text
    assert f"-i {Path.home()}/key" in text
    assert "-o ProxyJump=gate -o A=b c" in text


def test_a_variable_that_only_ansible_can_read_is_refused() -> None:
    with pytest.raises(InputError, match="ansible_host, which is a template"):
        ssh.command(Host("h1", 1, 1, variables={"ansible_host": "{{ address }}"}), "true")


def test_hosts_that_do_not_answer_are_named_beside_those_that_do() -> None:
    def ask(host: Host) -> int:
        if host.name == "h2":
            raise DockerUnavailable("h2 is away")
        return host.cores

    hosts = [Host("h1", 3, 1), Host("h2", 4, 1)]
    assert ask_all(hosts, ask) == ({"h1": 3}, {"h2": "h2 is away"})
    assert ask_any(hosts, ask) == {"h1": 3}
    with pytest.raises(EpicError, match="h2 is away"):
        ask_any(hosts[1:], ask)


def findings(*given: Any) -> list[Finding]:
    """Return the findings, but for what is told of every host."""
    return [item for item in hosting.findings(*given) if item.mend or item.check != "disk"]


@pytest.mark.parametrize(
    ("quota", "word", "told"),
    [
        ({"disk_quota": "nodes"}, "enforced", "The disk of nodes is enforced."),
        ({"disk_quota": "volumes"}, "enforced", "enforced on their volumes; what they write"),
        ({"disk_quota": "none"}, "watched", "The disk of nodes is watched, not enforced."),
        # What an older version remembered of a host.
        ({"disk_quota": "xfs-pquota"}, "watched", "watched, not enforced"),
        ({}, "watched", "watched, not enforced"),
    ],
)
def test_what_becomes_of_a_flavors_disk_is_told_of_every_host(
    quota: dict[str, str], word: str, told: str
) -> None:
    facts = {name: value for name, value in FINE.items() if name != "disk_quota"} | quota
    [found] = hosting.findings({"h1": facts}, {}, (99.0, 101.0))
    assert (found.check, found.mend) == ("disk", "")
    assert told in found.what
    assert disk_keeping(facts) == word


def test_a_host_with_all_in_order_has_no_findings() -> None:
    assert findings({"h1": FINE}, {}, (99.0, 101.0)) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"docker_error": "no socket"}, "Docker does not answer: no socket"),
        ({"docker_version": "19.3.1"}, "Docker 19.3.1 is too old"),
        ({"clock": 110.0}, "clock is 9 s off"),
        ({"clock": 90.0}, "clock is 9 s off"),
        ({"disk_free_bytes": 2**30}, "1g are free"),
        ({"swarm": {"state": "inactive"}}, "no member of the swarm"),
        ({"ports": {"192.0.2.2": {"tcp_7946": "refused"}}}, "does not reach tcp/7946 of 192.0.2.2"),
    ],
)
def test_what_a_host_lacks_is_found_with_its_mend(changes: dict[str, Any], what: str) -> None:
    [found] = findings({"h1": {**FINE, **changes}}, {}, (99.0, 101.0))
    assert what in found.what
    assert found.mend


def test_closed_ports_of_a_host_outside_the_swarm_are_no_findings() -> None:
    closed = {"tcp_7946": "refused"}
    inside = {**FINE, "ports": {"192.0.2.2": closed}}
    joining = {**FINE, "ports": {"192.0.2.1": {"tcp_7946": "open"}}}
    outside = {**joining, "swarm": {"state": "inactive"}}
    told = findings({"h1": inside, "h2": outside}, {}, (99.0, 101.0))
    assert [(item.host, "no member" in item.what) for item in told] == [("h2", True)]
    [told] = findings({"h1": inside, "h2": joining}, {}, (99.0, 101.0))
    assert told.host == "h1"
    assert "does not reach" in told.what


def test_hosts_of_different_packet_sizes_and_silent_ones_are_found() -> None:
    said = {"h1": FINE, "h2": {**FINE, "mtu": 1400}}
    found = findings(said, {"h3": "No route to host"}, (99.0, 101.0))
    assert [(item.host, bool(item.mend)) for item in found] == [("h3", True), ("h1", False)]


ADDRESSED = {
    "h1": {**FINE, "addresses": ["192.0.2.1"], "closed": ["192.0.2.0/30", "10.112.0.0/12"]},
    "h2": {**FINE, "addresses": ["192.0.2.2", "192.0.2.77"], "closed": None},
}


def test_a_firewall_that_does_not_close_an_address_of_a_host_is_found() -> None:
    found = [item for item in findings(ADDRESSED, {}, (99.0, 101.0)) if item.check == "egress"]
    assert [(item.host, item.what) for item in found] == [
        ("h1", "Its firewall does not close 192.0.2.77 of the hosts to tenants.")
    ]
    closed = {**ADDRESSED, "h1": {**ADDRESSED["h1"], "closed": ["192.0.2.0/24"]}}
    assert not [item for item in findings(closed, {}, (99.0, 101.0)) if item.check == "egress"]


def test_firewalls_are_told_that_lack_an_address_or_that_were_not_asked_since_it_is_there() -> None:
    hosts, addresses = ["h1", "h2", "h3"], ["192.0.2.1", "192.0.2.2", "192.0.2.77"]
    # On h2 nobody has rules.
    assert hosting.to_close(hosts, ADDRESSED, addresses, are_new=False) == ["h1"]
    assert hosting.to_close(hosts, ADDRESSED, addresses, are_new=True) == ["h1", "h3"]
    assert hosting.to_close(hosts, ADDRESSED, addresses[:2], are_new=False) == []


def test_a_check_that_finds_an_address_has_it_closed_on_all_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    monkeypatch.setenv("EPIC_INVENTORY", str(tmp_path / "hosts.yml"))
    store = Store(f"sqlite:///{tmp_path}/store.db")
    told: list[tuple[str, Any, list[str]]] = []

    def play(verb: str, inventory: Any, directory: Path, *, limit: Any, **_: Any) -> Translator:
        del directory
        told.append((verb, inventory["all"]["vars"], [*limit]))
        heard = Translator(lambda _: None)
        if verb == "host-check":
            heard.facts = {"h2": {**FINE, "addresses": ["192.0.2.77"], "closed": ["192.0.2.1"]}}
        return heard

    monkeypatch.setattr(hosting, "run_playbook", play)
    for expected in (["h1", "h2", "h3"], None):
        told.clear()
        hosting.check(Context(store, site_hosts(store)), ["h2"])
        closing = [item for item in told if item[0] == "host-close"]
        if expected:
            addresses = {"host_close_addresses": ["192.0.2.1", "192.0.2.77"]}
            [(verb, given, hosts)] = closing
            assert (verb, given, sorted(hosts)) == ("host-close", addresses, expected)
        else:
            # It is known by now; only a firewall that lacks it is told again.
            assert [hosts for _, _, hosts in closing] == [["h2"]]
    with store.read() as transaction:
        assert "192.0.2.77" in transaction.hosts()["h2"].facts["closed"]
    store.close()


DEAD = """\
docker_hosts:
  vars: {ansible_host: 127.0.0.1, ansible_port: 9, ansible_ssh_retries: 0}
  hosts: {h1: {}, h2: {}}
"""


def test_a_host_that_could_not_be_taken_out_of_the_swarm_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts.yml").write_text(DEAD)
    monkeypatch.setenv("EPIC_INVENTORY", str(tmp_path / "hosts.yml"))
    store = Store(f"sqlite:///{tmp_path}/store.db")
    with store.transaction() as transaction:
        transaction.put_host(HostRecord("h2", FACTS, 1.0))
    with pytest.raises(EpicError, match="None of the hosts answers, so h2 cannot be taken out"):
        hosting.remove(Context(store, site_hosts(store)), "h2")
    with store.read() as transaction:
        assert "h2" in transaction.hosts()
    store.close()
