"""An installed wheel works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTENT = ["playbooks", "roles", "library", "module_utils", "filter_plugins", "images"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it alone, beside nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True, capture_output=True, text=True, timeout=300)
    [wheel] = folder.glob("epic_runner-*.whl")
    target = folder / "site"
    install = ["install", "--no-deps", "--target", target, wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True, text=True, timeout=300)
    return target


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the installed package before any other, outside the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed), "EPIC_HOME": str(installed / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_content_is_found_inside_the_wheel(installed: Path) -> None:
    run = python(
        installed,
        "-c",
        "from epic_runner.resources import content_root; print(content_root())",
    )
    root = Path(run.stdout.strip())
    assert root.is_relative_to(installed)
    assert [name for name in CONTENT if not (root / name).is_dir()] == []
    assert (root / "ansible.cfg").is_file()
    assert (root / "examples" / "sandbox.yml").is_file()


def test_the_wheel_carries_every_file_of_the_content(installed: Path) -> None:
    root = installed / "epic_runner" / "content"
    for name in [*CONTENT, "examples", "inventories"]:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        files = {item for item in listed.split("\0") if item and (ROOT / item).exists()}
        assert {item for item in files if not (root / item).exists()} == set()


def test_programs_of_images_stay_executable(installed: Path) -> None:
    root = installed / "epic_runner" / "content"
    lost = [
        path
        for path in ROOT.glob("images/**/*")
        if path.is_file()
        and path.stat().st_mode & 0o111
        and not (root / path.relative_to(ROOT)).stat().st_mode & 0o111
    ]
    assert lost == []


def test_the_wheel_carries_nothing_of_the_tests(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()} - {"bin", "home"}
    assert {name for name in top if not name.startswith("epic_runner")} == set()
    assert list(installed.rglob("test_*.py")) == []


def test_the_installed_command_tells_of_itself(installed: Path) -> None:
    run = python(installed, "-m", "epic_runner", "--help")
    assert run.returncode == 0, run.stderr
    assert "launch" in run.stdout


def test_the_installed_command_checks_a_template(installed: Path) -> None:
    example = installed / "epic_runner" / "content" / "examples" / "sandbox.yml"
    run = python(installed, "-m", "epic_runner", "validate", str(example), "--output", "json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["ok"] is True


def test_the_playbooks_of_the_wheel_find_roles_and_filters(installed: Path) -> None:
    root = installed / "epic_runner" / "content"
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            "--syntax-check",
            "--inventory",
            "localhost,",
            *sorted((root / "playbooks").glob("*.yml")),
        ],
        cwd=installed.parent,
        env={**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
