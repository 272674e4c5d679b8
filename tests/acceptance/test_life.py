"""The ordinary life of a cluster, on real Docker: what changes, and above all what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import life_support
import pytest
import yaml
from life_support import Site, until

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]
ALL = ["master-1", "worker-1", "worker-2"]
ROOT = Path(__file__).resolve().parents[2]

# Every task leaves a file that names the try that it is and its node, then goes on for as long as
# another file is there.
LONG_JOB = """
import pathlib, platform, time
from pyspark import TaskContext
from pyspark.sql import SparkSession

def work(number):
    seen = pathlib.Path("/tenant/seen")
    seen.mkdir(exist_ok=True)
    (seen / f"{TaskContext.get().attemptNumber()} {number} {platform.node()}").touch()
    while pathlib.Path("/tenant/hold").exists():
        time.sleep(0.1)
    return number

context = SparkSession.builder.getOrCreate().sparkContext
print("sum", sum(context.parallelize(range(4), 4).map(work).collect()))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("life")) as made:
        made.quota = {"nodes": 4, "clusters": 2}
        yield made


@pytest.fixture(scope="module", autouse=True)
def template(site: Site) -> str:
    """One cluster for all tests of this file, in their order."""
    path = site.template(services=["jupyter"])
    site.run("launch", path)
    return path


def token_of(site: Site) -> str:
    path = site.home / "secrets" / site.tenant / "lab.json"
    return str(json.loads(path.read_text())["token"])


def holds(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_a_launched_cluster_is_all_there(site: Site) -> None:
    site.is_as_wanted(BOTH)
    names = {item["name"] for item in site.status()["endpoints"]}
    assert names == {"spark-master", "jupyter"}


def test_nodes_are_unprivileged_and_limited(site: Site) -> None:
    for node in site.nodes().values():
        host = node["HostConfig"]
        assert host["Privileged"] is False
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"] in (2**30, 2 * 2**30)
        assert host["NanoCpus"] == 10**9
        assert host["PidsLimit"] > 0
        published = [item for bound in (host["PortBindings"] or {}).values() for item in bound]
        assert {item["HostIp"] for item in published} <= {"127.0.0.1"}


def test_the_token_is_nowhere_but_in_its_file_and_its_node(site: Site) -> None:
    token = token_of(site).encode()
    assert holds(site.home, token) == [site.home / "secrets" / site.tenant / "lab.json"]
    for node in site.nodes().values():
        assert token not in json.dumps(node).encode()
        assert token.decode() not in site.docker("logs", node["Id"])
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                shown = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert token not in shown
    logs = site.inside("master-1", "sh", "-c", "cat /data/log/*/current")
    assert token.decode() not in logs


def test_the_token_is_for_the_owner_of_the_notebooks(site: Site) -> None:
    path = "/etc/epic/secrets/jupyter-token"
    assert site.inside("master-1", "cat", path, user="ada") == token_of(site)
    with pytest.raises(AssertionError, match="Permission denied"):
        site.inside("master-1", "cat", path, user="bob")


def test_launched_again_nothing_is_touched(site: Site, template: str) -> None:
    before = site.starts()
    done = site.run("launch", template)
    assert site.starts() == before
    for word in ("created", "started", "mended"):
        assert word not in done.out


def test_a_plan_of_what_runs_has_nothing_to_do(site: Site, template: str) -> None:
    made = site.json("plan", template)
    assert {node["action"] for node in made["nodes"]} == {"keep"}


def test_plain_ansible_changes_nothing_of_what_epic_run_has_made(site: Site) -> None:
    inventory = site.folder / "lab.inventory.yml"
    inventory.write_text(site.run("inventory", "lab").out)
    before = site.starts()
    for options in ([], ["--check"]):
        recap = playbook(site, inventory, "launch", *options)
        assert "changed=0" in recap
        assert site.starts() == before


def test_an_ad_hoc_play_reaches_every_node(site: Site) -> None:
    done = ansible(
        site,
        ["ansible", "-i", "inventories/epic.yml", "lab", "-m", "command", "-a", "hostname"],
    )
    assert {"lab-master-1", "lab-worker-1"} <= set(done.split())


def test_an_expand_touches_no_running_node(site: Site) -> None:
    before = site.starts()
    site.run("expand", "lab")
    after = site.starts()
    assert {name: after[name] for name in before} == before
    site.is_as_wanted(ALL)


def test_a_launch_with_fewer_nodes_than_there_are_removes_none(site: Site, template: str) -> None:
    before = site.starts()
    site.run("launch", template)
    assert site.starts() == before
    site.is_as_wanted(ALL)


@pytest.mark.parametrize("by", ["2", "1000"])
def test_an_expand_beyond_the_quota_is_refused_with_figures(site: Site, by: str) -> None:
    before = site.starts()
    refused = site.run("expand", "lab", "--by", by, code=2)
    assert "quota" in refused.err or "No host has room" in refused.err
    assert "of 4" in refused.err or by == "1000"
    assert site.starts() == before
    site.is_as_wanted(ALL)


def test_limits_of_the_app_hold(site: Site) -> None:
    assert "at most 1 master" in site.run("expand", "lab", "--role", "master", code=2).err
    assert "needs at least 1" in site.run("shrink", "lab", "--by", "3", code=2).err
    assert "no node role" in site.run("shrink", "lab", "--role", "gateway", code=2).err
    site.is_as_wanted(ALL)


def test_a_job_survives_a_shrink(site: Site) -> None:
    site.inside("master-1", "touch", "/tenant/hold")
    site.inside("master-1", "sh", "-c", f"cat > /tenant/job.py <<'END'{LONG_JOB}END")
    job = subprocess.Popen(
        ["docker", "exec", "--user", "ada", site.container("master-1"), "spark-submit",
         "--executor-memory", "512m", "--driver-memory", "512m", "/tenant/job.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(
            lambda: len({line.split()[2] for line in seen(site)}) > 1 or job.poll() is not None,
            "the job runs on both workers",
        )
        shrink = site.begin("shrink", "lab")
        until(lambda: "worker-2" not in leaving_less(site), "worker-2 is on its way out")
        # It takes no more work, and goes on with what it has: a node that is only removed is DEAD.
        until(
            lambda: state_of(site, "lab-worker-2") == "DECOMMISSIONED", "worker-2 leaves in order"
        )
        assert "worker-2" in site.running()
        site.inside("worker-2", "pgrep", "--full", "CoarseGrainedExecutorBackend")
        site.inside("master-1", "rm", "/tenant/hold")
        out, err = shrink.communicate(timeout=life_support.LIMIT_SECONDS)
        assert shrink.returncode == 0, out + err
        out, err = job.communicate(timeout=life_support.LIMIT_SECONDS)
    finally:
        job.kill()
    assert job.returncode == 0, err
    assert "sum 6" in out
    # No task was lost with the node, so none was tried again.
    assert {line.split()[0] for line in seen(site)} == {"0"}
    site.is_as_wanted(BOTH)


def seen(site: Site) -> list[str]:
    """Return the tasks of the long job that have begun: their try, number and node."""
    return site.inside("master-1", "sh", "-c", "ls /tenant/seen || true").splitlines()


def state_of(site: Site, worker: str) -> str:
    """Return what Spark's master says of a worker."""
    ask = "import urllib.request as u; print(u.urlopen('http://localhost:8080/json/').read().decode())"
    told = json.loads(site.inside("master-1", "python3", "-c", ask))
    return next((str(item["state"]) for item in told["workers"] if item["host"] == worker), "")


def leaving_less(site: Site) -> list[str]:
    return [node["name"] for node in site.status()["nodes"] if node["state"] != "deleting"]


def test_data_survives_stop_and_start(site: Site) -> None:
    token = token_of(site)
    site.inside("worker-1", "sh", "-c", "echo kept > ~/note", user="ada")
    address = site.status()["endpoints"]
    site.run("stop", "lab")
    assert site.running() == []
    assert site.status()["health"] == "green"
    assert "stopped" in site.run("expand", "lab", code=2).err
    assert "stopped" in site.run("shrink", "lab", code=2).err
    site.run("repair", "lab")  # a stopped cluster is left stopped
    assert site.running() == []
    site.run("start", "lab")
    site.is_as_wanted(BOTH)
    assert site.inside("worker-1", "sh", "-c", "cat ~/note", user="ada") == "kept"
    assert site.status()["endpoints"] == address
    assert token_of(site) == token


def test_a_new_member_gets_an_account_on_every_node(site: Site, template: str) -> None:
    site.inside("worker-1", "sh", "-c", "echo kept > ~/note", user="ada")
    before = site.starts()
    site.members = [*site.members, {"user": "cyd", "role": "member", "sudo": True}]
    site.template(services=["jupyter"])
    planned = site.json("plan", template)["nodes"]
    assert {(node["name"], node["action"]) for node in planned} == {(x, "restart") for x in BOTH}
    assert all("/etc/epic/passwd" in node["reason"] for node in planned)
    assert site.starts() == before
    done = site.run("launch", template)
    assert done.out.count("mended") == 2
    after = site.starts()
    for name in BOTH:
        assert before[name][0] == after[name][0]  # the same container,
        assert before[name][1] != after[name][1]  # started anew
        assert "(cyd)" in site.inside(name, "id", user="cyd")
        assert site.inside(name, "sudo", "id", "-u", user="cyd") == "0"
    assert site.inside("worker-1", "sh", "-c", "cat ~/note", user="ada") == "kept"
    again = site.run("launch", template)
    assert "mended" not in again.out
    site.is_as_wanted(BOTH)


def test_the_owner_of_a_cluster_cannot_leave_its_tenant(site: Site) -> None:
    members, site.members = site.members, [{"user": "bob", "role": "admin"}]
    changed = site.template("other")
    refused = site.run("tenant", "apply", changed, code=2)
    assert "ada owns the cluster lab" in refused.err
    site.members = members
    site.is_as_wanted(BOTH)


def test_an_exported_cluster_is_a_template_of_itself(site: Site) -> None:
    exported = site.folder / "exported.yml"
    exported.write_text(site.run("export", "lab").out)
    kinds = [item["kind"] for item in yaml.safe_load_all(exported.read_text())]
    assert kinds[-1] == "Template"
    made = site.json("plan", str(exported))
    assert {node["action"] for node in made["nodes"]} == {"keep"}


def test_destroy_leaves_the_storage_alone_and_nothing_else(site: Site) -> None:
    site.inside("master-1", "sh", "-c", "echo kept > /tenant/note", user="ada")
    site.run("destroy", "lab", "--yes")
    site.has_nothing()
    assert site.labelled("volume") == [f"epic.{site.tenant}.storage"]
    assert site.json("list") == []
    assert "There is no cluster lab" in site.run("status", "lab", code=2).err


def test_every_verb_is_a_playbook_that_runs_by_itself(site: Site, template: str) -> None:
    """Without the store: an inventory alone makes a cluster and takes it away."""
    site.run("launch", template)
    assert site.inside("master-1", "cat", "/tenant/note", user="ada") == "kept"
    inventory = site.folder / "lab.inventory.yml"
    inventory.write_text(site.run("inventory", "lab").out)
    playbook(site, inventory, "stop")
    assert site.running() == []
    assert "changed=0" in playbook(site, inventory, "stop")
    playbook(site, inventory, "start")
    site.is_as_wanted(BOTH)
    assert "changed=0" in playbook(site, inventory, "repair")
    playbook(site, inventory, "restart")
    site.is_as_wanted(BOTH)
    playbook(site, inventory, "destroy", "--check")
    site.is_as_wanted(BOTH)
    playbook(site, inventory, "destroy")
    assert site.labelled("container") == []
    assert "changed=0" in playbook(site, inventory, "destroy")
    assert "changed=1" in playbook(site, inventory, "launch", "--check")
    assert site.labelled("container") == []
    playbook(site, inventory, "expand")
    site.is_as_wanted(BOTH)
    site.run("expand", "lab")
    inventory.write_text(site.run("inventory", "lab").out)
    for options, said in (
        ([], "no node is said to leave"),
        (["-e", "shrink_nodes=worker-2"], "as a list"),
        (["-e", '{"shrink_nodes": ["worker-9"]}'], "lab has no node worker-9"),
    ):
        assert said in playbook(site, inventory, "shrink", *options, code=2)
        assert site.running() == ALL
    named = ["-e", '{"shrink_nodes": ["worker-2"]}']
    playbook(site, inventory, "shrink", *named)
    assert site.running() == BOTH
    site.run("destroy", "lab", "--yes")
    site.has_nothing()


def test_a_missing_image_is_named_before_anything_is_made(site: Site) -> None:
    site.run("launch", site.template("other"))
    text = site.run("inventory", "other").out
    site.run("destroy", "other", "--yes")
    inventory = site.folder / "other.inventory.yml"
    inventory.write_text(text.replace("epic/spark:", "epic/nothing:"))
    output = playbook(site, inventory, "launch", code=2)
    assert "does not have the image epic/nothing:" in output
    assert site.nodes("other") == {}
    site.has_nothing()


def test_a_removed_tenant_leaves_nothing_at_all(site: Site) -> None:
    site.run("tenant", "remove", site.tenant, "--yes")
    for kind in ("container", "network", "volume"):
        assert site.labelled(kind) == []
    assert site.json("tenant", "list") == []


def playbook(site: Site, inventory: Path, verb: str, *options: str, code: int = 0) -> str:
    """Run a verb's playbook without epic-run and return its output."""
    command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{verb}.yml", *options]
    return ansible(site, command, code=code)


def ansible(site: Site, command: list[str], *, code: int = 0) -> str:
    beside = Path(sys.executable).parent
    environment: dict[str, Any] = {
        **site.environment(),
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=life_support.LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
