"""The pages that are read on a code host: their links lead somewhere, and their commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))

LINK = re.compile(r"(?:\]\(|src=\"|srcset=\")([^)\"\s]+)")
HERE = "https://github.com/nbloader/nbloader/blob/main/"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def targets(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return [target for target in LINK.findall(text) if not target.startswith("#")]


def anchors(page: Path) -> set[str]:
    """Return the names that a code host gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_project_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in targets(page):
        path, _, anchor = target.removeprefix(HERE).partition("#")
        if "://" in path:
            continue
        found = ((ROOT if target.startswith(HERE) else page.parent) / unquote(path)).resolve()
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 800


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_make_is_one(page: Path) -> None:
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text("utf-8")
    named = re.findall(r"(?:`|^)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    assert {name for names in named for name in names.split()} <= known
