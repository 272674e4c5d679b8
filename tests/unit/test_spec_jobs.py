"""Jobs as people write them: where they run, what they run, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_samples import LAB, load_text, mistakes_in, sample_catalog

from epic_runner.catalog import Catalog
from epic_runner.spec import jobs
from epic_runner.spec.load import load_documents
from epic_runner.spec.models import Tenant

JOB = """\
kind: Job
name: retrain
cluster: {template: lab}
submit:
  file: train.py
  args: [--rows, "5000"]
  conf: {spark.cores.max: "2"}
  class: org.example.Main
  env: {SEED: "7"}
  spark_version: "3.5"
user: ada
timeout: 2h
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return sample_catalog(tmp_path_factory.mktemp("images"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    return tmp_path


def job(text: str = "", **changes: str) -> str:
    """Return the sample with lines that begin with keys replaced, and with more text."""
    lines = JOB.splitlines()
    for key, value in changes.items():
        lines = [value if line.strip().startswith(f"{key}:") else line for line in lines]
    return "\n".join([line for line in lines if line] + [text])


def test_a_job_and_its_template_are_read_together(folder: Path, catalog: Catalog) -> None:
    (folder / "cluster.yml").write_text(LAB)
    (folder / "job.yml").write_text(JOB)
    documents = load_documents([folder / "job.yml", folder / "cluster.yml"], catalog=catalog)
    read = documents.jobs["retrain"]
    assert (read.cluster.template, read.cluster.name, read.cluster.keep) == ("lab", None, False)
    assert (read.timeout, read.user) == (7200, "ada")
    assert read.submit.main_class == "org.example.Main"
    assert read.submit.args == ("--rows", "5000")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (job(cluster="cluster: {}"), "lab.yml:3: cluster must have either name"),
        (job(cluster="cluster: {name: a, template: b}"), "lab.yml:3: cluster must have either"),
        (job(cluster="cluster: {name: a, keep: true}"), "cluster cannot have keep with name"),
        (job(file="  file: notes.txt"), "lab.yml:5: submit.file must be a program's file: .py"),
        (job(args="  args: [5000]"), 'must be text, not 5000. | Put it in quotes: "5000"'),
        (job(conf="  conf: {a b: c}"), 'holds "a b", which is no name of a Spark property'),
        (job(env="  env: {1A: c}"), 'holds "1A", which is no name of a variable'),
        (job(spark_version="  spark_version: 3.5"), 'Put it in quotes: "3.5"'),
        (job(timeout="timeout: 90"), "timeout must be a duration such as 90s"),
        (job(conf="  py_files: [a.tar]"), "submit.py_files[0] must be a file that ends in .py"),
        (job(**{"class": "  clas: x"}), 'submit.clas is not a known key. | Did you mean "class"?'),
    ],
)
def test_a_mistake_is_told_where_it_is(folder: Path, text: str, mistake: str) -> None:
    found = mistakes_in(folder, text)
    assert any(mistake in line for line in found), found


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        (
            {"cluster": "cluster: {template: lib}"},
            'lab.yml:3: There is no Template "lib" in these files. | Did you mean "lab"?',
        ),
        (
            {"spark_version": '  spark_version: "3.4"'},
            "lab.yml:10: The job needs Spark 3.4, but the cluster has spark 3.5.9. | ",
        ),
        ({"user": "user: eve"}, "lab.yml:11: eve is not a member of the tenant analytics. | "),
        ({"user": "tenant: other"}, "lab.yml:11: The job's tenant is other, but its template's"),
        ({"file": "  file: gone.py"}, "lab.yml:5: submit.file: there is no file "),
        ({"file": "  file: report.ipynb"}, "submit.args: a notebook takes no arguments. | "),
        (
            {"conf": "  py_files: [lib/app.py, app.py]"},
            "submit.py_files: two files of the job are called app.py. | Rename one of them.",
        ),
    ],
)
def test_what_a_job_names_has_to_be_there(
    folder: Path, catalog: Catalog, changes: dict[str, str], mistake: str
) -> None:
    found = mistakes_in(folder, f"{job(**changes)}---\n{LAB}", catalog=catalog)
    assert [line for line in found if mistake in line], found


def test_a_tenant_that_nobody_knows_is_a_mistake(folder: Path, catalog: Catalog) -> None:
    text = job(cluster="cluster: {name: lab}", user="tenant: analitics")
    known: dict[str, Any] = {"known_tenants": {"analytics": Tenant(name="analytics")}}
    [mistake] = mistakes_in(folder, text, catalog=catalog, **known)
    assert mistake.endswith('There is no tenant "analitics". | Did you mean "analytics"?')
    assert mistakes_in(folder, text, catalog=catalog) == []


def test_files_are_found_from_the_folder_of_the_job(folder: Path) -> None:
    checked = load_text(folder, job(cluster="cluster: {name: lab}")).sources["Job", "retrain"]
    assert jobs.file_path(checked, "lib/a.py") == f"{folder}/lib/a.py"
    assert jobs.file_path(checked, "/tenant/a.py") == "/tenant/a.py"
    assert jobs.file_path(checked, "/srv/a.py") == "/srv/a.py"


@pytest.mark.parametrize(
    ("wanted", "version", "fit"),
    [
        ("3.5", "3.5.9", True),
        ("3.5.9", "3.5.9", True),
        ("3", "3.5.9", True),
        ("3.5", "3.50.1", False),
        ("3.5.1", "3.5", False),
    ],
)
def test_a_version_takes_those_that_begin_so(wanted: str, version: str, *, fit: bool) -> None:
    assert jobs.fits(wanted, version) is fit


def test_set_reaches_the_job_by_its_own_keys_and_the_template_by_the_others(
    folder: Path, catalog: Catalog
) -> None:
    sets = ["submit.args=[x]", "timeout=5m", "roles.worker.count=1"]
    documents = load_text(folder, f"{JOB}---\n{LAB}", *sets, catalog=catalog)
    assert documents.jobs["retrain"].submit.args == ("x",)
    assert documents.jobs["retrain"].timeout == 300
    assert documents.templates["lab"].roles["worker"].count == 1
    [mistake] = mistakes_in(folder, LAB, "timeout=5m")
    assert mistake == "--set: It needs one Job to change, but the files hold none."


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"cluster": "cluster: {name: 3}"}, "cluster.name must be text, not 3."),
        ({"cluster": "cluster: {name: a, template: b}"}, "cluster must have either name"),
        ({"file": "  file: 3"}, "submit.file must be text, not 3."),
    ],
)
def test_a_broken_part_hides_no_mistake_in_the_others(
    folder: Path, catalog: Catalog, changes: dict[str, str], first: str
) -> None:
    text = job(
        **changes, args="  jars: [3, gone.jar]", user="user: eve", timeout="tenant: analytics"
    )
    found = mistakes_in(folder, f"{text}---\n{LAB}", catalog=catalog)
    for told in (
        first,
        "submit.jars[0] must be text, not 3.",
        "submit.jars[1]: there is no file ",
        "eve is not a member of the tenant analytics.",
    ):
        assert [line for line in found if told in line], (told, found)
    assert len(found) == 4, found
