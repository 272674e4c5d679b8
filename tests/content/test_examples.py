"""Every example is valid, and the templates fit what they are for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "examples").rglob("*.yml"))
PROGRAMS = sorted((ROOT / "examples").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_examples_of_the_readme_are_there() -> None:
    assert ROOT / "examples" / "sandbox.yml" in TEMPLATES
    assert ROOT / "examples" / "jobs" / "pi.py" in PROGRAMS


@pytest.mark.parametrize("path", TEMPLATES, ids=relative)
def test_an_example_is_valid(path: Path, epic_run) -> None:
    run = epic_run("validate", str(path))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("path", TEMPLATES, ids=relative)
def test_an_example_says_at_its_top_what_it_is_for(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != "---"]
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_job_says_at_its_top_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
