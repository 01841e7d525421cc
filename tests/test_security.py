"""The page about security: what it says is bounded is, and the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

from nbloader import bounds

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")
_UNITS = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20}


def test_every_bound_is_on_the_page() -> None:
    rows = re.findall(r"^\| ([\d,]+)( KiB| MiB)? \| .*\(`(\w+)`\) \|$", PAGE, re.MULTILINE)
    told = {name: int(number.replace(",", "")) * _UNITS[unit] for number, unit, name in rows}
    assert told == {name: value for name, value in vars(bounds).items() if name.isupper()}


def test_the_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", PAGE)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
