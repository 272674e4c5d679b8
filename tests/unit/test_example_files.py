"""The examples fit one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def test_the_sandbox_brings_the_tenant_of_the_other_examples() -> None:
    """Launching one example after another changes nothing of the tenant."""
    [tenant] = documents("tenant.yml")
    own, sandbox = documents("sandbox.yml")
    [lab] = documents("multi-node.yml")
    assert own == tenant
    assert sandbox["tenant"] == lab["tenant"] == tenant["name"]
    assert sandbox["name"] == "sandbox"


def test_the_connected_example_names_the_cluster_of_another_one() -> None:
    [lab], [desk] = documents("multi-node.yml"), documents("connected.yml")
    assert desk["connections"] == {"clusters": [lab["name"]]}
    assert desk["tenant"] == lab["tenant"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yml")), ids=lambda path: path.name)
def test_an_example_is_checked_by_editors_and_names_a_command_to_run(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    schema = lines[0].removeprefix("# yaml-language-server: $schema=")
    assert (EXAMPLES / schema).is_file()
    comment = [line for line in lines if line.startswith("#")]
    assert any(line.startswith("#   epic-run ") for line in comment)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("jobs/*.py")), ids=lambda path: path.name)
def test_a_job_names_the_command_that_runs_it(path: Path) -> None:
    assert "epic-run submit " in path.read_text(encoding="utf-8").split('"""')[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_begins_with_what_it_shows_and_holds_no_output(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] in ("python3", "ir")
    first, *_ = notebook["cells"]
    assert "".join(first["source"]).startswith("# ")
    assert [cell["outputs"] for cell in notebook["cells"] if cell.get("outputs")] == []
