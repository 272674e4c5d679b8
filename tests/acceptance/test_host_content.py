"""The playbooks that prepare, check and remove Docker hosts, on the laboratory's three."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_lab import HOSTS, ROOT, Lab

pytestmark = pytest.mark.docker

# An image of two programs and what they are linked with.
PING = "tar -ch $(ldd /bin/ping /bin/sleep | grep -o '/[^ :]*' | sort -u) | docker import - ping"
OVERLAY = "docker network create --driver overlay --attachable --internal span"


class Content:
    """The playbooks on a laboratory of this file alone."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.inventory = lab.call("inventory").strip()

    def play(self, name: str, *options: str, code: int = 0) -> str:
        """Run a playbook, and return what it says."""
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", self.inventory,
             f"playbooks/{name}.yml", *options],
            capture_output=True, text=True, check=False, timeout=600, cwd=ROOT,
            env={**self.lab.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def changed(self, name: str, *options: str) -> dict[str, int]:
        """Run a playbook, and return how many of its tasks changed something, by host."""
        recap = re.compile(r"^(\S+) +: .*changed=(\d+)", re.MULTILINE)
        return {host: int(count) for host, count in recap.findall(self.play(name, *options))}

    def nodes(self, at: str) -> dict[str, str]:
        """Return the hosts of the swarm and what they are in it, as a manager sees them."""
        said = self.lab.call(
            "ssh", at, "docker node ls --format '{{.Hostname}}={{.ManagerStatus}}'"
        )
        return dict(line.split("=") for line in said.split())

    def membership(self, host: str) -> str:
        """Return whether a host takes itself for a part of a swarm."""
        return self.lab.call("ssh", host, "docker info -f '{{.Swarm.LocalNodeState}}'").strip()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Content]:
    lab = Lab(tmp_path_factory.mktemp("hosts"))
    lab.call("up")
    yield Content(lab)
    lab.call("down")


def test_what_would_be_prepared_is_told_and_not_done(content: Content) -> None:
    assert all(content.changed("host-prepare", "--check").values())
    for host in HOSTS:
        assert content.membership(host) == "inactive"
        assert content.lab.attempt("ssh", host, "test -e /etc/sysctl.d/60-epic.conf").returncode


def test_three_hosts_become_one_swarm_of_three_managers(content: Content) -> None:
    # The token of the swarm must not be told, however much else is.
    said = content.play("host-prepare", "-vvv")
    token = content.lab.call("ssh", "host-1", "docker swarm join-token -q worker").strip()
    assert token
    assert token not in said
    assert sorted(content.nodes("host-1").items()) == [
        ("host-1", "Leader"), ("host-2", "Reachable"), ("host-3", "Reachable"),
    ]  # fmt: skip


def test_preparing_again_changes_nothing(content: Content) -> None:
    assert content.changed("host-prepare") == dict.fromkeys(HOSTS, 0)
    # Neither does it on one host alone, which cannot see by itself that there is a swarm.
    assert content.changed("host-prepare", "--limit", "host-2") == {"host-2": 0}


def test_the_settings_of_the_kernel_are_kept_in_files(content: Content) -> None:
    settings = content.lab.call("ssh", "host-3", "cat /etc/sysctl.d/60-epic.conf")
    assert "net.ipv4.ip_forward = 1" in settings
    # What belongs to the machine below a simulated host is left alone.
    assert "max_map_count" not in settings
    assert "overlay" in content.lab.call("ssh", "host-3", "cat /etc/modules-load.d/epic.conf")


def test_a_check_tells_what_hosts_have_and_changes_nothing(content: Content) -> None:
    said = content.play("host-check")
    assert not re.search(r"changed=[1-9]", said)
    facts: dict[str, Any] = {}
    for match in re.finditer(r"^ok: \[(\S+)\] => (?=\{)", said, re.MULTILINE):
        block, _ = json.JSONDecoder().raw_decode(said, match.end())
        facts[match[1]] = block["host_check.epic_facts"]
    assert sorted(facts) == HOSTS
    for found in facts.values():
        assert found["cores"] >= 1
        assert 0 < found["disk_free_bytes"] < found["disk_bytes"]
        assert (found["interface"], found["mtu"]) == ("eth0", 1500)
        assert (found["swarm"]["role"], found["swarm"]["managers_reachable"]) == ("manager", 3)
        assert len(found["ports"]) == 2
        for ports in found["ports"].values():
            assert ports == {
                "tcp_2377": "open", "tcp_7946": "open",
                "udp_7946": "unknown", "udp_4789": "unknown",
            }  # fmt: skip
    assert facts["host-1"]["docker_version"].startswith("20.10")
    assert facts["host-3"]["os"]["version"] == "13"


def test_an_internal_overlay_carries_packets_between_hosts(content: Content) -> None:
    for host in ("host-1", "host-3"):
        content.lab.call("ssh", host, PING)
    content.lab.call("ssh", "host-1", OVERLAY)
    run = "docker run --rm --network span"
    content.lab.call("ssh", "host-1", f"{run} --detach --name far ping /bin/sleep 600")
    said = content.lab.call("ssh", "host-3", f"{run} ping /bin/ping -c 3 -w 20 far")
    assert " 0% packet loss" in said
    content.lab.call("ssh", "host-1", "docker rm --force far && docker network rm span")


def test_removing_a_host_that_is_not_there_is_refused(content: Content) -> None:
    assert "Which host" in content.play("host-remove", code=2)
    said = content.play("host-remove", "-e", "host_remove_name=host-9", code=2)
    assert 'has a host \\"host-9\\"' in said
    assert "host-1, host-2, host-3" in said


def test_a_dead_host_is_removed(content: Content) -> None:
    stop = ["docker", "stop", "--time", "2", f"epic-{content.lab.name}-host-3"]
    subprocess.run(stop, check=True, capture_output=True)
    content.play("host-remove", "-e", "host_remove_name=host-3")
    # Of two managers either one's death would be the end of the swarm.
    assert content.nodes("host-1") == {"host-1": "Leader", "host-2": ""}
    assert content.changed("host-remove", "-e", "host_remove_name=host-3")["host-1"] == 0


def test_a_living_host_is_removed_and_another_one_takes_over(content: Content) -> None:
    content.play("host-remove", "-e", "host_remove_name=host-1")
    assert content.nodes("host-2") == {"host-2": "Leader"}
    assert content.membership("host-1") == "inactive"


def test_hosts_that_were_removed_come_back(content: Content) -> None:
    # One of them died as a manager, and does not know that the others went on without it.
    content.lab.call("up")
    assert content.membership("host-3") in {"active", "pending"}
    content.play("host-prepare")
    assert sorted(content.nodes("host-2").items()) == [
        ("host-1", "Reachable"), ("host-2", "Leader"), ("host-3", "Reachable"),
    ]  # fmt: skip
    assert set(content.changed("host-prepare").values()) == {0}
