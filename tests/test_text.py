from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbloader.text
from nbloader.text import format_bytes, format_duration, format_speed


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(nbloader.text).failed == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (57_700_000_000, "57.7 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (3599.6, "1:00:00"),
        (math.inf, "–"),
        (math.nan, "–"),
        (-1, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e15))
def test_bytes_never_take_more_than_seven_characters(count: float) -> None:
    assert len(format_bytes(count)) <= 7


@pytest.mark.parametrize("speed", [None, math.inf, math.nan])
def test_an_unknown_speed_is_a_dash(speed: float | None) -> None:
    assert format_speed(speed) == "– MB/s"
