"""Bringing the gateway up and down, and logging in."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
import platform
import socket
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from epic_runner.deadline import ANSWER_SECONDS, within
from epic_runner.docker_api import inspect, read_file
from epic_runner.errors import EpicError, HostsSilent, InputError, NotFound
from epic_runner.everywhere import AT_ONCE
from epic_runner.gateway import certificates, sessions, site
from epic_runner.gateway.paths import (
    cluster_of,
    cluster_prefix,
    endpoint_prefix,
    endpoints,
    routes,
)
from epic_runner.gateway.site import Gateway
from epic_runner.hosts import Host
from epic_runner.inventory import gateway_group, network, network_name, spanning_name
from epic_runner.lifecycle import Context, acting_user, awaited_actions
from epic_runner.operations import is_alive, operate
from epic_runner.runner import run_playbook
from epic_runner.secrets import cluster_secrets
from epic_runner.site import chosen as chosen_hosts
from epic_runner.site import is_spread
from epic_runner.ssh import destination
from epic_runner.store import ClusterRecord
from epic_runner.store.store import Transaction

MOST_HOURS = 24 * 7
# The file by which a node tells that it was filled while the site had a gateway: its services know
# their paths behind one.
TOLD_FILE = "/etc/epic/ssh/authority.pub"
NEW = Gateway(
    site.DEFAULT_NAME, "", site.ANY_ADDRESS, site.DEFAULT_PORT, "", has_own_authority=True
)


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

    By default it is on this machine, or on the first of several hosts that takes nodes, since it
    has to be in the tenants' networks. What is told of one that the site had before stays as well.

    Raises:
        InputError: There is no such host, it is on another one, or its name is taken.
    """
    if name in site.TAKEN_NAMES:
        raise InputError(
            f"The gateway cannot be named {name}: epic-{name} is another container of the hosts.",
            "Choose another --name, or none.",
        )
    known = site.load()
    if host is not None:
        chosen_hosts(hosts, [host])
    if known is not None and host not in (None, known.host):
        raise InputError(
            f"The gateway is on host {known.host}.",
            "epic-run gateway down, then up elsewhere; down --lost where that host is gone for "
            "good.",
        )
    if known is None:
        first = next((name for name in hosts if not hosts[name].draining), next(iter(hosts)))
        known = moved(site.before() or NEW, host or first, hosts)
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


def moved(gateway: Gateway, host: str, hosts: Mapping[str, Host]) -> Gateway:
    """Return a gateway that was, for another host: without what told of its own host alone.

    Args:
        gateway: The gateway as it was.
        host: The name of the other host; empty where that is yet to be chosen.
        hosts: All hosts by name.
    """
    if host == gateway.host:
        return gateway
    old = hosts.get(gateway.host)
    names = {gateway.host, gateway.address, destination(old) if old else ""}
    stays = gateway.public_name not in names and not _is_address(gateway.public_name)
    return replace(
        gateway,
        host=host,
        address=site.ANY_ADDRESS,
        public_name=gateway.public_name if stays else "",
    )


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
    _bring_routes(context, gateway)


def _bring_routes(context: Context, gateway: Gateway) -> None:
    """Bring routes up to date: those of a gateway that was away, or that was made anew."""
    now = time.time()
    with context.store.read() as transaction:
        known = transaction.clusters()
        tenants = {tenant.name: tenant for tenant in transaction.tenants()}
        # An operation that goes on opens the way itself.
        clusters = [
            item
            for item in known
            if item.wanted == "running"
            and not any(
                is_alive(operation, now)
                for operation in transaction.operations(item.tenant, item.name, limit=1)
            )
        ]
    paths = site.routed_paths(gateway, context.hosts)
    container = inspect(context.hosts[gateway.host], gateway.container)
    joined = container["NetworkSettings"]["Networks"].keys()
    networks = {name: network(tenant, context.hosts)["name"] for name, tenant in tenants.items()}
    late = [
        item
        for item in clusters
        if is_out_of_date(item, networks[item.tenant], paths, joined)
        and not awaited_actions(context, item)
    ]
    led_to = {cluster_of(path) for path in paths}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tells = list(pool.map(lambda item: _knows_its_paths(context.hosts, item), late))
    late = [
        item
        for item, knows in zip(late, tells, strict=True)
        if knows or cluster_prefix(item.tenant, item.name) in led_to
    ]
    gone = led_to - {cluster_prefix(item.tenant, item.name) for item in known}
    if not late and not gone:
        return
    variables: dict[str, object] = {
        "gateway_name": gateway.name,
        "gateway_gone": [
            {"path": path, "network": _network_of(path, context.hosts)} for path in sorted(gone)
        ],
        "gateway_clusters": [
            {
                "path": cluster_prefix(item.tenant, item.name),
                "network": networks[item.tenant],
                "routes": routes(
                    item.spec, item.staying(), item.owner, tenants[item.tenant].created_at
                ),
                "secrets": cluster_secrets(item.tenant, item.name),
            }
            for item in late
        ],
    }
    _play(context, gateway, "gateway-routes", variables)


def _network_of(path: str, hosts: Mapping[str, Host]) -> str:
    """Return the name of the network of a tenant of which only a path is known."""
    tenant = path.split("/")[1].rstrip(".")
    return spanning_name(tenant) if is_spread(hosts) else network_name(tenant)


def is_out_of_date(
    cluster: ClusterRecord, of_tenant: str, paths: Iterable[str], joined: Container[str]
) -> bool:
    """Tell whether a gateway does not lead to a cluster as it is now.

    Args:
        cluster: The cluster.
        of_tenant: The name of its tenant's network.
        paths: The paths that lead through the gateway.
        joined: The networks that the gateway is in.
    """
    prefix = cluster_prefix(cluster.tenant, cluster.name)
    wanted = {route["path"] for route in routes(cluster.spec, cluster.staying(), cluster.owner)}
    return of_tenant not in joined or wanted != {
        path for path in paths if cluster_of(path) == prefix
    }


def _knows_its_paths(hosts: Mapping[str, Host], cluster: ClusterRecord) -> bool:
    """Whether services know their paths, as far as their nodes tell."""
    serving = [node for node, _ in endpoints(cluster.spec, cluster.staying())]
    try:
        with within(ANSWER_SECONDS):
            return all(
                read_file(hosts[node.host], node.container, TOLD_FILE) is not None
                for node in serving[:1]
            )
    except EpicError:
        return False


def down(context: Context, gateway: Gateway, *, lost: bool = False) -> list[str]:
    """Remove the gateway; its keys and certificates stay, and what is told of it.

    Of one that is `lost` with its host, nothing is asked: it is only forgotten. Should the host
    come back, `epic-run host drain HOST --undo` removes what is left of it.

    Returns the running clusters that were behind it, as `TENANT/CLUSTER`: nobody reaches them
    until they are repaired, or there is another one.
    """
    with context.store.read() as transaction:
        clusters = [item for item in transaction.clusters() if item.wanted == "running"]
    if lost:
        site.forget(moved(gateway, "", context.hosts))
        return [f"{cluster.tenant}/{cluster.name}" for cluster in clusters]
    try:
        outside = not_routed(gateway, clusters, dict(context.hosts))
    except EpicError:
        outside = []  # its host is away, so it is not told what it led to
    _play(context, gateway, "gateway-remove", {"gateway_name": gateway.name})
    site.forget(gateway)
    names = [f"{cluster.tenant}/{cluster.name}" for cluster in clusters]
    return [name for name in names if name not in outside]


def remove_remains(context: Context, host: str) -> bool:
    """Remove a gateway that came back with a host, while the site's is elsewhere or forgotten.

    Returns:
        Whether there was one.

    Raises:
        DockerUnavailable: The host does not answer.
    """
    known = site.load() or site.before()
    if known is None or (known.host == host and site.load() is not None):
        return False
    try:
        inspect(context.hosts[host], known.container)
    except NotFound:
        return False
    _play(context, replace(known, host=host), "gateway-remove", {"gateway_name": known.name})
    return True


def login(
    transaction: Transaction,
    gateway: Gateway,
    *,
    user: str | None,
    tenant: str | None,
    cluster: str | None,
    hours: float,
    asker: str | None = None,
) -> Login:
    """Issue a session for a member.

    Args:
        transaction: A look into the store.
        gateway: The gateway that it is for.
        user: The member; the tenant's first administrator by default.
        tenant: The tenant; that of the cluster, or the only one, by default.
        cluster: The one cluster that it opens; all of the tenant's by default.
        hours: How long it lasts.
        asker: The member who asks for it; whoever runs the controller by default.

    Raises:
        InputError: There is no such tenant, cluster or member, or none for whom the asker may act.
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
    member = acting_user(transaction.tenant(tenant), user, asker)
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
        raise NotFound(
            f"There is no host {gateway.host}, on which the gateway is.",
            "Put it back into the inventory, or, if it is gone for good, "
            "epic-run gateway down --lost.",
        )
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
        try:
            run_playbook(
                verb,
                inventory,
                running.directory,
                operation=running.record.id,
                listener=running.listener,
            )
        except HostsSilent as problem:
            if not context.hosts[gateway.host].is_local:
                problem.hint = (
                    f"epic-run host check {gateway.host} looks at it; if it is gone for good, "
                    "epic-run gateway down --lost, then epic-run gateway up --host OTHER."
                )
            raise


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
    return platform.node() if _is_address(name) or name == "localhost" else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
