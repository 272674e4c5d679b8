"""`epic-run validate` and `epic-run schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from spec_samples import APPS, LAB, write_apps

from epic_runner.cli import cli
from epic_runner.cli import validate as validate_module
from epic_runner.errors import InputErrors
from epic_runner.spec.schema import json_schema, schema_text


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file to validate, where a sample of a catalogue and no store is."""
    write_apps(tmp_path / "images", **APPS)
    monkeypatch.setattr(validate_module, "content_root", lambda: tmp_path)
    monkeypatch.setenv("EPIC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EPIC_DATABASE_URL", raising=False)
    path = tmp_path / "lab.yml"
    path.write_text(LAB)
    return path


def validate(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["validate", *map(str, arguments)])


def test_files_that_are_right_are_summed_up(lab: Path) -> None:
    result = validate(lab)
    assert result.exit_code == 0
    assert result.output == (
        "KIND      NAME       WHAT IT IS\n"
        "Flavor    tiny       1 core, 512m\n"
        "Tenant    analytics  1 member\n"
        "Template  lab        spark, 3 nodes, 4 cores, 8g of memory\n"
        "ok\n"
    )


def test_programs_get_the_same_as_json(lab: Path) -> None:
    result = validate(lab, "--set", "roles.worker.count=3", "--output", "json")
    assert result.exit_code == 0
    data = json.loads(result.output)
    assert data["ok"] is True
    assert data["templates"] == [
        {
            "name": "lab",
            "app": "spark",
            "tenant": "analytics",
            "nodes": 4,
            "cores": 5,
            "memory_bytes": 10 * 2**30,
            "roles": {"master": 1, "worker": 3, "gateway": 0},
        }
    ]


def test_mistakes_end_it_as_bad_input(lab: Path) -> None:
    result = validate(lab, "--set", "roles.wroker.count=3", "--set", "nam=x")
    assert isinstance(result.exception, InputErrors)
    assert result.exception.exit_code == 2
    assert len(result.exception.mistakes) == 2


def test_programs_get_mistakes_as_json_too(lab: Path) -> None:
    result = validate(lab, "--set", "nam=x", "--output", "json")
    assert result.exit_code == 2
    assert json.loads(result.output) == {
        "ok": False,
        "mistakes": [
            {
                "where": "--set nam",
                "message": "nam is not a known key.",
                "hint": 'Did you mean "name"?',
            }
        ],
    }


def test_flavors_and_tenants_that_were_applied_are_known(lab: Path) -> None:
    from epic_runner.store import Store

    lab.write_text(
        "kind: Template\nname: lab\napp: spark\ntenant: research\nroles: {worker: {flavor: huge}}\n"
    )
    assert "There is no flavor" in str(validate(lab).exception)
    store = Store()
    with store.transaction() as transaction:
        transaction.apply_flavor({"name": "huge", "cores": 8, "memory": "16g"})
        ada = {"user": "ada", "role": "member"}
        transaction.apply_tenant({"name": "research", "quota": {}, "members": [ada]})
    store.close()
    assert validate(lab).exit_code == 0
    assert "There is no tenant" in str(validate(lab, "--set", "tenant=nobody-has").exception)


@pytest.mark.parametrize(
    ("kinds", "names", "told"),
    [
        (("Tenant",), ["analytics"], "analytics"),
        (("Flavor",), ["flavor/tiny"], "flavor/tiny"),
        (("Flavor", "Tenant"), ["analytics", "flavor/tiny"], "analytics, flavor/tiny"),
        ((), [], "no tenant and no flavor"),
    ],
)
def test_what_was_applied_is_named(
    lab: Path, kinds: tuple[str, ...], names: list[str], told: str
) -> None:
    app = "kind: Template\nname: a\napp: spark\n"
    written = [text for text in LAB.split("---\n") if text.split()[1] in kinds]
    lab.write_text("---\n".join([*written, app]))
    apply = ["tenant", "apply", str(lab)]
    assert CliRunner().invoke(cli, apply).output == f"Applied: {told}.\n"
    assert json.loads(CliRunner().invoke(cli, [*apply, "--output", "json"]).output) == names


def test_a_store_that_fails_keeps_nobody_from_checking_files(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIC_DATABASE_URL", f"sqlite:///{lab.parent}/no/such/folder/store.db")
    result = validate(lab, "--set", "roles.worker.flavor=elsewhere")
    assert result.exit_code == 0
    assert "spark, with flavors that are not known here" in result.output


def test_the_schema_is_printed_whole_or_by_kind() -> None:
    runner = CliRunner()
    assert runner.invoke(cli, ["schema"]).output == schema_text()
    one = runner.invoke(cli, ["schema", "template"])
    assert json.loads(one.output) == json_schema("Template")
    assert runner.invoke(cli, ["schema", "DataTap"]).exit_code == 2
