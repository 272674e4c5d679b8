#!/usr/bin/python
"""Ansible module: the images that a Docker host is to have."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: epic_images
short_description: Bring images of the controller to this Docker host
description:
  - Compares the ids of images on this host with those on the controller. What is missing or stale
    is pushed once to a registry, then pulled from there by its digest, so that only layers move
    that are missing, and named as it is on the controller.
  - The registry is a container of the controller that listens on its loopback address; hosts
    reach it through SSH while they pull. No port is opened on any network.
  - A host with C(ansible_connection=local) has the controller's own images; nothing is done there.
options:
  images:
    description: The images' references, C(epic/spark:3.5.9-r6).
    type: list
    elements: str
    required: true
  registry:
    description:
      - A registry of the site to use instead, as C(HOST[:PORT][/PREFIX]). Controller and hosts
        reach it by themselves. Who may is told by what C(docker login) has left on the controller.
    type: str
    default: ""
  container:
    description: The name of the controller's registry, a container and its volume.
    type: str
    default: epic-registry
  sources:
    description:
      - What to pull; the action plugin says so. Keys C(image), C(source) (where from, by digest)
        and C(auth) (the header that the registry wants). Without any, images are only looked up.
    type: list
    elements: dict
    default: []
  forward_port:
    description: The port of this host that leads to the registry; the action plugin says so.
    type: int
    default: 0
  socket:
    description: The Docker engine's socket; the host's variable C(epic_docker_socket) by default.
    type: path
    default: /var/run/docker.sock
author:
  - The epic-runner authors
"""

EXAMPLES = r"""
- name: Take the images that are missing or stale here
  epic_images:
    images: [epic/spark:3.5.9-r6]
"""

RETURN = r"""
images:
  description: What was done with each image, C(unchanged) or C(pulled).
  type: dict
  returned: success
moved_bytes:
  description: What went through SSH for it; absent where a registry of the site was used.
  type: int
  returned: success
"""

import contextlib
import fcntl
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.epic_docker import Docker, DockerError, hold

ARGUMENT_SPEC: dict[str, Any] = {
    "images": {"type": "list", "elements": "str", "required": True},
    "registry": {"type": "str", "default": ""},
    "container": {"type": "str", "default": "epic-registry"},
    "sources": {"type": "list", "elements": "dict", "default": [], "no_log": True},
    "forward_port": {"type": "int", "default": 0},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}

# The engine says nothing while it unpacks a large layer on a slow disk.
PULL_TIMEOUT_SECONDS = 900.0
FORWARD_LOOK_SECONDS = 1.0

# In /proc/net/tcp: the state of a listening socket, and the loopback addresses.
LISTENING = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}

# What an engine says when it cannot pull, and what to do about it on this host.
HINTS = (
    (
        r"no space left on device",
        "Make room on the host: docker system prune there removes what nothing uses.",
    ),
    (
        r"unauthorized|denied|no basic auth",
        "docker login on the controller, with an account that may read there.",
    ),
    (
        r"HTTP response to HTTPS client",
        "The registry speaks no TLS: give it a certificate, or leave it out to go through SSH.",
    ),
    (
        r"x509|certificate",
        "Put the registry's certificate authority into /etc/docker/certs.d/HOST:PORT/ca.crt there.",
    ),
    (
        r"no such host|connection refused|i/o timeout|deadline exceeded|no route to host",
        "The host cannot reach the registry: leave it out to go through SSH.",
    ),
)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:  # noqa: FBT001 - the call of every own module
    """Do the module's work; return its result."""
    docker = Docker(params["socket"], PULL_TIMEOUT_SECONDS)
    try:
        if params["sources"] and not check_mode:
            return pull(docker, params)
        return {
            "changed": False,
            "found": {image: found(docker, image) for image in params["images"]},
        }
    except DockerError as problem:
        message = str(problem)
        return {"failed": True, "msg": message, "hint": hint(message), **docker.absence()}


def found(docker: Docker, image: str) -> str | None:
    """Return the id of an image of this host, None where there is none of that name."""
    answer = docker.request("GET", f"/images/{image}/json", missing_ok=True)
    return answer["Id"] if answer else None


def pull(docker: Docker, params: dict[str, Any]) -> dict[str, Any]:
    """Pull images by their digests and name them as they are named on the controller."""
    port = params["forward_port"]
    if port:
        if is_exposed(port):
            message = f"sshd opens the forwarded port {port} to the network, not to this host alone"
            advice = "Set GatewayPorts to no or clientspecified in the host's sshd_config."
            return {"failed": True, "msg": message, "hint": advice}
        threading.Thread(target=end_with, args=(port,), daemon=True).start()
    # A run whose controller died may still be about to end here.
    with hold("images", fcntl.LOCK_EX):
        for source in params["sources"]:
            take(docker, **source)
    return {"changed": True}


def take(docker: Docker, image: str, source: str, auth: str) -> None:
    """Pull one image from `source`, a reference by digest, and name it."""
    before = found(docker, image)
    repository, _, digest = source.partition("@")
    query = {"fromImage": repository, "tag": digest}
    try:
        for _ in docker.messages("/images/create", query, {"X-Registry-Auth": auth}):
            pass
    except DockerError as problem:
        raise DockerError(problem.status, f"could not pull {image}: {problem}") from problem
    name, _, tag = image.rpartition(":")
    docker.request("POST", f"/images/{source}/tag", query={"repo": name, "tag": tag})
    # The name by which it came means nothing later: the port is another one each time.
    docker.request("DELETE", f"/images/{source}", query={"noprune": "1"}, missing_ok=True)
    if before:
        forget(docker, before)


def forget(docker: Docker, image_id: str) -> None:
    """Remove an image that has lost its name, unless something still uses it."""
    left = docker.request("GET", f"/images/{image_id}/json", missing_ok=True)
    if left and not left.get("RepoTags") and not left.get("RepoDigests"):
        with contextlib.suppress(DockerError):
            docker.request("DELETE", f"/images/{image_id}")


def is_exposed(port: int) -> bool:
    """Whether something listens on a port at another address than the loopback one."""
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]
    ]
    listening = [fields[1].split(":") for fields in lines if fields[3] == LISTENING]
    return any(int(number, 16) == port and at not in LOOPBACK for at, number in listening)


def end_with(port: int) -> None:
    """End this process when its way to the controller does.

    The engine shares what it downloads between all that ask for the same layer: it would try a port
    that leads nowhere for a minute, and a run that came meanwhile would wait, and fail, with it.
    """
    while True:
        time.sleep(FORWARD_LOOK_SECONDS)
        try:
            socket.create_connection(("127.0.0.1", port), FORWARD_LOOK_SECONDS).close()
        except ConnectionRefusedError:
            os._exit(1)
        except OSError:
            # Busy, not gone.
            continue


def hint(message: str) -> str | None:
    """Return what to do about an engine's complaint, None where nothing is known."""
    return next(
        (text for pattern, text in HINTS if re.search(pattern, message, re.IGNORECASE)), None
    )


def main() -> None:
    """Run the module where the action plugin of its name is not at hand."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
