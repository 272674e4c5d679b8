"""Building images: the only module that knows the Docker SDK.

Builds have needs of their own: steps that are silent for many minutes, and streams of gigabytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from epic_runner.errors import DockerUnavailable, EpicError
from epic_runner.hosts import local_host
from epic_runner.images.builder import ImageFacts
from epic_runner.resources import home, private_directory

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_SECONDS = 600
# A step such as the installation of PySpark prints nothing for minutes.
STEP_TIMEOUT_SECONDS = 3600


def connect(address: str | None = None) -> DockerBuilds:
    """Return the engine at `address`, by default the local one.

    Raises:
        DockerUnavailable: It does not answer.
    """
    # The SDK takes a quarter of a second to import.
    import docker

    url = address or f"unix://{local_host().socket}"
    with _speaking():
        client = docker.APIClient(base_url=url, version="auto", timeout=TIMEOUT_SECONDS)
        client.ping()
    return DockerBuilds(client)


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as problem:
        raise EpicError(f"Docker refused: {problem.explanation or problem}") from problem
    except (docker.errors.DockerException, requests.RequestException, OSError) as problem:
        raise DockerUnavailable(
            f"Docker does not answer: {problem}", "epic-run doctor tells what is wrong with it."
        ) from problem


class DockerBuilds:
    """A Docker engine, as the image builder sees it."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    @contextlib.contextmanager
    def alone(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Keep other builds of this machine out; `waiting` is called if one is at work."""
        shared = Path("/run/lock")
        folder = shared if os.access(shared, os.W_OK) else private_directory(home())
        with (folder / "epic-image-build.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            # The lock goes with the file, also if this process is killed.
            yield

    def has(self, reference: str) -> bool:
        """Tell whether the engine has the image."""
        return self.facts(reference) is not None

    def facts(self, reference: str) -> ImageFacts | None:
        """Return what is known of an image, or None if there is no such image."""
        import docker.errors

        with _speaking():
            try:
                found = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except docker.errors.ImageNotFound:
                return None
        labels = (found.get("Config") or {}).get("Labels") or {}
        return ImageFacts(found["Id"], found["Size"], found["Created"], labels)

    def pull(self, reference: str, patience: float) -> bool:
        """Pull the image if a registry answers within `patience` seconds; tell whether it did."""
        import docker.errors

        known: list[bool] = []

        def ask() -> None:
            # The engine itself may wait for minutes for a registry behind a silent firewall.
            with contextlib.suppress(Exception):
                self._client.inspect_distribution(reference)  # type: ignore[no-untyped-call]
                known.append(True)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(patience)
        if not known:
            return False
        repository, _, tag = reference.rpartition(":")
        try:
            for message in self._client.pull(repository, tag, stream=True, decode=True):
                if "error" in message:
                    return False
        except docker.errors.DockerException:
            return False
        return self.has(reference)

    def import_rootfs(self, stream: IO[bytes], reference: str) -> None:
        """Make an image of one layer from a tar."""
        repository, _, tag = reference.rpartition(":")
        with _speaking():
            # Not import_image_from_stream: it announces chunks, and requests sends a file whole.
            self._client.import_image(stream, repository=repository, tag=tag)

    def build(
        self,
        context: IO[bytes],
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        tag: str | None,
        fresh: bool,
        host_network: bool,
    ) -> Iterator[Mapping[str, Any]]:
        """Build, and yield the engine's messages; `fresh` does without its cache of steps."""
        with _speaking():
            yield from self._client.build(
                fileobj=context,
                custom_context=True,
                decode=True,
                rm=True,
                forcerm=True,
                nocache=fresh,
                buildargs=dict(arguments),
                labels=dict(labels),
                tag=tag,
                network_mode="host" if host_network else None,
                timeout=STEP_TIMEOUT_SECONDS,
            )

    def read_folder(self, image: str, folder: str) -> dict[str, bytes]:
        """Return the files below a folder of an image by their paths relative to it."""
        import docker.errors

        with _speaking(), self._container(image, ["true"]) as container:
            try:
                chunks, _ = self._client.get_archive(container, folder)
                data = b"".join(chunks)
            except docker.errors.NotFound:
                return {}
        files = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    # The first part is the folder's own name.
                    files[member.name.partition("/")[2]] = content.read()
        return files

    def run_program(
        self, image: str, program: Path, target: str, arguments: Sequence[str], result: str
    ) -> bytes:
        """Run a program of this machine in an image, at `target`, and return the file `result`.

        Raises:
            EpicError: It failed.
        """
        folder, _, name = target.lstrip("/").rpartition("/")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = program.stat().st_size
            entry.mode = 0o755
            with program.open("rb") as content:
                archive.addfile(entry, content)
        with _speaking(), self._container(image, list(arguments)) as container:
            self._client.put_archive(container, "/", stream.getvalue())
            self._client.start(container)
            code = self._client.wait(container, timeout=STEP_TIMEOUT_SECONDS)["StatusCode"]
            if code != 0:
                printed = self._client.logs(container, tail=10).decode("utf-8", "replace")
                raise EpicError(f"{name} failed with exit code {code}: {printed.strip()}")
            chunks, _ = self._client.get_archive(container, result)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                member = archive.next()
                found = archive.extractfile(member) if member else None
                return found.read() if found else b""

    def remove(self, image: str) -> None:
        """Remove an image that nothing uses; do nothing otherwise."""
        import docker.errors

        with contextlib.suppress(docker.errors.DockerException):
            self._client.remove_image(image)

    @contextlib.contextmanager
    def _container(self, image: str, command: list[str]) -> Iterator[str]:
        """Yield a container of an image that was not started; remove it afterwards."""
        made = self._client.create_container(
            image,
            command=command[1:],
            entrypoint=command[:1],
            user="root",
            network_disabled=True,
            environment={"SYFT_CHECK_FOR_APP_UPDATE": "false"},
        )
        try:
            yield made["Id"]
        finally:
            self._client.remove_container(made["Id"], force=True, v=True)
