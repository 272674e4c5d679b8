"""What a tenant may reach: from its document to the firewall's wishes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from content_modules import firewall as utility

from epic_runner.egress import WaysOut, allowed, still_open, way_out
from epic_runner.errors import InputError
from epic_runner.hosts import Host
from epic_runner.mirrors import of_urls, package_mirrors
from epic_runner.spec.destinations import Destination, parse_destination
from epic_runner.spec.models import Tenant
from epic_runner.store import TenantRecord

PROGRAM = Path(__file__).parents[2] / "images/firewall/rootfs/usr/local/lib/epic/firewall.py"
_found = importlib.util.spec_from_file_location("epic_firewall_program", PROGRAM)
assert _found
assert _found.loader
program = importlib.util.module_from_spec(_found)
_found.loader.exec_module(program)

MIRROR = Destination("mirror.example.com", 443)
SITE = WaysOut("epic/firewall:1.0-r1", (MIRROR,), ("192.0.2.0/24",))
POLICY: dict[str, Any] = {
    "tenant": "a", "bridge": "epoa", "subnet": "10.108.0.0/23", "gateway": "10.108.0.1",
    "inside": False, "allow": [{"to": "10.0.0.0/8", "port": 0}, {"to": "git", "port": 443}],
    "closed": ["10.0.0.5"], "resolvers": ["10.0.0.53"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "to", "port"),
    [
        ("10.1.0.0/16", "10.1.0.0/16", 0),
        ("10.1.2.3", "10.1.2.3", 0),
        ("10.1.0.0/16:8020", "10.1.0.0/16", 8020),
        ("NN1.Example.com:8020", "nn1.example.com", 8020),
        ("nexus", "nexus", 0),
        ("0.0.0.0/0", "0.0.0.0/0", 0),
    ],
)
def test_a_destination_is_a_network_or_a_name_with_a_port_or_without(
    text: str, to: str, port: int
) -> None:
    assert parse_destination(text) == Destination(to, port)


def test_a_tenant_that_says_nothing_reaches_packages_and_its_datataps() -> None:
    assert Tenant(name="a").egress.allow == ("packages", "datataps")
    assert Tenant.model_validate({"name": "a", "egress": "none"}).egress.allow == ()


def test_a_stored_document_means_what_was_written() -> None:
    tenant = Tenant.model_validate({"name": "a", "egress": {"allow": ["nn1:8020"]}})
    assert Tenant.model_validate(tenant.model_dump(mode="json")) == tenant


def tenant(egress: Any = None, subnet: str | None = None) -> TenantRecord:
    document = {"name": "a", **({"egress": {"allow": egress}} if egress is not None else {})}
    return TenantRecord("a", document, {}, subnet)


def hosts(*names: str) -> dict[str, Host]:
    return {name: Host(name, 4, 2**33, mtu=1400, addresses=("192.168.7.1",)) for name in names}


def test_what_is_allowed_is_the_list_with_the_words_made_servers() -> None:
    document = {"egress": {"allow": ["packages", "datataps", "nn1:8020", "10.1.0.0/16"]}}
    assert allowed(document, [MIRROR]) == [
        MIRROR, Destination("nn1", 8020), Destination("10.1.0.0/16"),
    ]  # fmt: skip
    assert allowed({}, [MIRROR]) == [MIRROR]


def test_on_one_host_a_tenant_has_rules_also_where_nothing_is_open() -> None:
    wanted = way_out(tenant([]), hosts("local"), SITE, "epic.a")
    assert wanted["allow"] == []
    assert wanted["closed"] == ["192.0.2.0/24", "192.168.7.1"]
    assert "subnet" not in wanted


def test_on_several_hosts_there_is_a_bridge_only_where_something_is_open() -> None:
    assert way_out(tenant([], "10.112.8.0/21"), hosts("h1", "h2"), SITE, "epic.a") == {}
    wanted = way_out(tenant(None, "10.112.8.0/21"), hosts("h1", "h2"), SITE, "epic.a")
    assert (wanted["subnet"], wanted["gateway"], wanted["mtu"]) == (
        "10.108.2.0/23", "10.108.2.1", 1400,
    )  # fmt: skip
    assert {"10.112.0.0/12", "10.108.0.0/14", "192.168.7.1"} <= set(wanted["closed"])


def test_mirrors_are_what_the_site_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIC_PACKAGE_MIRRORS", "nexus:8081, mirror.example.com")
    assert package_mirrors() == (
        Destination("nexus", 8081), Destination("mirror.example.com", 80), MIRROR,
    )  # fmt: skip
    monkeypatch.setenv("EPIC_PACKAGE_MIRRORS", "https://nexus")
    with pytest.raises(InputError, match="EPIC_PACKAGE_MIRRORS: https://nexus must be"):
        package_mirrors()


def test_without_a_setting_mirrors_are_those_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPIC_PACKAGE_MIRRORS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:pw@pip.example.com:3141/simple")
    assert Destination("pip.example.com", 3141) in package_mirrors()
    assert of_urls(["https://x.example.com/y"]) == (
        Destination("x.example.com", 80), Destination("x.example.com", 443),
    )  # fmt: skip


def test_what_is_closed_comes_before_what_is_open() -> None:
    chain = program.tenant_chain(POLICY, {"git": {"192.0.2.9": 1.0}})
    closed = next(n for n, rule in enumerate(chain) if "169.254.0.0/16" in rule)
    assert "10.0.0.5" in chain[closed]
    opened = [n for n, rule in enumerate(chain) if rule.endswith("accept")]
    assert [chain[n] for n in opened] == [
        "ip daddr { 10.0.0.53/32 } meta l4proto { tcp, udp } th dport 53 accept",
        "ip daddr { 10.0.0.0/8 } accept",
        "ip daddr { 192.0.2.9/32 } meta l4proto { tcp, udp } th dport 443 accept",
    ]
    assert opened[1] > closed
    assert chain[0] == "ip saddr != 10.108.0.0/23 drop"
    assert chain[-1] == program.REJECT


def test_ports_that_hosts_publish_are_closed_whatever_bridge_is_behind_them() -> None:
    chain = program.tenant_chain({**POLICY, "allow": [{"to": "0.0.0.0/0", "port": 0}]}, {})
    asked_for = next(n for n, rule in enumerate(chain) if rule.startswith("ct original ip daddr"))
    assert "10.0.0.5/32" in chain[asked_for]
    assert chain[asked_for].endswith(program.REJECT)
    assert asked_for < chain.index("ip daddr { 0.0.0.0/0 } accept")
    # A host that is a resolver is asked for names.
    assert asked_for > next(n for n, rule in enumerate(chain) if "th dport 53" in rule)


def test_a_tenant_without_a_list_asks_no_resolver_and_reaches_only_itself() -> None:
    policy = {**POLICY, "allow": [], "inside": True}
    accepted = [rule for rule in program.tenant_chain(policy, {}) if rule.endswith("accept")]
    assert accepted == ['oifname "epoa" accept']
    assert 'iifname "epoa" ip daddr' not in program.rules([policy], {})


def test_addresses_of_names_are_kept_for_a_while() -> None:
    once = program.remembered({}, {"git": {"192.0.2.1"}}, 0.0)
    later = program.remembered(once, {"git": {"192.0.2.2"}}, 100.0)
    assert set(later["git"]) == {"192.0.2.1", "192.0.2.2"}
    assert set(program.remembered(later, {"git": set()}, 3650.0)["git"]) == {"192.0.2.2"}


# An nft that keeps the table in a file; what it is told is noted.
NFT = """#!/bin/sh
case "$*" in
    "--file -") cat >"$HERE/table" && echo put >>"$HERE/puts" ;;
    monitor) exec sleep 60 ;;
    *) cat "$HERE/table" ;;
esac
"""
# The program with a resolver that knows one name and is silent about the others.
KEEP = """
import pathlib, runpy, socket, sys, time
program = runpy.run_path(sys.argv[1])
here = pathlib.Path(sys.argv[2])
program["keep"].__globals__.update(POLICIES=here, EXPECTED=here / "run", CHECK_SECONDS=0.1)

def asked(name, *_):
    time.sleep(0 if name == "git" else 60)
    return [(0, 0, 0, "", ("192.0.2.9", 0))]

socket.getaddrinfo = asked
program["keep"]()
"""


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `firewall.py keep` on the policies of a folder."""
    (folder / "nft").write_text(NFT)
    (folder / "nft").chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}", "HERE": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", KEEP, str(PROGRAM), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **path},
    ) as running:  # fmt: skip
        try:
            yield running
        finally:
            running.kill()


def soon(is_so: Callable[[], bool]) -> bool:
    """Tell whether something becomes so within some seconds, far less than the resolver takes."""
    end = time.monotonic() + 20
    while not is_so() and time.monotonic() < end:
        time.sleep(0.02)
    return is_so()


def test_a_resolver_that_is_silent_holds_up_neither_launches_nor_the_look_at_the_table(
    tmp_path: Path,
) -> None:
    table = tmp_path / "table"
    allow = [{"to": "silent.example.com", "port": 0}, {"to": "git", "port": 443}]
    (tmp_path / "a.json").write_text(json.dumps({**POLICY, "allow": allow}))
    with kept(tmp_path) as running:
        assert running.stdout
        assert running.stdout.readline().startswith("ok epoa=")
        assert soon(lambda: "192.0.2.9/32" in table.read_text())
        table.write_text("flushed")
        assert soon(lambda: table.read_text() != "flushed")
        (tmp_path / "b.json").write_text(json.dumps({**POLICY, "bridge": "epob"}))
        running.send_signal(signal.SIGHUP)
        assert soon(lambda: "chain epob" in table.read_text())
        assert "192.0.2.9/32" in table.read_text()
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_a_bridge_has_a_name_that_the_firewall_knows_and_the_kernel_takes() -> None:
    name = utility.bridge_name("epic.a-tenant-with-a-rather-long-name")
    assert name.startswith(program.PREFIX)
    assert len(name) <= 15
    assert program.PREFIX + "*" in program.rules([], {})


def test_nodes_are_led_to_resolvers_that_are_not_of_the_loopback() -> None:
    assert utility.is_outside(["192.0.2.53"])
    assert not utility.is_outside(["127.0.0.53"])
    assert not utility.is_outside(["fe80::1"])
    assert not utility.is_outside([])


def test_servers_that_the_engine_is_set_to_ask_are_open_beside_the_hosts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, resolv = tmp_path / "daemon.json", tmp_path / "resolv.conf"
    monkeypatch.setattr(utility, "ENGINE_SETTINGS", str(settings))
    monkeypatch.setattr(utility, "RESOLVERS", (str(tmp_path / "none"), str(resolv)))
    resolv.write_text("search example.com\nnameserver 192.0.2.53\nnameserver 127.0.0.1\n")
    assert utility.host_resolvers() == ["192.0.2.53"]
    settings.write_text('{"dns": ["192.0.2.99", "192.0.2.53", "127.0.0.1", "2001:db8::1"]}')
    assert utility.host_resolvers() == ["192.0.2.53", "192.0.2.99"]


@pytest.mark.parametrize("text", ["", "[]", '{"dns": null}', '{"dns": [7]}', '{"debug": true}'])
def test_settings_of_the_engine_that_name_no_server_open_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "daemon.json").write_text(text)
    monkeypatch.setattr(utility, "ENGINE_SETTINGS", str(tmp_path / "daemon.json"))
    assert utility.engine_resolvers() == []


class Engine:
    """An engine whose firewall runs and takes up what is in its files at once."""

    def __init__(self, **policies: Any) -> None:
        self.files = {f"{name}.json": json.dumps(policy) for name, policy in policies.items()}
        self.running = True
        self.asked: list[str] = []

    def request(self, method: str, url: str, body: Any = None, **_: Any) -> Any:
        self.asked.append(f"{method} {url}")
        if method == "GET" and url.endswith("/archive"):
            files = {f"epic-firewall/{name}": text for name, text in self.files.items()}
            return utility.archive({path: {"content": text} for path, text in files.items()})
        if method == "PUT":
            with tarfile.open(fileobj=io.BytesIO(body)) as files:
                for member in files:
                    self.files[member.name] = files.extractfile(member).read().decode()
        if url.endswith("/logs"):
            pairs = [
                f"{json.loads(text)['bridge']}={hashlib.sha256(text.encode()).hexdigest()[:8]}"
                for text in self.files.values() if text
            ]  # fmt: skip
            return b"12345678" + " ".join(["ok", *pairs]).encode()
        return {"State": {"Running": self.running, "StartedAt": "2026-01-01T00:00:00.1Z"}}

    def changes(self) -> list[str]:
        return [item for item in self.asked if not item.startswith("GET")]


def policies_of(engine: Engine) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in engine.files.items() if text}


def test_addresses_of_hosts_are_closed_to_all_tenants_beside_what_is_closed() -> None:
    other = {**POLICY, "tenant": "b", "bridge": "epob", "closed": ["10.0.0.5", "192.0.2.9"]}
    engine = Engine(a=POLICY, b=other, forgotten={})
    engine.files["forgotten.json"] = ""
    firewall = utility.Firewall(engine)
    assert firewall.closed() == ["10.0.0.5"]
    assert firewall.close({"192.0.2.9"}, check=True)
    assert engine.changes() == []
    assert firewall.close({"192.0.2.9"})
    # The other tenant's were as wanted.
    assert [item.split()[0] for item in engine.changes()] == ["PUT", "POST"]
    now = policies_of(engine)
    assert now == {"a.json": {**POLICY, "closed": ["10.0.0.5", "192.0.2.9"]}, "b.json": other}
    assert firewall.closed() == ["10.0.0.5", "192.0.2.9"]
    engine.asked.clear()
    assert not firewall.close({"192.0.2.9"})
    assert engine.changes() == []
    # What a launch tells with the same knowledge is that very file.
    assert utility.in_writing(now["a.json"])[0].decode() == engine.files["a.json"]


def test_a_firewall_that_does_not_run_learns_of_addresses_when_it_starts() -> None:
    engine = Engine(a=POLICY)
    engine.running = False
    assert utility.Firewall(engine).close({"192.0.2.9"})
    assert [item.split()[0] for item in engine.changes()] == ["PUT"]


def test_addresses_are_open_that_no_closed_network_holds() -> None:
    assert still_open(["10.0.0.0/8", "192.0.2.1"], ["10.1.1.1", "192.0.2.1", "192.0.2.2"]) == [
        "192.0.2.2"
    ]
