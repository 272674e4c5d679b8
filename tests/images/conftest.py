"""Nodes on the real Docker engine, made of the images as they are built."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import docker
import pytest

from epic_runner import images
from epic_runner.docker_build import connect
from epic_runner.resources import content_root

PASSWD = "ada:x:5001:5001:Ada:/home/ada:/bin/bash\nbob:x:5002:5002:Bob:/home/bob:/bin/bash\n"
GROUP = "ada:x:5001:\nbob:x:5002:\ntenant:x:900:ada,bob,spark\n"
ACCOUNTS = {"passwd": PASSWD, "group": GROUP}


def launchers_docker() -> Any:
    """Return the class by which the launcher's modules speak with Docker."""
    found = importlib.util.spec_from_file_location(
        "epic_docker", content_root() / "module_utils" / "epic_docker.py"
    )
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Docker


Docker = launchers_docker()


class Node:
    """A container that was made as the launcher makes nodes."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.client = container.client

    @property
    def name(self) -> str:
        return str(self.container.name)

    def put(self, files: dict[str, str]) -> None:
        """Put files into /etc/epic; "run" scripts need no executable bit."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(f"etc/epic/{path}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.container.put_archive("/", stream.getvalue())

    def run(self, *command: str, user: str = "root") -> tuple[int, str, str]:
        """Run a command; return its exit code, stdout and stderr."""
        code, (out, err) = self.container.exec_run(list(command), demux=True, user=user)
        return code, (out or b"").decode(), (err or b"").decode()

    def sh(self, script: str, user: str = "root") -> str:
        """Run a script that must succeed; return what it printed."""
        code, out, err = self.run("bash", "-c", script, user=user)
        assert code == 0, f"{script}: {code}\n{out}\n{err}\n{self.logs()}"
        return out.strip()

    def logs(self) -> str:
        return str(self.container.logs().decode())

    def until(self, script: str, seconds: float = 30) -> str:
        """Run a script again and again until it succeeds; return what it printed."""
        end = time.monotonic() + seconds
        while True:
            code, out, err = self.run("bash", "-c", script)
            if code == 0:
                return out.strip()
            assert time.monotonic() < end, f"{script}: {code}\n{out}\n{err}\n{self.logs()}"
            time.sleep(0.1)

    def stop(self) -> tuple[float, int]:
        """Stop the node; return the seconds that it took and its exit code."""
        began = time.monotonic()
        self.container.stop()
        seconds = time.monotonic() - began
        self.container.reload()
        return seconds, self.container.attrs["State"]["ExitCode"]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=120)
    client.ping()
    yield client
    client.close()


@pytest.fixture(scope="session")
def reference(engine: docker.DockerClient) -> Callable[[str], str]:  # noqa: ARG001 - it must answer
    """Return the reference of an image, which is built if it is stale."""

    @cache
    def reference(name: str) -> str:
        return images.build([name], docker_client=connect())[-1].reference

    return reference


@pytest.fixture(scope="module")
def network(engine: docker.DockerClient) -> Iterator[Any]:
    made = engine.networks.create(f"epic-test-{uuid.uuid4().hex[:8]}")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def make(
    engine: docker.DockerClient, reference: Callable[[str], str], network: Any
) -> Iterator[Callable[..., Node]]:
    """Make a node: `make(image, files, start=True, **options)`; options are docker's.

    A node that is not started has no files yet either.
    """
    made: list[Any] = []

    def make(
        image: str, files: dict[str, str] | None = None, *, start: bool = True, **options: Any
    ) -> Node:
        name = f"epic-test-{uuid.uuid4().hex[:8]}"
        options = {"hostname": name, "network": network.name, **options}
        container = engine.containers.create(reference(image), name=name, **options)
        made.append(container)
        node = Node(container)
        if start:
            node.put(ACCOUNTS if files is None else files)
            container.start()
        return node

    yield make
    for container in made:
        container.remove(force=True, v=True)
