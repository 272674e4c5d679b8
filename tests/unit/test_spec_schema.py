"""What is generated of the models: the JSON Schema for editors and the tables of docs/spec.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_samples import APPS, LAB, mistakes_in

from epic_runner.catalog import load_catalog
from epic_runner.resources import content_root
from epic_runner.spec import quantities, reference, schema
from epic_runner.spec.load import load_documents
from epic_runner.spec.models import MODELS, Part
from epic_runner.spec.reader import Source, read

ROOT = content_root()
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    whole = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def documents_in(text: str) -> list[Any]:
    return [document.data for document in read(Source("f", 0, text.encode()), [])]


@pytest.mark.parametrize("path", reference.generated(ROOT), ids=lambda path: path.name)
def test_what_is_generated_is_fresh(path: Path) -> None:
    wanted = reference.generated(ROOT)[path]()
    assert path.read_text("utf-8") == wanted, f"{path} is stale; run: {reference.COMMAND}"


def test_every_field_of_every_model_is_described() -> None:
    models = Part.__subclasses__()
    assert set(MODELS.values()) < set(models)
    for model in models:
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"


def test_every_model_has_its_table_in_the_reference() -> None:
    text = (ROOT / reference.DOCUMENT).read_text("utf-8")
    tables = set(re.findall(r"<!-- keys: (\w+) -->", text))
    assert tables == {model.__name__ for model in Part.__subclasses__()}


def test_the_examples_of_the_reference_are_right(tmp_path: Path) -> None:
    text = (ROOT / reference.DOCUMENT).read_text("utf-8")
    blocks = [
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind:" in block
    ]
    catalog = load_catalog(ROOT / "images")
    assert len(blocks) == 3
    for block in blocks:
        assert mistakes_in(tmp_path, block, catalog=catalog, known_flavors={}) == []


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_right(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    for document in documents_in(path.read_text("utf-8")):
        validator.validate(document)
    load_documents([path], catalog=load_catalog(ROOT / "images"))


def test_every_entry_of_the_catalogue_is_right(
    validator: jsonschema.Draft202012Validator,
) -> None:
    for path in (ROOT / "images").glob("*/app.yml"):
        for document in documents_in(path.read_text("utf-8")):
            validator.validate(document)


def test_the_schema_takes_what_the_models_take(
    validator: jsonschema.Draft202012Validator,
) -> None:
    for text in (LAB, *APPS.values()):
        for document in documents_in(text):
            validator.validate(document)


@pytest.mark.parametrize(
    "text",
    [
        "{name: a, cores: 1, memory: 1g}",
        "{kind: Flavour, name: a, cores: 1, memory: 1g}",
        "{kind: Flavor, name: A, cores: 1, memory: 1g}",
        "{kind: Flavor, name: a, cores: 0, memory: 1g}",
        "{kind: Flavor, name: a, cores: 1, memory: 1.5g}",
        "{kind: Flavor, name: a, cores: 1, memory: 4}",
        "{kind: Flavor, name: a, cores: 1, memory: 4g, memry: 4g}",
        "{kind: Tenant, name: a, members: [{user: Ada}]}",
        "{kind: Tenant, name: a, members: [{user: ada, role: boss}]}",
        "{kind: Template, name: a}",
        "{kind: Template, name: a, app: spark, roles: {Master: {}}}",
        "{kind: Template, name: a, app: spark, roles: {master: {services: [a, a]}}}",
        "{kind: Template, name: a, app: spark, datataps: []}",
        "{kind: Job, name: a, cluster: {}, submit: {file: a.py}}",
        "{kind: Job, name: a, cluster: {name: b, template: c}, submit: {file: a.py}}",
        "{kind: Job, name: a, cluster: {name: b}, submit: {file: a.py, main_class: A}}",
        "{kind: Job, name: a, cluster: {name: b}, submit: {file: a.py, args: [1]}}",
        "{kind: Job, name: a, cluster: {name: b}, submit: {file: a.py}, timeout: 90}",
    ],
)
def test_the_schema_refuses_what_the_models_refuse(
    text: str, tmp_path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    assert mistakes_in(tmp_path, text)
    (document,) = documents_in(text)
    assert not validator.is_valid(document)


@given(st.from_regex(quantities.PATTERN.replace("$", r"\Z")))
def test_sizes_of_the_schema_are_taken_if_they_are_in_range(text: str) -> None:
    try:
        quantities.parse_size(text)
    except quantities.SizeError as error:
        if not error.message.startswith(("is less than", "is larger than")):
            raise


@pytest.mark.parametrize("kind", MODELS)
def test_a_schema_of_one_kind_stands_by_itself(kind: str) -> None:
    one = schema.json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(one)
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(one)))
    assert references <= set(one["$defs"])
    assert kind in one["$defs"]
