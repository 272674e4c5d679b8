"""Keeping a network that spans hosts on this host while the nodes that are on it start anew.

Such a network leaves a host with its last container there, and joins again with the next. Hosts
that do so at the same moment miss one another's announcements now and then, for a host takes none
of a network that it is not on, and their engines compare what they know only every half minute. Of
40 times that three hosts (Docker 20.10 and 26) restarted their containers at once, the network was
torn after 6, for 14 to 54 seconds; of 80 times with a container that stayed, after none.
"""

from __future__ import annotations

import contextlib
import threading

from ansible.module_utils.epic_docker import Docker, DockerError

# More than any restart takes: what a killed run leaves behind goes by itself.
STAY_SECONDS = 300


class Stay:
    """A container that keeps a network on this host from `begin` to `end`.

    It only sleeps, and nobody is told of it: it has no label of the tenant's.
    """

    def __init__(self, docker: Docker, network: str, name: str) -> None:
        self.docker = docker
        self.network = network
        self.path = f"/containers/{name}"
        self.name = name
        self.lock = threading.Lock()
        self.begun = False

    def begin(self, image: str) -> None:
        """Have the network stay, with a container of an image that is there; once is enough.

        Nothing is said where it cannot be: the network then heals by itself, which takes longer.
        """
        body = {
            "Image": image,
            "User": "nobody",
            "Entrypoint": ["sleep", str(STAY_SECONDS)],
            "Labels": {"epic.helper": "network"},
            "HostConfig": {
                "NetworkMode": self.network,
                "AutoRemove": True,
                "CapDrop": ["ALL"],
                "PidsLimit": 8,
                "ReadonlyRootfs": True,
            },
        }
        with self.lock, contextlib.suppress(DockerError):
            if not self.begun:
                self.begun = True
                self.remove()
                self.docker.request("POST", "/containers/create", body, query={"name": self.name})
                self.docker.request("POST", f"{self.path}/start")

    def remove(self) -> None:
        """Remove the container, or that of an earlier run."""
        self.docker.request("DELETE", self.path, query={"force": "1"}, missing_ok=True)

    def end(self) -> None:
        """Remove it, where it was begun."""
        with contextlib.suppress(DockerError):
            if self.begun:
                self.remove()
