"""The laboratory: simulated hosts of two Docker generations, reached by SSH, and cut off."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from life_support import until

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTS = ["host-1", "host-2", "host-3"]
# The smallest image there is: a program and what it is linked with.
TINY = "tar -ch /bin/sleep /lib/x86_64-linux-gnu/libc.so.6 /lib64/ld-linux-x86-64.so.2"


class Lab:
    """A laboratory of this test alone."""

    def __init__(self, folder: Path) -> None:
        self.name = f"test{uuid.uuid4().hex[:8]}"
        self.environment = {**os.environ, "EPIC_LAB": self.name, "EPIC_HOME": str(folder)}

    def call(self, *words: str) -> str:
        done = self.attempt(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "scripts" / "lab"), *words],
            capture_output=True, text=True, check=False, env=self.environment, timeout=600,
        )  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"))
    made.call("up")
    yield made
    made.call("down")
    for kind in ("container", "network"):
        left = ["docker", kind, "ls", "-q", "--filter", f"label=epic.lab={made.name}"]
        assert subprocess.run(left, capture_output=True, check=True).stdout == b""


def test_there_are_hosts_of_two_generations_of_docker(lab: Lab) -> None:
    versions = [line.rsplit(" ", 1)[1] for line in lab.call("status").splitlines()]
    assert [version.split(".")[:2] for version in versions[:2]] == [["20", "10"]] * 2
    assert int(versions[2].split(".")[0]) >= 26


def test_ansible_reaches_every_host_by_the_inventory_that_was_written(lab: Lab) -> None:
    ansible = Path(sys.executable).parent / "ansible"
    inventory = lab.call("inventory").strip()
    done = subprocess.run(
        [ansible, "-i", inventory, "docker_hosts", "-m", "ping"],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"pong"') == len(HOSTS)


def test_hosts_reach_each_other_and_nothing_else(lab: Lab) -> None:
    for name in HOSTS:
        for other in HOSTS:
            lab.call("ssh", name, "nc", "-z", "-w", "2", other, "22")
        outside = lab.attempt("ssh", name, "ping", "-c", "1", "-W", "1", "192.0.2.1")
        assert outside.returncode != 0
        # At once, and not for want of an answer.
        assert "No route to host" in outside.stderr or "unreachable" in outside.stderr


def test_hosts_run_containers_with_limits(lab: Lab) -> None:
    for name in HOSTS:
        lab.call("ssh", name, f"{TINY} | docker import - tiny")
        limits = "--cpus 1 --memory 64m --network none"
        lab.call("ssh", name, f"docker run -d --name one {limits} tiny /bin/sleep 1000")
        shown = lab.call("ssh", name, "docker inspect -f '{{.HostConfig.Memory}}' one")
        assert int(shown) == 64 * 2**20


def test_hosts_have_one_folder_in_common(lab: Lab) -> None:
    lab.call("ssh", "host-1", "echo seen > /srv/shared/file")
    assert lab.call("ssh", "host-3", "cat /srv/shared/file").strip() == "seen"
    lab.call("ssh", "host-2", "rm /srv/shared/file")


@pytest.mark.faults
def test_a_swarm_works_again_after_all_hosts_restarted_together(lab: Lab) -> None:
    """Also when they start in another order, in which Docker would have swapped their addresses."""
    address = "$(hostname -i)"
    lab.call("ssh", "host-1", f"docker swarm init --advertise-addr {address}")
    token = lab.call("ssh", "host-1", "docker swarm join-token -q manager").strip()
    for name in HOSTS[1:]:
        join = f"docker swarm join --token {token} --advertise-addr {address} host-1:2377"
        lab.call("ssh", name, join)
    before = lab.call("status")
    containers = [f"epic-{lab.name}-{name}" for name in HOSTS]
    subprocess.run(["docker", "stop", "--time", "1", *containers], check=True, capture_output=True)
    for container in reversed(containers):
        subprocess.run(["docker", "start", container], check=True, capture_output=True)
    lab.call("up")
    assert lab.call("status") == before
    for name in HOSTS:
        said = lab.call("ssh", name, "docker node ls --format '{{.ManagerStatus}}'").split()
        assert sorted(said) == ["Leader", "Reachable", "Reachable"]
        lab.call("ssh", name, f"docker network create --driver overlay --attachable net-{name}")
    for name in HOSTS:
        lab.call("ssh", name, "docker swarm leave --force")


def test_an_engine_that_dies_comes_back(lab: Lab) -> None:
    lab.call("ssh", "host-1", "pkill -KILL -x dockerd")
    until(lambda: lab.attempt("ssh", "host-1", "docker", "version").returncode == 0, "Docker again")


def test_up_once_more_changes_nothing(lab: Lab) -> None:
    names = ["docker", "ps", "-q", "--filter", f"label=epic.lab={lab.name}"]
    before = subprocess.run(names, capture_output=True, check=True).stdout
    lab.call("up")
    assert subprocess.run(names, capture_output=True, check=True).stdout == before


@pytest.mark.parametrize("words", [[], ["sideways"], ["ssh"]])
def test_bad_usage_is_told(lab: Lab, words: list[str]) -> None:
    done = lab.attempt(*words)
    assert (done.returncode, "scripts/lab --help" in done.stderr) == (2, True)
