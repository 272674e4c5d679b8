"""Files of YAML to `Documents`: everything that is wrong with them is told at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from epic_runner.catalog import Catalog
from epic_runner.spec import checks, jobs, overrides, reader, resolve
from epic_runner.spec.checks import Checked
from epic_runner.spec.models import App, Flavor, Job, Template, Tenant
from epic_runner.spec.reader import Problem, Source, quoted

STANDARD_INPUT: Final = "-"
SUFFIXES: Final = frozenset({".yml", ".yaml"})

_M = TypeVar("_M", Flavor, Tenant, Template, Job, App)


@dataclass(frozen=True)
class Documents:
    """What people wrote, by kind and name, in the order in which it was written.

    Attributes:
        flavors: The flavors, without the built-in ones.
        tenants: The tenants.
        templates: The templates, with what `--set` changed.
        jobs: The jobs, likewise.
        apps: Catalogue entries; only `validate` has a use for them.
        sources: Where each came from, by kind and name.
    """

    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    apps: Mapping[str, App] = field(default_factory=dict)
    sources: Mapping[tuple[str, str], Checked] = field(default_factory=dict)


def load_documents(
    paths: Iterable[str | os.PathLike[str]],
    sets: Sequence[str] = (),
    *,
    catalog: Catalog | None = None,
    known_flavors: Mapping[str, Flavor] | None = None,
    known_tenants: Mapping[str, Tenant] | None = None,
    tenant: str | None = None,
) -> Documents:
    """Read and check files, each of which may hold several documents.

    Args:
        paths: Files, folders (their *.yml and *.yaml), or `-` for standard input.
        sets: `PATH=VALUE` each, written over the one Template that the files hold, or over
            their one Job where the path begins with a key that only jobs have.
        catalog: The apps; with it, each template's app, node roles, services and sizes are checked
            too, and what each job names, so that all mistakes are told together.
        known_flavors: Flavors from elsewhere. None if that is not known: then flavors that the
            files do not hold are no mistake.
        known_tenants: Tenants from elsewhere, likewise.
        tenant: The tenant's name (`--tenant`) that takes the place of the templates' own.

    Raises:
        InputErrors: All mistakes in all files, by file and line.
    """
    problems: list[Problem] = []
    read: list[reader.Document] = []
    for source in _sources(paths, problems):
        read += reader.read(source, problems)
    read = overrides.apply(overrides.parse(sets, problems), read, problems)
    checked_all = [
        checked for document in read if (checked := checks.check(document, problems)) is not None
    ]
    found = _by_name(checked_all, problems)
    documents = Documents(
        _models(found, Flavor),
        _models(found, Tenant),
        _models(found, Template),
        _models(found, Job),
        _models(found, App),
        found,
    )
    if catalog is not None:
        context = resolve.Context(
            catalog,
            found,
            known_flavors=known_flavors,
            known_tenants=known_tenants,
        )
        for checked in checked_all:
            if checked.kind == "Template":
                resolve.check_template(context, checked, problems, tenant=tenant)
            if checked.kind == "Job":
                jobs.check_job(context, checked, problems, tenant=tenant)
    if problems:
        raise checks.input_errors(problems)
    return documents


def _by_name(
    checked_all: Iterable[Checked], problems: list[Problem]
) -> dict[tuple[str, str], Checked]:
    """Return the documents by kind and name; those whose name is no text are left out."""
    found: dict[tuple[str, str], Checked] = {}
    for checked in checked_all:
        name = checked.document.data.get("name")
        if not isinstance(name, str):
            continue
        first = found.setdefault((checked.kind, name), checked)
        if first is not checked:
            problems.append(
                Problem(
                    checked.document.place(("name",)),
                    f"There is a {checked.kind} named {quoted(name)} already, "
                    f"at {first.document.place(('name',)).where}.",
                )
            )
    return found


def _models(found: Mapping[tuple[str, str], Checked], model: type[_M]) -> dict[str, _M]:
    return {
        name: checked.model
        for (_, name), checked in found.items()
        if isinstance(checked.model, model)
    }


def _sources(paths: Iterable[str | os.PathLike[str]], problems: list[Problem]) -> Iterator[Source]:
    """Yield the sources of all files once each, in the order given; folders by name."""
    names = [name for path in paths for name in _files(os.fspath(path), problems)]
    seen: set[Path] = set()
    for number, name in enumerate(names):
        try:
            if name == STANDARD_INPUT:
                yield Source("stdin", number, sys.stdin.buffer.read(reader.BYTES_LIMIT + 1))
                continue
            identity = Path(name).resolve()
            if identity not in seen:
                seen.add(identity)
                yield reader.read_file(name, number)
        except (OSError, ValueError) as error:
            problems.append(reader.unreadable(name, number, error))


def _files(name: str, problems: list[Problem]) -> list[str]:
    folder = Path(name)
    if name == STANDARD_INPUT or not folder.is_dir():
        return [name]
    try:
        files = sorted(
            str(path)
            for path in folder.iterdir()
            if path.suffix in SUFFIXES and not path.name.startswith(".")
        )
    except OSError as error:
        problems.append(reader.unreadable(name, 0, error))
        return []
    if not files:
        place = Source(reader.printable(name), 0, b"").whole
        problems.append(Problem(place, "The folder holds no *.yml files."))
    return files
