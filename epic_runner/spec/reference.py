"""What is generated of the models and committed: the JSON Schema and the tables of docs/spec.md.

`python -m epic_runner.spec.reference` writes both anew in a checkout.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from epic_runner.resources import content_root
from epic_runner.spec import models, quantities, schema

COMMAND: Final = "python -m epic_runner.spec.reference"
DOCUMENT: Final = "docs/spec.md"

_TABLE: Final = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FORMS: Final = {
    models.NAME_PATTERN: "name",
    models.ROLE_PATTERN: "name",
    models.USER_PATTERN: "user name",
    models.APP_PATTERN: "name or name@version",
    models.VERSION_PATTERN: "version",
    models.PRINCIPAL_PATTERN: "principal",
    models.PATH_PATTERN: "path",
    models.SPARK_VERSION_PATTERN: "version",
    quantities.PATTERN: "size",
    quantities.DURATION_PATTERN: "duration",
}


def table(name: str, definitions: dict[str, Any]) -> str:
    """Return the keys of one model as a Markdown table."""
    part = definitions[name]
    required = part.get("required", [])
    rows = [
        f"| `{key}` | {_form(item)} | {_default(key, item, required)} | {item['description']} |"
        for key, item in part["properties"].items()
        if key != "kind"
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def refreshed(text: str) -> str:
    """Return `text`, the Markdown of docs/spec.md, with its tables made anew."""
    definitions = schema.json_schema()["$defs"]
    return _TABLE.sub(lambda match: match[1] + table(match[2], definitions) + match[3], text)


def generated(root: Path) -> dict[Path, Callable[[], str]]:
    """Return each committed file that is generated, with the function that makes its text."""
    document = root / DOCUMENT
    return {
        root / schema.FILE: schema.schema_text,
        document: lambda: refreshed(document.read_text("utf-8")),
    }


def _default(key: str, item: dict[str, Any], required: list[str]) -> str:
    if key in required:
        return "required"
    if "default" not in item:
        return ""
    value = item["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _form(item: dict[str, Any]) -> str:
    """Return what a value must be, in a word or two."""
    choices = [choice for choice in item.get("anyOf", ()) if choice.get("type") != "null"]
    if choices:
        return _form(choices[0])
    if "$ref" in item:
        name = item["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "enum" in item:
        return " or ".join(f"`{choice}`" for choice in item["enum"])
    return _TYPES[item["type"]](item)


def _mapping_form(item: dict[str, Any]) -> str:
    if "patternProperties" in item:
        (inner,) = item["patternProperties"].values()
        return f"each name: {_form(inner)}"
    return f"each key: {_form(item['additionalProperties'])}"


_TYPES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "array": lambda item: f"list: {_form(item['items'])}",
    "object": _mapping_form,
    "integer": lambda _: "whole number",
    "boolean": lambda _: "`true` or `false`",
    "string": lambda item: _FORMS.get(item.get("pattern", ""), "text"),
}


def main() -> None:
    """Write every generated file anew."""
    for path, text in generated(content_root()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), "utf-8")


if __name__ == "__main__":
    main()
