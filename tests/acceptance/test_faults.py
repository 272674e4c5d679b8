"""Faults of the engine itself: it restarts, it dies, its disk is full.

They happen to an engine of the tests' own, in a network of its own and with its data in memory,
so that nobody else's containers are there to be harmed. Needs root, as dockerd does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import life_support
import pytest
from life_support import Site, until

pytestmark = [pytest.mark.docker, pytest.mark.faults]

BOTH = ["master-1", "worker-1"]
# The images with all their layers, once more while they are unpacked, and room for some containers.
IMAGE_BYTES = 5 * 2**30
DOCKERD = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin") or "dockerd"


class Engine:
    """A Docker engine that may be harmed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.address = f"unix://{folder}/docker.sock"
        self.data.mkdir()
        # Who holds the namespaces: they outlive every engine that runs in them.
        self._holder = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "infinity"])
        self.within = ("nsenter", "--net", "--mount", f"--target={self._holder.pid}")
        own = Path("/proc/self/ns/net").readlink()
        until(
            lambda: Path(f"/proc/{self._holder.pid}/ns/net").readlink() != own, "a network of ours"
        )
        self.call("ip", "link", "set", "lo", "up")
        size = f"size={IMAGE_BYTES}"
        self.call("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.data))
        self._engine: subprocess.Popen[bytes] | None = None

    def call(self, *command: str) -> None:
        subprocess.run([*self.within, *command], check=True, capture_output=True, timeout=120)

    def start(self) -> None:
        with (self.folder / "dockerd.log").open("ab") as log:
            self._engine = subprocess.Popen(
                [
                    *self.within, DOCKERD, f"--host={self.address}", "--bridge=none",
                    f"--data-root={self.data}", f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/docker.pid",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        engine = self._engine
        until(lambda: self.answers() or engine.poll() is not None, "the engine answers")
        assert engine.poll() is None, (self.folder / "dockerd.log").read_text()[-2000:]

    def answers(self) -> bool:
        ping = ["docker", "--host", self.address, "version"]
        return subprocess.run(ping, capture_output=True, check=False, timeout=60).returncode == 0

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self._engine is not None
        self._engine.send_signal(how)
        self._engine.wait(120)
        if how is signal.SIGKILL:
            # The kernel ends its containerd with it, as where both are one service; without an
            # init that reaps, the file would tell of a process that seems to live.
            (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
            (self.folder / "docker.pid").unlink(missing_ok=True)

    def take(self, *images: str) -> None:
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "--host", self.address, "load"],
                stdin=save.stdout, check=True, capture_output=True, timeout=600,
            )  # fmt: skip

    def close(self) -> None:
        if self._engine is not None and self._engine.poll() is None:
            self.end()
        self._holder.kill()
        self._holder.wait()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    try:
        made.start()
        from epic_runner.catalog import load_catalog
        from epic_runner.resources import content_root

        apps = {app.name: app for app in load_catalog(content_root() / "images")}
        made.take(apps["spark"].reference, apps["firewall"].reference)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def site(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    with life_support.site(folder, docker_host=engine.address, within=engine.within) as made:
        yield made


@pytest.fixture(scope="module")
def template(site: Site) -> str:
    return site.template()


def test_a_cluster_outlives_a_restart_of_the_engine(
    site: Site, engine: Engine, template: str
) -> None:
    site.run("launch", template)
    site.is_as_wanted(BOTH)
    made = {name: item["Id"] for name, item in site.nodes().items()}
    engine.end()
    engine.start()
    until(lambda: site.status()["health"] == "green", "the cluster is back by itself")
    assert {name: item["Id"] for name, item in site.nodes().items()} == made
    site.is_as_wanted(BOTH)


def test_a_cluster_outlives_the_death_of_the_engine(
    site: Site, engine: Engine, template: str
) -> None:
    engine.end(signal.SIGKILL)
    engine.start()
    site.run("launch", template)
    site.is_as_wanted(BOTH)


def test_an_engine_that_is_down_is_told(site: Site, engine: Engine, template: str) -> None:
    engine.end()
    status = site.status()
    assert status["health"] == "red"
    assert all("does not answer" in node["reason"] for node in status["nodes"])
    assert [item["name"] for item in site.json("list")] == ["lab"]
    begun = time.monotonic()
    for command in (["launch", template], ["stop", "lab"], ["destroy", "lab", "--yes"]):
        assert "docker.sock" in site.run(*command, code=1).err
    assert time.monotonic() - begun < life_support.LIMIT_SECONDS
    engine.start()
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_launch_is_finished_after_the_engine_went_away_in_its_middle(
    site: Site, engine: Engine, template: str, how: signal.Signals
) -> None:
    process = site.begin("launch", template)
    until(lambda: site.labelled("container") or process.poll() is not None, "a container is made")
    engine.end(how)
    out, err = process.communicate(timeout=life_support.LIMIT_SECONDS)
    assert process.returncode == 1, out + err
    assert "Error: " in err
    assert "Traceback" not in err
    engine.start()
    assert site.status()["operation"]["state"] == "failed"
    site.run("launch", template)
    site.is_as_wanted(BOTH)
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


def test_a_launch_is_finished_once_a_full_disk_has_room_again(
    site: Site, engine: Engine, template: str
) -> None:
    filler = engine.data / "filler"
    # More than there is: what fits is written, and then nothing is left.
    subprocess.run(
        [*engine.within, "dd", "if=/dev/zero", f"of={filler}", "bs=1M"],
        check=False, capture_output=True, timeout=300,
    )  # fmt: skip
    failed = site.run("launch", template, code=1)
    assert "no space left on device" in failed.err
    status = site.status()
    assert status["operation"]["state"] == "failed"
    assert "no space left on device" in status["operation"]["error"]
    engine.call("rm", str(filler))
    site.run("launch", template)
    site.is_as_wanted(BOTH)


def test_a_full_disk_does_not_keep_a_cluster_from_being_destroyed(
    site: Site, engine: Engine, template: str
) -> None:
    site.run("launch", template)
    filler = engine.data / "filler"
    subprocess.run(
        [*engine.within, "dd", "if=/dev/zero", f"of={filler}", "bs=1M"],
        check=False, capture_output=True, timeout=300,
    )  # fmt: skip
    try:
        site.run("destroy", "lab", "--yes")
        site.has_nothing()
    finally:
        engine.call("rm", str(filler))
