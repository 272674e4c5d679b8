"""The image in which AWX runs the content: ansible-builder takes it, and it is complete."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "execution-environment.yml"


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ansible-builder makes of it; it checks the file by its own schema first."""
    folder = tmp_path_factory.mktemp("ee") / "context"
    done = subprocess.run(
        ["ansible-builder", "create", "--file", FILE, "--context", folder,
         "--output-filename", "Containerfile"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_holds_what_the_program_and_the_store_need(written: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgresql"]]
    dependencies = written["dependencies"]
    ansible = [dependencies[name]["package_pip"] for name in ("ansible_core", "ansible_runner")]
    assert sorted([*ansible, *dependencies["python"]]) == sorted(wanted)


def test_the_builder_installs_them_and_the_collections(context: Path) -> None:
    build = context / "_build"
    assert "psycopg" in (build / "requirements.txt").read_text(encoding="utf-8")
    assert (build / "requirements.yml").read_text(encoding="utf-8") == (
        ROOT / "requirements.yml"
    ).read_text(encoding="utf-8")
    assert "docker-cli [platform:rpm]" in (build / "bindep.txt").read_text(encoding="utf-8")
    text = (context / "Containerfile").read_text(encoding="utf-8")
    assert 'PYPKG="python3"' in text
    # Where AWX puts the project, which holds epic_runner itself.
    assert "ENV PYTHONPATH=/runner/project" in text


def test_a_file_with_a_mistake_is_refused(tmp_path: Path, written: dict[str, Any]) -> None:
    wrong = tmp_path / "execution-environment.yml"
    wrong.write_text(yaml.safe_dump({**written, "dependancies": {}}))
    done = subprocess.run(
        ["ansible-builder", "create", "--file", wrong, "--context", tmp_path / "context"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "dependancies" in done.stdout + done.stderr
