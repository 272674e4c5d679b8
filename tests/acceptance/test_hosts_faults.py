"""What happens to hosts while clusters change on them: they die, are cut off, restart.

Each fault meets each verb. The operation finishes elsewhere, or fails within a bound by words that
name the host; a neighbour on the other hosts does not notice; when the host is back, the same
command converges.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import life_support
import pytest
from laboratory import HOSTS, Spread
from life_support import Site, until

pytestmark = [pytest.mark.docker, pytest.mark.faults, pytest.mark.xdist_group("lab")]

FAULTS = ["kill", "pause", "cut", "restart", "engine"]
STATUS_SECONDS = 30
# The bound of docs/hosts.md, and what a machine adds that others use as well.
CHANGE_SECONDS = 180 + 60


@pytest.fixture(scope="module")
def neighbour(spread: Spread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Another tenant's cluster on the first two hosts, at work."""
    other = spread.another(tmp_path_factory.mktemp("neighbour"))
    spread.site.run("host", "drain", "host-3")
    other.run("launch", other.template("calm"))
    spread.site.run("host", "drain", "host-3", "--undo")
    job = other.folder / "job.py"
    job.write_text(
        "import time\n"
        "from pyspark.sql import SparkSession\n"
        "context = SparkSession.builder.getOrCreate().sparkContext\n"
        "while True:\n"
        "    print('sum', context.parallelize(range(9), 2).sum(), flush=True)\n"
        "    time.sleep(1)\n",
        encoding="utf-8",
    )
    running = other.begin("submit", "calm", str(job))
    assert running.stdout is not None
    until(lambda: "sum" in running.stdout.readline(), "the job works")
    yield other
    assert running.poll() is None, "the neighbour's job ended"
    running.terminate()
    running.communicate(timeout=life_support.LIMIT_SECONDS)
    other.run("destroy", "calm", "--yes")
    other.run("tenant", "remove", other.tenant, "--yes")


@pytest.fixture
def victim(spread: Spread, neighbour: Site, third: str) -> Iterator[str]:
    """host-3, on which a new cluster has a node for sure; nothing of it is left afterwards."""
    yield third
    spread.mend(third)
    spread.site.run("host", "drain", third, "--undo")
    for cluster in spread.site.json("list"):
        if cluster["tenant"] == spread.site.tenant:
            spread.site.run("destroy", cluster["name"], "--yes")
    assert [left for host in HOSTS for left in remains(spread, host)] == []
    until(lambda: neighbour.status("calm")["health"] == "green", "the neighbour is well")


def remains(spread: Spread, host: str) -> list[str]:
    """Return what a host has of the tenant's clusters; not its storage, which stays."""
    wanted = f"label=epic.tenant={spread.site.tenant}"
    volumes = spread.on(host, "docker", "volume", "ls", "-q", "--filter", wanted).split()
    return spread.containers(host) + [name for name in volumes if not name.endswith(".storage")]


def end(process: subprocess.Popen[str]) -> life_support.Result:
    began = time.monotonic()
    out, err = process.communicate(timeout=CHANGE_SECONDS)
    assert time.monotonic() - began < CHANGE_SECONDS
    assert "Traceback" not in out + err
    return life_support.Result(process.returncode, out, err)


def is_clean(result: life_support.Result, host: str) -> None:
    """Assert that an operation succeeded, or failed by words that name the host and what to do."""
    if result.code:
        assert result.code == 1, result
        assert host in result.err, result
        assert "Hint: " in result.err, result


def is_told(spread: Spread, neighbour: Site, host: str, cluster: str) -> None:
    """Assert that status names the host in time, and that the neighbour is green."""
    began = time.monotonic()
    status = spread.site.status(cluster)
    assert time.monotonic() - began < STATUS_SECONDS
    if any(node["host"] == host for node in status["nodes"]):
        assert status["health"] in ("yellow", "red"), status
        assert host in status["reason"], status
    assert neighbour.status("calm")["health"] == "green"


def converges(spread: Spread, *command: str, cluster: str = "prey") -> None:
    spread.site.run(*command)
    until(
        lambda: spread.site.status(cluster)["health"] == "green", "the cluster is well", pause=1.0
    )


def lives_on(how: str) -> bool:
    """Whether the host comes back by itself."""
    return how in ("restart", "engine")


def launched(spread: Spread, workers: int = 3) -> str:
    template = spread.site.template("prey", workers=workers)
    spread.site.run("launch", template)
    return template


@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_during_a_launch(spread: Spread, neighbour: Site, victim: str, how: str) -> None:
    template = spread.site.template("prey", workers=3)
    process = spread.site.begin("launch", template)
    until(
        lambda: (
            any(".prey." in name for name in spread.containers(victim))
            or process.poll() is not None
        ),
        "a node is made on the host",
    )
    spread.harm(victim, how)
    result = end(process)
    is_clean(result, victim)
    if not lives_on(how):
        is_told(spread, neighbour, victim, "prey")
    spread.mend(victim)
    converges(spread, "launch", template)
    spread.site.run("repair", "prey")
    assert spread.site.status("prey")["strays"] == []


@pytest.mark.parametrize("verb", ["expand", "shrink", "stop", "destroy"])
@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_before_or_during_a_change(
    spread: Spread, neighbour: Site, victim: str, verb: str, how: str
) -> None:
    launched(spread)
    assert victim in spread.places("prey").values()
    kept = next(name for name, host in spread.places("prey").items() if host == victim)
    spread.inside(kept, "echo kept > ~/note", "prey")
    arguments = {"expand": ["--by", "1"], "shrink": ["--by", "1"], "destroy": ["--yes"]}
    command = [verb, "prey", *arguments.get(verb, [])]
    process = spread.site.begin(*command)
    assert process.stdout is not None
    # The first line is told when the first task begins.
    process.stdout.readline()
    spread.harm(victim, how)
    result = end(process)
    is_clean(result, victim)
    gone = verb == "destroy" and result.code == 0
    if not gone and not lives_on(how):
        is_told(spread, neighbour, victim, "prey")
    spread.mend(victim)
    if verb == "destroy":
        if not gone:
            assert "epic-run destroy" in result.err
            spread.site.run(*command)
        assert [left for host in HOSTS for left in remains(spread, host)] == []
        return
    if result.code:
        spread.site.run(*command)
    converges(spread, "start" if verb == "stop" else "repair", "prey")
    if kept in spread.places("prey"):
        assert spread.inside(kept, "cat ~/note", "prey") == "kept"


@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_in_steady_state(spread: Spread, neighbour: Site, victim: str, how: str) -> None:
    launched(spread)
    spread.harm(victim, how)
    if not lives_on(how):
        is_told(spread, neighbour, victim, "prey")
        began = time.monotonic()
        refused = spread.site.run("repair", "prey", code=1)
        assert time.monotonic() - began < CHANGE_SECONDS
        assert f"epic-run host drain {victim} --lost" in refused.err
    spread.mend(victim)
    until(lambda: spread.site.status("prey")["health"] == "green", "all is back", pause=1.0)


def test_a_destroy_while_a_host_is_away_is_finished_when_it_is_back_or_lost(
    spread: Spread, neighbour: Site, victim: str
) -> None:
    launched(spread)
    spread.machine("kill", victim)
    told = spread.site.run("destroy", "prey", "--yes", code=1)
    again = f"epic-run destroy {spread.site.tenant}/prey --yes"
    assert f"{again} finishes it when {victim} is back" in told.err
    assert f"epic-run host drain {victim} --lost does" in told.err
    [listed] = [row for row in spread.site.json("list") if row["name"] == "prey"]
    assert listed["wanted"] == "absent"
    is_told(spread, neighbour, victim, "prey")
    told = spread.site.run("host", "drain", victim, "--lost")
    assert again in told.out + told.err
    assert [row for row in spread.site.json("list") if row["name"] == "prey"] == []
    # Against what was said it comes back, with all it had.
    spread.mend(victim)
    back = spread.site.json("host", "drain", victim, "--undo")
    assert back["unknown"] == [f"{spread.site.tenant}/prey"]
    assert remains(spread, victim)
    spread.site.run("destroy", f"{spread.site.tenant}/prey", "--yes")
    assert remains(spread, victim) == []


def test_the_loss_of_the_gateway_s_host_holds_up_no_cluster_and_is_made_good_elsewhere(
    spread: Spread, neighbour: Site, victim: str, tmp_path: Path
) -> None:
    site = spread.site
    site.run("host", "drain", victim)
    template = launched(spread, workers=1)
    brief = site.template("brief", workers=1)
    site.run("launch", brief)
    site.run("host", "drain", victim, "--undo")
    named = ["--port", "9443", "--public-name", "gw.test"]
    site.run("gateway", "up", "--host", victim, *named)
    try:
        site.run("repair", "prey")
        site.run("repair", "brief")
        assert victim not in spread.places("prey").values()
        authority = (site.home / "gateway" / "ca.pem").read_bytes()
        for verb in ("drain", "remove"):
            refused = site.run("host", verb, victim, code=2)
            assert "epic-run gateway up --host OTHER" in refused.err
        paths = site.json("gateway", "status")["paths"]
        assert pages(spread, site, victim, "prey", tmp_path) == "200"
        comes_back_where_nothing_is_managed(spread, site, victim)
        assert pages(spread, site, victim, "prey", tmp_path) == "200"
        spread.machine("kill", victim)
        tells_of_the_gateway_alone(site.status("prey"), victim)
        tells_of_the_gateway_alone(neighbour.status("calm"), victim)
        # It is needed for none of these, and each says what becomes of the routes.
        for command in (
            ["launch", template],
            ["expand", "prey", "--by", "1"],
            ["repair", "prey"],
            ["shrink", "prey", "--by", "1"],
            ["destroy", "brief", "--yes"],
        ):
            began = time.monotonic()
            assert f"the gateway's host {victim} does not answer" in site.run(*command).out
            assert time.monotonic() - began < CHANGE_SECONDS
        assert site.json("gateway", "status")["state"] == "silent"
        told = site.run("host", "drain", victim, "--lost")
        assert "epic-run gateway down --lost" in told.out
        failed = site.run("gateway", "down", "--yes", code=1)
        assert "epic-run gateway down --lost" in failed.err
        site.run("gateway", "down", "--lost", "--yes")
        site.run("gateway", "up", "--host", "host-2")
        moved = site.json("gateway", "status")
        assert (moved["host"], moved["port"], moved["public_name"]) == ("host-2", 9443, "gw.test")
        assert moved["paths"] == [path for path in paths if "/brief/" not in path]
        assert f"{site.tenant}/prey" not in moved["not_behind"]
        assert (site.home / "gateway" / "ca.pem").read_bytes() == authority
        assert pages(spread, site, "host-2", "prey", tmp_path) == "200"
        # Against what was said the host comes back, and opens what it opened before.
        spread.mend(victim)
        assert site.json("host", "drain", victim, "--undo")["gateway"]
        left = spread.on(victim, "docker", "ps", "-aq", "--filter", "label=epic.gateway")
        assert left == ""
    finally:
        spread.mend(victim)
        site.run("gateway", "down", "--yes", code=None)


def comes_back_where_nothing_is_managed(spread: Spread, site: Site, host: str) -> None:
    """Remove the gateway's container by hand, and have it again, on a host that is no manager.

    Such a host does not list networks on which it has no container.
    """
    member = spread.on(host, "docker", "info", "-f", "'{{.Swarm.NodeID}}'")
    spread.on("host-1", "docker", "node", "demote", member)
    try:
        site.run("host", "check", code=None)
        spread.on(host, "docker", "rm", "-f", site.json("gateway", "status")["container"])
        site.run("gateway", "up")
    finally:
        spread.on("host-1", "docker", "node", "promote", member)
    site.run("host", "check", code=None)


def tells_of_the_gateway_alone(status: dict[str, Any], host: str) -> None:
    assert {node["state"] for node in status["nodes"]} == {"ready"}
    assert status["health"] == "yellow"
    assert f"the gateway is away: Docker on host {host} does not answer" in status["reason"]


def pages(spread: Spread, site: Site, host: str, cluster: str, folder: Path) -> str:
    """Return the status that the gateway on a host answers a member of a cluster with."""
    address = spread.on(host, "hostname", "-i").split()[0]
    token = site.run("login", "--cluster", cluster, "--token").out.strip()
    jar = folder / "cookie"
    jar.write_text(f'cookie = "__Secure-epic={token}"\n', encoding="utf-8")
    url = f"https://gw.test:9443/{site.tenant}/{cluster}/master-1/spark-master/json/"
    return subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--cacert", str(site.home / "gateway" / "ca.pem"),
         "--resolve", f"gw.test:9443:{address}", "--config", str(jar), "-o", str(folder / "page"),
         "-w", "%{http_code}", url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_what_comes_back_with_a_lost_host_meets_no_new_node_of_its_name_or_address(
    spread: Spread, victim: str
) -> None:
    template = launched(spread)
    lost = [name for name, host in spread.places("prey").items() if host == victim]
    had = {name: spread.inside(name, "hostname -i", "prey") for name in spread.places("prey")}
    spread.machine("kill", victim)
    spread.site.run("host", "drain", victim, "--lost")
    new = set(spread.places("prey")) - set(had)
    assert len(new) == len(lost)
    assert not {spread.inside(name, "hostname -i", "prey") for name in new} & set(had.values())
    spread.mend(victim)
    # Its old workers run again, and register at the master; the cluster works on all the same.
    assert any(".prey." in name for name in spread.containers(victim))
    assert spread.site.status("prey")["health"] in ("green", "yellow")
    spread.site.run("host", "drain", victim, "--undo")
    assert not [name for name in spread.containers(victim) if ".prey." in name]
    converges(spread, "launch", template)
