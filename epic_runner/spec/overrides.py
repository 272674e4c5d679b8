"""`--set roles.worker.count=5`: values of the command line written over those of the files.

They go into the one Template, or, where a path begins with a key that only jobs have, into the
one Job.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from epic_runner.spec.models import Job, Template
from epic_runner.spec.reader import (
    Document,
    Path,
    Place,
    Problem,
    Source,
    path_text,
    printable,
    read,
)

# Options come after all files where mistakes are sorted.
OPTION_ORDER: Final = 10**6

_JOB_KEYS: Final = Job.model_fields.keys() - Template.model_fields.keys()

_PART: Final = re.compile(r"([^.\[\]=]+)((?:\[[0-9]{1,4}\])*)")


@dataclass(frozen=True)
class Override:
    """One `--set`: the path that it names, and the value that it gives."""

    path: Path
    value: Any
    place: Place
    # What was written for each scalar, by its path in the value.
    texts: Mapping[Path, str] = field(default_factory=dict)


def option_place(option: str, number: int = 0) -> Place:
    """Return the place of what the command line says, such as `--name`."""
    return Place(option, (OPTION_ORDER, number))


def parse(texts: Sequence[str], problems: list[Problem]) -> list[Override]:
    """Return the meaning of each `PATH=VALUE`; the value is YAML, an empty one is nothing."""
    overrides = []
    for number, text in enumerate(texts):
        written, equals, value_text = text.partition("=")
        place = option_place(f"--set {printable(written.strip()[:60])}", number)
        path = _path(written.strip())
        if not equals or path is None:
            problems.append(
                Problem(
                    place,
                    "This is not of the form PATH=VALUE.",
                    "Write it like --set roles.worker.count=5.",
                )
            )
            continue
        if path[0] == "kind":
            problems.append(Problem(place, "kind cannot be set."))
            continue
        found: list[Problem] = []
        value = None
        written_as: dict[Path, str] = {}
        if value_text.strip():
            content = value_text.encode("utf-8", "surrogateescape")
            documents = read(Source("", 0, content), found)
            if len(documents) == 1:
                value = documents[0].data
                written_as = {inner: at.text for inner, at in documents[0].places.items()}
            elif not found:
                found.append(Problem(place, "The value is not one value."))
        problems += [replace(item, place=place) for item in found]
        if not found:
            overrides.append(Override(path, value, place, written_as))
    return overrides


def apply(
    overrides: Sequence[Override], documents: Sequence[Document], problems: list[Problem]
) -> list[Document]:
    """Return `documents` with `overrides` written over their one Template, or their one Job."""
    changed = list(documents)
    for kind in ("Template", "Job"):
        meant = [item for item in overrides if (item.path[0] in _JOB_KEYS) == (kind == "Job")]
        found = [
            index
            for index, document in enumerate(documents)
            if isinstance(document.data, dict) and document.data.get("kind") == kind
        ]
        if meant and len(found) != 1:
            problems.append(
                Problem(
                    option_place("--set"),
                    f"It needs one {kind} to change, but the files hold {len(found) or 'none'}.",
                    "Keys of a Job begin with cluster, submit, timeout and the like; tenant and "
                    "name are the Template's."
                    if kind == "Template" and not found
                    else None,
                )
            )
        elif meant:
            changed[found[0]] = _changed(documents[found[0]], meant, problems)
    return changed


def _changed(
    document: Document, overrides: Sequence[Override], problems: list[Problem]
) -> Document:
    data, places = copy.deepcopy(document.data), dict(document.places)
    for override in overrides:
        message = _write(data, places, override)
        if message is not None:
            problems.append(Problem(override.place, message))
    return Document(document.source, data, places)


def _write(data: Any, places: dict[Path, Place], override: Override) -> str | None:
    """Put one value in its place; returns what is wrong if there is no such place."""
    path, current = override.path, data
    for depth, part in enumerate(path):
        message = _obstacle(current, path, depth)
        if message is not None:
            return message
        last = depth + 1 == len(path)
        if isinstance(part, int) and part == len(current):
            current.append(None)
        if last:
            current[part] = copy.deepcopy(override.value)
        elif current[part] is None if isinstance(part, int) else current.get(part) is None:
            current[part] = {} if isinstance(path[depth + 1], str) else []
            places[path[: depth + 1]] = override.place
        current = current[part]
    for old in [old for old in places if old[: len(path)] == path]:
        del places[old]
    places[path] = override.place
    for inner, text in override.texts.items():
        places[(*path, *inner)] = replace(override.place, text=text)
    return None


def as_text(document: Document, paths: Iterable[Path]) -> Document:
    """Return `document` with the text that was written for numbers and truths of `--set`.

    On a command line nobody thinks of YAML's rules, and the shell eats quotes: where text is
    wanted, at `paths`, `3.10` is that text. In files it is not, since it may be meant otherwise.
    """
    data = copy.deepcopy(document.data)
    for path in paths:
        place = document.places.get(path)
        if place is None or place.order[0] != OPTION_ORDER:
            continue
        current = data
        for part in path[:-1]:
            current = current[part]
        if isinstance(current[path[-1]], int | float):
            current[path[-1]] = place.text
    return replace(document, data=data)


def _obstacle(current: Any, path: Path, depth: int) -> str | None:
    """Return why `path` cannot go on from `current`, its value at `depth`; None if it can."""
    part, around = path[depth], path_text(path[:depth])
    if not isinstance(current, dict if isinstance(part, str) else list):
        what = "a mapping" if isinstance(part, str) else "a list"
        return f"{around} is not {what}, so {path_text(path)} cannot be set."
    if isinstance(part, int) and part > len(current):
        return f"{around} has {len(current)} items, so {path_text(path)} cannot be set."
    return None


def _path(text: str) -> Path | None:
    parts: list[str | int] = []
    for piece in text.split("."):
        match = _PART.fullmatch(piece)
        if match is None:
            return None
        parts.append(match[1])
        parts += [int(number) for number in re.findall(r"[0-9]+", match[2])]
    return tuple(parts) if len(parts) <= 16 else None  # noqa: PLR2004 - no model is so deep
