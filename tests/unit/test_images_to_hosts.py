"""Bringing images to hosts, before engines and registries that only remember what they are told."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from content_modules import ROOT, load, utility

from epic_runner import docker_api
from epic_runner.catalog import load_catalog
from epic_runner.errors import InputError, NotFound, OperationFailed
from epic_runner.events import Step, Translator
from epic_runner.hosts import Host
from epic_runner.images import hosts as bringing

SPARK = next(app.reference for app in load_catalog(ROOT / "images") if app.name == "spark")
TAG = SPARK.rpartition(":")[2]
DIGEST = "sha256:" + "d" * 64
ID = "sha256:" + "1" * 64
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")

registry = load("ansible.module_utils.epic_registry", "module_utils/epic_registry.py")
module = load("epic_images", "library/epic_images.py")


class Engine:
    """An engine that has what a test puts into it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.known: dict[str, Any] = {}
        self.said: list[dict[str, Any]] = []
        self.refusal = ""
        self.headers: dict[str, str] = {}

    def request(self, method: str, url: str, body: Any = None, query: Any = None, *,
                missing_ok: bool = False) -> Any:  # fmt: skip
        del missing_ok
        self.asked.append((method, url, body or query))
        if (method, url) == ("POST", "/containers/own/start"):
            self.known["/containers/own/json"] = self.known["started"]
        return self.known.get(url)

    def messages(self, url: str, query: Any, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
        self.asked.append(("POST", url, query))
        self.headers = headers
        yield from self.said
        if self.refusal:
            raise utility.DockerError(0, self.refusal)

    def verbs(self) -> list[str]:
        return [f"{method} {url}" for method, url, _ in self.asked]


@pytest.fixture
def engine() -> Engine:
    return Engine()


# -- the registry of the controller ------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """A registry that has one image."""

    manifest = json.dumps({"config": {"digest": ID}}).encode()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        there = self.path in ("/v2/", f"/v2/epic/spark/manifests/{TAG}")
        self.send_response(200 if there else 404)
        self.send_header("Docker-Content-Digest", DIGEST)
        self.send_header("Content-Length", str(len(self.manifest)))
        self.end_headers()
        self.wfile.write(self.manifest)


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def running(port: int) -> dict[str, Any]:
    ports = {"5000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    return {"State": {"Running": True}, "NetworkSettings": {"Ports": ports}}


def test_a_registry_that_runs_is_used_as_it_is(engine: Engine, port: int) -> None:
    engine.known["/containers/own/json"] = running(port)
    own = registry.OwnRegistry(engine, "epic/registry:1", "own")
    own.open()
    assert (own.address, own.port) == (f"127.0.0.1:{port}", port)
    assert engine.verbs() == ["GET /containers/own/json"]


def test_a_registry_is_made_on_the_loopback_address_with_a_volume_and_no_rights(
    engine: Engine, port: int
) -> None:
    engine.known = {
        "/images/epic/registry:1/json": {"Id": ID, "RootFS": {}},
        "started": running(port),
    }
    registry.OwnRegistry(engine, "epic/registry:1", "own").open()
    made = next(body for _, url, body in engine.asked if url == "/containers/create")
    settings = made["HostConfig"]
    assert settings["PortBindings"]["5000/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": ""}]
    assert settings["Mounts"][0]["Type"] == "volume"
    assert settings["CapDrop"] == ["ALL"]
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert made["Labels"] == {"epic.infrastructure": "registry"}


def test_a_registry_without_an_image_names_what_to_build(engine: Engine) -> None:
    with pytest.raises(registry.RegistryError) as failed:
        registry.OwnRegistry(engine, "epic/registry:1", "own").open()
    assert failed.value.missing == "epic/registry:1"


def test_a_registry_has_an_image_only_if_it_is_this_very_one(engine: Engine, port: int) -> None:
    engine.known["/containers/own/json"] = running(port)
    own = registry.OwnRegistry(engine, "epic/registry:1", "own")
    own.open()
    held = own.held(registry.Image(SPARK, ID, 3))
    assert held.source == f"127.0.0.1:{port}/epic/spark@{DIGEST}"
    assert held.ids == {ID, DIGEST}
    assert own.held(registry.Image(SPARK, "sha256:another", 3)) is None
    assert own.held(registry.Image("epic/jupyter:1", ID, 3)) is None


# -- pushing -----------------------------------------------------------------------------------


def test_what_is_pushed_is_the_id_that_was_compared_and_its_second_name_goes(
    engine: Engine,
) -> None:
    engine.said = [
        {"id": "a", "progressDetail": {"current": 5, "total": 9}},
        {"id": "b", "progressDetail": {"current": 2, "total": 9}},
        {"aux": {"Tag": TAG, "Digest": DIGEST, "Size": 1}},
    ]
    told: list[int] = []
    held = registry.push(engine, registry.Image(SPARK, ID, 3), "r.site/epic", "auth", told.append)
    assert held.source == f"r.site/epic/epic/spark@{DIGEST}"
    assert told == [5, 7]
    assert engine.headers == {"X-Registry-Auth": "auth"}
    assert engine.verbs() == [
        f"POST /images/{ID}/tag",
        "POST /images/r.site/epic/epic/spark/push",
        f"DELETE /images/r.site/epic/{SPARK}",
    ]


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("unauthorized: authentication required", "docker login r.site:5000"),
        ("server gave HTTP response to HTTPS client", "TLS"),
        ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/r.site:5000/ca.crt"),
        ("dial tcp: lookup r.site: no such host", "through SSH"),
        ("write /var/lib/docker/x: no space left on device", "docker system prune"),
    ],
)
def test_a_refusal_names_the_registry_and_what_to_do(
    engine: Engine, says: str, advice: str
) -> None:
    engine.refusal = says
    with pytest.raises(registry.RegistryError) as failed:
        registry.push(engine, registry.Image(SPARK, ID, 3), "r.site:5000/a", "", lambda _: None)
    assert str(failed.value) == f"r.site:5000/a did not take {SPARK}: {says}"
    assert advice in failed.value.hint
    # The second name is removed all the same.
    assert engine.verbs()[-1].startswith("DELETE ")


@pytest.mark.parametrize(
    "name", ["reg.site", "reg.site:5000", "localhost", "localhost:5000/a", "10.0.0.7:5000/a/b-c"]
)
def test_a_registry_is_known_by_a_dot_or_a_port(name: str) -> None:
    assert registry.SITE.fullmatch(name)


@pytest.mark.parametrize("name", ["team", "team/sub", "https://reg.site", "reg.site/", "a b:1", ""])
def test_what_docker_would_take_for_something_else_is_no_registry(name: str) -> None:
    assert not registry.SITE.fullmatch(name)


def account(header: str) -> dict[str, str]:
    return json.loads(base64.urlsafe_b64decode(header))


def test_the_account_is_the_one_that_docker_login_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert account(registry.authorization("r.site:5000/a")) == {}
    word = base64.b64encode(b"ada:se:cret").decode()
    auths = {"r.site:5000": {"auth": word}, "other": {"identitytoken": "t"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert account(registry.authorization("r.site:5000/a")) == {
        "username": "ada", "password": "se:cret", "serveraddress": "r.site:5000",
    }  # fmt: skip
    assert account(registry.authorization("other"))["identitytoken"] == "t"
    assert account(registry.authorization("elsewhere")) == {}


def test_the_program_that_keeps_passwords_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"r.site": "test"}}))
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host\necho "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}"'
    )
    helper.chmod(0o755)
    assert account(registry.authorization("r.site"))["username"] == "r.site"
    helper.write_text("#!/bin/sh\necho locked >&2; exit 1")
    with pytest.raises(registry.RegistryError, match="locked"):
        registry.authorization("r.site")


# -- the module on the host --------------------------------------------------------------------


def test_images_are_looked_up_by_name(engine: Engine) -> None:
    engine.known[f"/images/{SPARK}/json"] = {"Id": ID}
    assert module.found(engine, SPARK) == ID
    assert module.found(engine, "epic/none:1") is None


def test_an_image_is_pulled_by_its_digest_named_and_its_other_name_removed(engine: Engine) -> None:
    source = f"127.0.0.1:4711/epic/spark@{DIGEST}"
    module.take(engine, image=SPARK, source=source, auth="a")
    assert engine.asked[1:] == [
        ("POST", "/images/create", {"fromImage": "127.0.0.1:4711/epic/spark", "tag": DIGEST}),
        ("POST", f"/images/{source}/tag", {"repo": "epic/spark", "tag": TAG}),
        ("DELETE", f"/images/{source}", {"noprune": "1"}),
    ]


@pytest.mark.parametrize(
    ("names", "goes"),
    [({}, True), ({"RepoTags": ["mine:1"]}, False), ({"RepoDigests": ["d"]}, False)],
)
def test_an_image_that_was_replaced_goes_unless_it_has_another_name(
    engine: Engine,
    names: dict[str, Any],
    goes: bool,  # noqa: FBT001 - what is expected of a case
) -> None:
    engine.known = {f"/images/{SPARK}/json": {"Id": ID}, f"/images/{ID}/json": {"Id": ID, **names}}
    module.take(engine, image=SPARK, source=f"r.site/epic/spark@{DIGEST}", auth="")
    assert (f"DELETE /images/{ID}" in engine.verbs()) is goes


def test_an_image_that_does_not_come_keeps_its_name_where_it_was(engine: Engine) -> None:
    engine.refusal = "write /var/lib/docker/tmp/x: no space left on device"
    with pytest.raises(utility.DockerError, match=f"could not pull {SPARK}: .*no space") as failed:
        module.take(engine, image=SPARK, source=f"r.site/epic/spark@{DIGEST}", auth="")
    assert engine.verbs() == [f"GET /images/{SPARK}/json", "POST /images/create"]
    assert "Make room on the host" in module.hint(str(failed.value))


def test_a_port_that_the_network_reaches_is_told_from_one_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not module.is_exposed(server.getsockname()[1])
    with socket.create_server(("", 0)) as server:
        assert module.is_exposed(server.getsockname()[1])


# -- what people see ---------------------------------------------------------------------------


@pytest.fixture
def steps() -> list[Step]:
    return []


@pytest.fixture
def translator(steps: list[Step]) -> Translator:
    made = Translator(steps.append)
    made.handle({"event": "playbook_on_play_start", "event_data": {"name": "Bring images"}})
    made.handle({"event": "playbook_on_task_start"})
    return made


def test_progress_is_told_by_host_while_the_task_is_at_work(
    translator: Translator, steps: list[Step]
) -> None:
    translator.handle({"event": "verbose", "stdout": "images: host-1: pulls, 12.0m so far\r\n"})
    translator.handle({"event": "verbose", "stdout": "Using ansible.cfg as config file"})
    assert steps[1:] == [Step("Bring images", "host-1", "pulls, 12.0m so far")]


def test_what_came_of_a_host_is_told_with_its_figures(
    translator: Translator, steps: list[Step]
) -> None:
    for name, outcome in (("host-1", "pulled"), ("host-2", "unchanged")):
        result = {"images": {SPARK: outcome}, "moved_bytes": 2**20}
        translator.handle({"event": "runner_on_ok", "event_data": {"host": name, "res": result}})
    translator.handle(
        {"event": "runner_on_ok", "event_data": {"host": "local", "res": {"images": {}}}}
    )
    assert [(step.node, step.message) for step in steps[1:]] == [
        ("host-1", f"has {SPARK} now, 1m moved"),
        ("host-2", "unchanged"),
    ]
    assert steps[1].result == {"images": {SPARK: "pulled"}, "moved_bytes": 2**20}


@pytest.mark.parametrize(
    ("event", "result", "hint"),
    [
        ("runner_on_failed", {"msg": "x", "missing_images": [SPARK]}, "epic-run image build spark"),
        ("runner_on_failed", {"msg": "x", "hint": "Make room."}, "Make room."),
        ("runner_on_unreachable", {"msg": "x"}, "epic-run host check host-1"),
    ],
)
def test_a_failure_comes_with_what_to_do(
    translator: Translator, event: str, result: dict[str, Any], hint: str
) -> None:
    translator.handle({"event": event, "event_data": {"host": "host-1", "res": result}})
    failure = translator.failure()
    assert failure
    assert failure.message == "Bring images: host host-1: x"
    assert hint in str(failure.hint)


# -- epic-run image push -----------------------------------------------------------------------

CATALOG = load_catalog(ROOT / "images")
HOSTS = {
    "local": Host("local", 1, 1, variables={"ansible_connection": "local"}),
    "host-1": Host("host-1", 1, 1, variables={"ansible_host": "192.0.2.1"}),
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    known: dict[str, Any] = {}
    monkeypatch.setattr(docker_api, "images", lambda _host: known)
    return known


def test_without_names_all_that_nodes_run_and_that_are_built_are_meant(
    built: dict[str, Any],
) -> None:
    built.update({app.reference: {} for app in CATALOG if app.name != "jupyter"})
    assert bringing.wanted(CATALOG, []) == [CATALOG.apps["spark"].reference]
    assert bringing.wanted(CATALOG, ["jvm"]) == [CATALOG.apps["jvm"].reference]


def test_an_image_that_is_not_built_names_its_command(built: dict[str, Any]) -> None:
    del built
    with pytest.raises(NotFound, match="is not built yet") as failed:
        bringing.wanted(CATALOG, ["spark", "jvm"])
    assert failed.value.hint == "epic-run image build jvm spark"
    with pytest.raises(NotFound, match="No image is built") as failed:
        bringing.wanted(CATALOG, [])
    assert failed.value.hint == "epic-run image build"


class Plays:
    """Stands for the playbook: every host pulls everything."""

    def __init__(self) -> None:
        self.inventories: list[dict[str, Any]] = []

    def __call__(
        self, verb: str, inventory: Any, directory: Path, *, operation: str, listener: Any
    ) -> None:
        assert verb == "images"
        assert directory.name == operation
        self.inventories.append(inventory["all"])
        for name in inventory["all"]["children"]["docker_hosts"]["hosts"]:
            listener(Step("Bring", name, "pulls"))
            listener(
                Step("Bring", name, "", result={"images": {SPARK: "pulled"}, "moved_bytes": 7})
            )


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> Plays:
    made = Plays()
    monkeypatch.setattr(bringing, "run_playbook", made)
    return made


def test_this_machine_needs_no_play(plays: Plays) -> None:
    came = bringing.push([SPARK], {"local": HOSTS["local"]})
    assert came == [bringing.Brought("local", {SPARK: "own"}, 0)]
    assert plays.inventories == []


def test_other_hosts_are_played_with_the_images_and_the_registry(plays: Plays) -> None:
    came = bringing.push([SPARK], HOSTS, registry="r.site:5000/a")
    assert came[1] == bringing.Brought("host-1", {SPARK: "pulled"}, 7)
    assert plays.inventories[0]["vars"] == {
        "epic_images": [SPARK],
        "epic_registry": "r.site:5000/a",
    }
    assert list(plays.inventories[0]["children"]["docker_hosts"]["hosts"]) == ["host-1"]


def test_a_name_that_is_no_registry_is_bad_input(plays: Plays) -> None:
    with pytest.raises(InputError, match="is no registry"):
        bringing.push([SPARK], HOSTS, registry="team")
    assert plays.inventories == []
    assert not isinstance(InputError(""), OperationFailed)


# -- the way to a host -------------------------------------------------------------------------


WAY = """
import json, os, sys
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import action_loader, connection_loader, init_plugin_loader
init_plugin_loader([])
connection = connection_loader.get("ssh", PlayContext(), os.devnull)
connection.set_options(direct=json.loads(sys.argv[1]))
plugin = action_loader.get("epic_images", class_only=True)
action = plugin.__new__(plugin)
action._connection = connection
print(json.dumps(action._ssh(5000)))
"""


def way(**options: str) -> list[str]:
    """Return the command that opens the way, as Ansible's options of a connection have it."""
    # In a process of its own: Ansible reads its settings once.
    done = subprocess.run(
        [sys.executable, "-c", WAY, json.dumps({"host": "h1", **options})],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return list(json.loads(done.stdout))


def test_layers_are_compressed_once_and_go_by_a_cipher_of_the_processor() -> None:
    words = way(ssh_args="-C -o ControlMaster=auto")
    assert "-C" not in words
    ciphers = [word for word in words if word.startswith("Ciphers=")]
    assert ciphers == [f"Ciphers={','.join(CIPHERS)}"]


def test_the_inventory_has_its_say_in_how_a_host_is_reached() -> None:
    words = way(ssh_common_args="-o Ciphers=aes256-ctr", port="2222")
    # The first mention of an option counts.
    assert next(word for word in words if word.startswith("Ciphers=")) == "Ciphers=aes256-ctr"
    assert "Port=2222" in words
