"""Secrets of clusters and tenants: in Vault where one is configured, else in files.

A secret is spoken of by a reference, `vault:MOUNT/PATH#KEY` or `file:PATH#KEY`, which may be
anywhere; its value is read where and when it is needed, and by nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path

from epic_runner import vault
from epic_runner.errors import InputError, NotFound
from epic_runner.resources import home, private_directory

_TOKEN_BYTES = 24
_TOKEN = "token"  # noqa: S105 - the key of it, not what it is


def cluster_secrets(tenant: str, cluster: str) -> str:
    """Return the reference, but for its key, to a cluster's secrets."""
    settings = vault.settings()
    if settings is None:
        return f"file:{_file(tenant, cluster)}"
    return f"vault:{_path(settings, tenant, cluster)}"


def cluster_token(tenant: str, cluster: str) -> str:
    """Return the token that opens a cluster's notebooks; it is made at the first asking.

    Raises:
        SecretsUnavailable: Vault is configured and sealed, does not answer or refuses.
    """
    token = find_token(tenant, cluster)
    while token is None:
        keep_token(tenant, cluster, _token_in_file(tenant, cluster) or _new_token())
        token = find_token(tenant, cluster)
    return token


def find_token(tenant: str, cluster: str) -> str | None:
    """Return the cluster's token; None where none was made."""
    settings = vault.settings()
    if settings is None:
        return _token_in_file(tenant, cluster)
    kept = vault.Vault(settings).read(_path(settings, tenant, cluster)) or {}
    return str(kept[_TOKEN]) if _TOKEN in kept else None


def keep_token(tenant: str, cluster: str, token: str) -> None:
    """Keep a cluster's token, unless there is one already.

    Of two launches at once the first one's token stands. A token that was in a file before Vault
    was configured is in Vault alone then.
    """
    settings = vault.settings()
    if settings is None:
        _write_file(tenant, cluster, token)
        return
    path = _path(settings, tenant, cluster)
    opened = vault.Vault(settings)
    if not opened.write_new(path, {_TOKEN: token}) and opened.read(path) is None:
        # Its last version was deleted by hand, which a first one cannot follow.
        opened.remove(path)
        opened.write_new(path, {_TOKEN: token})
    _file(tenant, cluster).unlink(missing_ok=True)


def forget_secrets(tenant: str, cluster: str) -> None:
    """Remove a cluster's secrets, once it is destroyed."""
    settings = vault.settings()
    if settings is not None:
        vault.Vault(settings).remove(_path(settings, tenant, cluster))
    _file(tenant, cluster).unlink(missing_ok=True)


def tenant_secrets(tenant: str) -> list[str]:
    """Return references, but for their keys, to all secrets of a tenant: its own, its clusters'."""
    found = [f"file:{path}" for path in sorted(_file(tenant, "").parent.glob("*.json"))]
    settings = vault.settings()
    if settings is not None:
        opened, own = vault.Vault(settings), _path(settings, tenant)
        folders = [own]
        if opened.read(own) is not None:
            found.append(f"vault:{own}")
        while folders:
            folder = folders.pop(0)
            for name in opened.names(folder):
                if name.endswith("/"):
                    folders.append(f"{folder}/{name.rstrip('/')}")
                else:
                    found.append(f"vault:{folder}/{name}")
    return found


def forget_tenant(tenant: str) -> None:
    """Remove all secrets of a tenant: who takes its name later must not inherit them."""
    settings = vault.settings()
    for reference in tenant_secrets(tenant):
        kind, _, path = reference.partition(":")
        if kind == "vault" and settings is not None:
            vault.Vault(settings).remove(path)
        else:
            Path(path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it never was, or holds something that is not ours
        _file(tenant, "").parent.rmdir()


def read_secret(reference: str) -> str:
    """Return the secret that `vault:MOUNT/PATH#KEY` or `file:PATH#KEY` means.

    Raises:
        InputError: It is no reference, or there is no Vault to ask.
        NotFound: There is no such secret.
        SecretsUnavailable: Vault is sealed, does not answer or refuses.
    """
    kind, _, rest = reference.partition(":")
    path, _, key = rest.rpartition("#")
    if kind not in ("vault", "file") or not path.strip("/") or not key:
        raise InputError(
            f"{reference} is not a reference to a secret.",
            "Write vault:MOUNT/PATH#KEY, such as vault:secret/epic/analytics#keytab, or "
            "file:PATH#KEY for a file of JSON.",
        )
    if kind == "vault":
        settings = vault.settings()
        if settings is None:
            raise InputError(
                f"{reference} is in Vault, but none is configured.", "Set EPIC_VAULT_ADDR."
            )
        found = vault.Vault(settings).read(path)
    else:
        found = _file_content(Path(path))
    if found is None or key not in found:
        raise NotFound(f"There is no secret {reference}.")
    return str(found[key])


def _path(settings: vault.Settings, *names: str) -> str:
    return "/".join(name for name in (settings.mount, settings.prefix, *names) if name)


def _file(tenant: str, cluster: str) -> Path:
    return home() / "secrets" / tenant / f"{cluster}.json"


def _file_content(path: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _token_in_file(tenant: str, cluster: str) -> str | None:
    return (_file_content(_file(tenant, cluster)) or {}).get(_TOKEN)


def _new_token() -> str:
    return secrets.token_hex(_TOKEN_BYTES)


def _write_file(tenant: str, cluster: str, token: str) -> None:
    path = _file(tenant, cluster)
    private_directory(path.parent.parent)
    private_directory(path.parent)
    # Written whole under another name and then linked: a reader never sees half of it.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({_TOKEN: token}, file)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
