"""What people and chance do to a cluster behind epic-run's back, and how it comes back."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator

import life_support
import pytest
from life_support import Site, until

pytestmark = pytest.mark.docker

BOTH = ["master-1", "worker-1"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with life_support.site(tmp_path_factory.mktemp("drift")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def template(site: Site) -> str:
    """One cluster for all tests of this file, in their order."""
    path = site.template(services=["jupyter"])
    site.run("launch", path)
    return path


def of_node(site: Site, name: str) -> dict[str, str]:
    return {node["name"]: node for node in site.status()["nodes"]}[name]


def test_a_removed_node_comes_back_with_its_data(site: Site) -> None:
    site.inside("worker-1", "sh", "-c", "echo kept > ~/note", user="ada")
    site.docker("rm", "--force", site.container("worker-1"))
    status = site.status()
    assert status["health"] == "red"
    assert "missing" in status["reason"]
    assert of_node(site, "worker-1")["state"] == "pending"
    before = site.starts()["master-1"]
    site.run("repair", "lab")
    site.is_as_wanted(BOTH)
    assert site.starts()["master-1"] == before
    assert site.inside("worker-1", "sh", "-c", "cat ~/note", user="ada") == "kept"


@pytest.mark.parametrize("how", [["stop", "-t", "1"], ["kill"], ["pause"]])
@pytest.mark.parametrize("verb", ["repair", "launch"])
def test_a_node_that_does_not_run_is_brought_back(
    site: Site, template: str, how: list[str], verb: str
) -> None:
    site.docker(*how, site.container("worker-1"))
    node = of_node(site, "worker-1")
    assert node["state"] == "error"
    assert "Exited" in node["reason"] or "Paused" in node["reason"]
    site.run(verb, template if verb == "launch" else "lab")
    site.is_as_wanted(BOTH)


def test_a_service_that_is_killed_is_started_again(site: Site) -> None:
    service = ["s6-svstat", "-o", "pid", "/run/epic/services/spark-worker"]
    before = site.inside("worker-1", *service)
    site.inside("worker-1", "kill", "-KILL", before)
    until(lambda: site.inside("worker-1", *service) not in ("-1", before), "another one runs")
    until(lambda: site.status()["health"] == "green", "it is registered again")
    site.is_as_wanted(BOTH)


@pytest.mark.parametrize(
    "change",
    [
        "echo spark.ui.enabled false >> /etc/spark/conf/spark-defaults.conf",
        "rm /etc/epic/services/spark-worker/run",
        "echo eve:x:0:0::/:/bin/bash >> /etc/epic/passwd",
        "chmod 0777 /etc/epic/sudoers",
        "chown ada /etc/epic/sudoers",
    ],
)
def test_a_changed_file_is_mended(site: Site, change: str) -> None:
    untouched = site.starts()["master-1"]
    site.inside("worker-1", "sh", "-c", change)
    assert "worker-1: mended" in site.run("repair", "lab").out
    assert site.starts()["master-1"] == untouched
    assert "mended" not in site.run("repair", "lab").out
    site.is_as_wanted(BOTH)


def test_a_stray_is_shown_and_removed(site: Site) -> None:
    labels = [
        f"epic.tenant={site.tenant}", "epic.cluster=lab", "epic.role=worker", "epic.index=9",
    ]  # fmt: skip
    image = site.nodes()["worker-1"]["Config"]["Image"]
    site.docker(
        "run", "--detach", "--name", site.container("worker-9"), "--network=none",
        *(f"--label={label}" for label in labels), "--entrypoint=sleep", image, "infinity",
    )  # fmt: skip
    status = site.status()
    assert status["strays"] == [site.container("worker-9")]
    assert status["health"] == "yellow"
    site.run("repair", "lab")
    site.is_as_wanted(BOTH)


def test_a_lost_store_is_rebuilt(site: Site, template: str) -> None:
    site.members = [*site.members, {"user": "cyd", "role": "member", "sudo": True}]
    site.template(services=["jupyter"])
    site.run("launch", template)  # a member whom the labels of the nodes do not know
    uids = {user: site.inside("worker-1", "id", "-u", user) for user in ("ada", "bob", "cyd")}
    endpoints = site.status()["endpoints"]
    secret = (site.home / "secrets" / site.tenant / "lab.json").read_bytes()
    before = site.starts()
    shutil.rmtree(site.home)

    found = site.json("repair", f"{site.tenant}/lab")
    assert found["recovered"] == [f"{site.tenant}/lab"]
    site.is_as_wanted(BOTH)
    assert site.starts() == before
    assert site.status()["endpoints"] == endpoints
    assert (site.home / "secrets" / site.tenant / "lab.json").read_bytes() == secret
    members = site.json("tenant", "show", site.tenant)["members"]
    assert {m["user"]: bool(m["sudo"]) for m in members} == {"ada": True, "bob": False, "cyd": True}
    site.run("launch", template)
    assert uids == {user: site.inside("worker-1", "id", "-u", user) for user in uids}


def test_a_cluster_that_only_docker_knows_can_be_destroyed(site: Site) -> None:
    other = site.template("other")
    site.run("launch", other)
    (site.home / "store.db").unlink()
    site.run("destroy", f"{site.tenant}/other", "--yes")
    assert site.nodes("other") == {}
    site.run("repair", f"{site.tenant}/lab")
    site.is_as_wanted(BOTH)


def test_a_port_that_another_program_took_is_given_up(site: Site) -> None:
    site.run("stop", "lab")
    bindings = site.nodes()["master-1"]["HostConfig"]["PortBindings"]
    port = int(bindings["8080/tcp"][0]["HostPort"])
    with socket.create_server(("127.0.0.1", port)):
        site.run("start", "lab")
        site.is_as_wanted(BOTH)
        assert str(port) not in json.dumps(site.status()["endpoints"])


def test_a_repair_without_a_name_reports_orphans(site: Site) -> None:
    name = f"epic.{site.tenant}.gone.worker-1"
    site.docker(
        "volume", "create", f"--label=epic.tenant={site.tenant}", "--label=epic.cluster=gone",
        "--label=epic.node=worker-1", name,
    )  # fmt: skip
    orphans = site.json("repair")["orphans"]
    assert any(name in orphan and f"destroy {site.tenant}/gone" in orphan for orphan in orphans)
    site.run("destroy", f"{site.tenant}/gone", "--yes")
    assert name not in site.docker("volume", "ls", "--quiet")


def test_destroy_needs_no_living_node(site: Site) -> None:
    site.docker("kill", *site.labelled("container"))
    site.docker("rm", site.container("master-1"))
    site.run("destroy", f"{site.tenant}/lab", "--yes")
    site.has_nothing()
