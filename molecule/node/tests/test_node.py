"""What the role `node` makes of a wish: machines with accounts, files, services and limits."""

from __future__ import annotations

import json
import urllib.request

import pytest

GIB = 2**30


@pytest.mark.parametrize("name", ["server-1", "client-1"])
def test_a_node_is_a_machine_with_a_name_and_an_init(node, name):
    assert node(name).check_output("hostname") == f"lab-{name}"
    assert node(name).process.get(pid=1).comm == "s6-svscan"


@pytest.mark.parametrize("name", ["server-1", "client-1"])
def test_members_have_accounts_and_homes(node, name):
    ada = node(name).user("ada")
    assert (ada.uid, ada.gid, ada.home, ada.shell) == (20000, 20000, "/home/ada", "/bin/bash")
    assert {"ada", "tenant"} == set(ada.groups)
    assert {"ada", "bob"} <= set(node(name).group("tenant").members)
    home = node(name).file("/home/ada")
    assert (home.user, home.group, home.mode) == ("ada", "ada", 0o750)


def test_only_members_with_sudo_become_root(node):
    become_root = "sudo -n -u {} sudo -n id -u"
    assert node("server-1").check_output(become_root.format("ada")) == "0"
    assert node("server-1").run(become_root.format("bob")).failed


def test_files_are_written_as_wanted(node):
    greeting = node("server-1").file("/etc/web/greeting")
    assert greeting.content_string == "hello\n"
    assert (greeting.user, greeting.group, greeting.mode) == ("root", "tenant", 0o640)
    assert not node("client-1").file("/etc/web/greeting").exists


def test_directories_are_made_as_wanted(node):
    made = node("server-1").file("/data/web")
    assert (made.user, made.group, made.mode) == ("ada", "tenant", 0o2770)


def test_a_secret_is_seen_by_its_owner_alone(node, inspect):
    word = node("server-1").file("/etc/epic/secrets/word")
    assert (word.content_string, word.user, word.mode) == ("swordfish", "ada", 0o400)
    assert node("server-1").run("sudo -n -u bob cat /etc/epic/secrets/word").failed
    assert "swordfish" not in json.dumps(inspect("server-1"))


def test_a_service_runs_under_its_own_account_and_keeps_a_log(node):
    server = node("server-1")
    assert server.process.get(comm="python3").user == "ada"
    assert server.check_output("curl -sf http://localhost:8000/") == "lab-server-1"
    assert server.file("/data/log/web/current").contains("GET / HTTP")


def test_a_service_that_dies_is_started_again(node):
    server = node("server-1")
    first = server.process.get(comm="python3").pid
    server.check_output(
        f"kill -9 {first}; while kill -0 {first} 2>/dev/null; do sleep 0.05; done;"
        " epic-wait http http://localhost:8000/ --timeout 30"
    )
    assert server.process.get(comm="python3").pid != first


def test_nodes_reach_one_another_by_name(node):
    assert node("client-1").check_output("curl -sf http://lab-server-1:8000/") == "lab-server-1"


def test_a_port_is_published_on_the_loopback_address_alone(inspect):
    (published,) = inspect("server-1")["NetworkSettings"]["Ports"]["8000/tcp"]
    assert published["HostIp"] == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{published['HostPort']}/") as answer:
        assert answer.read() == b"lab-server-1\n"


def test_members_share_the_storage_of_their_tenant(node):
    write = "sudo -n -u ada sh -c 'umask 002; mkdir -p /tenant/shared; echo 1 >/tenant/shared/file'"
    append = "sudo -n -u bob sh -c 'echo 2 >>/tenant/shared/file && cat /tenant/shared/file'"
    node("client-1").check_output(write)
    assert node("server-1").check_output(append) == "1\n2"


def test_a_node_has_limits_and_no_privileges(inspect):
    limits = inspect("server-1")["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["PidsLimit"]) == (10**9, GIB, 1024)
    assert limits["MemorySwap"] == limits["Memory"]
    assert not limits["Privileged"]
    assert limits["CapDrop"] == ["ALL"]
    assert "SYS_ADMIN" not in limits["CapAdd"]


def test_a_node_says_in_labels_whose_it_is(inspect):
    labels = inspect("client-1")["Config"]["Labels"]
    assert labels["epic.cluster"] == "lab"
    assert labels["epic.tenant"] == inspect("client-1")["Name"].split(".")[1]
    assert (labels["epic.role"], labels["epic.index"]) == ("client", "1")
    assert labels["epic.owner"] == "ada"
