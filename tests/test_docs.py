"""What pages take from the code is all there, and says something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import PARTS, STORED, filled
from docs.generate.errors import causes_and_cures, every_error
from docs.generate.limits import NOT_LIMITS, constants, reasons, watchers
from nbloader import Settings, limits
from nbloader.errors import NbloaderError

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
GROUPS = {
    "NbloaderError",
    "InputError",
    "RepoError",
    "PreflightError",
    "TransferError",
    "LoadError",
}


def test_every_part_stands_on_a_page() -> None:
    marks = [
        mark
        for page in PAGES
        for mark in re.findall(r"<!-- generated: ([a-z-]+) -->", page.read_text("utf-8"))
    ]
    assert sorted(marks) == sorted(PARTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_hold_what_is_generated(page: Path) -> None:
    """`python -m docs.generate` writes it."""
    text = page.read_text("utf-8")
    assert filled(text, STORED) == text


def test_a_mark_that_names_nothing_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled("<!-- generated: nothing -->\n<!-- end -->")


def test_every_setting_stands_in_the_table_with_its_variable() -> None:
    text = PARTS["settings"]()
    for name in Settings.model_fields:
        assert f"| `{name}`<br>`NBLOADER_{name.upper()}` |" in text


def test_a_setting_that_is_a_number_has_a_unit() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float, float | None):
            assert isinstance(field.json_schema_extra, dict), name
            assert field.json_schema_extra["unit"], name


@pytest.mark.parametrize(
    "kind",
    [each for each in every_error() if each.__name__ not in GROUPS],
    ids=lambda x: x.__name__,
)
def test_an_error_says_what_to_do(kind: type[NbloaderError]) -> None:
    said = causes_and_cures(kind)
    assert "Cure" in said
    assert all(text.endswith(".") for text in said.values())
    assert f"`{kind.reference}`\n" in PARTS["errors"]()


def test_every_constant_in_seconds_is_a_limit_or_known_as_none() -> None:
    source = (ROOT / "docs/generate/limits.py").read_text("utf-8")
    named = set(re.findall(r'"(\w+_S)"', source))
    found = {name for _, name in constants()} - {name for name, _, _ in reasons()}
    assert {name for name in found - named if not NOT_LIMITS.fullmatch(name)} == set()


def test_every_limit_of_the_transfer_has_its_reason() -> None:
    every = {name for name in vars(limits) if name.isupper()}
    assert {name for name, _, _ in reasons()} == every
    assert all(reason.endswith(".") for _, _, reason in reasons())


def test_limits_stand_in_their_order() -> None:
    for watcher in watchers():
        seconds = [limit.seconds for limit in watcher.limits]
        assert seconds == sorted(seconds), watcher.name


def test_every_room_of_the_package_is_named() -> None:
    page = (ROOT / "docs/how-it-is-built.md").read_text("utf-8")
    rooms = {
        f"`{path.name}/`" if path.is_dir() else f"`{path.stem}`"
        for path in (ROOT / "nbloader").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {room for room in rooms - {"`__init__`", "`_version`"} if room not in page} == set()
