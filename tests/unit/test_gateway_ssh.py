"""SSH through the gateway from data alone: keys, certificates, the config, refusals."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from life_samples import PAGE, host, known, record, spec, tenant

from epic_runner.errors import InputError
from epic_runner.gateway import site, ssh_folder, ssh_keys, tunnel
from epic_runner.inventory import cluster_inventory
from epic_runner.reservation import without_ports
from epic_runner.status import EndpointStatus, published_ports, way_to

GATEWAY = site.Gateway("gw", "local", site.ANY_ADDRESS, 8443, "gw.test", has_own_authority=True)
SETTINGS = {
    "cluster": "lab", "alias": "lab.work", "user": "ada", "ends": 0,
    "nodes": ["master-1", "worker-1", "worker-2"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# --- keys -----------------------------------------------------------------------------------------


def test_a_clusters_host_key_follows_from_the_site_and_the_clusters_token(home: Path) -> None:
    key = ssh_keys.host_key("work", "lab", "secret")
    assert ssh_keys.host_key("work", "lab", "secret") == key
    others = [("work", "lab", "other"), ("work", "two", "secret"), ("play", "lab", "secret")]
    assert len({key, *(ssh_keys.host_key(*names) for names in others)}) == 4
    (home / "gateway" / "ssh-hosts.seed").write_bytes(b"another site's")
    assert ssh_keys.host_key("work", "lab", "secret") != key


def test_openssh_reads_the_host_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(ssh_keys.host_key("work", "lab", "secret"))
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[:2] == ssh_keys.public_line(path.read_bytes()).split()


def test_what_nodes_are_given_is_kept_from_others_and_goes_with_the_cluster(home: Path) -> None:
    given = ssh_keys.node_trust("work", "lab", "secret")
    path = home / "ssh" / "work" / "lab.json"
    assert given["secrets"] == f"file:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_ino
    assert ssh_keys.node_trust("work", "lab", "secret") == given
    assert path.stat().st_ino == before
    ssh_keys.forget("work", "lab")
    assert not path.parent.exists()


def test_a_certificate_is_for_one_account_in_one_cluster_until_its_end(tmp_path: Path) -> None:
    now = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    name = ssh_keys.principal("ada", "work", "lab")
    _, certificate = ssh_keys.new_certificate(name, "ada", 2, now)
    path = tmp_path / "key-cert.pub"
    path.write_bytes(certificate)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(path)], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "TZ": "UTC"},
    ).stdout  # fmt: skip
    assert "user certificate" in shown
    assert "from 2026-01-01T11:55:00 to 2026-01-01T14:00:00" in shown
    words = shown.split()
    begin = words.index("Principals:")
    assert words[begin + 1 : words.index("Critical")] == ["ada@work/lab"]
    extensions = words[words.index("Extensions:") + 1 :]
    assert extensions == ["permit-port-forwarding", "permit-pty"]
    assert ssh_keys.principal("ada", "work", None) == "ada@work/*"


def test_the_first_who_asks_makes_a_key_for_all(home: Path) -> None:
    made = [site.keep_once("x.key", lambda text=text: text) for text in (b"one", b"two")]
    assert made == [b"one", b"one"]
    assert [path.name for path in (home / "gateway").iterdir()] == ["x.key"]


# --- the folder -----------------------------------------------------------------------------------


def test_the_config_names_nodes_there_are_and_nodes_to_come() -> None:
    text = tunnel.config_text("/a folder/100%", SETTINGS)
    hosts = next(line for line in text.splitlines() if line.startswith("Host ")).split()[1:]
    assert hosts[:4] == ["lab", "lab-master-1", "lab-worker-1", "lab-worker-2"]
    assert "lab-worker-??" in hosts
    assert '    ProxyCommand python3 "/a folder/100%%/tunnel.py" %n' in text
    shown = subprocess.run(
        ["ssh", "-F", "/dev/stdin", "-G", "lab-worker-12"], input=text, capture_output=True,
        text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert "user ada" in shown
    assert "stricthostkeychecking true" in shown


@pytest.mark.parametrize(
    ("name", "node"),
    [("lab", "master-1"), ("lab-worker-7", "worker-7"), ("worker-7", "worker-7")],
)
def test_a_host_of_the_config_means_a_node(name: str, node: str) -> None:
    assert tunnel.node_of(name, SETTINGS) == node


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "the session has ended"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "another tenant or cluster"),
        (b"HTTP/1.1 418 I'm a teapot\r\n\r\n", "answers 418"),
        (b"SSH-2.0-OpenSSH\r\n", "answers nothing"),
        (b"", "answers nothing"),
    ],
)
def test_an_answer_that_opens_nothing_says_why(head: bytes, why: str) -> None:
    with pytest.raises(tunnel.Refused, match=why):
        tunnel.refuse(head)
    tunnel.refuse(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


def test_a_folder_that_was_moved_is_configured_anew(tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "tunnel.py").write_text(Path(tunnel.__file__).read_text())
    (folder / tunnel.SETTINGS).write_text(json.dumps(SETTINGS))
    subprocess.run(
        [sys.executable, "-IS", str(folder / "tunnel.py"), "--configure"], check=True, timeout=60
    )
    assert f'IdentityFile "{folder}/key"' in (folder / "config").read_text()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_without_a_gateway_the_way_is_a_shell() -> None:
    cluster = record(spec(), "master-1")
    with pytest.raises(InputError, match="this site has none") as refused:
        ssh_folder.reached(cluster, {})
    assert "epic-run shell lab" in str(refused.value.hint)
    with pytest.raises(InputError, match="is stopped"):
        ssh_folder.reached(replace(cluster, wanted="stopped"), {})


def test_a_folder_is_for_whom_the_asker_may_act(tmp_path: Path) -> None:
    with known(tmp_path, spec(), "master-1") as context, context.store.read() as transaction:
        [cluster] = transaction.clusters()
        with pytest.raises(InputError, match="bob is no administrator"):
            ssh_folder.write(
                transaction, GATEWAY, cluster, tmp_path / "folder", user="ada", hours=1, asker="bob"
            )
    assert not (tmp_path / "folder").exists()


# --- what is published ----------------------------------------------------------------------------


def test_behind_a_gateway_no_node_publishes_anything() -> None:
    cluster = record(spec(endpoints=(PAGE,)), "master-1")

    def ports(gateway: site.Gateway | None) -> list[dict[str, int]]:
        made = cluster_inventory(cluster, tenant(), {"local": host()}, secrets="", gateway=gateway)
        found: list[dict[str, int]] = made["all"]["vars"]["epic_cluster"]["nodes"][0]["ports"]
        return found

    assert ports(None) == [{"container_port": 8080, "host_port": 20000}]
    assert ports(GATEWAY) == []


def test_a_containers_own_word_goes_before_what_is_reserved() -> None:
    summary = {
        "Names": ["/epic.work.lab.master-1"], "State": "running",
        "Ports": [{"PrivatePort": 8080, "PublicPort": 20003, "Type": "tcp"},
                  {"PrivatePort": 9000, "Type": "tcp"}],
    }  # fmt: skip
    assert published_ports([summary]) == {"epic.work.lab.master-1": {8080: 20003}}
    assert published_ports([{**summary, "State": "exited", "Ports": []}]) == {}


@pytest.mark.parametrize(
    ("address", "gateway", "way"),
    [
        ("", None, "epic-run repair lab publishes"),
        ("", GATEWAY, "epic-run gateway up && epic-run repair lab"),
        ("10.112.0.2", None, "epic-run gateway up makes a way"),
    ],
)
def test_addresses_that_nobody_reaches_come_with_what_opens_a_way(address, gateway, way) -> None:
    of = record(spec(), "master-1")
    cluster = replace(of, nodes=(replace(of.nodes[0], address=address),))
    hidden = EndpointStatus("spark-master", "Spark", "master-1", "http://lab-master-1", "network")
    assert way_to(cluster, [hidden], gateway).startswith(way)
    assert way_to(cluster, [replace(hidden, reach="host")], gateway) == ""
    assert way_to(replace(cluster, wanted="stopped"), [hidden], gateway) == ""


def test_nodes_that_were_behind_a_gateway_when_they_were_recovered_have_no_ports() -> None:
    cluster = record(spec(endpoints=(PAGE,)), "master-1", "worker-1")
    assert without_ports(cluster) == frozenset()
    lost = replace(cluster, nodes=(replace(cluster.nodes[0], ports={}), cluster.nodes[1]))
    assert without_ports(lost) == {"master-1"}
