"""Inventories: one cluster for its playbooks, and all that lives for ad-hoc plays."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from life_samples import GIB, document, host, record, spec, tenant

from epic_runner.catalog import load_catalog
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import InputError
from epic_runner.export import documents
from epic_runner.hosts import SOCKET, local_host
from epic_runner.inventory import cluster_inventory, free_group, labels, node_variables
from epic_runner.literal import inventory_yaml
from epic_runner.live import arrange
from epic_runner.resources import content_root

HOSTS = {"local": host()}


def made(**values):
    cluster = record(spec(2), "master-1", "worker-1", "worker-2", leaving=("worker-2",), **values)
    data = cluster_inventory(cluster, tenant(), HOSTS, secrets="file:/secrets/lab.json")
    return data["all"]


def test_nodes_that_leave_are_listed_apart() -> None:
    cluster = made()["vars"]["epic_cluster"]
    assert [node["short_name"] for node in cluster["nodes"]] == ["master-1", "worker-1"]
    assert [node["short_name"] for node in cluster["leaving"]] == ["worker-2"]
    assert cluster["nodes"][0]["ports"] == [{"container_port": 8080, "host_port": 20000}]


def test_every_node_role_is_a_group_of_its_nodes() -> None:
    groups = made()["children"]["lab"]["children"]
    assert set(groups["lab_worker"]["hosts"]) == {"lab-worker-1"}
    assert set(made()["children"]["docker_hosts"]["hosts"]) == {"local"}


def test_members_have_their_user_ids_and_rights() -> None:
    assert made()["vars"]["epic_cluster"]["users"] == [
        {"name": "ada", "uid": 20000, "sudo": True, "role": "admin", "principal": None},
        {"name": "bob", "uid": 20001, "sudo": False, "role": "member", "principal": None},
    ]


def test_only_the_path_of_the_secrets_goes_in() -> None:
    assert made()["vars"]["epic_secrets"] == "file:/secrets/lab.json"


def test_a_cluster_without_nodes_is_looked_for_on_every_host() -> None:
    hosts = {"a": host("a"), "b": host("b")}
    data = cluster_inventory(record(spec()), tenant(), hosts, secrets="file:/s")
    assert set(data["all"]["children"]["docker_hosts"]["hosts"]) == {"a", "b"}


def test_labels_hold_all_that_a_store_is_rebuilt_from() -> None:
    cluster = record(spec(3), "master-1")
    written = labels(cluster, tenant())
    assert ClusterSpec.from_dict(json.loads(written["epic.cluster.spec"])) == cluster.spec
    assert json.loads(written["epic.tenant.document"]) == {
        "document": document(),
        "uids": {"ada": 20000, "bob": 20001},
    }


@pytest.mark.parametrize(("name", "group"), [("lab", "lab"), ("my-lab", "my_lab"), ("a.b", "a_b")])
def test_groups_have_names_that_ansible_allows(name: str, group: str) -> None:
    assert free_group(name, set()) == group


@pytest.mark.parametrize("name", ["all", "ungrouped", "docker-hosts", "network-managers"])
def test_a_cluster_has_the_name_of_no_group_with_a_meaning_of_its_own(name: str) -> None:
    cluster = record(replace(spec(), name=name), "master-1")
    data = cluster_inventory(cluster, tenant(), HOSTS, secrets="file:/s")["all"]
    group = f"{name.replace('-', '_')}_"
    assert set(data["children"]["docker_hosts"]["hosts"]) == {"local"}
    assert set(data["children"][group]["children"]) == {f"{group}_master", f"{group}_worker"}
    found = arrange([cluster], HOSTS, {cluster.nodes[0].container}, {})
    assert found.groups["tenant_work"].groups == [group]
    assert found.groups["docker_hosts"].hosts == ["local"]


def test_a_cluster_and_another_ones_node_role_are_two_groups() -> None:
    lab = record(spec(), "master-1", "worker-1")
    other = record(replace(spec(), name="lab-worker"), "master-1", key=2)
    running = {node.container for cluster in (lab, other) for node in cluster.nodes}
    found = arrange([lab, other], HOSTS, running, {})
    assert found.groups["lab"].groups == ["lab_master", "lab_worker_"]
    assert found.groups["lab_worker_"].hosts == ["lab-worker-1"]
    assert found.groups["lab_worker"].groups == ["lab_worker_master"]


@pytest.mark.parametrize("kind", ["json", "yml"])
def test_nothing_that_people_write_is_a_template_on_the_controller(
    kind: str, tmp_path: Path
) -> None:
    written = "{{ lookup('pipe', 'echo ran') }} echo ${#PATH} {% x"
    cluster = record(spec(), "master-1", owner=written)
    data = cluster_inventory(cluster, tenant(), HOSTS, secrets="file:/s")
    path = tmp_path / f"lab.{kind}"
    path.write_text(json.dumps(data) if kind == "json" else inventory_yaml(data))
    command = ["ansible", "local", "-i", path, "-m", "debug", "-a", "var=epic_cluster.labels"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.partition("=> ")[2])
    assert shown["epic_cluster.labels"]["epic.owner"] == written


def test_the_engine_may_have_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    node = record(spec(), "master-1").nodes[0]
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    local = local_host()
    assert local.socket == SOCKET
    assert "ansible_docker_extra_args" not in node_variables(node, local)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    local = local_host()
    assert local.socket == "/run/other.sock"
    assert node_variables(node, local)["ansible_docker_extra_args"] == "-H unix:///run/other.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    with pytest.raises(InputError, match="tcp://elsewhere:2375"):
        local_host()


def test_only_what_runs_is_live() -> None:
    cluster = record(spec(), "master-1", "worker-1")
    found = arrange([cluster], HOSTS, {"epic.work.lab.master-1"}, {})
    assert found.groups["lab"].groups == ["lab_master"]
    assert found.groups["lab_master"].hosts == ["lab-master-1"]
    assert found.groups["tenant_work"].groups == ["lab"]
    assert found.groups["docker_hosts"].hosts == ["local"]
    assert found.variables["lab-master-1"]["ansible_host"] == "epic.work.lab.master-1"


def test_clusters_of_the_same_name_are_told_apart_by_their_tenants() -> None:
    clusters = [record(spec(), "master-1"), record(spec(tenant="away"), "master-1", key=2)]
    running = {node.container for cluster in clusters for node in cluster.nodes}
    found = arrange(clusters, HOSTS, running, {})
    assert found.groups["work_lab_master"].hosts == ["work-lab-master-1"]
    assert found.groups["away_lab_master"].hosts == ["away-lab-master-1"]


def test_an_export_names_what_the_app_does_not_give_anyway() -> None:
    catalog = load_catalog(content_root() / "images")
    of = spec(3, services=("spark-master", "jupyter"))
    *flavors, template = documents(record(of, "master-1"), catalog)
    assert [flavor["name"] for flavor in flavors] == ["tiny"]
    assert template["roles"] == {
        "master": {"count": 1, "flavor": "tiny", "services": ["jupyter"]},
        "worker": {"count": 3, "flavor": "tiny"},
    }


def test_an_export_holds_the_built_in_flavors_too_since_they_may_be_replaced_elsewhere() -> None:
    from epic_runner.cluster import Size

    catalog = load_catalog(content_root() / "images")
    of = spec(1)
    small = tuple(replace(role, flavor="small", size=Size(1, 2 * GIB)) for role in of.roles)
    flavor, _ = documents(record(replace(of, roles=small)), catalog)
    assert flavor == {"kind": "Flavor", "name": "small", "cores": 1, "memory": "2g"}
