"""The pages that are read on a code host: their links lead somewhere, and their commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.notebook_heads import PAGES as HERE
from tests.notebook_heads import badges
from tests.notebook_runs import NOTEBOOKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))

LINK = re.compile(r"(?:\]\(|src=\"|srcset=\")([^)\"\s]+)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block, by its language and its lines."""


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


def test_the_readme_opens_the_first_tutorial_elsewhere() -> None:
    assert badges("01_embeddings.ipynb") in README


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_every_tutorial_is_named(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name})" not in text] == []


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 800


def cells(text: str, row: str) -> list[str]:
    """Return the cells of the first row of a table that begins so."""
    (line, *_) = [line for line in text.splitlines() if line.startswith(f"| {row}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_its_figures_are_those_of_the_pages_that_have_them() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for row in ("killed at 50 %", "the same, 120 MB", "every answer cut", "one answer goes silent"):
        assert cells(README, row) == cells(benchmarks, row)
    speed = {
        name: int(cells(benchmarks, f"{name} |")[1])
        for way in ("HTTP", "Xet")
        for name in (f"nbloader, {way}", f"snapshot_download, {way}")
    }
    over_http, over_xet = (
        speed[f"nbloader, {way}"] / speed[f"snapshot_download, {way}"] for way in ("HTTP", "Xet")
    )
    assert f"{over_http:.1f} times the speed of `snapshot_download` over HTTP" in README
    assert f"{over_xet:.2f} times over Xet" in README

    table = (ROOT / "tests" / "fit" / "placements.md").read_text("utf-8")
    vram, total = cells(table, "SDXL, fp16 | gpu")[3].split(" of ")
    assert f"{vram} of a T4's {total} GB" in README

    compared = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
    kinds = ("classes", "diffusers", "sentence-transformers", "transformers")
    assert f"{sum(int(cells(compared, kind)[1]) for kind in kinds)} models were" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_make_is_one(page: Path) -> None:
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text("utf-8")
    named = re.findall(r"(?:`|^)make ((?:[a-z-]+ ?)+)", text, re.MULTILINE)
    assert {name for names in named for name in names.split()} <= known
