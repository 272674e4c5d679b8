"""Documents against the models: pydantic's findings in our words, with places and suggestions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from epic_runner.errors import InputErrors, Mistake
from epic_runner.spec import models, overrides
from epic_runner.spec.reader import MISTAKES_LIMIT, Document, Path, Problem, path_text, quoted

_KINDS: Final = ", ".join(models.MODELS)

# Pydantic's types of errors, as what stands after a key's name.
_FORMS: Final = {
    "string_type": "must be text, not {shown}",
    "string_unicode": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} letters long",
    "int_type": "must be a whole number, not {shown}",
    "bool_type": "must be true or false, not {shown}",
    "greater_than_equal": "must be at least {ge}, not {shown}",
    "less_than_equal": "must be at most {le}, not {shown}",
    "tuple_type": "must be a list, not {shown}",
    "dict_type": "must be a mapping of keys to values, not {shown}",
    "model_type": "must be a mapping of keys to values, not {shown}",
}
_TRUTHS: Final = {
    **dict.fromkeys(("yes", "on", "true"), "true"),
    **dict.fromkeys(("no", "off", "false"), "false"),
}


@dataclass(frozen=True)
class Checked:
    """What a document turned out to be.

    Attributes:
        document: What was read.
        kind: One of `models.MODELS`.
        model: The model; where the document has mistakes, one made of what is right in it, or
            None if too little is.
        broken: The paths that hold mistakes: what `model` says of them means nothing.
    """

    document: Document
    kind: str
    model: models.Document | None
    broken: frozenset[Path] = frozenset()

    def sound(self, *path: str | int) -> bool:
        """Return whether nothing around, at or in `path` is broken."""
        return not any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)

    def kept(self, *path: str | int) -> list[int]:
        """Return where the items that `model` has of a list stood in it as it was written."""
        written = self.document.data
        for part in path:
            if isinstance(written, list):
                written = dict(enumerate(written))
            written = written.get(part) if isinstance(written, dict) else None
        count = len(written) if isinstance(written, list) else 0
        return [index for index in range(count) if (*path, index) not in self.broken]


def suggestion(word: object, choices: Iterable[str]) -> str | None:
    """Return the hint that names the choice most like `word`, or None where none is alike."""
    alike = difflib.get_close_matches(str(word)[:64].lower(), list(choices), n=1, cutoff=0.6)
    return f'Did you mean "{alike[0]}"?' if alike else None


def one_of(word: object, choices: Collection[str]) -> str | None:
    """Return a hint: the choice most like `word`, or else all the choices."""
    if not choices:
        return None
    return suggestion(word, choices) or f"There is: {', '.join(choices)}."


def check(document: Document, problems: list[Problem]) -> Checked | None:
    """Check one document by itself; its mistakes are added to `problems`.

    Returns:
        What it is; None if it is of no kind that there is.
    """
    kind = _kind(document, problems)
    if kind is None:
        return None
    model = models.MODELS[kind]
    whole, findings = _validated(model, document)
    text_wanted = [_where(finding) for finding in findings if finding["type"] == "string_type"]
    if text_wanted:
        document = overrides.as_text(document, text_wanted)
        whole, findings = _validated(model, document)
    if whole is not None:
        return Checked(document, kind, whole)
    data: dict[str, Any] = document.data
    broken = {_where(finding) for finding in findings}
    for finding in findings[: MISTAKES_LIMIT + 1]:
        path = _where(finding)
        if finding["type"] == "missing" and _misspelt(path, model, findings):
            continue
        problems.append(_problem(document, kind, model, path, finding))
    salvaged, left_out = _salvaged(model, data, broken)
    return Checked(document, kind, salvaged, frozenset(broken | left_out))


def input_errors(problems: Iterable[Problem]) -> InputErrors:
    """Return `problems` as one exception, in the order of files and lines, each once."""
    ordered = sorted(problems, key=lambda problem: problem.place.order)
    mistakes = list(
        dict.fromkeys(Mistake(item.place.where, item.message, item.hint) for item in ordered)
    )
    if len(mistakes) > MISTAKES_LIMIT:
        left = len(mistakes) - MISTAKES_LIMIT
        last = mistakes[MISTAKES_LIMIT].where
        mistakes[MISTAKES_LIMIT:] = [Mistake(last, f"{left} or more mistakes follow.")]
    return InputErrors(mistakes)


def _kind(document: Document, problems: list[Problem]) -> str | None:
    data = document.data
    if not isinstance(data, dict):
        problems.append(
            Problem(
                document.place(()),
                f"The document is {_called(data)}, but must be a mapping of keys to values.",
                f"Begin it with kind: and one of {_KINDS}.",
            )
        )
        return None
    kind = data.get("kind")
    place = document.place(("kind",))
    if "kind" not in data:
        # A key that is nearly "kind" is where the mistake is.
        alike = difflib.get_close_matches("kind", list(data), n=1, cutoff=0.7)
        if alike:
            problems.append(
                Problem(
                    document.place((alike[0],)),
                    f"{path_text((alike[0],))} is not a known key.",
                    'Did you mean "kind"?',
                )
            )
        else:
            problems.append(
                Problem(place, "The document has no kind.", f"Add kind: and one of {_KINDS}.")
            )
    elif isinstance(kind, str) and kind in models.LATER_KINDS:
        problems.append(Problem(place, f"The kind {kind} is not supported by this version yet."))
    elif not isinstance(kind, str) or kind not in models.MODELS:
        same = [name for name in models.MODELS if name.lower() == str(kind).lower()]
        problems.append(
            Problem(
                place,
                f"{quoted(kind)} is not a known kind.",
                f'Did you mean "{same[0]}"?' if same else one_of_kinds(kind),
            )
        )
    else:
        return kind
    return None


def one_of_kinds(word: object) -> str:
    """Return a hint: the kind most like `word` (kinds begin with a capital), or all of them."""
    alike = difflib.get_close_matches(str(word)[:64].capitalize(), list(models.MODELS), n=1)
    return f'Did you mean "{alike[0]}"?' if alike else f"There is: {_KINDS}."


def _validated(
    model: type[models.Document], document: Document
) -> tuple[models.Document | None, list[ErrorDetails]]:
    """Return the model of a document, or None and what pydantic finds wrong with it."""
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _where(finding: Mapping[str, Any]) -> Path:
    location = tuple(finding["loc"])
    return location[:-1] if location and location[-1] == "[key]" else location


def _misspelt(path: Path, model: type[BaseModel], findings: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a key that is missing is there under a name that is nearly right."""
    for finding in findings:
        other = _where(finding)
        if finding["type"] == "extra_forbidden" and other[:-1] == path[:-1]:
            alike = difflib.get_close_matches(
                str(other[-1])[:64].lower(), list(_fields(model, path[:-1])), n=1
            )
            if alike == [path[-1]]:
                return True
    return False


def _problem(
    document: Document,
    kind: str,
    model: type[BaseModel],
    path: Path,
    finding: Mapping[str, Any],
) -> Problem:
    place = document.place(path)
    name = path_text(path)
    context: Mapping[str, Any] = finding.get("ctx", {})
    problem = finding["type"]
    if problem == "extra_forbidden":
        if len(path) == 1 and path[0] in models.LATER_KEYS.get(kind, ()):
            return Problem(place, f"{name} is not supported by this version yet.")
        return Problem(place, f"{name} is not a known key.", _key_hint(model, path))
    if problem == "missing":
        around = document.place(path[:-1])
        field = _fields(model, path[:-1]).get(str(path[-1]))
        hint = f"{path[-1]} is: {_lowered(field)}" if field else None
        return Problem(around, f"{name} is missing.", hint)
    if problem == "epic":
        return Problem(place, f"{name} {context['message']}.", context["hint"])
    if problem == "literal_error":
        choices = [str(item) for item in _choices(model, path)]
        written = finding["input"]
        return Problem(
            place,
            f"{name} must be {' or '.join(choices)}, not {_shown(written)}.",
            suggestion(written, choices),
        )
    return Problem(place, *_typed(name, problem, context, finding["input"], place.text))


def _key_hint(model: type[BaseModel], path: Path) -> str:
    """Return what to write instead of a key that is not known."""
    known = _fields(model, path[:-1])
    hint = suggestion(path[-1], known)
    if hint is None and _model_at(model, path[:-1]) is models.RoleRequest:
        sizes = difflib.get_close_matches(str(path[-1])[:64].lower(), ("cores", "memory", "disk"))
        hint = f"The {sizes[0]} of a node comes from its flavor." if sizes else None
    return hint or f"Known keys are {', '.join(known)}."


def _typed(
    name: str, problem: str, context: Mapping[str, Any], written: Any, text: str
) -> tuple[str, str | None]:
    """Return message and hint for a value of a wrong type or out of its range."""
    form = _FORMS.get(problem, "cannot be {shown}").format(shown=_shown(written), **context)
    hint = None
    if problem == "string_type" and isinstance(written, int | float) and text:
        hint = f'Put it in quotes: "{text[:60]}"'
    elif problem == "int_type" and isinstance(written, str) and re.fullmatch("[0-9]+", written):
        hint = f"Write it without quotes: {written[:20]}"
    elif problem == "bool_type" and str(written).lower() in _TRUTHS:
        hint = f"Write {_TRUTHS[str(written).lower()]}."
    elif problem == "tuple_type" and isinstance(written, str) and written.isalnum():
        hint = f"Write [{written[:60]}]."
    elif problem in {"dict_type", "model_type"} and written is None:
        hint = "Write {} for one without keys."
    return f"{name} {form}.", hint


def _called(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return "empty" if value is None else "one value"


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return _called(value)
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else str(value)[:40]


def _lowered(description: str) -> str:
    """Return a description as the end of a sentence; names in it keep their capitals."""
    first = description.split(" ", 1)[0]
    return description if first.isupper() else description[0].lower() + description[1:]


def _fields(model: type[BaseModel], path: Path) -> dict[str, str]:
    """Return the keys that the mapping at `path` may have, with their descriptions."""
    inner = _model_at(model, path)
    if inner is None:
        return {}
    return {
        field.alias or name: field.description or "" for name, field in inner.model_fields.items()
    }


def _choices(model: type[BaseModel], path: Path) -> tuple[Any, ...]:
    inner = _model_at(model, path[:-1])
    if inner is None:
        return ()
    return get_args(inner.model_fields[str(path[-1])].annotation)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """Return the model of the mapping at `path`; None where there is none."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field is not None else None
        else:
            arguments = get_args(current)
            current = (
                (arguments[1] if get_origin(current) is dict else arguments[0])
                if (arguments)
                else None
            )
        if get_origin(current) in (Union, UnionType):
            current = get_args(current)[0]
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _salvaged(
    model: type[models.Document], data: dict[str, Any], broken: Collection[Path]
) -> tuple[models.Document | None, set[Path]]:
    """Return the model of what is right in `data`, so that its meaning can be checked as well.

    What a mistake leaves of a part may be nothing by itself, such as a member without a user: then
    the innermost part or item of a list around it is left out whole.

    Returns:
        The model, or None if too little is right, and the paths of what was left out.
    """
    left_out = {path for path in broken if path}
    while True:
        mended = _without(data, left_out, ())
        _stand_in(mended, model)
        try:
            return model.model_validate(mended), left_out
        except ValidationError as error:
            findings = error.errors(include_url=False)
        if len(findings) > MISTAKES_LIMIT:
            return None, left_out
        more = {_written(data, left_out, _where(finding)) for finding in findings}
        if () in more:
            return None, left_out
        left_out |= more


def _stand_in(data: dict[str, Any], model: type[models.Document]) -> None:
    """Put something into the place of what a document cannot be without."""
    stand_in = {"name": "x", "app": "x", "version": "0", "image": "x", "cores": 1, "memory": "1t"}
    stand_in |= {"cluster": {"name": "x"}, "submit": {}}
    for key, value in stand_in.items():
        if key in model.model_fields:
            data.setdefault(key, value)
    if isinstance(data.get("submit"), dict):
        data["submit"].setdefault("file", "x.py")


def _written(data: Any, left_out: Collection[Path], path: Path) -> Path:
    """Return where in `data` the innermost value stands at or around `path` of what is left."""
    found: Path = ()
    for part in path:
        if isinstance(data, list) and isinstance(part, int):
            kept = [index for index in range(len(data)) if (*found, index) not in left_out]
            inner: list[str | int] = [*kept[part : part + 1]]
        else:
            inner = [part] if isinstance(data, dict) and part in data else []
        if not inner or (*found, inner[0]) in left_out:
            break
        data = data[inner[0]]
        found = (*found, inner[0])
    return found


def _without(value: Any, broken: Collection[Path], path: Path) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(item, broken, (*path, key))
            for key, item in value.items()
            if (*path, key) not in broken
        }
    if isinstance(value, list):
        return [
            _without(item, broken, (*path, index))
            for index, item in enumerate(value)
            if (*path, index) not in broken
        ]
    return value
