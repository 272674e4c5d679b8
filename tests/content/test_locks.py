"""The lock files fit pyproject.toml, each other, and no single place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = ["requirements*.lock", "images/*/*.lock", "images/*/*.txt"]
LOCKS = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MEND = "scripts/lock writes it anew"


def locked(name: str) -> dict[str, Requirement]:
    """Return what a lock file names, by the package's canonical name."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line.split(" --hash")[0] for line in text.splitlines() if "==" in line]
    requirements = [Requirement(entry.strip()) for entry in entries]
    return {canonicalize_name(item.name): item for item in requirements}


def wanted(*groups: str) -> list[Requirement]:
    project = PROJECT["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["build"]]
    for group in groups:
        lines += PROJECT["dependency-groups"][group]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "groups"),
    [("requirements.lock", ["editable"]), ("requirements-dev.lock", ["editable", "dev"])],
)
def test_a_lock_holds_every_dependency_in_a_version_that_is_wanted(
    name: str, groups: list[str]
) -> None:
    versions = locked(name)
    for requirement in wanted(*groups):
        [pin] = versions[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement}: {MEND}"


def test_the_lock_for_tests_holds_the_other_one_whole() -> None:
    smaller, larger = locked("requirements.lock"), locked("requirements-dev.lock")
    versions = {name: item.specifier for name, item in smaller.items()}
    assert {name: larger[name].specifier for name in smaller} == versions


@pytest.mark.parametrize("name", [path.name for path in ROOT.glob("requirements*.lock")])
def test_every_locked_package_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    without = [line for line in text.splitlines() if "==" in line and "--hash=sha256:" not in line]
    assert without == []


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_names_no_place_to_download_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\S*://\S*|--(?:extra-)?index-url.*|--find-links.*|/tmp/\S*", text) == []


def test_the_collection_that_is_fetched_is_the_one_that_is_required() -> None:
    required = yaml.safe_load((ROOT / "requirements.yml").read_text(encoding="utf-8"))
    assert [item["name"] for item in required["collections"]] == ["community.docker"]
    assert set(locked("requirements-collections.lock")) == {"ansible"}
