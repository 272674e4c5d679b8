"""The gateway before real clusters: a browser, refusals, and connections that nothing ends."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import gateway_support
import life_support
import pytest
import websocket
import yaml
from browser import Browser, browser
from gateway_support import COOKIE, Gated, published
from life_support import until

from epic_runner.gateway import certificates, sessions

pytestmark = pytest.mark.docker

# A page of a running application, with everything that has a tab of its own.
WORKS = """
import pathlib, sys, time
from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("works").getOrCreate()
table = spark.range(1000).selectExpr("id", "id % 7 AS kind").cache()
table.groupBy("kind").count().collect()
print("works", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.2)
"""
# Starts a kernel and runs a cell, as JupyterLab's own page does.
CELL = """
(async () => {
  const base = JSON.parse(document.getElementById("jupyter-config-data").textContent).baseUrl;
  const start = await fetch(base + "api/kernels", {method: "POST", body: '{"name": "python3"}'});
  const kernel = await start.json();
  const socket = new WebSocket(`wss://${location.host}${base}api/kernels/${kernel.id}/channels`);
  await new Promise((done, fail) => { socket.onopen = done; socket.onerror = fail; });
  const said = new Promise(done => {
    let text = "";
    socket.onmessage = event => {
      const message = JSON.parse(event.data);
      if (message.parent_header.msg_id !== "cell") return;
      if (message.msg_type === "stream") text += message.content.text;
      if (message.msg_type === "status" && message.content.execution_state === "idle") done(text);
    };
  });
  socket.send(JSON.stringify({
    header: {msg_id: "cell", msg_type: "execute_request", session: "s", username: "",
             version: "5.3"},
    parent_header: {}, metadata: {}, buffers: [], channel: "shell",
    content: {code: "print(6 * 7)", silent: false, store_history: false, allow_stdin: false,
              user_expressions: {}, stop_on_error: true},
  }));
  return await said;
})()
"""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """A gateway that came after its first cluster, which a repair has put behind it."""
    with (
        life_support.site(tmp_path_factory.mktemp("gateway")) as site,
        gateway_support.gateway(site) as made,
    ):
        site.run("launch", site.template("one", services=["jupyter", "spark-history"]))
        before = {item["name"]: item["url"] for item in site.status("one")["endpoints"]}
        assert before["spark-master"].startswith("http://127.0.0.1:")
        assert published(site, "one")
        up = made.up()
        assert up["state"] == "running"
        assert up["not_behind"] == [f"{site.tenant}/one"]
        status = site.status("one")
        assert (status["health"], status["way"]) == ("green", "")
        site.run("repair", "one")
        assert site.json("gateway", "status")["not_behind"] == []
        yield made


@pytest.fixture
def working(gated: Gated) -> Iterator[None]:
    """An application that runs, and that has something to show."""
    job = gated.site.folder / "works.py"
    job.write_text(WORKS)
    ends = f"/tenant/{job.stem}.end"
    running = gated.site.begin("submit", "one", str(job), "--", ends)
    try:
        assert running.stdout is not None
        assert any("works" in line for line in running.stdout), "the job did not start"
        yield
    finally:
        gated.site.inside("master-1", "touch", ends, cluster="one")
        running.communicate(timeout=life_support.LIMIT_SECONDS)


def kind_of(link: str) -> tuple[str, frozenset[str]]:
    """Return what tells pages apart; one with its table in another order is no other page."""
    parts = urlsplit(link)
    queries = parse_qs(parts.query)
    ordered = {name for name in queries if ".sort" in name or ".desc" in name}
    return parts.path, frozenset(queries.keys() - ordered)


def crawl(tab: Browser, root: str, beside: str = "") -> set[str]:
    """Open every page below `root` once, and return the paths of those that were opened.

    Pages to which links with `beside` in them lead are opened too, and not gone on from. Links that
    end something are left alone, and so are those that a browser saves.
    """
    waiting, seen, strays = [root], {kind_of(root)}, set()
    while waiting:
        page = waiting.pop(0)
        tab.go(page)
        if not page.startswith(root):
            continue
        for link in tab.links():
            if "kill" in link or link.endswith("/logs"):
                continue
            if link.startswith(root) or (beside and beside in link):
                if kind_of(link) not in seen:
                    seen.add(kind_of(link))
                    waiting.append(link)
            elif not link.startswith("https://spark.apache.org"):
                strays.add(link)
    assert "\n".join(tab.faults) == ""
    assert strays == set()
    return {page for page, _ in seen}


def test_every_page_of_spark_is_whole_in_a_browser(
    gated: Gated, working: None, tmp_path: Path
) -> None:
    del working
    root = f"https://localhost:{gated.port}{gated.path('spark-master')}/"
    with browser(tmp_path, gated.authority, gated.port) as tab:
        gated.log_in(tab, root, "--cluster", "one")
        [cookie] = tab.cookies()
        assert cookie["httpOnly"]
        assert cookie["secure"]
        assert (cookie["sameSite"], cookie["path"]) == ("Strict", f"/{gated.site.tenant}/")
        found = {page.split("/spark-master", 1)[1] for page in crawl(tab, root)}
    for wanted in ("/executors/", "/SQL/", "/storage/", "/stages/stage/", "/environment/"):
        assert any("/proxy/app-" in page and wanted in page for page in found), (wanted, found)
    # A worker's own page, and what it shows of the output of its executors.
    for wanted in ("", "/logPage"):
        assert any(page.startswith("/proxy/worker-") and page.rstrip("/").endswith(wanted)
                   for page in found), (wanted, found)  # fmt: skip
    assert len(found) >= 15, found


def ended(gated: Gated) -> str:
    """Return the application `works` when the history server shows that it has ended."""
    page = gated.path("spark-history") + "/api/v1/applications?status=completed"
    token = gated.token("--cluster", "one")

    def look() -> list[str]:
        status, _, body = gated.ask(page, token)
        found = json.loads(body) if status == 200 else []
        return [item["id"] for item in found if item["name"] == "works"]

    return until(look, "the application has ended", pause=0.5)[0]


def test_every_page_of_an_application_that_ended_is_whole_in_a_browser(
    gated: Gated, tmp_path: Path
) -> None:
    application = ended(gated)
    address = f"https://localhost:{gated.port}"
    root = f"{address}{gated.path('spark-history')}/"
    with browser(tmp_path, gated.authority, gated.port) as tab:
        gated.log_in(tab, f"{address}{gated.path('spark-master')}/", "--cluster", "one")
        found = crawl(tab, root, beside="/logPage/")
    shown = [page.split(f"/history/{application}", 1)[1] for page in found if application in page]
    for wanted in (
        "/jobs/",
        "/executors/",
        "/SQL/",
        "/storage/",
        "/stages/stage/",
        "/environment/",
    ):
        assert any(page.startswith(wanted) for page in shown), (wanted, found)
    assert any("/spark-master/proxy/worker-" in page for page in found), found
    log = f"{gated.path('spark-history')}/api/v1/applications/{application}/logs"
    assert gated.status(log, gated.token("--cluster", "one")) == 200


def test_an_application_that_ended_is_shown_after_a_stop_as_well(gated: Gated) -> None:
    application = ended(gated)
    gated.site.run("stop", "one")
    gated.site.run("start", "one")
    assert ended(gated) == application
    page = f"{gated.path('spark-history')}/history/{application}/jobs/"
    token = gated.token("--cluster", "one")
    # The first look leads to the same page again, once its log is read.
    until(lambda: gated.status(page, token) == 200, "its page", seconds=60, pause=0.5)


def test_jupyterlab_opens_and_runs_a_cell(gated: Gated, tmp_path: Path) -> None:
    lab = next(
        item["url"] for item in gated.site.status("one")["endpoints"] if item["name"] == "jupyter"
    )
    assert lab == f"https://localhost:{gated.port}{gated.path('jupyter')}/lab"
    with browser(tmp_path, gated.authority, gated.port) as tab:
        welcome = f"https://localhost:{gated.port}/-/welcome"
        gated.log_in(tab, welcome, "--tenant", gated.site.tenant)
        tab.go(lab)
        tab.wait_for(
            "document.querySelector('.jp-LauncherCard[data-category=\"Notebook\"]')?.title"
        )
        assert tab.run(CELL) == "42\n"
        assert tab.faults == []


def test_a_login_address_is_good_once(gated: Gated) -> None:
    body = urlencode({"code": gated.login_code("bob", "--tenant", gated.site.tenant)})
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    elsewhere = gated.ask("/-/login", body=body, Origin="https://evil.example", **form)
    assert elsewhere[0] == 403
    status, headers, _ = gated.ask("/-/login", body=body, **form)
    assert (status, headers["Location"]) == (303, "/-/welcome")
    assert headers["Set-Cookie"].startswith(f"{COOKIE}=ey")
    for flag in ("Secure", "HttpOnly", "SameSite=Strict", f"Path=/{gated.site.tenant}/"):
        assert flag in headers["Set-Cookie"].split("; ")
    assert gated.ask("/-/login", body=body, **form)[0] == 403
    gated.site.run("gateway", "up")
    assert gated.ask("/-/login", body=body, **form)[0] == 403
    assert gated.ask("/-/login", body="code=a.b.c", **form)[0] == 403
    token = gated.token("bob", "--tenant", gated.site.tenant)
    assert gated.ask("/-/login", body=urlencode({"code": token}), **form)[0] == 403


def bad_tokens(gated: Gated) -> dict[str, str]:
    """Return tokens that must open nothing, by what is wrong with them."""
    key = certificates.load_key((gated.site.home / "gateway" / "issuer.key").read_bytes())
    public = (gated.site.home / "gateway" / "issuer.pem").read_bytes()
    session = sessions.Session(f"{gated.site.tenant}-gw", "ada", gated.site.tenant, None, 1, "/")
    claims = session.claims(time.time())
    good = sessions.sign(claims, key)
    head, body, signature = good.split(".")

    def named(algorithm: str) -> str:
        return sessions.encoded(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())

    def changed(**values: Any) -> str:
        return sessions.sign({**claims, **values}, key)

    confused = f"{named('HS256')}.{body}"
    mac = hmac.new(public, confused.encode(), hashlib.sha256).digest()
    other = json.dumps({**claims, "sub": "bob"}).encode()
    return {
        "expired": changed(exp=int(time.time()) - 1),
        "without an end": sessions.sign({k: v for k, v in claims.items() if k != "exp"}, key),
        "tampered": f"{head}.{sessions.encoded(other)}.{signature}",
        "unsigned": f"{named('none')}.{body}.",
        "unsigned, but said to be": f"{head}.{body}.",
        "signed with the public key": f"{confused}.{sessions.encoded(mac)}",
        "another issuer's": sessions.sign(claims, certificates.load_key(certificates.new_key())),
        "another gateway's": changed(aud="other"),
        "another tenant's": changed(tenant="other"),
        "another cluster's": changed(cluster="other"),
        "without a tenant": sessions.sign({k: v for k, v in claims.items() if k != "tenant"}, key),
        "nothing": "",
    }


def test_bad_tokens_open_nothing(gated: Gated) -> None:
    page = gated.path("spark-master") + "/"
    assert gated.status(page, gated.token("--tenant", gated.site.tenant)) == 200
    assert gated.status(page) == 401
    answers = {name: gated.status(page, token) for name, token in bad_tokens(gated).items()}
    scoped = {"another tenant's", "another cluster's", "without a tenant"}
    assert answers == {name: 403 if name in scoped else 401 for name in answers}


def test_a_session_goes_no_further_than_it_is_meant(gated: Gated) -> None:
    one = gated.token("bob", "--cluster", "one")
    assert gated.status(gated.path("spark-master") + "/", one) == 200
    assert gated.status(gated.path("spark-master", "two") + "/", one) == 403
    assert gated.status("/other/one/master-1/spark-master/", one) == 403
    assert gated.status(gated.path("nothing") + "/", one) == 404
    # Notebooks act as their owner, so they are the owner's alone.
    assert gated.status(gated.path("jupyter") + "/api/kernels", one) == 403
    owner = gated.token("ada", "--cluster", "one")
    assert gated.status(gated.path("jupyter") + "/api/kernels", owner) == 200
    refused = gated.site.run("login", "eve", "--tenant", gated.site.tenant, code=2)
    assert "eve is not a member" in refused.err


def test_two_cookies_are_none_and_other_origins_are_refused(gated: Gated) -> None:
    page, token = gated.path("jupyter") + "/api/kernels", gated.token("ada", "--cluster", "one")
    twice = f"{COOKIE}={token}; {COOKIE}={token}"
    assert gated.status(page, Cookie=twice) == 401
    assert gated.status(page, token, Origin=f"https://localhost:{gated.port}") == 200
    for origin in ("https://evil.example", "null", f"http://localhost:{gated.port}"):
        assert gated.status(page, token, Origin=origin) == 403
    assert gated.status(page, token, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(
            f"wss://localhost:{gated.port}{page}/x/channels", origin="https://evil.example",
            cookie=f"{COOKIE}={token}", sslopt={"ca_certs": str(gated.authority)},
        )  # fmt: skip


def test_a_node_sees_no_session_and_sets_no_cookie(gated: Gated) -> None:
    token = gated.token("ada", "--cluster", "one")
    _, headers, _ = gated.ask(gated.path("jupyter") + "/lab", token, Authorization="Bearer mine")
    assert "Set-Cookie" not in headers
    log = gated.site.inside("master-1", "cat", "/data/log/jupyter/current", cluster="one")
    assert token not in log


def test_a_second_cluster_ends_no_connection(gated: Gated) -> None:
    token = gated.token("ada", "--cluster", "one")
    home = "/home/ada/large.bin"
    size = 48 * 2**20
    write = f"head -c {size} /dev/zero > {home}"
    gated.site.inside("master-1", "sh", "-c", write, cluster="one", user="ada")
    talking = Talking(gated, token)
    download = gated.connect()
    download.request(
        "GET", gated.path("jupyter") + "/files/large.bin", headers={"Cookie": f"{COOKIE}={token}"}
    )
    response = download.getresponse()
    assert response.status == 200
    got = len(response.read(2**20))
    watched = Watching()
    gated.site.run("launch", gated.site.template("two"))
    command_lines = watched.end()
    assert gated.status(gated.path("spark-master", "two") + "/", gated.token("-c", "two")) == 200
    while piece := response.read(2**20):
        got += len(piece)
    response.close()
    download.close()
    assert got == size
    assert talking.end() == "steady"
    secret = json.loads((gated.site.home / f"secrets/{gated.site.tenant}/two.json").read_text())
    assert not any(secret["token"] in line for line in command_lines)


class Talking:
    """A kernel's websocket through the gateway, asked again and again until `end`."""

    def __init__(self, gated: Gated, token: str) -> None:
        api = gated.path("jupyter") + "/api/kernels"
        status, _, body = gated.ask(api, token, body='{"name": "python3"}')
        assert status == 201, body
        self._socket = websocket.create_connection(
            f"wss://localhost:{gated.port}{api}/{json.loads(body)['id']}/channels",
            cookie=f"{COOKIE}={token}", origin=f"https://localhost:{gated.port}",
            sslopt={"ca_certs": str(gated.authority)}, timeout=120,
        )  # fmt: skip
        self._over = threading.Event()
        self._said = "steady"
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        number = 0
        try:
            while not self._over.wait(0.2):
                number += 1
                header = {"msg_id": str(number), "msg_type": "kernel_info_request", "session": "s",
                          "username": "", "version": "5.3"}  # fmt: skip
                self._socket.send(json.dumps({
                    "header": header, "parent_header": {}, "metadata": {}, "content": {},
                    "channel": "shell", "buffers": [],
                }))  # fmt: skip
                while json.loads(self._socket.recv())["parent_header"].get("msg_id") != str(number):
                    pass
        except (OSError, websocket.WebSocketException) as problem:
            self._said = f"ended after {number}: {problem!r}"
        if number < 2:
            self._said = f"only {number} were asked"

    def end(self) -> str:
        self._over.set()
        self._thread.join()
        self._socket.close()
        return self._said


class Watching:
    """All command lines that this machine's processes have until `end`."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lines: set[str] = set()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self._lines.add(path.read_bytes().decode("utf-8", "replace"))
                except OSError:
                    continue

    def end(self) -> set[str]:
        self._over.set()
        self._thread.join()
        return self._lines


def test_secrets_are_in_no_log_and_in_no_description(gated: Gated) -> None:
    token = gated.token("ada", "--cluster", "one")
    assert gated.status(gated.path("jupyter") + f"/api?text={token}", token) == 200
    keys = gated.site.home / "gateway"
    secret = json.loads((gated.site.home / f"secrets/{gated.site.tenant}/one.json").read_text())
    wanted = {
        "a session": token,
        "the cluster's token": secret["token"],
        "the seal": (keys / "seal.key").read_text(),
        "the server's key": (keys / "server.key").read_text().splitlines()[1],
    }
    operations = (gated.site.home / "operations").rglob("*")
    places = {
        "the gateway's log": subprocess.run(
            ["docker", "logs", gated.container], capture_output=True, text=True, check=True
        ),
        "its description": gated.site.docker("inspect", gated.container),
        "operations": [path.read_text("utf-8", "replace") for path in operations if path.is_file()],
    }
    found = {
        (what, place)
        for what, text in wanted.items()
        for place, held in places.items()
        if text in str(held)
    }
    assert found == set()
    modes = {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()}
    assert set(modes.values()) == {0o600}
    private = (keys / "issuer.key").read_text().splitlines()[1]
    held = gated.site.docker("exec", gated.container, "sh", "-c", "cat /var/lib/gateway/*")
    assert private not in held


def test_only_the_gateway_is_reached_from_outside(gated: Gated) -> None:
    outside = gated.site.docker(
        "network", "inspect", gated.container, "--format", "{{(index .IPAM.Config 0).Gateway}}"
    )
    with socket.create_connection((outside, gated.port), timeout=5):
        pass
    # Not even this machine reaches nodes past the gateway, and still their services are asked.
    assert published(gated.site, "one") == []
    status = gated.site.status("one")
    assert status["health"] == "green"
    assert {item["reach"] for item in status["endpoints"]} == {"gateway"}
    forwarding = gated.site.docker("exec", gated.container, "cat", "/proc/sys/net/ipv4/ip_forward")
    assert forwarding == "0"


def test_the_gateway_may_be_lost_and_comes_back_with_its_routes(gated: Gated) -> None:
    before = gated.routes()
    gated.site.docker("rm", "--force", gated.container)
    assert gated.site.json("gateway", "status")["state"] == "missing"
    gated.site.run("gateway", "up")
    assert gated.routes() == before
    page = gated.path("spark-master") + "/"
    assert gated.status(page, gated.token("--cluster", "one")) == 200


def test_a_site_may_bring_its_own_certificate(gated: Gated, tmp_path: Path) -> None:
    authority = certificates.new_authority("site", ["localhost"])
    own = certificates.new_server(authority, ["localhost"])
    (tmp_path / "own.pem").write_bytes(own.certificate)
    (tmp_path / "own.key").write_bytes(own.key)
    named = ["--certificate", str(tmp_path / "own.pem"), "--key", str(tmp_path / "own.key")]

    def served() -> bytes:
        return ssl.get_server_certificate(("localhost", gated.port)).encode()

    assert gated.site.json("gateway", "up", *named)["authority_file"] is None
    until(lambda: served().strip() == own.certificate.strip(), "the site's certificate", seconds=20)
    other = tmp_path / "other.key"
    other.write_bytes(certificates.new_key())
    refused = gated.site.run("gateway", "up", *named[:3], str(other), code=2)
    assert "do not belong together" in refused.err
    gated.site.run("gateway", "up", "--own-authority")
    until(lambda: served().strip() != own.certificate.strip(), "the own certificate", seconds=20)
    assert gated.status("/-/health") == 200


def test_a_cluster_has_routes_from_when_its_declared_actions_are_done_until_it_is_destroyed(
    gated: Gated,
) -> None:
    tenant = gated.site.tenant
    path = Path(gated.site.template("three", workers=2))
    *others, template = yaml.safe_load_all(path.read_text())
    template["actions"] = [{"command": "test -e /tenant/licence", "name": "licence"}]
    path.write_text(yaml.safe_dump_all([*others, template]))
    gated.site.run("launch", str(path), code=1)
    assert f"{tenant}/three/" not in gated.routes()
    gated.site.run("shrink", "three", "--role", "worker", "--by", "1")
    assert f"{tenant}/three/" not in gated.routes()
    assert gated.site.status("three")["awaits"] == ["licence"]
    refused = gated.site.run("ssh", "three", code=2)
    assert "No ssh leads to three until the actions that its template declares" in refused.err
    gated.site.inside("master-1", "touch", "/tenant/licence", cluster="three")
    gated.site.run("repair", "three")
    assert f"{tenant}/three/" in gated.routes()
    page = gated.path("spark-master", "three") + "/"
    assert gated.status(page, gated.token("--cluster", "three")) == 200
    gated.site.run("destroy", "three", "--yes")
    assert f"{tenant}/three/" not in gated.routes()
    assert f"{tenant}/one/" in gated.routes()
    assert f"epic.{tenant}" in gated.networks()


# The last one: nothing is behind the gateway afterwards.
def test_with_its_last_cluster_a_tenants_network_goes(gated: Gated) -> None:
    tenant = gated.site.tenant
    for cluster in gated.site.json("list"):
        gated.site.run("destroy", cluster["name"], "--yes")
    assert gated.routes() == ""
    assert gated.networks() == {gated.container}
    assert gated.site.labelled("network") == []
    assert f"epic.{tenant}" not in gated.site.docker("network", "ls")
