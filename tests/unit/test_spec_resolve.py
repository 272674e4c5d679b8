"""A template made whole: defaults, images, services and endpoints of every node role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_samples import LAB, lines_of, load_text, sample_catalog

from epic_runner.catalog import Catalog
from epic_runner.cluster import ClusterSpec, Endpoint, Size
from epic_runner.errors import InputErrors
from epic_runner.spec.load import Documents
from epic_runner.spec.models import Flavor, Member, Quota, Tenant
from epic_runner.spec.resolve import draft_clusters, resolve_cluster

GIB = 2**30
ADA = (Member(user="ada"),)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return sample_catalog(tmp_path_factory.mktemp("images"))


def refused(documents: Documents, **options: Any) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        resolve_cluster(documents, **options)
    return lines_of(caught.value)


def test_a_template_becomes_a_cluster(tmp_path: Path, catalog: Catalog) -> None:
    cluster = resolve_cluster(load_text(tmp_path, LAB), catalog=catalog)
    assert (cluster.name, cluster.tenant) == ("lab", "analytics")
    assert (cluster.app, cluster.app_version) == ("spark", "3.5.9")
    assert [(role.name, role.count) for role in cluster.roles] == [
        ("master", 1),
        ("worker", 2),
        ("gateway", 0),
    ]
    assert cluster.node_count == 3
    assert cluster.total == Size(4, 8 * GIB)


def test_a_role_with_a_service_more_runs_the_image_that_offers_it(
    tmp_path: Path, catalog: Catalog
) -> None:
    cluster = resolve_cluster(load_text(tmp_path, LAB), catalog=catalog)
    master, worker = cluster.role("master"), cluster.role("worker")
    assert (master.image, worker.image) == ("e/jupyter:4.4-r1", "e/spark:3.5.9-r2")
    assert master.services == ("spark-master", "jupyter")
    assert master.roles == ("spark", "jupyter")
    assert master.endpoints == (
        Endpoint("spark-master", "Spark master", 8080),
        Endpoint("jupyter", "JupyterLab", 8888, "/lab", token=True),
    )
    assert (master.minimum, master.maximum) == (1, 1)
    assert (worker.minimum, worker.maximum) == (1, None)


def test_what_a_template_leaves_out_is_the_least_that_works(
    tmp_path: Path, catalog: Catalog
) -> None:
    text = "kind: Template\nname: a\ntenant: t\napp: spark@3.5.9\nroles: {gateway: {}}\n"
    cluster = resolve_cluster(
        load_text(tmp_path, text),
        catalog=catalog,
        known_tenants={"t": Tenant(name="t", members=ADA)},
    )
    assert [(role.name, role.count, role.flavor) for role in cluster.roles] == [
        ("master", 1, "small"),
        ("worker", 1, "small"),
        ("gateway", 1, "small"),
    ]


def test_the_command_line_names_cluster_and_tenant(tmp_path: Path, catalog: Catalog) -> None:
    documents = load_text(tmp_path, LAB)
    other = {"other": Tenant(name="other", members=ADA)}
    cluster = resolve_cluster(
        documents, catalog=catalog, name="mine", tenant="other", known_tenants=other
    )
    assert (cluster.name, cluster.tenant) == ("mine", "other")
    assert refused(
        documents, catalog=catalog, name="My Lab", tenant="othre", known_tenants=other
    ) == [
        (
            '--name: "My Lab" must be a name of at most 32 lower-case letters, digits and dashes, '
            'beginning with a letter, not ending in a dash. | Did you mean "my-lab"?'
        ),
        '--tenant: There is no tenant "othre". | Did you mean "other"?',
    ]


def test_a_tenant_must_be_named_somewhere(tmp_path: Path, catalog: Catalog) -> None:
    documents = load_text(tmp_path, "kind: Template\nname: a\napp: spark\n")
    assert refused(documents, catalog=catalog) == [
        (
            f"{tmp_path}/lab.yml:1: The template names no tenant. | "
            "Add tenant: NAME, or give --tenant NAME."
        )
    ]


def test_flavors_of_the_files_go_before_others_and_all_before_the_built_in(
    tmp_path: Path, catalog: Catalog
) -> None:
    documents = load_text(
        tmp_path,
        LAB + "---\nkind: Flavor\nname: medium\ncores: 3\nmemory: 3g\n",
    )
    known = {
        "medium": Flavor(name="medium", cores=5, memory=5 * GIB),
        "small": Flavor(name="small", cores=1, memory=GIB, disk=20 * GIB),
    }
    cluster = resolve_cluster(documents, catalog=catalog, known_flavors=known)
    assert cluster.role("master").size == Size(3, 3 * GIB)
    assert cluster.role("worker").size == Size(1, GIB, 20 * GIB)


def test_the_quota_of_a_tenant_applied_before_holds(tmp_path: Path, catalog: Catalog) -> None:
    text = "kind: Template\nname: a\ntenant: t\napp: spark\nroles: {worker: {flavor: disky}}\n"
    tenant = Tenant(
        name="t", members=ADA, quota=Quota(clusters=0, disk=GIB, nodes=2, memory=4 * GIB)
    )
    assert refused(
        load_text(tmp_path, text),
        catalog=catalog,
        known_tenants={"t": tenant},
        known_flavors={"disky": Flavor(name="disky", cores=1, memory=2 * GIB, disk=2 * GIB)},
    ) == [
        (
            f"{tmp_path}/lab.yml:1: The cluster needs 2g of disk, "
            "but the quota of the tenant t is 1g. | "
            "Ask for fewer or smaller nodes, or raise quota.disk of the tenant."
        ),
        (
            f"{tmp_path}/lab.yml:1: The quota of the tenant t allows no clusters. | "
            "Raise quota.clusters of the tenant."
        ),
    ]


def test_a_cluster_is_made_of_one_template(tmp_path: Path, catalog: Catalog) -> None:
    none = load_text(tmp_path, "kind: Tenant\nname: a\n")
    assert refused(none, catalog=catalog) == ["template: The files hold no Template."]
    two = load_text(tmp_path, LAB + "---\nkind: Template\nname: b\napp: spark\n")
    assert refused(two, catalog=catalog) == [
        f"{tmp_path}/lab.yml:20: The files hold 2 Templates (lab, b), but a cluster is made of one."
    ]


def test_a_draft_needs_no_tenant_and_leaves_out_what_cannot_be_told(
    tmp_path: Path, catalog: Catalog
) -> None:
    documents = load_text(
        tmp_path,
        "kind: Template\nname: a\napp: spark\n---\n"
        "kind: Template\nname: b\napp: spark\nroles: {worker: {flavor: elsewhere}}\n",
        catalog=catalog,
    )
    drafts = draft_clusters(documents, catalog=catalog)
    assert list(drafts) == ["a"]
    assert drafts["a"].tenant == ""


@given(workers=st.integers(1, 10_000), flavor=st.sampled_from(["small", "medium", "large"]))
def test_a_cluster_survives_json(
    catalog: Catalog, tmp_path_factory: pytest.TempPathFactory, workers: int, flavor: str
) -> None:
    text = f"""
kind: Template
name: a
tenant: t
app: spark
roles: {{worker: {{count: {workers}, flavor: {flavor}}}}}
"""
    cluster = resolve_cluster(
        load_text(tmp_path_factory.getbasetemp(), text),
        catalog=catalog,
        known_tenants={"t": Tenant(name="t", members=ADA)},
    )
    assert cluster.node_count == workers + 1
    assert ClusterSpec.from_dict(json.loads(json.dumps(cluster.as_dict()))) == cluster
