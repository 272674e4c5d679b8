"""The keys of SSH through the gateway: who may come in, and which node it is that answers.

People have certificates (OpenSSH's own kind) that an authority of this site has signed: for one
account, in one cluster or all of a tenant's, for some hours. Nodes know the authority's public key.

A cluster's host key follows from a secret of this site and from the cluster's token. So nobody has
to keep it, all controllers of a site come to the same one, and a cluster that takes the name of an
earlier one has another key.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from epic_runner.gateway import site
from epic_runner.gateway.certificates import load_key, new_key
from epic_runner.resources import home, private_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_SEED_BYTES = 32
# Clocks of nodes may be behind.
_EARLIER = dt.timedelta(minutes=5)
# As ssh-keygen does, but for what could outlive the session or lead back to the member's machine.
_EXTENSIONS = (b"permit-port-forwarding", b"permit-pty")


def principal(user: str, tenant: str, cluster: str | None) -> str:
    """Return the name that a certificate holds and a node looks for."""
    return f"{user}@{tenant}/{cluster or '*'}"


def host_alias(tenant: str, cluster: str) -> str:
    """Return the name under which a cluster's host key is known."""
    return f"{cluster}.{tenant}"


def node_trust(tenant: str, cluster: str, token: str) -> dict[str, str]:
    """Return what a cluster's nodes are given: a reference to their host key, and whom they trust.

    The key is put into a file for the playbook, beside those of other clusters.
    """
    path = _host_file(tenant, cluster)
    content = json.dumps({"host_key": host_key(tenant, cluster, token).decode()})
    if not (path.exists() and path.read_text(encoding="utf-8") == content):
        private_directory(path.parent.parent)
        private_directory(path.parent)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(0o600)
        draft.write_text(content, encoding="utf-8")
        draft.replace(path)
    return {"secrets": f"file:{path}", "authority": authority_line()}


def forget(tenant: str, cluster: str) -> None:
    """Remove the file with a cluster's host key, once it is destroyed."""
    path = _host_file(tenant, cluster)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other clusters have keys there, or nothing ever was
        path.parent.rmdir()


def host_key(tenant: str, cluster: str, token: str) -> bytes:
    """Return a cluster's private host key, PEM: the same one each time."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

    seed = site.keep_once("ssh-hosts.seed", lambda: os.urandom(_SEED_BYTES))
    # Twice the length of the order, so that what is left of the division is as good as even.
    text = f"{tenant}/{cluster}/{token}".encode()
    number = int.from_bytes(hmac.digest(seed, text, hashlib.sha512), "big")
    key = derive_private_key(number % (_ORDER - 1) + 1, SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public_line(key: bytes) -> str:
    """Return the public part of a private key as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return load_key(key).public_key().public_bytes(*form).decode("ascii")


def authority_line() -> str:
    """Return the public key of this site's authority, as a line of OpenSSH."""
    return public_line(_authority())


def new_certificate(name: str, user: str, hours: float, now: dt.datetime) -> tuple[bytes, bytes]:
    """Return a new private key and its certificate, both as OpenSSH has them.

    Args:
        name: The principal whom it is for.
        user: The account, which logs of nodes name.
        hours: How long it lasts.
        now: The time.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificateBuilder,
        SSHCertificateType,
    )

    key = Ed25519PrivateKey.generate()
    builder = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .type(SSHCertificateType.USER)
        .serial(int.from_bytes(os.urandom(8), "big"))
        .key_id(f"{user} ({name})".encode())
        .valid_principals([name.encode()])
        .valid_after(int((now - _EARLIER).timestamp()))
        .valid_before(int((now + dt.timedelta(hours=hours)).timestamp()))
    )
    for extension in _EXTENSIONS:
        builder = builder.add_extension(extension, b"")
    certificate = builder.sign(_signer())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return private, certificate.public_bytes()


# The order of the curve P-256 (SEC 2, section 2.4.2).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _authority() -> bytes:
    return site.keep_once("ssh-authority.key", new_key)


def _signer() -> EllipticCurvePrivateKey:
    return load_key(_authority())


def _host_file(tenant: str, cluster: str) -> Path:
    return home() / "ssh" / tenant / f"{cluster}.json"
