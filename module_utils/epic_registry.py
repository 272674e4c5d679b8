"""The controller's side of bringing images to hosts: its own registry, and pushing.

On the standard library alone, as `epic_docker`, which it stands on.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError

PORT = "5000/tcp"
FOLDER = "/var/lib/epic-registry"
LABELS = {"epic.infrastructure": "registry"}
READY_SECONDS = 30.0
# Layers of gigabytes are compressed without a word.
PUSH_TIMEOUT_SECONDS = 900.0

# A first part without a dot or a port would be a name on Docker's own hub.
SITE = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+|[\w.-]+(?=:))(:\d+)?(/[a-z0-9][a-z0-9._/-]*)?")

MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "oci.image.index.v1",
    )
)

# What an engine says when it cannot push, and what to do about it on the controller.
HINTS = (
    (r"no space left on device", "Make room: docker system prune removes what nothing uses."),
    (r"unauthorized|denied|no basic auth", "docker login {registry}"),
    (
        r"HTTP response to HTTPS client",
        "It speaks no TLS: give it a certificate, or leave it out to go through SSH.",
    ),
    (
        r"x509|certificate",
        "Put its certificate authority into /etc/docker/certs.d/{registry}/ca.crt.",
    ),
    (
        r"no such host|connection refused|i/o timeout|deadline exceeded|no route to host",
        "Nothing answers there: check the name, or leave it out to go through SSH.",
    ),
)


class RegistryError(Exception):
    """A registry cannot be had or refuses; `hint` says what to do, `missing` what to build."""

    def __init__(self, message: str, hint: str | None = None, missing: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.missing = missing


@dataclass(frozen=True)
class Image:
    """An image of the controller.

    Attributes:
        reference: Its name, `epic/spark:3.5.9-r1`.
        id: Its id.
        layers: How many layers it has.
    """

    reference: str
    id: str
    layers: int


@dataclass(frozen=True)
class Held:
    """An image in a registry.

    Attributes:
        source: The reference by which hosts pull it, with its digest.
        ids: The ids it may have on a host; engines differ in what they take for one.
    """

    source: str
    ids: frozenset[str]


def find(docker: Docker, reference: str) -> Image | None:
    """Return an image of an engine, None where there is none of that name."""
    found = docker.request("GET", f"/images/{reference}/json", missing_ok=True)
    if not found:
        return None
    return Image(reference, found["Id"], len(found["RootFS"].get("Layers") or ()))


class OwnRegistry:
    """The registry on the controller's loopback address: a container that is made when needed.

    Args:
        docker: The controller's engine.
        image: The reference of the registry's image.
        name: The name of its container and volume.
    """

    def __init__(self, docker: Docker, image: str, name: str) -> None:
        self._docker = docker
        self._image = image
        self._name = name
        self.address = ""

    def open(self) -> None:
        """Make the registry answer, and learn its address.

        Raises:
            RegistryError: Its image is not built, or it does not answer.
        """
        found = self._docker.request("GET", f"/containers/{self._name}/json", missing_ok=True)
        if not found:
            self._make()
        if not found or not found["State"]["Running"]:
            self._docker.request("POST", f"/containers/{self._name}/start")
            found = self._docker.request("GET", f"/containers/{self._name}/json")
        port = found["NetworkSettings"]["Ports"][PORT][0]["HostPort"]
        self.address = f"127.0.0.1:{port}"
        end = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > end:
                raise RegistryError(
                    f"the registry {self._name} does not answer at {self.address}",
                    f"docker logs {self._name}",
                )
            time.sleep(0.05)

    @property
    def port(self) -> int:
        """The port of the controller's loopback address that it listens on."""
        return int(self.address.rpartition(":")[2])

    def held(self, image: Image) -> Held | None:
        """Return an image as the registry has it, None if it does not have this very one."""
        name, _, tag = image.reference.rpartition(":")
        headers = {"Accept": MANIFESTS}
        status, answered, data = self._get(f"/v2/{name}/manifests/{tag}", headers)
        if status != http.client.OK:
            return None
        digest = answered["Docker-Content-Digest"]
        ids = frozenset({digest, json.loads(data).get("config", {}).get("digest", digest)})
        if image.id not in ids:
            return None
        return Held(f"{self.address}/{name}@{digest}", ids | {image.id})

    def _answers(self) -> bool:
        try:
            return self._get("/v2/", {})[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=READY_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def _make(self) -> None:
        if not find(self._docker, self._image):
            raise RegistryError(
                f"the registry's image {self._image} is not built", missing=self._image
            )
        self._docker.request("POST", "/volumes/create", {"Name": self._name, "Labels": LABELS})
        spec = {
            "Image": self._image,
            "Labels": LABELS,
            "ExposedPorts": {PORT: {}},
            "HostConfig": {
                "Mounts": [{"Type": "volume", "Source": self._name, "Target": FOLDER}],
                "PortBindings": {PORT: [{"HostIp": "127.0.0.1", "HostPort": ""}]},
                "RestartPolicy": {"Name": "unless-stopped"},
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "ReadonlyRootfs": True,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
            },
        }
        self._docker.request("POST", "/containers/create", spec, query={"name": self._name})


def push(
    docker: Docker, image: Image, registry: str, auth: str, tell: Callable[[int], None]
) -> Held:
    """Push an image of the controller; the engine sends the layers that the registry lacks.

    Args:
        docker: The controller's engine.
        image: The image.
        registry: Where to, `HOST[:PORT][/PREFIX]`.
        auth: The header that `authorization` returns for it.
        tell: Told again and again how many bytes, before compression, were sent.

    Raises:
        RegistryError: The registry refused, or does not answer.
    """
    name, _, tag = image.reference.rpartition(":")
    target = f"{registry}/{name}"
    digest = ""
    sent: dict[str, int] = {}
    # By its id: whatever gets its name meanwhile is not what hosts were compared with.
    docker.request("POST", f"/images/{image.id}/tag", query={"repo": target, "tag": tag})
    try:
        headers = {"X-Registry-Auth": auth}
        for message in docker.messages(f"/images/{target}/push", {"tag": tag}, headers):
            digest = (message.get("aux") or {}).get("Digest", digest)
            if message.get("progressDetail"):
                sent[message["id"]] = message["progressDetail"].get("current", 0)
                tell(sum(sent.values()))
    except DockerError as problem:
        raise RegistryError(
            f"{registry} did not take {image.reference}: {problem}", hint(str(problem), registry)
        ) from problem
    finally:
        query = {"noprune": "1"}
        docker.request("DELETE", f"/images/{target}:{tag}", query=query, missing_ok=True)
    return Held(f"{target}@{digest}", frozenset({image.id, digest}))


def hint(message: str, registry: str) -> str | None:
    """Return what to do about a refusal, None where nothing is known."""
    host = registry.partition("/")[0]
    for pattern, text in HINTS:
        if re.search(pattern, message, re.IGNORECASE):
            return text.format(registry=host)
    return None


def authorization(registry: str = "") -> str:
    """Return the header with which an engine speaks for the user to a registry.

    It is made of what `docker login` has written; of nothing where it has not.

    Raises:
        RegistryError: The program that keeps the password fails.
    """
    account: dict[str, str] = {}
    host = registry.partition("/")[0]
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with contextlib.suppress(OSError, ValueError):
        if host:
            account = _account(json.loads((folder / "config.json").read_bytes()), host)
    return base64.urlsafe_b64encode(json.dumps(account).encode()).decode()


def _account(config: dict[str, Any], host: str) -> dict[str, str]:
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    if helper:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RegistryError(
                f"docker-credential-{helper} does not tell the password for {host}: "
                f"{(done.stderr or done.stdout).strip()}",
                f"docker login {host}",
            )
        said = json.loads(done.stdout)
        key = "identitytoken" if said["Username"] == "<token>" else "password"
        return {"username": said["Username"], key: said["Secret"], "serveraddress": host}
    entry = config.get("auths", {}).get(host) or {}
    user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"], "serveraddress": host}
    return {"username": user, "password": password, "serveraddress": host} if user else {}
