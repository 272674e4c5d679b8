"""A gateway of a test's own, and what tests ask it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from life_support import Site

if TYPE_CHECKING:
    from browser import Browser

COOKIE = "__Secure-epic"


@dataclass(frozen=True)
class Gated:
    """A site with a gateway before the cluster `one`."""

    site: Site
    port: int

    @property
    def authority(self) -> Path:
        return self.site.home / "gateway" / "ca.pem"

    @property
    def container(self) -> str:
        return f"epic-{self.site.tenant}-gw"

    def up(self) -> Any:
        """Bring the gateway up; return its status."""
        return self.site.json(
            "gateway", "up", "--name", f"{self.site.tenant}-gw", "--port", str(self.port),
            "--public-name", "localhost",
        )  # fmt: skip

    def path(self, endpoint: str, cluster: str = "one") -> str:
        return f"/{self.site.tenant}/{cluster}/master-1/{endpoint}"

    def token(self, *arguments: str) -> str:
        return str(self.site.json("login", "--token", *arguments)["token"])

    def login_code(self, *arguments: str) -> str:
        return str(self.site.json("login", *arguments)["code"])

    def log_in(self, tab: Browser, home: str, *arguments: str) -> None:
        """Open a login address, which leads to `home`."""
        tab.go(self.site.json("login", *arguments)["url"])
        tab.wait_for(f"location.href === {json.dumps(home)}")

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority))
        return http.client.HTTPSConnection("localhost", self.port, timeout=120, context=context)

    def ask(
        self, path: str, token: str | None = None, *, body: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """Ask the gateway; return status, headers and body."""
        connection = self.connect()
        if token is not None:
            headers["Cookie"] = f"{COOKIE}={token}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body=body, headers=sent)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
        connection.close()
        return response.status, response.headers, text

    def status(self, path: str, token: str | None = None, **headers: str) -> int:
        return self.ask(path, token, **headers)[0]

    def routes(self) -> str:
        return self.site.docker("exec", self.container, "cat", "/var/lib/gateway/routes.map")

    def networks(self) -> set[str]:
        found = self.site.docker("inspect", self.container)
        return set(json.loads(found)[0]["NetworkSettings"]["Networks"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def gateway(site: Site) -> Iterator[Gated]:
    """Have the name and the port of a gateway; nothing of it is left afterwards."""
    made = Gated(site, free_port())
    try:
        yield made
    finally:
        site.run("gateway", "down", "--yes", code=None)
        for kind, name in (("network", "rm"), ("volume", "rm")):
            subprocess.run(["docker", kind, name, made.container], capture_output=True, check=False)


def published(site: Site, cluster: str) -> list[int]:
    """Return the ports of this machine that lead to a cluster's nodes."""
    return [
        int(binding["HostPort"])
        for node in site.nodes(cluster).values()
        for bound in (node["NetworkSettings"]["Ports"] or {}).values()
        for binding in bound or ()
    ]
