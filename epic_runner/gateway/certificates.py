"""The gateway's keys and certificates: made at first use, kept below `EPIC_HOME`.

A site that has a certificate names it. Else a private certificate authority is made, which may
vouch for the gateway's own names only: whoever trusts it for the gateway trusts it for nothing
else.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epic_runner.errors import InputError

AUTHORITY_DAYS = 3650
# Below what Apple's systems accept at most.
SERVER_DAYS = 397
RENEW_DAYS = 30


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def new_key() -> bytes:
    """Return a new private key for ES256, PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def public_key(key: bytes) -> bytes:
    """Return the public part of a private key, both PEM."""
    return (
        load_key(key)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def load_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    """Return a private key made by `new_key`."""
    loaded = serialization.load_pem_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InputError("The issuer's key is no elliptic curve key.")
    return loaded


def new_authority(name: str, names: Iterable[str]) -> Pair:
    """Return a new certificate authority that may vouch for `names` only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"epic-runner {name} authority")
    builder = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(
            x509.NameConstraints([_constraint(item) for item in names], None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _signed(builder, key, key)


def new_server(authority: Pair, names: list[str]) -> Pair:
    """Return a certificate for a server of these names, the first of them its main one."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_subject(names[0]), issuer.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general(item) for item in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    return _signed(builder, key, load_key(authority.key))


def covers(certificate: bytes, names: Iterable[str], now: dt.datetime) -> bool:
    """Whether a certificate is for all these names and for more than a month yet."""
    loaded = x509.load_pem_x509_certificate(certificate)
    left = loaded.not_valid_after_utc - now
    return set(names) <= set(names_of(certificate)) and left.days >= RENEW_DAYS


def names_of(certificate: bytes) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    loaded = x509.load_pem_x509_certificate(certificate)
    try:
        found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(item.value) for item in found]


def issued_by(certificate: bytes, authority: bytes) -> bool:
    """Whether a certificate authority has made a certificate."""
    try:
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority)
        )
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def allows(authority: bytes, names: Iterable[str]) -> bool:
    """Whether a certificate authority may vouch for all these names."""
    loaded = x509.load_pem_x509_certificate(authority)
    permitted = loaded.extensions.get_extension_for_class(x509.NameConstraints).value
    return {_constraint(item) for item in names} <= set(permitted.permitted_subtrees or ())


def expires(certificate: bytes) -> dt.datetime:
    """Return when a certificate ends."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def check_pair(certificate: bytes, key: bytes) -> None:
    """Check a site's own certificate.

    Raises:
        InputError: Either is no PEM, the key has a password, or they do not belong together.
    """
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, InvalidSignature) as problem:
        raise InputError(
            f"The certificate and its key cannot be read: {problem}",
            "Both have to be PEM; the key without a password.",
        ) from problem
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != loaded.public_key().public_bytes(*form):
        raise InputError("The certificate and the key do not belong together.")


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks of browsers may be behind.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _constraint(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
) -> Pair:
    certificate = builder.sign(by, hashes.SHA256())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
