"""The own Ansible modules, before an engine that only remembers what it was asked."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import io
import json
import os
import socketserver
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from content_modules import load, utility

ROLES = {"worker": {"image": "epic/spark:1", "cores": 1, "memory_bytes": 2**30, "pids_limit": 99,
                    "files": {"/etc/epic/x": {"content": "x"}}}}  # fmt: skip
NODE = {"name": "lab-worker-1", "short_name": "worker-1", "container": "epic.work.lab.worker-1",
        "role": "worker", "index": 1, "ports": []}  # fmt: skip

nodes = load("epic_nodes", "library/epic_nodes.py")
execute = load("epic_exec", "library/epic_exec.py")


class Engine:
    """An engine with one container that is as wanted, unless a test says otherwise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.policies: list[str] = []
        self.refusals: dict[str, Any] = {}
        self.containers: list[dict[str, Any]] = []
        self.manifest: bytes | None = None
        self.images = {"epic/spark:1"}

    @staticmethod
    def absence() -> dict[str, Any]:
        return {}

    def request(self, method: str, url: str, body: Any = None, query: Any = None, *,
                missing_ok: bool = False) -> Any:  # fmt: skip
        del query, missing_ok
        self.asked.append(f"{method} {url}")
        for piece, problem in self.refusals.items():
            if piece in self.asked[-1]:
                raise problem
        if body and "RestartPolicy" in {**body, **body.get("HostConfig", {})}:
            self.policies.append({**body, **body.get("HostConfig", {})}["RestartPolicy"]["Name"])
        if url == "/volumes":
            return {"Volumes": []}
        if url == "/volumes/create":
            return {"Name": body["Name"], "Options": None}
        if url.startswith("/images/"):
            return {"Id": 1} if url.split("/", 2)[2].removesuffix("/json") in self.images else None
        return {"Id": 1}

    def labelled(self, kind: str, _labels: Any) -> list[dict[str, Any]]:
        return self.containers if kind == "containers" else []

    def put_files(self, _container: str, files: dict[str, Any]) -> None:
        self.asked.append(f"PUT {' '.join(sorted(files))}")

    def start_with(self, container: str, files: dict[str, Any]) -> None:
        self.request("POST", f"/containers/{container}/start with {' '.join(files)}")

    def execute(self, _container: str, command: list[str]) -> tuple[int, str, str]:
        self.asked.append(f"EXEC {' '.join(command)}")
        return 0, "", ""

    def read_file(self, _container: str, _path: str) -> bytes | None:
        return self.manifest

    def has_file(self, _container: str, _path: str, _file: Any) -> bool:
        return True

    def changes(self) -> list[str]:
        return [item for item in self.asked if not item.startswith("GET")]


def params(**values: Any) -> dict[str, Any]:
    given = {"cluster": f"lab{os.getpid()}", "tenant": "work", "nodes": [NODE],
             "network": {"name": "epic.work"}, "node_roles": ROLES, **values}  # fmt: skip
    return {
        name: given.get(name, option.get("default")) for name, option in nodes.ARGUMENT_SPEC.items()
    }


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(nodes, "Docker", lambda _: made)
    return made


def present(engine: Engine, state: str = "running", **values: Any) -> None:
    wanted = nodes.Converger(params(**values), check=False).container_spec(NODE)
    engine.containers = [{"Id": "c1", "State": state, "Labels": wanted["Labels"]}]
    engine.manifest = nodes.manifest(ROLES["worker"]["files"]).encode()


def outcome(_engine: Engine, *, check: bool = False, **values: Any) -> Any:
    result = nodes.run(params(**values), check_mode=check)
    assert not result.get("failed"), result
    return result["nodes"].get("worker-1")


def test_a_missing_node_is_made_filled_and_started_in_this_order(engine: Engine) -> None:
    assert outcome(engine) == "created"
    assert engine.changes()[-3:] == [
        "POST /volumes/create",
        "POST /containers/create",
        # The manifest comes last: what is cut off was not filled.
        "POST /containers/epic.work.lab.worker-1/start with /etc/epic/x /etc/epic/manifest.json",
    ]


def test_a_node_that_is_as_wanted_is_not_touched(engine: Engine) -> None:
    present(engine)
    assert outcome(engine) == "unchanged"
    assert not engine.changes()


@pytest.mark.parametrize(
    ("state", "said"),
    [("exited", "started"), ("created", "started"), ("paused", "resumed"), ("dead", "recreated")],
)
def test_a_node_in_any_state_is_made_to_run(engine: Engine, state: str, said: str) -> None:
    present(engine, state)
    assert outcome(engine) == said
    assert engine.changes()


def test_a_node_of_another_shape_is_made_anew(engine: Engine) -> None:
    present(engine)
    larger = {"worker": {**ROLES["worker"], "cores": 2}}
    assert outcome(engine, node_roles=larger) == "recreated"
    assert outcome(engine, node_roles=larger, leave_running=True) == "unchanged"


def test_only_a_node_whose_flavor_has_a_disk_is_watched(engine: Engine) -> None:
    def check(**role: Any) -> Any:
        values = params(node_roles={"worker": {**ROLES["worker"], **role}}, disk_seconds=60)
        return nodes.Converger(values, check=False).container_spec(NODE).get("Healthcheck")

    del engine
    assert check() is None
    assert check(disk_bytes=0) is None
    assert check(disk_bytes=2**30)["Test"][-1] == "1073741824"
    assert check(disk_bytes=2**30)["Interval"] == 60 * 10**9


@pytest.mark.parametrize(
    ("values", "resolvers"),
    [
        ({"egress": {"network": "epic.work", "image": "f:1", "allow": [], "closed": []}}, 1),
        ({"network": {"name": "epic_work", "spans": True}}, 1),
        ({"egress": {"network": "epic.work", "image": "f:1", "allow": [{"to": "git", "port": 0}],
                     "closed": []}}, 0),
        # An ordinary bridge of Docker's, without a firewall.
        ({}, 0),
    ],
)  # fmt: skip
def test_names_are_asked_of_nobody_outside_where_nothing_is_open(
    values: dict[str, Any], resolvers: int
) -> None:
    made = nodes.Converger(params(**values), check=True).container_spec(NODE)
    assert made["HostConfig"].get("Dns", []) == ["127.0.0.1"][:resolvers]


def test_a_mended_node_remembers_its_files_only_after_its_restart(engine: Engine) -> None:
    present(engine)
    engine.manifest = b"other"
    assert outcome(engine) == "mended"
    assert engine.changes() == [
        "PUT /etc/epic/x",
        "POST /containers/epic.work.lab.worker-1/update",
        "POST /containers/epic.work.lab.worker-1/restart",
        "PUT /etc/epic/manifest.json",
    ]


def test_what_no_service_reads_is_changed_without_a_restart(engine: Engine) -> None:
    present(engine)
    note = {"/etc/epic/note": {"content": "new", "quiet": True}}
    noting = {"worker": {**ROLES["worker"], "files": {**ROLES["worker"]["files"], **note}}}
    assert outcome(engine, node_roles=noting, check=True) == "updated"
    assert not engine.changes()
    assert outcome(engine, node_roles=noting) == "updated"
    assert engine.changes() == ["PUT /etc/epic/manifest.json /etc/epic/note"]
    engine.manifest = nodes.manifest(noting["worker"]["files"]).encode()
    assert outcome(engine, node_roles=noting) == "unchanged"
    # A file that is gone from the wishes may be one that a service reads.
    assert outcome(engine) == "mended"


@pytest.mark.parametrize(("state", "before"), [("running", []), ("exited", ["update", "start"])])
def test_a_file_that_is_not_wanted_any_more_goes(
    engine: Engine, state: str, before: list[str]
) -> None:
    present(engine, state)
    engine.manifest = nodes.manifest(
        {**ROLES["worker"]["files"], "/etc/old": {"content": ""}}
    ).encode()
    outcome(engine)
    assert engine.changes() == [
        *(f"POST /containers/epic.work.lab.worker-1/{how}" for how in before),
        "EXEC rm -f -- /etc/old",
        "PUT /etc/epic/x",
        "POST /containers/epic.work.lab.worker-1/update",
        "POST /containers/epic.work.lab.worker-1/restart",
        "PUT /etc/epic/manifest.json",
    ]


def test_nodes_come_back_with_their_engine_unless_they_were_stopped(engine: Engine) -> None:
    assert outcome(engine) == "created"
    assert engine.policies == ["always"]
    present(engine)
    assert outcome(engine, state="stopped") == "stopped"
    # It is told before the node ends: an engine that dies meanwhile does not bring it back.
    assert engine.changes()[-2:] == ["POST /containers/c1/update", "POST /containers/c1/stop"]
    present(engine, "exited")
    assert outcome(engine, state="stopped") == "unchanged"
    assert engine.policies[1:] == ["no", "no"]
    assert outcome(engine) == "started"
    assert engine.policies[3:] == ["always"]
    present(engine, "dead")
    assert outcome(engine, state="stopped") == "unchanged"
    assert engine.policies[4:] == []
    # One of an earlier version.
    present(engine)
    assert outcome(engine, verify=True) == "unchanged"
    assert engine.policies[4:] == ["always"]


def test_a_node_that_goes_while_it_is_stopped_fails_nothing(engine: Engine) -> None:
    present(engine, "exited")
    engine.refusals["/update"] = utility.DockerError(409, "is marked for removal")
    assert outcome(engine, state="stopped") == "unchanged"


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("state", ["running", "exited"])
@pytest.mark.parametrize("how", ["mended", "recreated"])
def test_a_network_that_spans_hosts_stays_while_its_nodes_start_anew(
    engine: Engine, state: str, how: str, *, spans: bool
) -> None:
    network = {"name": "epic.work", "spans": spans}
    present(engine, state, network=network)
    engine.manifest = b"other" if how == "mended" else engine.manifest
    cores = {"worker": {**ROLES["worker"], "cores": 1 if how == "mended" else 2}}
    assert outcome(engine, network=network, node_roles=cores) == how
    stay = f"/containers/epic.work.lab{os.getpid()}.stay"
    ours = [item for item in engine.changes() if item.endswith(stay) or f"{stay}/" in item]
    if not spans or state != "running":
        assert ours == []
        return
    # One that a killed run has left goes first.
    assert ours == [f"DELETE {stay}", f"POST {stay}/start", f"DELETE {stay}"]
    ended = "DELETE /containers/c1" if how == "recreated" else "worker-1/restart"
    [when] = [i for i, item in enumerate(engine.asked) if item.endswith(ended)]
    assert engine.asked.index(f"POST {stay}/start") < when < len(engine.asked) - 1
    assert engine.asked[-1] == f"DELETE {stay}"


def test_a_network_that_cannot_be_kept_holds_up_nothing(engine: Engine) -> None:
    network = {"name": "epic.work", "spans": True}
    present(engine, network=network)
    engine.manifest = b"other"
    engine.refusals[".stay"] = utility.DockerError(500, "no space left on device")
    assert outcome(engine, network=network) == "mended"


@pytest.mark.parametrize("state", ["started", "stopped", "absent"])
@pytest.mark.parametrize("there", ["paused", None])
def test_a_check_changes_nothing(engine: Engine, state: str, there: str | None) -> None:
    if there:
        present(engine, there)
    outcome(engine, check=True, state=state)
    assert not engine.changes()


def test_a_check_tells_what_would_be_done_and_why(engine: Engine) -> None:
    present(engine)
    engine.manifest = b"{}"
    assert nodes.run(params(), check_mode=True)["files_changed"] == {"worker-1": ["/etc/epic/x"]}
    # Also where the image is missing of which a node would be made anew.
    engine.images = set()
    larger = {"worker": {**ROLES["worker"], "cores": 2}}
    result = nodes.run(params(node_roles=larger), check_mode=True)
    assert result["failed"]
    assert result["nodes"] == {"worker-1": "recreated"}
    assert not engine.changes()


def test_a_check_neither_waits_for_others_nor_holds_them_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    present(engine)
    monkeypatch.setattr(nodes, "hold", lambda *_: pytest.fail("it held a lock"))
    assert outcome(engine, check=True) == "unchanged"


def test_a_missing_image_is_found_before_anything_is_made(engine: Engine) -> None:
    engine.images = set()
    result = nodes.run(params(), check_mode=False)
    assert result["failed"]
    assert result["missing_images"] == ["epic/spark:1"]
    assert not engine.changes()
    present(engine)  # nothing has to be made of it
    assert outcome(engine) == "unchanged"


def test_a_port_that_is_taken_is_told_apart(engine: Engine) -> None:
    engine.refusals["/start"] = utility.DockerError(
        500, "listen tcp4 127.0.0.1:20000: bind: address already in use"
    )
    result = nodes.run(params(), check_mode=False)
    assert result["failed"]
    assert result["port_clashes"] == ["worker-1"]
    engine.refusals["/start"] = utility.DockerError(500, "no space left on device")
    assert nodes.run(params(), check_mode=False)["port_clashes"] == []


@pytest.mark.parametrize(
    "problem",
    [
        "network z3iyfeg8rj33 not found",
        # Of a host that is back, while the managers take it in again.
        "Could not attach to network z3iyfeg8rj33: context deadline exceeded",
    ],
)
@pytest.mark.parametrize(("is_there", "said"), [(True, "started"), (False, "created")])
def test_a_network_that_is_leaving_the_host_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, problem: str, *, is_there: bool, said: str
) -> None:
    if is_there:
        present(engine, "exited")
    engine.refusals["/start"] = utility.DockerError(404, problem)
    monkeypatch.setattr(nodes.time, "sleep", lambda _: engine.refusals.clear())
    assert outcome(engine) == said
    assert sum("/start" in asked for asked in engine.asked) == 2


def test_a_container_that_its_engine_takes_for_a_running_one_is_made_anew(engine: Engine) -> None:
    present(engine, "exited")
    problem = utility.DockerError(500, "task 6f13afc986a0: already exists")
    engine.refusals["worker-1/start"] = problem
    # The engine starts the new one with its files, which is another request.
    engine.start_with = lambda container, _files: engine.asked.append(container)  # type: ignore[method-assign]
    assert outcome(engine) == "recreated"
    assert "DELETE /containers/c1" in engine.asked
    assert not any(asked.startswith("DELETE /volumes") for asked in engine.asked)


def test_a_removal_that_others_began_is_waited_for(engine: Engine) -> None:
    present(engine)
    engine.refusals["DELETE /containers"] = utility.DockerError(409, "already in progress")
    assert outcome(engine, state="absent") == "removed"
    assert "POST /containers/c1/wait" in engine.asked


def test_a_lock_holds_up_its_own_name_alone() -> None:
    mine, other = f"a{os.getpid()}", f"b{os.getpid()}"
    shared = fcntl.LOCK_SH | fcntl.LOCK_NB
    with (
        utility.hold(mine, fcntl.LOCK_EX),
        utility.hold(other, fcntl.LOCK_EX),
        pytest.raises(BlockingIOError),
        utility.hold(mine, shared),
    ):
        pass
    with utility.hold(mine, shared), utility.hold(mine, shared):
        pass


@pytest.mark.parametrize("tenant", ["firewall", "images", "registry", "gateway"])
def test_a_tenant_of_any_name_has_locks_of_its_own(tenant: str) -> None:
    """While a tenant's lock is held, the firewall's is asked for."""
    own = {utility.tenant_lock(tenant, *names) for names in ((), ("",), ("lab",))}
    assert len(own) == 3
    assert not own & {"firewall", "images", "registry", "gateway.lab"}


def test_the_nodes_of_a_tenant_named_like_the_firewall_are_made(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def noting(name: str, _how: int) -> Iterator[None]:
        seen.append(name)
        yield

    monkeypatch.setattr(nodes, "hold", noting)
    assert outcome(engine, tenant="firewall") == "created"
    nodes.run(params(tenant="firewall", state="absent", nodes=None), check_mode=False)
    assert len(set(seen)) == 3
    assert all(name.startswith("tenant.firewall") for name in seen)


def test_an_archive_holds_contents_modes_and_owners() -> None:
    data = utility.archive(
        {"/etc/epic/run": {"content": "ä\n", "mode": "0755", "uid": 7, "gid": "8"},
         "/etc/epic/bytes": {"base64": "AAE="}}
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        run = members["etc/epic/run"]
        assert (run.mode, run.uid, run.gid) == (0o755, 7, 8)
        content = tar.extractfile("etc/epic/bytes")
        assert content
        assert content.read() == b"\0\1"
    assert members["etc/epic/bytes"].mode == 0o644


def test_a_node_is_as_good_as_its_first_failed_command() -> None:
    commands = [{"node": "master-1"}, {"node": "master-1"}, {"node": "worker-1"}]
    bad = {"rc": 1, "stdout": "", "stderr": "no workers"}
    good = {"rc": 0, "stdout": "a\n", "stderr": ""}
    assert execute.by_node(commands, [bad, good, good])["master-1"] is bad
    assert execute.by_node(commands, [good, bad, good])["master-1"] is bad
    assert execute.by_node(commands, [good, good, good])["master-1"]["stdout"] == "a\na\n"


# -- the client of the engine's API, before a server on a socket --------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "local"

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if "/exec/" in self.path:
            self.answer(200, json.dumps({"ExitCode": 3}).encode())
        elif "missing" in self.path:
            self.answer(404, b'{"message": "No such container"}')
        else:
            data = utility.archive({"/f": {"content": "hello", "mode": "0600", "uid": 5}})
            self.answer(200, data, "application/x-tar")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/exec"):
            self.answer(201, b'{"Id": "e1"}')
        elif self.path.startswith("/images/create"):
            self.answer(200, b'{"status": "Pulling"}\r\n{"error": "no space left on device"}\r\n')
        elif self.path.startswith("/images/missing"):
            self.answer(404, b'{"message": "No such image"}')
        else:
            frames = [(1, b"out"), (2, b"err"), (1, b"more")]
            body = b"".join(struct.pack(">BxxxL", n, len(data)) + data for n, data in frames)
            self.answer(200, body, "application/vnd.docker.raw-stream")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("local", 0)


@pytest.fixture
def client(tmp_path: Path):
    path = str(tmp_path / "docker.sock")
    with Server(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield utility.Docker(path)
        server.shutdown()
        thread.join()


def test_the_frames_of_an_attached_command_are_taken_apart(client: Any) -> None:
    assert client.execute("c1", ["true"]) == (3, "outmore", "err")


def test_files_of_a_container_are_compared_with_mode_and_owner(client: Any) -> None:
    assert client.read_file("c1", "/f") == b"hello"
    assert client.has_file("c1", "/f", {"content": "hello", "mode": "0600", "uid": 5})
    assert not client.has_file("c1", "/f", {"content": "hello", "mode": "0644", "uid": 5})
    assert not client.has_file("c1", "/f", {"content": "hello", "mode": "0600"})
    assert not client.has_file("c1", "/f", {"content": "other", "mode": "0600", "uid": 5})
    assert not client.has_file("missing", "/f", {"content": "hello"})


def test_refusals_carry_the_engines_own_words(client: Any) -> None:
    assert client.request("GET", "/containers/missing/json", missing_ok=True) is None
    with pytest.raises(utility.DockerError, match="No such container") as refused:
        client.request("GET", "/containers/missing/json")
    assert refused.value.status == 404


def test_messages_come_until_one_of_them_is_an_error(client: Any) -> None:
    came = client.messages("/images/create", {"fromImage": "x"}, {})
    assert next(came) == {"status": "Pulling"}
    with pytest.raises(utility.DockerError, match="no space left on device"):
        next(came)
    with pytest.raises(utility.DockerError, match="No such image"):
        next(client.messages("/images/missing/push", {}, {}))


def test_a_network_goes_although_its_engine_remembers_a_container_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = utility.Docker("/none.sock")
    on = {"ep-1": {"Name": "gone"}, "c2": {"Name": "here"}}
    asked: list[str] = []

    def request(method: str, url: str, body: Any = None, **_: Any) -> Any:
        asked.append(f"{method} {url}")
        if method == "POST":
            on.pop("ep-1" if body == {"Container": "gone", "Force": True} else "")
        if method == "DELETE" and on:
            raise utility.DockerError(403, "network n id 1 has active endpoints")
        if url.startswith("/containers/"):
            return {"Id": "c2"} if url == "/containers/here/json" else None
        return {"Containers": dict(on)}

    def another_moment(_seconds: float) -> None:
        # Whoever is really on it leaves by itself.
        on.pop("c2", None)

    monkeypatch.setattr(client, "request", request)
    monkeypatch.setattr(utility.time, "sleep", another_moment)
    client.remove_network("n")
    assert asked[-1] == "DELETE /networks/n"
    on["c3"] = {"Name": "here"}
    monkeypatch.setattr(utility, "ENDPOINT_SECONDS", -1.0)
    with pytest.raises(utility.DockerError, match="active endpoints"):
        client.remove_network("n")


def test_an_engine_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(utility.DockerError, match=r"none\.sock"):
        utility.Docker(str(tmp_path / "none.sock")).request("GET", "/info")


def test_a_network_is_made_once_the_swarm_has_a_leader_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load("epic_network", "library/epic_network.py")
    monkeypatch.setattr(network, "Docker", lambda _socket: engine)
    wanted = {
        "tenant": "work", "name": "epic_work", "state": "present", "subnet": "10.112.0.0/21",
        "ip_range": "10.112.4.0/22", "mtu": 0, "socket": "",
    }  # fmt: skip
    said = "rpc error: code = Unknown desc = The swarm does not have a leader."
    answers: list[Any] = [utility.DockerError(500, said), {"Id": "n1"}]

    def request(method: str, _url: str, *_: Any, **__: Any) -> Any:
        if method == "GET":
            return None
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    waited: list[float] = []
    monkeypatch.setattr(engine, "request", request)
    monkeypatch.setattr(network.time, "sleep", waited.append)
    assert network.run(wanted, check_mode=False) == {"changed": True, "id": "n1"}
    assert waited == [network.ELECTION_PAUSE_SECONDS]
    # It is not waited for without an end, and nothing else is tried again.
    monkeypatch.setattr(network, "ELECTION_SECONDS", -1.0)
    answers[:] = [utility.DockerError(500, said)]
    assert network.run(wanted, check_mode=False) == {
        "changed": False, "id": "", "leaderless": said,
    }  # fmt: skip
    monkeypatch.setattr(network, "ELECTION_SECONDS", 60.0)
    answers[:] = [utility.DockerError(500, "no space left on device")]
    assert network.run(wanted, check_mode=False)["failed"]


def test_a_network_that_another_manager_removes_at_the_same_time_is_gone(engine: Engine) -> None:
    network = load("epic_network", "library/epic_network.py")
    wanted = {"tenant": "work", "name": "epic_work", "state": "absent"}
    engine.refusals["DELETE"] = utility.DockerError(500, "network 1wizziauqgut not found")
    assert network.converge(engine, wanted, check_mode=False) == {"changed": True, "id": ""}
    engine.refusals["DELETE"] = utility.DockerError(500, "no space left on device")
    assert network.converge(engine, wanted, check_mode=False)["failed"]


def test_a_network_whose_addresses_another_store_gave_away_is_refused() -> None:
    network = load("epic_network", "library/epic_network.py")
    wanted = {"tenant": "work", "name": "epic_work", "state": "present",
              "subnet": "10.112.0.0/21", "ip_range": "10.112.4.0/22", "mtu": 0}  # fmt: skip

    class Swarm(Engine):
        networks: list[dict[str, Any]] = []  # noqa: RUF012 - set by the test

        def request(self, method: str, url: str, *given: Any, **named: Any) -> Any:
            if (method, url) == ("GET", "/networks"):
                return self.networks
            return None if method == "GET" else super().request(method, url, *given, **named)

    def has(name: str, *subnets: str) -> dict[str, Any]:
        return {"Name": name, "IPAM": {"Config": [{"Subnet": item} for item in subnets] or None}}

    swarm = Swarm()
    swarm.networks = [has("ingress", "10.0.0.0/24", "fd00::/64"), has("new"), has("epic_work")]
    swarm.networks += [has("epic_work", "10.112.0.0/21"), has("epic_b", "10.112.8.0/21")]
    assert network.converge(swarm, wanted, check_mode=False) == {"changed": True, "id": "1"}
    swarm.asked.clear()
    swarm.networks += [has("epic_theirs", "10.112.0.0/20")]
    refused = network.converge(swarm, wanted, check_mode=False)
    assert "are those of the network epic_theirs" in refused["msg"]
    assert "EPIC_NETWORK_POOL" in refused["hint"]
    assert not swarm.changes()
