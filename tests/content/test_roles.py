"""Every role has the same places, and says the same in all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/main.yml"))
MISSING = object()

role_parameter = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def defaults(role: Path) -> dict[str, Any]:
    path = role / "defaults" / "main.yml"
    return load(path) or {} if path.exists() else {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]


def test_every_folder_of_roles_is_a_role() -> None:
    assert ROLES
    assert {role.name for role in ROLES} == {path.name for path in (ROOT / "roles").iterdir()}


@role_parameter
@pytest.mark.parametrize(
    "place", ["README.md", "defaults/main.yml", "meta/argument_specs.yml", "tasks/main.yml"]
)
def test_a_role_has_every_place(role: Path, place: str) -> None:
    assert (role / place).is_file()


@role_parameter
def test_argument_specs_have_the_defaults_of_the_role(role: Path) -> None:
    public = defaults(role)
    for entry, spec in entry_points(role).items():
        for name, option in (spec.get("options") or {}).items():
            said = option.get("default", MISSING)
            real = public.get(name, MISSING)
            assert said == real, f"{entry}: {name}"
            assert type(said) is type(real), f"{entry}: {name}"
            if option.get("required"):
                assert real is MISSING, f"{entry}: {name} is required and has a default"


@role_parameter
def test_every_default_is_an_option(role: Path) -> None:
    options = {name for spec in entry_points(role).values() for name in spec.get("options") or {}}
    assert set(defaults(role)) <= options


@role_parameter
def test_an_option_means_the_same_at_every_entry_point(role: Path) -> None:
    seen: dict[str, Any] = {}
    for spec in entry_points(role).values():
        for name, option in (spec.get("options") or {}).items():
            kind = {key: option.get(key) for key in ("type", "elements", "choices", "default")}
            assert seen.setdefault(name, kind) == kind, name


@role_parameter
def test_every_entry_point_has_its_tasks_and_a_description(role: Path) -> None:
    for entry, spec in entry_points(role).items():
        assert (role / "tasks" / f"{entry}.yml").is_file(), entry
        assert spec["short_description"]
        for name, option in (spec.get("options") or {}).items():
            assert option.get("description"), name
            assert option.get("type"), name


@role_parameter
def test_every_public_name_has_the_roles_prefix(role: Path) -> None:
    options = {name for spec in entry_points(role).values() for name in spec.get("options") or {}}
    assert [name for name in options if not name.startswith(f"{role.name}_")] == []


@role_parameter
def test_every_default_is_explained_above_it(role: Path) -> None:
    path = role / "defaults" / "main.yml"
    text = path.read_text(encoding="utf-8").removeprefix("---\n")
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        assert paragraph.startswith("#"), f"no comment above: {paragraph}"
        assert re.search(r"^\w+:", paragraph, re.MULTILINE), f"a comment alone: {paragraph}"


@role_parameter
def test_a_roles_readme_has_purpose_and_example(role: Path) -> None:
    readme = (role / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {role.name}\n")
    assert "```yaml" in readme


@role_parameter
def test_no_role_names_an_inventory_group(role: Path) -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in role.rglob("*")
        if path.suffix in {".yml", ".j2", ".py", ".sh"}
    }
    named = {
        str(path.relative_to(ROOT)): re.findall(r"\bgroups\b\s*[\[.]|\bgroup_names\b", text)
        for path, text in texts.items()
    }
    assert {path: found for path, found in named.items() if found} == {}


def test_the_tables_of_options_are_fresh() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "role_readme.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}{run.stderr}\nscripts/check --fix writes them"


def test_the_table_of_options_shows_what_a_person_needs(load_script) -> None:
    module = load_script("role_readme")
    specs = json.loads(
        """{"main": {"options": {
            "web_port": {"type": "int", "default": 8080, "description": "The port."},
            "web_mode": {"description": ["How.", "So."], "required": true, "choices": ["a", "b"]},
            "web_list": {"type": "list", "elements": "dict", "default": [], "description": "x|y",
                         "options": {"name": {"description": "Its name."}}}
        }}, "leave": {}}"""
    )
    section = module.options_section(specs)
    assert "| `web_port` | int | `8080` | The port. |" in section
    assert "| `web_mode` | str | required | How. So. One of `a`, `b`. |" in section
    assert "| `web_list` | list of dict | `[]` | x\\|y |" in section
    assert "| `web_list.name` | str |  | Its name. |" in section
    assert "## Options of `tasks_from: leave`\n\nNone." in section
    readme = module.with_options("# web\n\nText.\n", section)
    assert readme == f"# web\n\nText.\n\n{section}\n"
    assert module.with_options(readme, section) == readme
