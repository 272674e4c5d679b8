"""The JSON Schema of the YAML, for editors that complete and check while one types.

It describes single documents: what only other documents or the catalogue can tell (whether a
flavor exists, how many masters an app takes) is left to `epic-run validate`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from epic_runner.spec.models import MODELS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FILE: Final = "schemas/epic-runner.schema.json"


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """Return the schema of one kind, or of all kinds told apart by their `kind`.

    Raises:
        KeyError: There is no such kind.
    """
    _, generated = models_json_schema([(model, "validation") for model in MODELS.values()])
    definitions = {name: _tidy(part) for name, part in sorted(generated["$defs"].items())}
    for name in MODELS:
        definition = definitions[name]
        definition["required"] = ["kind", *definition.get("required", [])]
        # `kind` has a default for the program, not for people.
        del definition["properties"]["kind"]["default"]
    root: dict[str, Any]
    if kind is not None:
        root = {"title": f"epic-runner {kind}", "$ref": f"#/$defs/{kind}"}
        definitions = {name: definitions[name] for name in sorted(_closure(kind, definitions))}
    else:
        root = {
            "title": "epic-runner documents",
            "oneOf": [{"$ref": f"#/$defs/{name}"} for name in MODELS],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {name: f"#/$defs/{name}" for name in MODELS},
            },
            "required": ["kind"],
        }
    return {"$schema": DIALECT, **root, "$defs": definitions}


def schema_text(kind: str | None = None) -> str:
    """Return the schema as the text of a file."""
    return json.dumps(json_schema(kind), indent=2) + "\n"


def _tidy(part: Any) -> Any:
    """Return a part of the schema without generated titles and defaults that say nothing."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    if "patternProperties" in part:
        part = {**part, "additionalProperties": False}
    return {
        key: {name: _tidy(item) for name, item in value.items()}
        if key == "properties"
        else _tidy(value)
        for key, value in part.items()
        if key != "title" and not (key == "default" and value in (None, [], {}))
    }


def _closure(name: str, definitions: dict[str, Any]) -> set[str]:
    """Return the definitions that `name` needs, itself with them."""
    used: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in used:
            used.add(current)
            text = json.dumps(definitions[current])
            waiting += [other for other in definitions if f'"#/$defs/{other}"' in text]
    return used
