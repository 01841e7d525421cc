"""What a saved notebook shows where there is no kernel: on GitHub, in nbviewer, in nbconvert."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat

__all__ = ["WIDGET_MIME", "assert_static", "converted", "figures_in_order", "stripped"]

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
CONVERT_TIMEOUT_S = 60


def assert_static(saved: Any, cell: int) -> None:
    """The outputs of a cell need no kernel and no script, and the file holds no widget's state."""
    views = [output for output in saved.cells[cell].outputs if "data" in output]
    assert views, f"the cell shows nothing: {saved.cells[cell].outputs}"
    for output in views:
        assert set(output.data) == {"text/html", "text/plain"}, f"it shows {set(output.data)}"
        assert "<script" not in output.data["text/html"]
    text = nbformat.writes(saved)
    assert WIDGET_MIME not in text
    assert "widgets" not in saved.metadata, f"the file holds {saved.metadata['widgets']}"
    assert "widget-state" not in text


def figures_in_order(saved: Any, cell: int, python: Path, texts: Sequence[str]) -> None:
    """The texts stand in this order in what nbconvert makes, and in what GitHub leaves of it."""
    html = "".join(
        output.data["text/html"] for output in saved.cells[cell].outputs if "data" in output
    )
    pattern = ".*".join(map(re.escape, texts))
    for place, text in (
        ("nbconvert's page", stripped(converted(saved, python))),
        ("the page without styles", stripped(html)),
    ):
        assert re.search(pattern, text, re.DOTALL), f"{place} reads:\n{text}"


def converted(saved: Any, python: Path) -> str:
    """Return the page that nbconvert makes of a notebook."""
    done = subprocess.run(
        [str(python), "-m", "nbconvert", "--to", "html", "--stdin", "--stdout"],
        input=str(nbformat.writes(saved)),
        capture_output=True,
        check=True,
        text=True,
        timeout=CONVERT_TIMEOUT_S,
    )
    return done.stdout


def stripped(html: str) -> str:
    """Return the text that is left where styles, classes, drawings and scripts are taken out.

    That is what GitHub does, which also takes out links to `data:`.
    """
    reader = _Reader()
    reader.feed(html)
    return re.sub(r"[ \t]*\n\s*", "\n", "".join(reader.found)).strip()


class _Reader(HTMLParser):
    """Reads the text of a page as a browser without any style would lay it out."""

    _BLOCKS = frozenset(
        {"br", "details", "div", "h1", "h2", "h3", "h4", "li", "p", "pre", "summary", "table", "tr"}
    )
    _LEFT_OUT = frozenset({"svg", "script", "style", "head"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._LEFT_OUT:
            self._depth += 1
        elif tag in self._BLOCKS:
            self.found.append("\n")
        elif tag in {"td", "th"}:
            self.found.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._LEFT_OUT:
            self._depth = max(0, self._depth - 1)
        elif tag in self._BLOCKS:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._depth:
            self.found.append(data)
