"""Bringing the gateway up and down, and logging in."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epic_runner.errors import EpicError, InputError, NotFound
from epic_runner.gateway import certificates, sessions, site
from epic_runner.gateway.paths import endpoint_prefix, endpoints
from epic_runner.gateway.site import Gateway
from epic_runner.hosts import Host
from epic_runner.inventory import gateway_group
from epic_runner.lifecycle import Context, acting_user
from epic_runner.operations import operate
from epic_runner.runner import run_playbook
from epic_runner.site import chosen as chosen_hosts
from epic_runner.ssh import destination
from epic_runner.store import ClusterRecord
from epic_runner.store.store import Transaction

MOST_HOURS = 24 * 7


@dataclass(frozen=True)
class Login:
    """A session, and the address that carries it to a browser once.

    Attributes:
        url: The address to open.
        code: What the login form takes.
        token: The session itself, for programs.
        session: What it opens.
    """

    url: str
    code: str
    token: str
    session: sessions.Session


def wanted(
    hosts: Mapping[str, Host],
    *,
    host: str | None = None,
    name: str | None = None,
    address: str | None = None,
    port: int | None = None,
    public_name: str | None = None,
    has_own_authority: bool | None = None,
) -> Gateway:
    """Return the gateway as it is to be: what is given, else what it was, else the defaults.

    By default it is on this machine, or on the first of several hosts, since it has to be in the
    tenants' networks.

    Raises:
        InputError: There is no such host, or it is on another one.
    """
    known = site.load()
    if host is not None:
        chosen_hosts(hosts, [host])
    if known is not None and host not in (None, known.host):
        raise InputError(
            f"The gateway is on host {known.host}.", "epic-run gateway down, then up elsewhere."
        )
    if known is None:
        known = Gateway(
            site.DEFAULT_NAME, host or next(iter(hosts)), site.ANY_ADDRESS, site.DEFAULT_PORT, "",
            has_own_authority=True,
        )  # fmt: skip
    found = replace(
        known,
        name=name or known.name,
        address=address or known.address,
        port=port or known.port,
        has_own_authority=(
            known.has_own_authority if has_own_authority is None else has_own_authority
        ),
    )
    chosen = public_name or (known.public_name if address is None else "")
    of = hosts.get(found.host)
    if not chosen and found.address == site.ANY_ADDRESS and of is not None and not of.is_local:
        chosen = destination(of)
    return replace(found, public_name=chosen or _name_of(found.address))


def up(
    context: Context,
    gateway: Gateway,
    *,
    image: str,
    pair: tuple[bytes, bytes] | None = None,
) -> None:
    """Bring the gateway up, or hand it what has changed.

    Args:
        context: The store, the hosts and a listener.
        gateway: As it is to be.
        image: The reference of its image.
        pair: The site's own certificate and key, PEM, where they are new.

    Raises:
        InputError: The certificate is not to be used, or another gateway is up.
        OperationFailed: The gateway did not start.
    """
    known = site.load()
    if known is not None and known.name != gateway.name:
        raise InputError(
            f"This site has the gateway {known.name} already.", "epic-run gateway down"
        )
    keep_keys()
    if pair is not None:
        certificates.check_pair(*pair)
        site.keep_file("server.pem", pair[0])
        site.keep_file("server.key", pair[1])
    elif gateway.has_own_authority:
        keep_own_certificate(gateway)
    variables = {
        "gateway_name": gateway.name,
        "gateway_image": image,
        "epic_images": [image],
        "gateway_address": gateway.address,
        "gateway_port": gateway.port,
        "gateway_certificate_file": str(site.file("server.pem")),
        "gateway_key_file": str(site.file("server.key")),
        "gateway_issuer_file": str(site.file("issuer.pem")),
        "gateway_seal_file": str(site.file("seal.key")),
        "gateway_login_seconds": sessions.LOGIN_SECONDS,
    }
    _play(context, gateway, "gateway", variables)
    site.keep(gateway)


def down(context: Context, gateway: Gateway) -> list[str]:
    """Remove the gateway; its keys and certificates stay.

    Returns the running clusters that were behind it, as `TENANT/CLUSTER`: nobody reaches them
    until they are repaired.
    """
    with context.store.read() as transaction:
        clusters = [item for item in transaction.clusters() if item.wanted == "running"]
    try:
        outside = not_routed(gateway, clusters, dict(context.hosts))
    except EpicError:
        outside = []  # its host is away, so it is not told what it led to
    _play(context, gateway, "gateway-remove", {"gateway_name": gateway.name})
    site.forget()
    names = [f"{cluster.tenant}/{cluster.name}" for cluster in clusters]
    return [name for name in names if name not in outside]


def login(
    transaction: Transaction,
    gateway: Gateway,
    *,
    user: str | None,
    tenant: str | None,
    cluster: str | None,
    hours: float,
) -> Login:
    """Issue a session for a member.

    Args:
        transaction: A look into the store.
        gateway: The gateway that it is for.
        user: The member; the tenant's first administrator by default.
        tenant: The tenant; that of the cluster, or the only one, by default.
        cluster: The one cluster that it opens; all of the tenant's by default.
        hours: How long it lasts.

    Raises:
        InputError: There is no such tenant, cluster or member.
    """
    home = "/-/welcome"
    if cluster is not None:
        record = transaction.find_cluster(cluster, tenant)
        tenant, home = record.tenant, _home(record)
    if tenant is None:
        names = [item.name for item in transaction.tenants()]
        if len(names) != 1:
            raise InputError(
                f"Which tenant? There are {', '.join(names) or 'none'}.", "Name it with --tenant."
            )
        tenant = names[0]
    member = acting_user(transaction.tenant(tenant), user)
    session = sessions.Session(
        gateway.name, member, tenant, record.name if cluster is not None else None, hours, home
    )
    key = certificates.load_key(_kept("issuer.key"))
    token = sessions.sign(session.claims(time.time()), key)
    code = sessions.seal(token, base64.b64decode(_kept("seal.key")))
    return Login(f"{gateway.url}/-/login#{code}", code, token, session)


def keep_keys() -> None:
    """Make the keys that sign sessions and seal codes, where they are missing."""
    if not site.file("issuer.key").exists():
        site.keep_file("issuer.key", certificates.new_key())
    site.keep_file("issuer.pem", certificates.public_key(site.file("issuer.key").read_bytes()))
    if not site.file("seal.key").exists():
        site.keep_file("seal.key", base64.b64encode(os.urandom(sessions.SEAL_BYTES)))


def keep_own_certificate(gateway: Gateway) -> None:
    """Make the private authority and the gateway's certificate, where they are not as wanted.

    The authority is kept as long as it may vouch for the gateway's names, since people have told
    their browsers to trust it.
    """
    names = certificate_names(gateway)
    authority, key = site.file("ca.pem"), site.file("ca.key")
    if not (authority.exists() and certificates.allows(authority.read_bytes(), names)):
        made = certificates.new_authority(gateway.name, names)
        site.keep_file("ca.key", made.key)
        site.keep_file("ca.pem", made.certificate)
        site.file("server.pem").unlink(missing_ok=True)
    server = site.file("server.pem")
    now = dt.datetime.now(dt.UTC)
    pair = certificates.Pair(authority.read_bytes(), key.read_bytes())
    if not (
        server.exists()
        and certificates.issued_by(server.read_bytes(), pair.certificate)
        and certificates.covers(server.read_bytes(), names, now)
    ):
        made = certificates.new_server(pair, names)
        site.keep_file("server.key", made.key)
        site.keep_file("server.pem", made.certificate)


def certificate_names(gateway: Gateway) -> list[str]:
    """Return the names and addresses that the gateway's own certificate is for."""
    names = [gateway.public_name]
    if gateway.address != site.ANY_ADDRESS:
        names.append(gateway.address)
    return list(dict.fromkeys([*names, "localhost", "127.0.0.1"]))


def not_routed(
    gateway: Gateway, clusters: Sequence[ClusterRecord], hosts: dict[str, Host]
) -> list[str]:
    """Return the running clusters that the gateway does not lead to yet, as `TENANT/CLUSTER`."""
    paths = site.routed_paths(gateway, hosts)
    return [
        f"{cluster.tenant}/{cluster.name}"
        for cluster in clusters
        if cluster.wanted == "running"
        and not any(
            endpoint_prefix(node, endpoint.name) in paths
            for node, endpoint in endpoints(cluster.spec, cluster.nodes)
        )
    ]


def read_pair(certificate: str | None, key: str | None) -> tuple[bytes, bytes] | None:
    """Read a site's own certificate and key; None where neither is named.

    Raises:
        InputError: Only one of them is named, or one cannot be read.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InputError("A certificate and its key go together.", "--certificate FILE --key FILE")
    try:
        return Path(certificate).read_bytes(), Path(key).read_bytes()
    except OSError as problem:
        raise InputError(f"{problem.filename}: {problem.strerror}.") from problem


def _play(context: Context, gateway: Gateway, verb: str, variables: dict[str, object]) -> None:
    if gateway.host not in context.hosts:
        raise NotFound(f"There is no host {gateway.host}, on which the gateway is.")
    inventory = {
        "all": {
            "children": gateway_group(gateway, context.hosts),
            "vars": variables,
        }
    }
    # The operation is held under the name of no tenant, which no tenant can have.
    with operate(
        context.store, tenant="", cluster="", verb=verb, arguments={}, user="",
        prepare=lambda _: None, listener=context.listener,
    ) as running:  # fmt: skip
        run_playbook(
            verb,
            inventory,
            running.directory,
            operation=running.record.id,
            listener=running.listener,
        )


def _home(cluster: ClusterRecord) -> str:
    """Return where a login for one cluster leads: to its first endpoint that is for everybody."""
    open_to_all = [
        (node, endpoint)
        for node, endpoint in endpoints(cluster.spec, cluster.staying())
        if not endpoint.token
    ]
    for node, endpoint in open_to_all:
        return endpoint_prefix(node, endpoint.name) + endpoint.path
    return "/-/welcome"


def _kept(name: str) -> bytes:
    try:
        return site.file(name).read_bytes()
    except FileNotFoundError as problem:
        raise InputError(f"{problem.filename} is missing.", "epic-run gateway up") from problem


def _name_of(address: str) -> str:
    """Return how people reach this machine, as well as it knows itself."""
    if address != site.ANY_ADDRESS:
        return address
    name = socket.getfqdn()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name if name != "localhost" else platform.node()
    return platform.node()
