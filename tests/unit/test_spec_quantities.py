"""Sizes, as written and as bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic_runner.spec.quantities import LARGEST, SMALLEST, SizeError, format_size, parse_size


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("512m", 512 * 2**20),
        ("8g", 8 * 2**30),
        ("1t", 2**40),
        ("4G", 4 * 2**30),
        ("2048k", 2 * 2**20),
        (4294967296, 4 * 2**30),
        ("4294967296", 4 * 2**30),
    ],
)
def test_a_size_means_binary_multiples(written: object, count: int) -> None:
    assert parse_size(written) == count


@given(st.integers(SMALLEST, LARGEST))
def test_every_size_survives_being_written_and_read(count: int) -> None:
    assert parse_size(format_size(count)) == count


@given(st.integers(1, 1023), st.sampled_from("gt"))
def test_a_size_is_written_as_people_would(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert format_size(parse_size(text)) == text


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans()))
def test_anything_else_is_refused_in_one_way(value: Any) -> None:
    with contextlib.suppress(SizeError):
        assert SMALLEST <= parse_size(value) <= LARGEST


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        (4, "is less than 1 MiB", 'Did you mean "4g"?'),
        ("4", "is less than 1 MiB", 'Did you mean "4g"?'),
        (0, "is less than 1 MiB", None),
        (-5, "is less than 1 MiB", None),
        ("1k", "is less than 1 MiB", None),
        (True, "must be a size such as 512m, 8g or 1t", None),
        (1.5, "must be a size such as 512m, 8g or 1t", None),
        ("1.5g", "must be a size such as 512m, 8g or 1t", 'Did you mean "1536m"?'),
        ("4 GB", "must be a size such as 512m, 8g or 1t", 'Did you mean "4g"?'),
        ("2GiB", "must be a size such as 512m, 8g or 1t", 'Did you mean "2g"?'),
        ("1.1g", "must be a size such as 512m, 8g or 1t", 'Did you mean "1126m"?'),
        ("lots", "must be a size such as 512m, 8g or 1t", None),
        ("٤g", "must be a size such as 512m, 8g or 1t", None),
        ("2000000t", "is larger than 1 EiB (1048576t)", None),
        (2**63, "is larger than 1 EiB (1048576t)", None),
    ],
)
def test_a_wrong_size_is_refused_with_what_was_meant(
    written: object, message: str, hint: str | None
) -> None:
    with pytest.raises(SizeError) as caught:
        parse_size(written)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_number_too_long_to_be_written_out_is_refused() -> None:
    with pytest.raises(SizeError, match="larger"):
        parse_size(10**5000)
