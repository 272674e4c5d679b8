"""Images reach the hosts of a laboratory: only what they lack, to all at once, and never half."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from life_support import until

from epic_runner import docker_build
from epic_runner.errors import EpicError
from epic_runner.images import rootfs

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTS = ["host-1", "host-2", "host-3"]
MIB = 2**20
# What a registry's access log tells of an answer: the request, its status and its size.
ANSWER = re.compile(r'"GET (/v2/\S+/blobs/\S+) [^"]*" 200 (\d+)')

# How ansible-playbook -v tells what came of a host.
RESULT = re.compile(r"^(?:ok|changed|fatal): \[([\w-]+)\](?:: FAILED!)? => (\{.*\})$", re.MULTILINE)


def docker(*words: str, given: bytes | None = None) -> str:
    done = subprocess.run(["docker", *words], input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {words}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def layer(name: str, size: int) -> bytes:
    """Return a tar of one file that no compression makes smaller."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(os.urandom(size)))
    return stream.getvalue()


@dataclass
class Lab:
    """A laboratory, a registry and an image of this test alone."""

    folder: Path
    name: str = field(default_factory=lambda: f"images{secrets.token_hex(3)}")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "EPIC_LAB": self.name, "EPIC_HOME": str(self.folder)}

    @property
    def registry(self) -> str:
        return f"epic-registry-{self.name}"

    @property
    def image(self) -> str:
        return f"epic/{self.name}:1-r1"

    def lab(self, *words: str) -> str:
        done = subprocess.run(
            [str(ROOT / "scripts" / "lab"), *words],
            capture_output=True, text=True, check=False, env=self.environment, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def begin(self, *options: str, **variables: Any) -> subprocess.Popen[str]:
        """Start plain ansible-playbook, at the head of a process group of its own."""
        given = {
            "epic_images": [self.image],
            "epic_registry_container": self.registry,
            **variables,
        }
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-v", "-i", self.lab("inventory"), *options,
            str(ROOT / "playbooks" / "images.yml"), "-e", json.dumps(given),
        ]  # fmt: skip
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            start_new_session=True,
            env={**self.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )  # fmt: skip

    def bring(self, *options: str, failed: bool = False, **variables: Any) -> dict[str, Any]:
        """Run the playbook to its end; return what came of each host."""
        process = self.begin(*options, **variables)
        out, _ = process.communicate(timeout=600)
        assert (process.returncode != 0) is failed, out
        return {name: json.loads(result) for name, result in RESULT.findall(out)}

    def add_layer(self, size: int) -> None:
        """Make the image anew: what it is, and a file more."""
        content = layer(f"file-{secrets.token_hex(3)}", size)
        if docker("images", "-q", self.image):
            made = docker("create", self.image, "none")
            docker("cp", "-", f"{made}:/", given=content)
            docker("commit", made, self.image)
            docker("rm", made)
        else:
            docker("import", "-", self.image, given=content)

    def id(self) -> str:
        return docker("image", "inspect", "-f", "{{.Id}}", self.image)

    def answers(self, host: str) -> None:
        """Wait for a host's sshd, which starts anew when it is told to read its files again."""

        def asked() -> bool:
            words = [str(ROOT / "scripts" / "lab"), "ssh", host, "true"]
            return not subprocess.run(
                words, check=False, capture_output=True, env=self.environment
            ).returncode

        # Twice: the first answer may be the old one's last.
        until(lambda: asked() and asked(), f"sshd of {host} answers")

    def id_on(self, host: str) -> str:
        return self.lab("ssh", host, "docker", "image", "inspect", "-f", "'{{.Id}}'", self.image)

    def served(self) -> list[tuple[str, int]]:
        """Return the blobs that the registry has handed out so far, with their sizes."""
        done = subprocess.run(
            ["docker", "logs", self.registry], capture_output=True, text=True, check=True
        )
        found = ANSWER.findall(done.stdout + done.stderr)
        return [(path, int(size)) for path, size in found]

    def forwards(self) -> list[int]:
        """Return the processes of this machine that hold a port of a host open."""
        key = str(self.folder).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes()
            except OSError:
                continue
            if key in words and b"\0-R\0" in words:
                found.append(int(entry.parent.name))
        return found

    def listening(self, host: str) -> set[str]:
        """Return the addresses at which something listens on a host."""
        lines = self.lab("ssh", host, "ss", "-Hltn").splitlines()
        return {line.split()[3] for line in lines}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("images"))
    made.lab("up")
    made.add_layer(2 * MIB)
    yield made
    made.lab("down")
    for left in (["rm", "-f"], ["volume", "rm", "-f"]):
        docker(*left, made.registry)
    docker("rmi", "-f", made.image)


def test_an_image_reaches_all_hosts_and_is_named_there_as_here(lab: Lab) -> None:
    came = lab.bring()
    assert {name: came[name]["images"] for name in HOSTS} == {
        name: {lab.image: "pulled"} for name in HOSTS
    }
    for name in HOSTS:
        assert lab.id_on(name) == lab.id()
        names = lab.lab("ssh", name, "docker images --format '{{.Repository}}'").splitlines()
        assert names == [lab.image.partition(":")[0]]
        assert came[name]["moved_bytes"] > 2 * MIB
    # Nor is anything left here of the name by which it was pushed.
    assert "127.0.0.1" not in docker("images", "--format", "{{.Repository}}")


def test_the_second_time_nothing_moves_and_nobody_asks_the_registry(lab: Lab) -> None:
    before = lab.served()
    came = lab.bring()
    assert [came[name]["changed"] for name in HOSTS] == [False] * 3
    assert lab.served() == before


def test_the_registry_listens_on_the_loopback_address_only(lab: Lab) -> None:
    [published] = docker("port", lab.registry).splitlines()
    assert published.startswith("5000/tcp -> 127.0.0.1:")
    port = published.rpartition(":")[2]
    done = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    found = {line.split()[3] for line in done.splitlines() if line.split()[3].endswith(f":{port}")}
    assert found == {f"127.0.0.1:{port}"}


def test_of_a_changed_image_only_the_new_layer_moves(lab: Lab) -> None:
    before = len(lab.served())
    lab.add_layer(5 * MIB)
    came = lab.bring()
    served = lab.served()[before:]
    # A layer and the image's description, for each host.
    assert len(served) == 2 * len(HOSTS)
    assert sum(size for _, size in served) < len(HOSTS) * 5.5 * MIB
    for name in HOSTS:
        assert lab.id_on(name) == lab.id()
        assert 5 * MIB < came[name]["moved_bytes"] < 5.5 * MIB


def test_an_image_of_the_same_name_that_is_another_one_is_replaced(lab: Lab) -> None:
    lab.lab("ssh", "host-2", f"tar -cT /dev/null | docker import - {lab.image}")
    assert lab.id_on("host-2") != lab.id()
    before = len(lab.served())
    came = lab.bring()
    assert {name: came[name]["changed"] for name in HOSTS} == {
        "host-1": False, "host-2": True, "host-3": False,
    }  # fmt: skip
    assert lab.id_on("host-2") == lab.id()
    # What it replaced is gone, and its layers were still there.
    assert len(lab.lab("ssh", "host-2", "docker", "images", "-aq").splitlines()) == 1
    assert sum(size for _, size in lab.served()[before:]) < MIB


def test_looking_changes_nothing(lab: Lab) -> None:
    lab.lab("ssh", "host-1", "docker", "rmi", "-f", lab.image)
    came = lab.bring("--check")
    assert [came[name]["changed"] for name in HOSTS] == [True, False, False]
    assert not lab.lab("ssh", "host-1", "docker", "images", "-q")


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_leaves_no_way_in_and_the_next_one_finishes(
    lab: Lab, how: signal.Signals
) -> None:
    lab.add_layer(60 * MIB)
    before = {name: lab.listening(name) for name in HOSTS}
    process = lab.begin()
    until(lambda: len(lab.forwards()) == len(HOSTS), "all hosts to be pulling", pause=0.02)
    opened = set().union(*(lab.listening(name) - before[name] for name in HOSTS))
    assert opened
    assert all(address.startswith("127.0.0.1:") for address in opened)
    # Ansible's own process first, so that no other is told to end by it.
    if how == signal.SIGKILL:
        os.kill(process.pid, how)
    os.killpg(process.pid, how)
    process.communicate(timeout=60)
    until(lambda: not lab.forwards(), "the connections to end", seconds=20)
    for name in HOSTS:
        until(
            lambda name=name: lab.listening(name) <= before[name], "the port to close", seconds=20
        )
    began = time.monotonic()
    lab.bring()
    assert time.monotonic() - began < 120
    assert [lab.id_on(name) for name in HOSTS] == [lab.id()] * 3


def test_a_registry_of_the_site_is_pushed_to_and_pulled_from(lab: Lab) -> None:
    """One that every host has at the same address, as a name in DNS would give."""
    lab.add_layer(MIB)
    port = docker("port", lab.registry).rpartition(":")[2]
    inventory = lab.folder / "labs" / lab.name
    options = ["-i", str(inventory / "key"), "-o", f"UserKnownHostsFile={inventory}/known_hosts"]
    [address] = re.findall(
        r"host-1: \{ansible_host: ([\d.]+)", (inventory / "hosts.yml").read_text()
    )
    command = ["ssh", *options, "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-N",
               "-R", f"127.0.0.1:{port}:127.0.0.1:{port}", f"root@{address}"]  # fmt: skip
    with subprocess.Popen(command) as road:
        try:
            until(lambda: f"127.0.0.1:{port}" in lab.listening("host-1"), "the registry's address")
            came = lab.bring("--limit", "host-1", epic_registry=f"127.0.0.1:{port}/site")
        finally:
            road.terminate()
    assert came["host-1"]["images"] == {lab.image: "pulled"}
    assert lab.id_on("host-1") == lab.id()
    assert any(path.startswith("/v2/site/epic/") for path, _ in lab.served())


def test_the_base_of_images_is_pulled_where_a_registry_answers(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a new machine, which has not made one itself.
    monkeypatch.setattr(rootfs, "LOCAL_REFERENCE", f"{lab.image}-none")
    # Of its own content, so that it can come from there alone.
    content = layer("base", MIB)
    wanted = f"{docker('port', lab.registry, '5000/tcp')}/debian:12-slim"
    docker("import", "-", wanted, given=content)
    docker("push", "--quiet", wanted)
    pushed = docker("image", "inspect", "-f", "{{.Id}}", wanted)
    docker("rmi", wanted)
    told: list[str] = []
    engine = docker_build.connect()
    assert rootfs.get_parent(wanted, engine, told.append) == wanted
    try:
        assert told == [f"pulling {wanted}"]
        assert docker("image", "inspect", "-f", "{{.Id}}", wanted) == pushed
        with pytest.raises(EpicError, match="cannot be pulled"):
            rootfs.get_parent(f"{wanted}-none", engine, told.append, exactly=True)
    finally:
        docker("rmi", wanted)


def test_a_registry_that_does_not_answer_is_named(lab: Lab) -> None:
    lab.add_layer(MIB)
    came = lab.bring("--limit", "host-1", failed=True, epic_registry="127.0.0.1:9")
    assert came["host-1"]["msg"].startswith(f"127.0.0.1:9 did not take {lab.image}: ")
    assert "check the name" in came["host-1"]["hint"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("setting", "message", "advice"),
    [
        ("AllowTcpForwarding no", "SSH opens no way back to the registry: ", "AllowTcpForwarding"),
        ("GatewayPorts yes", "sshd opens the forwarded port ", "GatewayPorts"),
    ],
)
def test_a_host_whose_sshd_forwards_nothing_or_to_everybody_is_told_what_to_set(
    lab: Lab, setting: str, message: str, advice: str
) -> None:
    lab.add_layer(MIB)
    before = lab.id_on("host-1")
    configured = "/etc/ssh/sshd_config.d/test.conf"
    lab.lab("ssh", "host-1", f"echo {setting} > {configured}; pkill -HUP -o sshd")
    try:
        lab.answers("host-1")
        came = lab.bring("--limit", "host-1", failed=True)
    finally:
        lab.lab("ssh", "host-1", f"rm {configured}; pkill -HUP -o sshd")
        lab.answers("host-1")
    assert came["host-1"]["msg"].startswith(message)
    assert advice in came["host-1"]["hint"]
    assert lab.id_on("host-1") == before


def test_an_image_that_is_nowhere_names_what_to_build(lab: Lab) -> None:
    came = lab.bring("--limit", "host-1", failed=True, epic_images=["epic/none:1"])
    assert came["host-1"]["missing_images"] == ["epic/none:1"]
    assert "neither on this host nor built on the controller" in came["host-1"]["msg"]


@pytest.mark.faults
def test_a_host_without_room_is_told_to_make_some(lab: Lab) -> None:
    lab.add_layer(60 * MIB)
    full = "mount -t tmpfs -o size=8m none /var/lib/docker/tmp"
    lab.lab("ssh", "host-1", full)
    try:
        came = lab.bring("--limit", "host-1", failed=True)
    finally:
        lab.lab("ssh", "host-1", "umount -l /var/lib/docker/tmp")
    assert f"could not pull {lab.image}: " in came["host-1"]["msg"]
    assert "no space left on device" in came["host-1"]["msg"]
    assert "Make room on the host" in came["host-1"]["hint"]
    assert lab.bring("--limit", "host-1")["host-1"]["images"] == {lab.image: "pulled"}


@pytest.mark.faults
def test_a_controller_without_an_engine_leaves_hosts_as_they_are(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    came = lab.bring("--limit", "host-1")
    assert came["host-1"]["images"] == {lab.image: "unchanged"}
    came = lab.bring("--limit", "host-1", failed=True, epic_images=["epic/none:1"])
    assert came["host-1"]["msg"].startswith("Docker on the controller: ")
