"""Secrets of clusters: files that only their owner can read, never the store."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from epic_runner.resources import home, private_directory

_TOKEN_BYTES = 24


def secrets_file(tenant: str, cluster: str) -> Path:
    """Return where a cluster's secrets are kept."""
    return home() / "secrets" / tenant / f"{cluster}.json"


def cluster_token(tenant: str, cluster: str) -> str:
    """Return the token that opens a cluster's notebooks; it is made at the first asking."""
    path = secrets_file(tenant, cluster)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["token"])
    except FileNotFoundError:
        keep_token(tenant, cluster, secrets.token_hex(_TOKEN_BYTES))
        return cluster_token(tenant, cluster)


def keep_token(tenant: str, cluster: str, token: str) -> None:
    """Keep a cluster's token, unless there is one already."""
    path = secrets_file(tenant, cluster)
    private_directory(path.parent.parent)
    private_directory(path.parent)
    # Written whole under another name and then linked: a reader never sees half of it, and of
    # two launches at once the first one's token stands.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"token": token}, file)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def forget_secrets(tenant: str, cluster: str) -> None:
    """Remove a cluster's secrets, once it is destroyed."""
    secrets_file(tenant, cluster).unlink(missing_ok=True)
