"""Addresses, sessions, certificates and maps of the gateway, from data alone."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from life_samples import NOTEBOOK, PAGE, document, host, record, spec, tenant

from epic_runner import hosting
from epic_runner.cli import cli
from epic_runner.errors import InputError, NotFound
from epic_runner.gateway import certificates, lifecycle, paths, sessions, site
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.lifecycle import Context
from epic_runner.status import Place, endpoints, probe_all
from epic_runner.store import Store

GATEWAY = site.Gateway("gw", "local", site.ANY_ADDRESS, 8443, "gw.test", has_own_authority=True)
LAB = replace(NOTEBOOK, keeps_path=True)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EPIC_DATABASE_URL", raising=False)
    return tmp_path / "home"


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "segment"), [("lab", "lab"), ("proxy", "proxy."), ("history", "history.")]
)
def test_no_segment_misleads_the_scripts_of_sparks_pages(name: str, segment: str) -> None:
    assert paths.segment(name) == segment
    assert paths.cluster_prefix("work", name) == f"/work/{segment}"


def test_routes_tell_since_when_the_tenant_is_there() -> None:
    cluster = record(spec(), "master-1", "worker-1")
    of = replace(tenant(), created_at=1700000000.9)
    data = cluster_inventory(cluster, of, {"local": host()}, secrets="")
    # A session of the same second is the tenant's own: its time is cut off as well.
    assert {route["since"] for route in data["all"]["vars"]["epic_cluster"]["routes"]} == {
        1700000000
    }


def test_every_endpoint_of_every_node_has_a_path_of_its_own() -> None:
    cluster = record(spec(endpoints=(PAGE, LAB)), "master-1", "master-2", "worker-1")
    routes = paths.routes(cluster.spec, cluster.nodes, "ada")
    assert [(route["path"], route["member"], route["mode"]) for route in routes] == [
        ("/work/lab/master-1/spark-master", "*", "strip"),
        ("/work/lab/master-1/jupyter", "ada", "keep"),
        ("/work/lab/master-2/spark-master", "*", "strip"),
        ("/work/lab/master-2/jupyter", "ada", "keep"),
        ("/work/lab/master-1/ssh", "*", "ssh"),
        ("/work/lab/master-2/ssh", "*", "ssh"),
        ("/work/lab/worker-1/ssh", "*", "ssh"),
    ]


def test_a_node_of_a_role_that_is_gone_has_no_route() -> None:
    cluster = record(spec(), "master-1", "other-1")
    pages = [route for route in paths.routes(cluster.spec, cluster.nodes, "ada")
             if route["mode"] != "ssh"]  # fmt: skip
    assert len(pages) == 1


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "https://gw.test:8443"),
        ({"port": 443}, "https://gw.test"),
        ({"public_name": "::1"}, "https://[::1]:8443"),
    ],
)
def test_the_gateways_address(values, url: str) -> None:
    assert replace(GATEWAY, **values).url == url


def test_endpoints_are_behind_the_gateway_without_a_token() -> None:
    cluster = record(spec(endpoints=(PAGE,)), "master-1")
    [found] = endpoints(cluster, with_token=True, gateway=GATEWAY)
    assert found.url == "https://gw.test:8443/work/lab/master-1/spark-master/"
    [found] = endpoints(cluster, with_token=True)
    assert found.url == "http://127.0.0.1:20000/"


def test_a_service_that_knows_its_path_is_asked_there() -> None:
    from epic_runner.spec.models import AppProbe

    of = spec(endpoints=(LAB,), services=("jupyter",))
    node = replace(record(of, "master-1").nodes[0], ports={"jupyter": 20001})
    cluster = replace(record(of), nodes=(node,))
    probes = {"jupyter": AppProbe(endpoint="jupyter", path="/api")}
    asked: list[str] = []

    def ask(place: Place) -> tuple[object, None]:
        asked.append(f"{place.published} {' '.join(place.paths)}")
        return {}, None

    assert probe_all(cluster, probes, ask) == {("jupyter", "lab-master-1"): None}
    assert probe_all(cluster, probes, ask, is_behind_gateway=True) == {
        ("jupyter", "lab-master-1"): None
    }
    behind = "/work/lab/master-1/jupyter/api"
    assert asked == [f"20001 /api {behind}", f"20001 {behind} /api"]
    nothing = {node.container: dict[int, int]()}
    probe_all(cluster, probes, ask, published=nothing)
    assert asked[-1] == f"None /api {behind}"


def test_an_inventory_has_a_gateway_only_where_the_site_has_one() -> None:
    cluster, hosts = record(spec(), "master-1"), {"local": host()}

    def made(gateway: site.Gateway | None):
        of = cluster_inventory(cluster, tenant(), hosts, secrets="file:/s", gateway=gateway)["all"]
        names = set(of["children"]["gateway_hosts"]["hosts"])
        return names, of["vars"]["epic_cluster"]["path"], of["vars"]["epic_gateway"]["name"]

    assert made(None) == (set(), "", "")
    assert made(GATEWAY) == ({"local"}, "/work/lab", "gw")


# --- sessions -------------------------------------------------------------------------------------

SESSION = sessions.Session("gw", "ada", "work", None, 2, "/-/welcome")


def test_a_session_says_whom_it_lets_in_where_and_until_when() -> None:
    claims = SESSION.claims(1000.5)
    assert {key: claims[key] for key in ("aud", "sub", "tenant", "cluster", "exp")} == {
        "aud": "gw", "sub": "ada", "tenant": "work", "cluster": "*", "exp": 8200,
    }  # fmt: skip
    assert claims["login_by"] == 1000 + sessions.LOGIN_SECONDS
    assert claims["jti"] != SESSION.claims(1000.5)["jti"]
    assert replace(SESSION, cluster="proxy").claims(0)["cluster"] == "proxy."


def test_a_session_is_signed_as_others_verify_it() -> None:
    key = certificates.load_key(certificates.new_key())
    head, body, signature = sessions.sign(SESSION.claims(0), key).split(".")
    assert json.loads(decoded(head)) == {"alg": "ES256", "typ": "JWT"}
    assert json.loads(decoded(body))["sub"] == "ada"
    raw = decoded(signature)
    assert len(raw) == 64
    numbers = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.public_key().verify(
        encode_dss_signature(*numbers), f"{head}.{body}".encode(), ECDSA(SHA256())
    )


def test_a_code_hides_the_session_from_whoever_lacks_the_seal() -> None:
    seal = b"k" * sessions.SEAL_BYTES
    code = sessions.seal("the.session.itself", seal)
    nonce, text, tag = map(decoded, code.split("."))
    assert AESGCM(seal).decrypt(nonce, text + tag, None) == b"the.session.itself"
    assert code != sessions.seal("the.session.itself", seal)


def test_a_login_is_for_members_and_names_the_cluster(tmp_path: Path) -> None:
    del tmp_path
    lifecycle.keep_keys()
    store = Store()
    with store.transaction() as transaction:
        transaction.apply_tenant(dict(tenant().document))
    with store.read() as transaction:
        made = lifecycle.login(transaction, GATEWAY, user="bob", tenant=None, cluster=None, hours=1)
        assert (made.session.user, made.session.tenant) == ("bob", "work")
        assert made.url == f"https://gw.test:8443/-/login#{made.code}"
        with pytest.raises(InputError, match="eve is not a member"):
            lifecycle.login(transaction, GATEWAY, user="eve", tenant="work", cluster=None, hours=1)
    store.close()


@pytest.mark.parametrize(
    ("asker", "words", "says"),
    [
        (None, [], "ada"),
        ("bob", [], "bob"),
        ("ada", ["bob"], "bob"),
        (None, ["bob"], "bob"),
        ("bob", ["ada"], "bob is no administrator of tenant work, and may not act for ada."),
        ("eve", [], "eve is not a member"),
        ("eve", ["ada"], "eve is not a member"),
    ],
)
def test_a_login_is_for_whom_the_asker_may_act(
    monkeypatch: pytest.MonkeyPatch, asker: str | None, words: list[str], says: str
) -> None:
    lifecycle.keep_keys()
    site.keep(GATEWAY)
    with Store().transaction() as transaction:
        transaction.apply_tenant(dict(tenant().document))
    if asker:
        monkeypatch.setenv("EPIC_USER", asker)
    done = CliRunner().invoke(cli, ["login", *words, "--output", "json"])
    if done.exception:
        assert says in str(done.exception)
    else:
        assert json.loads(done.stdout)["user"] == says


def test_a_shell_is_for_whom_the_asker_may_act(monkeypatch: pytest.MonkeyPatch) -> None:
    of = spec(1)
    with Store().transaction() as transaction:
        transaction.apply_tenant(dict(tenant().document))
        transaction.add_cluster(of, "ada", record(of, "master-1").nodes)
    monkeypatch.setenv("EPIC_USER", "bob")
    done = CliRunner().invoke(cli, ["shell", "lab", "--as", "ada", "--", "true"])
    assert "bob is no administrator of tenant work" in str(done.exception)


# --- certificates and settings --------------------------------------------------------------------


def test_the_private_authority_vouches_for_the_gateway_alone() -> None:
    authority = certificates.new_authority("gw", ["gw.test", "127.0.0.1"])
    server = certificates.new_server(authority, ["gw.test", "127.0.0.1"])
    assert certificates.names_of(server.certificate) == ["gw.test", "127.0.0.1"]
    assert certificates.issued_by(server.certificate, authority.certificate)
    assert certificates.allows(authority.certificate, ["gw.test"])
    assert not certificates.allows(authority.certificate, ["bank.example"])
    limits = x509.load_pem_x509_certificate(
        authority.certificate
    ).extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical


def test_a_certificate_is_renewed_before_it_ends() -> None:
    authority = certificates.new_authority("gw", ["gw.test"])
    server = certificates.new_server(authority, ["gw.test"]).certificate
    now = dt.datetime.now(dt.UTC)
    assert certificates.covers(server, ["gw.test"], now)
    assert not certificates.covers(server, ["gw.test", "other.test"], now)
    late = now + dt.timedelta(days=certificates.SERVER_DAYS - certificates.RENEW_DAYS + 1)
    assert not certificates.covers(server, ["gw.test"], late)


def test_the_authority_stays_as_long_as_the_names_do(home: Path) -> None:
    lifecycle.keep_own_certificate(GATEWAY)
    first = {name: (home / "gateway" / name).read_bytes() for name in ("ca.pem", "server.pem")}
    lifecycle.keep_own_certificate(GATEWAY)
    assert {name: (home / "gateway" / name).read_bytes() for name in first} == first
    lifecycle.keep_own_certificate(replace(GATEWAY, public_name="new.test"))
    assert (home / "gateway" / "ca.pem").read_bytes() != first["ca.pem"]
    assert {path.stat().st_mode & 0o777 for path in (home / "gateway").iterdir()} == {0o600}


def test_a_certificate_and_a_key_go_together(tmp_path: Path) -> None:
    authority = certificates.new_authority("gw", ["gw.test"])
    own = certificates.new_server(authority, ["gw.test"])
    certificates.check_pair(own.certificate, own.key)
    with pytest.raises(InputError, match="do not belong together"):
        certificates.check_pair(own.certificate, certificates.new_key())
    with pytest.raises(InputError, match="cannot be read"):
        certificates.check_pair(b"no certificate", own.key)
    with pytest.raises(InputError, match="go together"):
        lifecycle.read_pair("gw.pem", None)
    with pytest.raises(InputError, match="No such file"):
        lifecycle.read_pair(str(tmp_path / "none.pem"), str(tmp_path / "none.key"))


def test_what_is_not_given_stays_as_it_was() -> None:
    assert lifecycle.wanted({"local": host()}, public_name="gw.test").port == site.DEFAULT_PORT
    site.keep(replace(GATEWAY, port=9000, has_own_authority=False))
    same = lifecycle.wanted({"local": host()})
    assert (same.port, same.public_name, same.has_own_authority) == (9000, "gw.test", False)
    assert lifecycle.wanted({"local": host()}, has_own_authority=True).has_own_authority
    assert lifecycle.wanted({"local": host()}, address="192.0.2.1").public_name == "192.0.2.1"
    site.forget(GATEWAY)
    assert site.load() is None
    with pytest.raises(InputError, match="has no gateway"):
        site.load_or_refuse()


HOSTS = {
    name: Host(name, 4, 2**33, draining=name == "h1", variables={"ansible_host": address})
    for name, address in (("h1", "192.0.2.11"), ("h2", "192.0.2.12"))
}


@pytest.mark.parametrize(
    ("name", "kept"), [("gw.test", "gw.test"), ("192.0.2.11", "192.0.2.12"), ("h1", "192.0.2.12")]
)
def test_a_gateway_moves_with_all_but_what_told_of_its_host(name: str, kept: str) -> None:
    old = replace(GATEWAY, host="h1", address="192.0.2.11", port=9000, public_name=name)
    site.keep(replace(old, has_own_authority=False))
    with pytest.raises(InputError, match="The gateway is on host h1"):
        lifecycle.wanted(HOSTS, host="h2")
    site.forget(replace(old, has_own_authority=False))
    made = lifecycle.wanted(HOSTS, host="h2")
    assert (made.name, made.host, made.port, made.public_name) == ("gw", "h2", 9000, kept)
    assert (made.address, made.has_own_authority) == (site.ANY_ADDRESS, False)


def test_a_gateway_that_is_lost_is_forgotten_without_its_host(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    with store.transaction() as transaction:
        transaction.apply_tenant(document())
        transaction.add_cluster(spec(), "ada", record(spec(), "master-1").nodes)
    gateway = replace(GATEWAY, host="gone")
    site.keep(gateway)
    context = Context(store, HOSTS)
    with pytest.raises(NotFound) as refused:
        lifecycle.down(context, gateway)
    assert "epic-run gateway down --lost" in (refused.value.hint or "")
    assert lifecycle.down(context, gateway, lost=True) == ["work/lab"]
    assert site.load() is None
    # The next one is on the first host that takes nodes, unless people name one.
    made = lifecycle.wanted(HOSTS)
    assert (made.host, made.name, made.public_name) == ("h2", "gw", "gw.test")
    site.keep(made)
    assert site.before() is None


def test_the_host_of_the_gateway_is_neither_drained_nor_removed(tmp_path: Path) -> None:
    site.keep(replace(GATEWAY, host="h2"))
    context = Context(Store(f"sqlite:///{tmp_path / 'store.db'}"), HOSTS)
    for refused in (hosting.drain, hosting.remove):
        with pytest.raises(InputError, match="Host h2 has the gateway") as told:
            refused(context, "h2")
        assert "epic-run gateway up --host OTHER" in (told.value.hint or "")
    assert not hosting.states(context)[1].host.draining


def test_routes_are_out_of_date_where_nodes_came_or_went_or_a_network_is_missing() -> None:
    cluster = record(spec(endpoints=(PAGE,)), "master-1", "worker-1", "worker-2")
    led_to = {route["path"] for route in paths.routes(cluster.spec, cluster.nodes, "ada")}
    others = {"/work/labor/master-1/ssh"}
    joined = {"epic_work"}
    assert not lifecycle.is_out_of_date(cluster, "epic_work", led_to | others, joined)
    assert lifecycle.is_out_of_date(cluster, "epic_work", led_to, set())
    assert lifecycle.is_out_of_date(cluster, "epic_work", others, joined)
    leaving = replace(cluster, leaving=frozenset({"worker-2"}))
    assert lifecycle.is_out_of_date(leaving, "epic_work", led_to, joined)


@pytest.mark.parametrize("name", ["firewall", "registry"])
def test_a_gateway_has_no_name_by_which_it_would_be_another_container(name: str) -> None:
    with pytest.raises(InputError, match=f"epic-{name} is another container"):
        lifecycle.wanted({"local": host()}, name=name)
