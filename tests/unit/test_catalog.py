"""The catalogue: which image runs what, and what a wrong entry is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_samples import APPS, lines_of, sample_catalog, write_apps

from epic_runner.catalog import Catalog, load_catalog
from epic_runner.errors import InputErrors
from epic_runner.resources import content_root


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return sample_catalog(tmp_path_factory.mktemp("images"))


def mistakes_with(folder: Path, **apps: str) -> list[str]:
    with pytest.raises(InputErrors) as caught:
        load_catalog(write_apps(folder, **{**APPS, **apps}))
    return lines_of(caught.value, folder)


def app(name: str, rest: str = "", *, parent: str | None = None) -> str:
    text = f'kind: App\nname: {name}\nversion: "1"\nrevision: 1\n'
    text += f"label: L\nsummary: S\nimage: e/{name}\n"
    return text + (f"parent: {parent}\n" if parent else "") + rest


def test_apps_come_parents_first(catalog: Catalog) -> None:
    assert [entry.name for entry in catalog] == ["base", "spark", "jupyter", "rstudio"]


def test_an_app_knows_its_image_and_folder(catalog: Catalog) -> None:
    spark = catalog.apps["spark"]
    assert spark.reference == "e/spark:3.5.9-r2"
    assert catalog.folder(spark).name == "spark"
    assert catalog.get("none") is None


def test_only_apps_with_node_roles_can_be_launched(catalog: Catalog) -> None:
    assert [entry.name for entry in catalog.launchable] == ["spark"]


def test_a_chain_begins_at_the_base(catalog: Catalog) -> None:
    chain = catalog.chain(catalog.apps["jupyter"])
    assert [entry.name for entry in chain] == ["base", "spark", "jupyter"]


@pytest.mark.parametrize(
    ("services", "image"),
    [
        ([], "spark"),
        (["spark-master"], "spark"),
        (["spark-master", "jupyter"], "jupyter"),
        (["rstudio"], "rstudio"),
    ],
)
def test_a_node_runs_the_nearest_image_that_offers_its_services(
    catalog: Catalog, services: list[str], image: str
) -> None:
    assert catalog.image_for(catalog.apps["spark"], services).name == image


def test_services_of_different_images_do_not_go_together(catalog: Catalog) -> None:
    with pytest.raises(LookupError, match="jupyter, rstudio"):
        catalog.image_for(catalog.apps["spark"], ["jupyter", "rstudio"])


def test_of_two_images_the_nearer_one_is_taken(tmp_path: Path) -> None:
    service = "services: {s: {role: r, summary: S}}\n"
    catalog = load_catalog(
        write_apps(
            tmp_path,
            top=app("top"),
            a=app("a", parent="top"),
            b=app("b", service, parent="a"),
            z=app("z", service, parent="top"),
        )
    )
    assert catalog.image_for(catalog.apps["top"], ["s"]).name == "z"
    assert catalog.image_for(catalog.apps["a"], ["s"]).name == "b"


def test_services_of_descendants_can_be_asked_for(catalog: Catalog) -> None:
    spark = catalog.apps["spark"]
    assert list(catalog.services(spark)) == ["spark-master", "spark-worker"]
    assert list(catalog.offered(spark)) == ["spark-master", "spark-worker", "jupyter", "rstudio"]
    assert catalog.service(spark, "jupyter").memory == 2**30
    with pytest.raises(KeyError):
        catalog.service(spark, "none")


def test_a_folder_without_apps_is_an_empty_catalogue(tmp_path: Path) -> None:
    assert list(load_catalog(tmp_path / "none")) == []


def test_mistakes_of_all_entries_are_told_together(tmp_path: Path) -> None:
    assert mistakes_with(
        tmp_path,
        base=app("base", "sevices: {}\n"),
        other=app("another"),
        flavor="kind: Flavor\nname: flavor\ncores: 1\nmemory: 1g\n",
        two=app("two") + "---\n" + app("three"),
    ) == [
        'base/app.yml:8: sevices is not a known key. | Did you mean "services"?',
        "flavor/app.yml:1: An app is wanted here, not a Flavor.",
        'other/app.yml:2: name must be that of the folder, "other".',
        "two/app.yml:9: The file must hold one app only.",
    ]


def test_a_parent_must_be_there(tmp_path: Path) -> None:
    assert mistakes_with(tmp_path, child=app("child", parent="sprak")) == [
        'child/app.yml:8: There is no app "sprak" to be the parent. | Did you mean "spark"?'
    ]


def test_children_of_a_broken_app_are_not_blamed(tmp_path: Path) -> None:
    assert mistakes_with(tmp_path, base="kind: [") == [
        (
            "base/app.yml:1: A list or mapping in brackets is not closed, or lacks a comma, "
            "before here."
        )
    ]


def test_no_app_is_its_own_ancestor(tmp_path: Path) -> None:
    assert mistakes_with(
        tmp_path,
        a=app("a", parent="c"),
        b=app("b", parent="a"),
        c=app("c", parent="b"),
        d=app("d", parent="c"),
    ) == [
        "a/app.yml:8: The app is its own ancestor by this parent.",
        "b/app.yml:8: The app is its own ancestor by this parent.",
        "c/app.yml:8: The app is its own ancestor by this parent.",
    ]


def test_node_roles_run_services_of_the_app_or_its_parents(tmp_path: Path) -> None:
    roles = """roles:
  master: {services: [spark-master, spark-wroker, jupyter]}
  worker: {min: 3, max: 2}
"""
    assert mistakes_with(tmp_path, child=app("child", roles, parent="spark")) == [
        (
            'child/app.yml:10: roles.master runs "spark-wroker", '
            'which is no service of this app or its parents. | Did you mean "spark-worker"?'
        ),
        (
            'child/app.yml:10: roles.master runs "jupyter", '
            "which is no service of this app or its parents. | "
            "There is: spark-master, spark-worker."
        ),
        "child/app.yml:11: roles.worker.max is less than its min, 3.",
    ]


def test_services_ports_and_endpoints_are_unique_in_a_chain(tmp_path: Path) -> None:
    services = """services:
  spark-worker: {role: r, summary: S}
  one:
    role: r
    summary: S
    endpoints:
      - {name: spark-master, label: L, port: 9000}
      - {name: fine, label: L, port: 8080}
      - {name: mine, label: L, port: 9000}
"""
    assert mistakes_with(tmp_path, child=app("child", services, parent="spark")) == [
        "child/app.yml:10: services.spark-worker is a service of the parent spark already.",
        'child/app.yml:15: The service spark-master has an endpoint named "spark-master" already.',
        "child/app.yml:16: Port 8080 belongs to the service spark-master already.",
        "child/app.yml:17: Port 9000 belongs to the service one already.",
    ]


def test_probes_ask_endpoints_of_the_app_or_its_parents(tmp_path: Path) -> None:
    services = """services:
  one: {role: r, summary: S, probe: {endpoint: spark-master}}
  two: {role: r, summary: S, probe: {endpoint: spark-mister}}
"""
    assert mistakes_with(tmp_path, child=app("child", services, parent="spark")) == [
        (
            'child/app.yml:11: There is no endpoint "spark-mister" in this app or its parents. | '
            'Did you mean "spark-master"?'
        )
    ]


def test_more_memory_is_for_services_of_the_app_or_its_parents(tmp_path: Path) -> None:
    jupyter = APPS["jupyter"].replace("{spark-worker: 256m}", "{spark-wroker: 256m}")
    with pytest.raises(InputErrors) as caught:
        load_catalog(write_apps(tmp_path, **(APPS | {"jupyter": jupyter})))
    assert lines_of(caught.value, tmp_path) == [
        (
            'jupyter/app.yml:15: There is no service "spark-wroker" in this app or its parents. | '
            'Did you mean "spark-worker"?'
        )
    ]


def test_the_catalogue_that_is_delivered_is_right() -> None:
    catalog = load_catalog(content_root() / "images")
    spark = catalog.apps["spark"]
    assert spark in catalog.launchable
    assert [entry.name for entry in catalog.chain(spark)] == ["base", "jvm", "spark"]
    assert catalog.image_for(spark, ["spark-master", "jupyter"]).name == "jupyter"
