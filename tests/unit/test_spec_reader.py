"""YAML to data: lines, the plain rules of YAML 1.2, and input that means harm."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epic_runner.spec import reader
from epic_runner.spec.reader import Problem, Source, path_text, read


def read_text(text: str | bytes) -> tuple[list[Any], list[str]]:
    problems: list[Problem] = []
    content = text if isinstance(text, bytes) else text.encode()
    documents = read(Source("f.yml", 0, content), problems)
    shown = [
        f"{item.place.where}: {item.message}" + (f" | {item.hint}" if item.hint else "")
        for item in problems
    ]
    return [document.data for document in documents], shown


def values(text: str) -> Any:
    (data,), problems = read_text(text)
    assert problems == []
    return data


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with both of PyYAML's parsers: which one there is depends on the machine."""
    loader = yaml.SafeLoader if request.param == "python" else yaml.CSafeLoader
    monkeypatch.setattr(reader, "_PARSER", loader)
    return str(request.param)


@pytest.mark.usefixtures("parser")
class TestValues:
    def test_words_that_older_yaml_takes_for_truths_stay_text(self) -> None:
        assert values("[no, NO, off, on, yes, y, n]") == ["no", "NO", "off", "on", "yes", "y", "n"]

    def test_dates_and_times_stay_text(self) -> None:
        assert values("[2001-01-01, 1:30, 190:20:30]") == ["2001-01-01", "1:30", "190:20:30"]

    def test_numbers_are_those_of_yaml_1_2(self) -> None:
        assert values("[1, -2, +3, 017, 0o17, 0x1F, 1_000]") == [1, -2, 3, 17, 15, 31, "1_000"]
        assert values("[1.5, .5, 1e3, 3.]") == [1.5, 0.5, 1000.0, 3.0]
        assert values("[1.2.3, .inf, 0b1]") == ["1.2.3", ".inf", "0b1"]

    def test_a_number_of_any_length_does_no_harm(self) -> None:
        assert values("n: " + "9" * 9000) == {"n": "9" * 9000}
        assert math.isinf(values("n: 1e999999")["n"])

    def test_null_and_truths_have_their_few_spellings(self) -> None:
        assert values("[null, ~, true, True, FALSE, '', 'true']") == [
            None, None, True, True, False, "", "true",
        ]  # fmt: skip

    def test_keys_are_text_whatever_they_look_like(self) -> None:
        assert values("{1: a, true: b, null: c, 1.50: d}") == {
            "1": "a", "true": "b", "null": "c", "1.50": "d",
        }  # fmt: skip

    def test_anchors_and_aliases_are_taken_for_values_and_keys(self) -> None:
        assert values("{a: &x {b: [1]}, c: *x, d: &k e, *k : f}") == {
            "a": {"b": [1]}, "c": {"b": [1]}, "d": "e", "e": "f",
        }  # fmt: skip

    def test_what_aliases_stand_for_is_not_shared(self) -> None:
        data = values("{a: &x [1], b: *x}")
        assert data["a"] is not data["b"]

    def test_several_documents_are_read_and_empty_ones_left_out(self) -> None:
        assert read_text("--- 1\n---\n--- # nothing\n---\na: 1\n...\n") == ([1, {"a": 1}], [])

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        assert values("\ufeffa: 1") == {"a": 1}


def test_every_value_has_its_line() -> None:
    text = "a: 1\nb:\n  - c: 2\n  -\n    d:\n      3\n---\n\ne: 4\n"
    first, second = read(Source("f.yml", 0, text.encode()), [])
    assert {path_text(path): place.order[1] for path, place in first.places.items()} == {
        "": 1, "a": 1, "b": 2, "b[0]": 3, "b[0].c": 3, "b[1]": 5, "b[1].d": 5,
    }  # fmt: skip
    assert second.place(("e",)).where == "f.yml:9"
    assert second.place(("e", "missing")).where == "f.yml:9"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f.yml: The file is empty."),
        ("# only this\n", "f.yml: The file is empty."),
        ("---\n---\n", "f.yml: The file is empty."),
        ("a: 1\nb: 2\na: 3", "f.yml:3: a is given twice, first on line 1."),
        ("a:\n  b: [{c: 1,\n   c: 2}]", "f.yml:3: a.b[0].c is given twice, first on line 2."),
        ("a: 1\n'a': 2", "f.yml:2: a is given twice, first on line 1."),
        ("<<: {a: 1}", "f.yml:1: Merge keys (<<) are not allowed. | Write the keys out."),
        (
            "a: !!python/object/apply:os.system [ls]",
            (
                'f.yml:1: The tag "!!python/object/apply:os.system" is not allowed. '
                "| Write the plain value."
            ),
        ),
        ("a: !foo b", 'f.yml:1: The tag "!foo" is not allowed. | Write the plain value.'),
        ("a: !!str 1", 'f.yml:1: The tag "!!str" is not allowed. | Write the plain value.'),
        ("a: ! b", 'f.yml:1: The tag "!" is not allowed. | Write the plain value.'),
        (
            "%TAG !e! tag:e.com,2000:\n---\n!e!x {}",
            'f.yml:3: The tag "tag:e.com,2000:x" is not allowed. | Write the plain value.',
        ),
        ("? [a]\n: b\n? [c]\n: d", "f.yml:1: A key must be text, not a list or a mapping."),
        ("a: &x [*x]", "f.yml:1: The alias *x stands inside its own anchor."),
        ("a: *x", "f.yml:1: There is no anchor &x before this alias."),
        ("a: &x 1\n--- \nb: *x", "f.yml:3: There is no anchor &x before this alias."),
        ("a:\n\tb: 1", "f.yml:2: The line is indented with a tab. | Indent with spaces."),
        ("a: 'b\nc: d", "f.yml:2: A quotation mark is not closed before here."),
        (
            "a: [1, 2\nb: 3",
            "f.yml:2: A list or mapping in brackets is not closed, or lacks a comma, before here.",
        ),
        ("a:\n  b: 1\n c: 2", "f.yml:3: The indentation does not fit what stands before."),
        ("a: @b", "f.yml:1: A value cannot begin like this. | Put it in quotes."),
        (
            "a: b: c",
            (
                "f.yml:1: A colon stands where none can be. | "
                "Check the indentation, and put text that holds a colon and a space in quotes."
            ),
        ),
        (b"a: 1\nb: \xff", "f.yml:2: This is not UTF-8 text. | Save the file as UTF-8."),
        (
            "a: ü".encode("utf-16"),
            "f.yml:1: This is not UTF-8 text. | Save the file as UTF-8.",
        ),
        ("a: 1\nb: \0", "f.yml:2: A character here is not text (U+0000)."),
        ("a: \x1b[31m", "f.yml:1: A character here is not text (U+001B)."),
        ("[" * 100_000, "f.yml:1: The values are nested more than 40 deep."),
        ("{a: " * 41, "f.yml:1: The values are nested more than 40 deep."),
        (
            "".join(f"\n{'  ' * depth}a:" for depth in range(500)),
            "f.yml:42: The values are nested more than 40 deep.",
        ),
        ("? " * 300, "f.yml:1: A key must be text, not a list or a mapping."),
        ("a: &a [b]\n*a : c", "f.yml:2: A key must be text."),
        (
            "a: &a [x]\n" + "".join(f"k{n}: &a [*a]\n" for n in range(60)),
            "f.yml:38: The values are nested more than 40 deep.",
        ),
        ("- a\n" * 30_000, "f.yml:20001: The file holds more than 20000 values."),
        ("--- a\n" * 30_000, "f.yml:20001: The file holds more than 20000 values."),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n"
                for before, here in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "f.yml:5: The file holds more than 20000 values.",
        ),
    ],
    ids=lambda value: str(value[:24]),
)
def test_what_cannot_be_taken_is_one_plain_problem(text: str | bytes, problem: str) -> None:
    assert read_text(text)[1] == [problem]


def test_a_file_of_ten_megabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_bytes(b"- [a, b, c]\n" * 900_000)
    problems: list[Problem] = []
    begun = time.perf_counter()
    source = reader.read_file(str(path), 0)
    assert read(source, problems) == []
    assert time.perf_counter() - begun < 0.2
    assert len(source.content) == reader.BYTES_LIMIT + 1
    assert [item.message for item in problems] == [
        "The file is larger than 1 MB, which no such file needs to be."
    ]


@pytest.mark.parametrize(
    "piece",
    [
        "- &a [*a]\n",
        "a: !t 1\n",
        "{a: 1, ",
        "&a",
        "? ",
        "- - - -\n",
        "--- &a {a: 1}\n",
        "'",
        "|\n ",
    ],
)
def test_a_megabyte_of_anything_costs_little_time(piece: str) -> None:
    text = (piece * (reader.BYTES_LIMIT // len(piece)))[: reader.BYTES_LIMIT]
    begun = time.process_time()
    assert len(read_text(text)[1]) <= reader.MISTAKES_LIMIT + 1
    assert time.process_time() - begun < 3


def test_documents_before_a_mistake_in_the_syntax_are_still_read() -> None:
    data, problems = read_text("a: 1\n---\nb: [")
    assert data == [{"a": 1}]
    assert len(problems) == 1


def test_control_characters_in_names_do_not_reach_a_terminal() -> None:
    _, problems = read_text('"a\\e[31m": 1\n"a\\e[31m": 2')
    assert problems == ['f.yml:2: "a�[31m" is given twice, first on line 1.']


@given(st.text())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_text_raises_anything(text: str) -> None:
    read_text(text.encode("utf-8", "surrogatepass"))


@given(st.binary())
def test_no_bytes_raise_anything(content: bytes) -> None:
    read_text(content)


@given(st.text(alphabet=" \n\t-:?,[]{}&*!|>'\"%@`#<ab0.~\\"))
@settings(max_examples=500)
def test_no_yaml_raises_anything_with_either_parser(text: str) -> None:
    read_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_PARSER", yaml.SafeLoader)
        read_text(text)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
texts = texts.filter(str.isprintable)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_read_as_what_it_is(data: Any) -> None:
    assert read_text(json.dumps(data, ensure_ascii=False)) == ([data], [])
