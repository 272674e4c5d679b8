"""Connections between clusters, from data alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from content_modules import load
from life_samples import GIB, host, record, spec, tenant
from spec_samples import sample_catalog

from epic_runner import connections, software
from epic_runner.cluster import ClusterSpec
from epic_runner.errors import InputError, InputErrors
from epic_runner.hosts import Host
from epic_runner.inventory import cluster_inventory
from epic_runner.spec.load import load_documents

filters = load("epic_filters", "filter_plugins/epic.py")
DESK = replace(spec(name="desk"), connections=("big",))
BIG = record(spec(3, name="big"), "master-1", "worker-1")
SAME = {"epic/spark:3.5.9-r1": {"epic.python": "3.11.2", "epic.java": "17.0.19"}}


def test_connections_outlive_the_way_through_labels_and_store() -> None:
    assert ClusterSpec.from_dict(json.loads(json.dumps(DESK.as_dict()))) == DESK
    older = {key: value for key, value in DESK.as_dict().items() if key != "connections"}
    assert ClusterSpec.from_dict(older).connections == ()


def test_a_cluster_of_the_tenant_with_the_same_software_is_taken() -> None:
    connections.check(DESK, [BIG], SAME)
    connections.check(DESK, [BIG], {})
    assert connections.connected(DESK, [BIG]) == (BIG,)
    foreign = replace(BIG, spec=replace(BIG.spec, tenant="other"))
    assert connections.connected(DESK, [foreign]) == ()


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("bag", 'Did you mean "big"?'), ("zzz", "It has big."), ("big", "Launch big first.")],
)
def test_a_cluster_that_is_not_there_is_refused_with_what_to_do(wanted: str, hint: str) -> None:
    there = [] if wanted == "big" else [BIG]
    with pytest.raises(InputError, match=f"with {wanted}, but tenant work has no") as refused:
        connections.check(replace(DESK, connections=(wanted,)), there, {})
    assert refused.value.hint == hint


def test_other_software_is_refused() -> None:
    other = replace(BIG, spec=replace(BIG.spec, app_version="4.0.0"))
    with pytest.raises(InputError, match=r"it has spark 3\.5\.9, and big has spark 4\.0\.0"):
        connections.check(DESK, [other], {})
    image = "epic/spark:3.5.9-r9"
    roles = tuple(replace(item, image=image) for item in BIG.spec.roles)
    newer = replace(BIG, spec=replace(BIG.spec, roles=roles))
    with pytest.raises(InputError, match=r"Python 3\.11\.2, and big has Python 3\.13\.1"):
        connections.check(DESK, [newer], {**SAME, image: {"epic.python": "3.13.1"}})
    with pytest.raises(InputError, match=r"Java 17\.0\.19, and big has Java 21\.0\.1"):
        connections.check(DESK, [newer], {**SAME, image: {"epic.java": "21.0.1"}})


NOTEBOOKS = "epic/jupyter:4.6.6-r6"


def mixed(**labels: str) -> tuple[ClusterSpec, dict[str, dict[str, str]]]:
    """Return a cluster whose master has JupyterLab's image, and the labels of both images."""
    of = spec(image=NOTEBOOKS)
    spark = {"epic.app": "spark", "epic.version": "3.5.9", **SAME["epic/spark:3.5.9-r1"]}
    jupyter = {"epic.app": "jupyter", "epic.version": "4.6.6", **SAME["epic/spark:3.5.9-r1"]}
    return of, {"epic/spark:3.5.9-r1": spark, NOTEBOOKS: {**jupyter, **labels}}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"epic.python": "3.13.1"}, r"has Python 3\.13\.1 \(epic/jupyter:4\.6\.6-r6\), and worker"),
        ({"epic.java": "21.0.1"}, r"master has Java 21\.0\.1 .* has Java 17\.0\.19"),
        ({"epic.parents": "base=12 jvm=17 spark=3.5.8"}, r"spark 3\.5\.8 .* has spark 3\.5\.9"),
        ({"epic.parent": "sha256:old"}, r"master has spark 3\.5\.7"),
    ],
)
def test_images_of_one_cluster_have_to_hold_the_same(labels: dict[str, str], said: str) -> None:
    of, known = mixed(**labels)
    old = {"epic.app": "spark", "epic.version": "3.5.7"}
    with pytest.raises(InputError, match=said) as refused:
        software.check(of, {**known, "sha256:old": old})
    assert "epic-run image build" in (refused.value.hint or "")
    assert software.are_needed(of)


@pytest.mark.parametrize(
    "labels",
    [{}, {"epic.parents": "base=12 jvm=17 spark=3.5.9"}, {"epic.parent": "sha256:gone"},
     {"epic.python": "", "epic.java": ""}],
)  # fmt: skip
def test_images_that_agree_or_do_not_tell_are_taken(labels: dict[str, str]) -> None:
    of, known = mixed(**labels)
    software.check(of, known)
    software.check(of, {})
    assert not software.are_needed(spec())


def test_the_controllers_images_count_before_those_that_hosts_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have = {"h1": "3.11.1", "local": "3.11.2"}

    def images(host: Host) -> dict[str, dict[str, object]]:
        labels = {"epic.python": have[host.name]}
        return {"epic/spark:1": {"Id": f"sha256:{host.name}", "Labels": labels}}

    monkeypatch.setattr(software.docker_api, "images", images)
    found = software.image_labels({"h1": Host("h1", 1, GIB)})
    assert found["epic/spark:1"] == {"epic.python": "3.11.2"}
    assert found["sha256:h1"] == {"epic.python": "3.11.1"}


def test_what_keeps_a_cluster_from_another_is_said_in_words() -> None:
    assert connections.troubles(DESK, [BIG]) == []
    assert connections.troubles(DESK, []) == ["the connected cluster big is gone"]
    half = replace(BIG, wanted="absent")
    assert connections.troubles(DESK, [half]) == ["the connected cluster big is gone"]
    stopped = replace(BIG, wanted="stopped")
    assert connections.troubles(DESK, [stopped]) == ["the connected cluster big is stopped"]


def test_a_template_does_not_name_its_own_cluster(tmp_path: Path) -> None:
    catalog = sample_catalog(tmp_path / "images")
    path = tmp_path / "desk.yml"
    template = {"kind": "Template", "name": "desk", "tenant": "work", "app": "spark",
                "connections": {"clusters": ["big", "desk"]}}  # fmt: skip
    path.write_text(
        "kind: Tenant\nname: work\nmembers: [{user: ada}]\n---\n" + yaml.safe_dump(template)
    )
    with pytest.raises(InputErrors) as refused:
        load_documents([str(path)], [], catalog=catalog)
    assert "desk.yml:9: connections.clusters names desk itself." in str(refused.value)


def test_settings_of_a_connected_cluster_fit_its_workers() -> None:
    made = cluster_inventory(
        record(DESK, "master-1"), tenant(), {"local": host()}, secrets="", connected=[BIG]
    )["all"]["vars"]["epic_cluster"]["connections"]
    found = filters.spark_connected(made, {"spark-defaults.conf": {"template": "x.j2"}}, 7077)
    target = found["/etc/spark/connections/big/spark-defaults.conf"]["vars"]["__spark_target"]
    assert target == {
        "url": "spark://big-master-1:7077",
        "proxy_url": "",
        "executor_mib": filters.spark_worker_mib(made[0]["node_roles"]["worker"]),
    }
    made[0]["url_path"] = "/work/big"
    [item] = filters.spark_connected(made, {"x": {}}, 7077).values()
    assert item["vars"]["__spark_target"]["proxy_url"] == "/work/big/master-1/spark-master"


def test_each_connected_cluster_has_a_kernel_of_each_language() -> None:
    kernels = filters.jupyter_kernels(["big"])
    assert {path.split("/")[-2] for path in kernels} == {"python3-big", "ir-big"}
    for file in kernels.values():
        content = json.loads(file["content"])
        assert content["display_name"] in ("Python (big)", "R (big)")
        assert content["env"] == {"SPARK_CONF_DIR": "/etc/spark/connections/big"}
