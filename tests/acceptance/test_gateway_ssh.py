"""SSH through the gateway: what members can do, and what opens nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gateway_support
import life_support
import pytest
from gateway_support import Gated, published
from life_support import Site, until

from epic_runner.gateway import ssh_keys

pytestmark = [pytest.mark.docker]

# A node of the tenant that goes to another's SSH server past the gateway.
PAST = r"""
exec 3<>"/dev/tcp/$1/22"
printf 'GET / HTTP/1.1\r\nUpgrade: ssh\r\n\r\n' >&3
while IFS= read -r line <&3 && [[ ${line%$'\r'} ]]; do :; done
cat <&3 & exec cat >&3
"""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """A gateway and a cluster behind it."""
    with (
        life_support.site(tmp_path_factory.mktemp("ssh")) as site,
        gateway_support.gateway(site) as made,
    ):
        template = site.template("one", workers=2)
        site.run("launch", template)
        assert "ssh" not in site.inside("worker-1", "ls", "/etc/epic/services", cluster="one")
        refused = site.run("ssh", "one", "--", "true", code=2)
        assert "this site has none" in refused.err
        assert "epic-run shell one" in refused.err
        made.up()
        refused = site.run("ssh", "one", "--", "true", code=2)
        assert "older than the gateway" in refused.err
        fates = planned(site, template)
        assert fates.pop("master-1") == ("recreate", "it publishes ports")
        assert {action for action, _ in fates.values()} == {"restart"}
        site.run("repair", "one")
        assert {action for action, _ in planned(site, template).values()} == {"keep"}
        yield made


def planned(site: Site, template: str) -> dict[str, tuple[str, str]]:
    """Return what a launch would do with each node, and why."""
    nodes = site.json("plan", template)["nodes"]
    return {node["name"]: (node["action"], node["reason"]) for node in nodes}


@pytest.fixture(scope="module")
def bobs(gated: Gated) -> Path:
    """The folder that bob is handed for the cluster."""
    folder = gated.site.folder / "bob ssh"
    made = gated.site.json("login", "bob", "--cluster", "one", "--ssh", str(folder))
    assert (made["user"], made["folder"]) == ("bob", str(folder))
    return folder


def ssh(
    folder: Path, *arguments: str, program: str = "ssh", code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run ssh or its like with a folder's config; its exit code has to be `code`."""
    done = subprocess.run(
        [program, "-F", str(folder / "config"), *arguments], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    assert code in (None, done.returncode), f"{done.returncode}: {done.stdout}{done.stderr}"
    return done


def changed(folder: Path, to: Path, **files: bytes) -> Path:
    """Return a copy of a folder in which files are others."""
    shutil.copytree(folder, to)
    for name, content in files.items():
        (to / {"certificate": "key-cert.pub"}.get(name, name)).write_bytes(content)
    subprocess.run(["python3", str(to / "tunnel.py"), "--configure"], check=True)
    return to


def certified(
    gated: Gated, monkeypatch: pytest.MonkeyPatch, name: str, hours: float = 1
) -> dict[str, bytes]:
    """Return a key with a certificate of the site's authority, for a principal of this name."""
    monkeypatch.setenv("EPIC_HOME", str(gated.site.home))
    now = dt.datetime.now(dt.UTC)
    key, certificate = ssh_keys.new_certificate(name, "bob", hours, now)
    return {"key": key, "certificate": certificate}


def test_a_member_is_in_on_every_node_with_an_account_of_their_own(
    gated: Gated, bobs: Path
) -> None:
    for host in ("one", "one-master-1", "one-worker-2"):
        said = ssh(bobs, host, "id -un; hostname; umask; echo $SPARK_HOME $EPIC_TENANT").stdout
        name = "one-master-1" if host == "one" else host
        assert said.split() == ["bob", name, "0002", "/opt/spark", gated.site.tenant]
    assert ssh(bobs, "one", "exit 7", code=7).stdout == ""
    assert ssh(bobs, "-t", "-t", "one", "tty").stdout.startswith("/dev/pts/")
    words = gated.site.run("ssh", "one", "worker", "--as", "ada", "--", "echo", "two  words; id")
    assert words.out == "two  words; id\n"
    assert gated.site.run("ssh", "one", "--", "sh", "-c", "id -un; exit 3", code=3).out == "ada\n"
    # What a connection of our own needs goes with it.
    assert list(gated.site.home.glob(".ssh-*")) == []
    files = {path: path.stat().st_mode & 0o777 for path in bobs.iterdir()}
    assert set(files.values()) == {0o600}
    assert bobs.stat().st_mode & 0o777 == 0o700


def test_files_go_both_ways(gated: Gated, bobs: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(8 * 2**20))
    large.chmod(0o664)
    ssh(bobs, str(large), "one:/tenant/large.bin", program="scp")
    ssh(bobs, "one-worker-1:/tenant/large.bin", str(tmp_path / "back.bin"), program="scp")
    wanted, back = (path.read_bytes() for path in (large, tmp_path / "back.bin"))
    assert hashlib.sha256(back).digest() == hashlib.sha256(wanted).digest()
    # As what is made in any other way, it is the tenant's group's too.
    command = ["stat", "-c", "%U %G %a", "/tenant/large.bin"]
    shown = gated.site.inside("master-1", *command, cluster="one")
    assert shown == "bob tenant 664"


def test_a_port_of_a_node_is_forwarded(bobs: Path) -> None:
    port = gateway_support.free_port()
    command = ["ssh", "-F", str(bobs / "config"), "-N", "-L", f"{port}:one-master-1:8080",
               "-o", "ExitOnForwardFailure=yes", "one"]  # fmt: skip
    forwarding = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), "the port is forwarded", seconds=60)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/json/")
        assert json.load(connection.getresponse())["aliveworkers"] == 2
        connection.close()
    finally:
        forwarding.terminate()
        forwarding.wait()


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def test_nothing_opens_the_way_but_a_session_for_the_cluster(
    gated: Gated, bobs: Path, tmp_path: Path
) -> None:
    path = gated.path("ssh", "one")
    token = gated.token("bob", "--cluster", "one")
    assert gated.status(path, token) == 426
    assert gated.status(path, token, Connection="Upgrade", Upgrade="h2c") == 426
    assert gated.status(path, Connection="Upgrade", Upgrade="ssh") == 401
    for name, why in (("", "has ended"), ("e.e.e", "has ended")):
        folder = changed(bobs, tmp_path / f"session-{len(name)}", session=name.encode())
        assert why in ssh(folder, "one", "id", code=255).stderr
    settings = json.loads((bobs / "gateway.json").read_text())
    other = {**settings, "path": settings["path"].replace("/one", "/two")}
    folder = changed(bobs, tmp_path / "cluster", **{"gateway.json": json.dumps(other).encode()})
    assert "for another tenant or cluster" in ssh(folder, "one", "id", code=255).stderr
    assert "knows no such node" in ssh(bobs, "one-worker-9", "id", code=255).stderr


def test_a_session_opens_no_account_without_a_certificate_for_it(
    gated: Gated, bobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = gated.site.tenant

    def said(name: str, hours: float = 1, *options: str) -> str:
        key = certified(gated, monkeypatch, name, hours)
        digest = hashlib.sha256(repr((name, hours)).encode()).hexdigest()
        folder = changed(bobs, tmp_path / digest, **key)
        return ssh(folder, *options, "one", "id -un", code=None).stderr

    good = certified(gated, monkeypatch, f"bob@{tenant}/one")
    assert ssh(changed(bobs, tmp_path / "good", **good), "one", "id -un").stdout == "bob\n"
    whole = certified(gated, monkeypatch, f"bob@{tenant}/*")
    assert ssh(changed(bobs, tmp_path / "whole", **whole), "one", "id -un").stdout == "bob\n"
    refused = "Permission denied (publickey)"
    assert refused in said(f"bob@{tenant}/two")
    assert refused in said("bob@other/one")
    assert refused in said(f"ada@{tenant}/one")
    assert refused in said(f"bob@{tenant}/one", -0.01)
    assert refused in said(f"root@{tenant}/one", 1, "-l", "root")
    # Keys that the member brought along, or another authority's, are nothing.
    own = (gated.site.home / "gateway" / "ssh-authority.key").read_bytes()
    try:
        (gated.site.home / "gateway" / "ssh-authority.key").unlink()
        assert refused in said(f"bob@{tenant}/one", 2)
    finally:
        (gated.site.home / "gateway" / "ssh-authority.key").write_bytes(own)
    folder = changed(bobs, tmp_path / "bare")
    (folder / "key-cert.pub").unlink()
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(folder / "key")], capture_output=True, text=True, check=True
    ).stdout
    trust = f"mkdir -p ~/.ssh; echo '{public.strip()}' >~/.ssh/authorized_keys"
    gated.site.inside("master-1", "sh", "-c", trust, cluster="one", user="bob")
    assert refused in ssh(folder, "one", "id", code=255).stderr


def test_another_host_key_is_not_believed(bobs: Path, tmp_path: Path) -> None:
    alias, kind, _ = (bobs / "known_hosts").read_text().split()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "host")], check=True
    )
    key = (tmp_path / "host.pub").read_text().split()[1]
    folder = changed(bobs, tmp_path / "folder", known_hosts=f"{alias} {kind} {key}\n".encode())
    assert "HOST IDENTIFICATION HAS CHANGED" in ssh(folder, "one", "id", code=255).stderr


def test_past_the_gateway_a_certificate_is_needed_as_well(gated: Gated) -> None:
    script = f"cat >/tmp/past <<'END'\n{PAST}END\n"
    gated.site.inside("worker-1", "bash", "-c", script, cluster="one", user="bob")
    options = ("StrictHostKeyChecking=no", "BatchMode=yes",
               "ProxyCommand=bash /tmp/past one-master-1")  # fmt: skip
    command = ["ssh", *(word for option in options for word in ("-o", option)),
               "ada@one-master-1", "id"]  # fmt: skip
    done = subprocess.run(
        ["docker", "exec", "--user", "bob", gated.site.container("worker-1", "one"), *command],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Permission denied (publickey)" in done.stderr
    assert done.stdout == ""


def test_a_session_outlives_a_launch_and_an_expand_and_reaches_what_is_new(
    gated: Gated, bobs: Path
) -> None:
    command = ["ssh", "-F", str(bobs / "config"), "one", "while read -r line; do echo $line; done"]
    talking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert talking.stdin is not None
    assert talking.stdout is not None
    try:

        def answers(word: str) -> bool:
            talking.stdin.write(f"{word}\n")
            talking.stdin.flush()
            return talking.stdout.readline() == f"{word}\n"

        assert answers("before")
        gated.site.run("expand", "one", "--role", "worker", "--by", "1")
        gated.site.run("launch", gated.site.template("two"))
        assert answers("after")
        talking.stdin.close()
        assert talking.wait(timeout=60) == 0
    finally:
        talking.kill()
        talking.stdout.close()
    assert ssh(bobs, "one-worker-3", "hostname").stdout == "one-worker-3\n"


# The last one: there is no gateway afterwards.
def test_without_its_gateway_a_cluster_comes_back_to_this_machine(gated: Gated) -> None:
    site = gated.site
    site.run("destroy", "two", "--yes")
    assert not (site.home / "ssh" / site.tenant / "two.json").exists()
    down = site.run("gateway", "down", "--yes")
    assert f"epic-run repair {site.tenant}/one" in down.out
    status = site.status("one")
    assert status["health"] == "green", status
    assert {item["reach"] for item in status["endpoints"]} == {"network"}
    assert status["way"].startswith("epic-run repair one")
    assert published(site, "one") == []
    fates = planned(site, site.template("one", workers=2))
    assert fates["master-1"] == ("recreate", "it publishes no ports")
    site.run("repair", "one")
    status = site.status("one")
    assert (status["health"], status["way"]) == ("green", "")
    [page] = [item["url"] for item in status["endpoints"] if item["name"] == "spark-master"]
    connection = http.client.HTTPConnection(page.removeprefix("http://").strip("/"), timeout=60)
    connection.request("GET", "/json/")
    assert connection.getresponse().status == http.client.OK
    connection.close()
    assert "this site has none" in site.run("ssh", "one", "--", "true", code=2).err
