"""Asks the scenario's gateway, with a session that the scenario's own key has signed."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from epic_runner.gateway import certificates, sessions

KEYS = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""))
TENANT = os.environ.get("MOLECULE_TENANT", "")
Answer = tuple[int, dict[str, Any] | None]


@pytest.fixture(scope="session")
def gateway(machine: Host) -> dict[str, Any]:
    """What Docker knows of the gateway's container."""
    found: dict[str, Any] = machine.docker(f"epic-{TENANT}-gw").inspect()
    return found


@pytest.fixture(scope="session")
def ask(gateway: dict[str, Any]) -> Callable[..., Answer]:
    """Ask for an endpoint's page; return the status, and what the web server told it was asked."""
    [published] = gateway["NetworkSettings"]["Ports"]["8443/tcp"]
    context = ssl.create_default_context(cafile=str(KEYS / "tls.pem"))
    key = certificates.load_key((KEYS / "issuer.key").read_bytes())

    def answer(endpoint: str, user: str | None = "ada", tenant: str = TENANT) -> Answer:
        headers = {"X-Forwarded-Context": "/mine", "Authorization": "mine"}
        if user:
            session = sessions.Session(f"{TENANT}-gw", user, tenant, "lab", 1, "/")
            token = sessions.sign(session.claims(time.time()), key)
            headers["Cookie"] = f"__Secure-epic={token}"
        connection = http.client.HTTPSConnection(
            "localhost", int(published["HostPort"]), timeout=30, context=context
        )
        connection.request("GET", f"/{TENANT}/lab/web-1/{endpoint}", headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body) if response.status == http.client.OK else None

    return answer
