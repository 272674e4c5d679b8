"""Sessions: signed tokens that open clusters at the gateway, and codes that carry one to a browser.

A session is a JWT signed with ES256. This site holds the private key, the gateway the public one
only, so whoever breaks into the gateway cannot make sessions. What the gateway believes:

| claim | meaning |
|---|---|
| `aud` | the gateway's name |
| `sub` | the member |
| `tenant` | the tenant |
| `cluster` | the cluster, or `*` for all of the tenant |
| `iat` | when it was made: one that is older than its tenant was for another of that name |
| `exp` | until when the session lasts |
| `jti`, `login_by`, `home` | the login it may begin with: its id, until when, and where it leads |

A browser gets its session by a *code*: the session, sealed with a key that issuer and gateway
share (AES-256-GCM). The gateway opens a code once. So an address in a chat or in a shell's history
is worth nothing once it was used, nor a few minutes later.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epic_runner.gateway.paths import segment

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ISSUER = "epic-runner"
ALL_CLUSTERS = "*"
LOGIN_SECONDS = 600
SEAL_BYTES = 32

_COORDINATE_BYTES = 32  # P-256
_NONCE_BYTES = 12
_TAG_BYTES = 16


@dataclass(frozen=True)
class Session:
    """What a session opens, and for how long.

    Attributes:
        audience: The gateway's name.
        user: The member.
        tenant: The tenant.
        cluster: The one cluster that it opens; None for all of the tenant.
        hours: How long it lasts.
        home: Where a browser goes after the login.
    """

    audience: str
    user: str
    tenant: str
    cluster: str | None
    hours: float
    home: str

    def claims(self, now: float) -> dict[str, Any]:
        """Return the claims of a new session, at `now` in seconds since the epoch."""
        return {
            "iss": ISSUER,
            "aud": self.audience,
            "sub": self.user,
            "tenant": segment(self.tenant),
            "cluster": segment(self.cluster) if self.cluster else ALL_CLUSTERS,
            "iat": int(now),
            "exp": int(now + self.hours * 3600),
            "jti": secrets.token_hex(16),
            "login_by": int(now + LOGIN_SECONDS),
            "home": self.home,
        }


def sign(claims: Mapping[str, Any], key: EllipticCurvePrivateKey) -> str:
    """Return a JWT with these claims, signed with ES256 (RFC 7518, section 3.4)."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    parts = [_json({"alg": "ES256", "typ": "JWT"}), _json(claims)]
    signature = key.sign(".".join(parts).encode(), ECDSA(SHA256()))
    numbers = decode_dss_signature(signature)
    raw = b"".join(number.to_bytes(_COORDINATE_BYTES, "big") for number in numbers)
    return ".".join([*parts, encoded(raw)])


def seal(token: str, key: bytes) -> str:
    """Return the code that carries a session: nonce, ciphertext and tag."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, token.encode(), None)
    parts = (nonce, sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
    return ".".join(encoded(part) for part in parts)


def encoded(data: bytes) -> str:
    """Return base64 as addresses and JWTs have it: no padding, `-` and `_`."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _json(data: Mapping[str, Any]) -> str:
    return encoded(json.dumps(data, separators=(",", ":")).encode())
