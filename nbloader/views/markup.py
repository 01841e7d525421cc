"""Pieces of HTML that read well wherever a notebook is shown.

Styles stand inline, and only as an adornment: GitHub strips them, so everything that matters is
text in plain elements. No colour of text is set, so that light and dark themes both fit.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from nbloader.views.base import plain

__all__ = ["bar", "box", "escape", "faint", "fold", "hint", "line", "table"]

# The classes keep MathJax from reading a `$` of a foreign name as a formula (version 2, 3 and up).
_BOX = (
    '<div class="tex2jax_ignore mathjax_ignore" style="font-size:13px;line-height:1.5;'
    'font-variant-numeric:tabular-nums;max-width:60em;overflow-wrap:anywhere">{}</div>'
)
_CELL = "text-align:left;padding:0 1.2em 0 0"
_TABLE = "margin:3px 0;border:0;border-collapse:collapse;font:inherit;color:inherit"


def escape(text: str, limit: int = 300) -> str:
    """Make foreign text fit to stand in HTML, attributes included: one line, bounded."""
    return html.escape(plain(text, limit), quote=True)


def box(parts: Iterable[str]) -> str:
    """Put parts under one another, leaving out the empty ones; nothing at all for none."""
    content = "".join(parts)
    return _BOX.format(content) if content else ""


def line(content: str) -> str:
    """Give markup a line of its own."""
    return f"<div>{content}</div>"


def faint(content: str) -> str:
    """Set markup back."""
    return f'<span style="opacity:0.7">{content}</span>'


def hint(content: str) -> str:
    """Put markup about what to do under what happened; nothing for none."""
    style = "padding-left:1.4em;opacity:0.7"
    return f'<div style="{style}">{content}</div>' if content else ""


def fold(title: str, content: str) -> str:
    """Hide markup behind a title that opens at a click."""
    return f'<details><summary style="cursor:pointer">{title}</summary>{content}</details>'


def bar(share: float, width: str = "100%") -> str:
    """Draw how much is done, from 0 to 1. Shows nothing where styles are stripped."""
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f'<div style="width:{width};height:8px;margin:3px 0;border-radius:4px;overflow:hidden;'
        f'background:rgba(128,128,128,0.25)"><div style="width:{percent:.1f}%;height:8px;'
        f'background:#2f81f7"></div></div>'
    )


def table(rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> str:
    """Lay out rows of cells, which are markup; nothing for no rows."""
    body = "".join(f'<tr style="background:none">{_cells(row, "td")}</tr>' for row in rows)
    if not body:
        return ""
    head = f"<thead><tr>{_cells(heads, 'th')}</tr></thead>" if heads else ""
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>'


def _cells(row: Sequence[str], tag: str) -> str:
    return "".join(f'<{tag} style="{_CELL}">{cell}</{tag}>' for cell in row)
