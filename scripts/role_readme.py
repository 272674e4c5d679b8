"""Writes the table of options in each role's README.md from its meta/argument_specs.yml.

Usage: python scripts/role_readme.py [--check] [ROLE...]

Examples:
    python scripts/role_readme.py
    python scripts/role_readme.py --check spark
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
BEGIN = "<!-- options: written by scripts/role_readme.py -->"
END = "<!-- options end -->"


def options_section(specs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the README's part for every entry point of a role, between its two marks."""
    parts = [BEGIN]
    for entry, spec in specs.items():
        title = "## Options" if entry == "main" else f"## Options of `tasks_from: {entry}`"
        parts += ["", title, ""]
        options = spec.get("options") or {}
        if not options:
            parts.append("None.")
            continue
        parts += ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
        parts += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in option_rows(options)]
    return "\n".join([*parts, "", END])


def option_rows(
    options: Mapping[str, Mapping[str, Any]], prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """Go through the options and those inside them: name, type, default and meaning."""
    for name, option in options.items():
        kind = option.get("type", "str")
        if option.get("elements"):
            kind = f"{kind} of {option['elements']}"
        if "default" in option:
            default = f"`{_literal(option['default'])}`"
        else:
            default = "required" if option.get("required") else ""
        description = option.get("description", "")
        text = " ".join([description] if isinstance(description, str) else description)
        if option.get("choices"):
            text += f" One of {', '.join(f'`{_literal(one)}`' for one in option['choices'])}."
        yield f"`{prefix}{name}`", kind, default, text
        yield from option_rows(option.get("options") or {}, f"{prefix}{name}.")


def _literal(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def read_specs(role: Path) -> dict[str, dict[str, Any]]:
    """Return the entry points of a role's argument specs by name."""
    text = (role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    specs: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"]
    return specs


def with_options(readme: str, section: str) -> str:
    """Return the README with its options' part replaced, or put at its end."""
    before, begin, rest = readme.partition(BEGIN)
    if not begin:
        return f"{readme.rstrip()}\n\n{section}\n"
    return before + section + rest.partition(END)[2]


def main() -> int:
    """Write the tables, or with --check only tell which are stale; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a stale table")
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="only these roles")
    arguments = parser.parse_args()
    stale = []
    for specs in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = specs.parent.parent
        if arguments.roles and role.name not in arguments.roles:
            continue
        path = role / "README.md"
        old = path.read_text(encoding="utf-8") if path.exists() else f"# {role.name}\n"
        new = with_options(old, options_section(read_specs(role)))
        if new != old:
            stale.append(path)
            if not arguments.check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        sys.stdout.write(
            f"{path.relative_to(ROLES.parent)}: {'stale' if arguments.check else 'written'}\n"
        )
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
