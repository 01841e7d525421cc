"""Pieces of HTML that read well wherever a notebook is shown.

Styles stand inline, and only as an adornment: GitHub strips them, so everything that matters is
text in plain elements. No colour of text is set but by a variable of the theme that falls back to
the colour around it, so that light and dark themes both fit.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from nbloader.records import CheckStatus
from nbloader.text import plain, printable

# The classes keep MathJax from reading a `$` of a foreign name as a formula (version 2, 3 and up).
_NO_FORMULA = 'class="tex2jax_ignore mathjax_ignore"'
_BOX = (
    f'<div {_NO_FORMULA} style="font-size:13px;line-height:1.5;'
    'font-variant-numeric:tabular-nums;max-width:60em;overflow-wrap:anywhere">{}</div>'
)
_CELL = "text-align:left;vertical-align:top;padding:0 1.2em 0 0"
_TABLE = "margin:3px 0;border:0;border-collapse:collapse;font:inherit;color:inherit"
_COLUMN = ' scope="col"'
_BLOCK = "display:block;width:100%;margin:4px 0;border:0;font:inherit;color:inherit"
# JupyterLab pads rows, too, which tells only where they are no rows of a table.
_ROW = "display:flex;flex-wrap:wrap;column-gap:1em;padding:0;background:none"
_PASTED = "margin:3px 0;white-space:pre-wrap;overflow-wrap:anywhere;background:none;color:inherit"
_ADDRESS = re.compile(r"(https://[\w./?=&%#:~+-]*[\w/])")
_UNSEEN = (
    "position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;"
    "clip-path:inset(50%);white-space:nowrap"
)


def escape(text: str, limit: int = 300) -> str:
    """Make foreign text fit to stand in HTML, attributes included: one line, bounded."""
    return html.escape(plain(text, limit), quote=True)


def inset(content: str) -> str:
    """Set markup in below its title."""
    return f'<div style="padding-left:1.1em">{content}</div>' if content else ""


def box(parts: Iterable[str]) -> str:
    """Put parts under one another, leaving out the empty ones; nothing at all for none."""
    content = "".join(parts)
    return _BOX.format(content) if content else ""


def line(content: str) -> str:
    """Put markup on a line of its own."""
    return f"<div>{content}</div>"


def faint(content: str) -> str:
    """Set markup back."""
    return f'<span style="opacity:0.7">{content}</span>'


def hint(content: str) -> str:
    """Put markup about what to do under what happened; nothing for none."""
    style = "padding-left:1.4em;opacity:0.7"
    return f'<div style="{style}">{content}</div>' if content else ""


def fold(title: str, content: str, *, opened: bool = False) -> str:
    """Hide markup behind a title that opens at a click."""
    tag = "details open" if opened else "details"
    # The classic notebook takes the mark away that shows whether it is open.
    style = "display:list-item;list-style-position:inside;cursor:pointer"
    return f'<{tag}><summary style="{style}">{title}</summary>{content}</details>'


def code_marked(text: str, limit: int = 900) -> str:
    """Write foreign lines with their code in code marks, and with links that are links.

    Code stands between backticks, or is a whole line after the first one, which is to be pasted.
    """
    first, *others = [plain(each, limit) for each in printable(text[:limit]).split("\n")] or [""]
    said = "".join(
        f"<code>{html.escape(piece)}</code>" if number % 2 else _linked(piece)
        for number, piece in enumerate(first.split("`"))
    )
    pasted = "".join(
        line(_linked(each) if each.endswith(".") else f"<code>{html.escape(each)}</code>")
        for each in others
        if each
    )
    return said + pasted


def pasted(text: str) -> str:
    """Write text that is to be pasted: its spaces and lines as they are, in the width of the page.

    Args:
        text: printable, and of bounded length.
    """
    return f'<pre style="{_PASTED}">{html.escape(text, quote=True)}</pre>'


def _linked(text: str) -> str:
    """Make a link of each address of the web in a text of one line."""
    return "".join(
        web_link(piece) if number % 2 else html.escape(piece)
        for number, piece in enumerate(_ADDRESS.split(text))
    )


def whole(content: str) -> str:
    """Keep markup on one line."""
    return f'<span style="white-space:nowrap">{content}</span>'


def link(href: str, content: str, more: str = "") -> str:
    """Link to a page or a file; `href` is escaped already, and `more` holds other attributes."""
    # Widgets do not get the theme's colour for links by themselves.
    style = "color:var(--jp-content-link-color,inherit);text-decoration:underline"
    return f'<a href="{href}"{more} style="{style}">{content}</a>'


def web_link(address: str) -> str:
    """Link to a foreign address of the web, which opens beside the notebook."""
    href = escape(address)
    return link(href, href, ' target="_blank" rel="noopener noreferrer"')


def scrolled(content: str) -> str:
    """Let markup that is too wide be scrolled, and not what stands around it."""
    return f'<div style="overflow-x:auto">{content}</div>' if content else ""


def unseen(content: str) -> str:
    """Say something to those who listen to the page only."""
    return f'<div {_NO_FORMULA} role="status" aria-live="polite" style="{_UNSEEN}">{content}</div>'


_STATUS_COLORS: Mapping[CheckStatus, str] = MappingProxyType(
    {
        CheckStatus.PASSED: "var(--jp-success-color1,#2da44e)",
        CheckStatus.WARNING: "var(--jp-warn-color1,#bf8700)",
        CheckStatus.FAILED: "var(--jp-error-color1,#d1434b)",
        CheckStatus.SKIPPED: "rgba(128,128,128,0.5)",
    }
)
"""Of a strip. A mark, which is text, has it for what failed alone: the green and the amber of the
themes are too light to be read on white."""


def strip(content: str, status: CheckStatus) -> str:
    """Put markup behind a strip in the colour of a status; the text keeps its own."""
    style = f"border-left:3px solid {_STATUS_COLORS[status]};padding-left:0.7em;margin:2px 0 4px 0"
    return f'<div style="{style}">{content}</div>'


def marked(icon: str, status: CheckStatus) -> str:
    """Write the mark of a status."""
    if status is not CheckStatus.FAILED:
        return icon
    color = _STATUS_COLORS[status].partition(",")[0]
    return f'<span style="color:{color},inherit)">{icon}</span>'


def bar(
    share: float,
    label: str,
    value: str,
    *,
    color: str = "var(--jp-brand-color1,#2f81f7)",
    height: int = 6,
) -> str:
    """Draw how much is done, from 0 to 1. Shows nothing where styles are stripped.

    Args:
        label, value: what is measured and how much of it is done, for those who hear the page;
            escaped already.
        height: pixels.
    """
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f'<div role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}" aria-valuetext="{value}" '
        f'style="flex:1 1 3em;min-width:0;height:{height}px;margin:3px 0;border-radius:3px;'
        'overflow:hidden;background:rgba(128,128,128,0.25)">'
        f'<div style="width:{percent:.1f}%;height:{height}px;background:{color}"></div></div>'
    )


def table(rows: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> str:
    """Lay out rows of cells, which are markup; nothing for no rows."""
    body = "".join(f'<tr style="background:none">{_cells(row, "td")}</tr>' for row in rows)
    if not body:
        return ""
    head = f"<thead><tr>{_cells(heads, 'th', _COLUMN)}</tr></thead>" if heads else ""
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>'


def grid(rows: Iterable[str], label: str) -> str:
    """Lay out rows of `cell`s that wrap where the page is narrow; nothing for no rows.

    It is a table to those who hear the page, and where styles are stripped.

    Args:
        label: what the rows are.
    """
    body = "".join(f'<tr role="row" style="{_ROW}">{row}</tr>' for row in rows)
    if not body:
        return ""
    return (
        f'<table role="table" aria-label="{label}" style="{_BLOCK}">'
        f'<tbody role="rowgroup" style="display:block">{body}</tbody></table>'
    )


def cell(content: str, width: str, style: str = "") -> str:
    """Write a cell of a `grid`.

    Args:
        width: as CSS's `flex` takes it.
    """
    return (
        f'<td role="cell" style="flex:{width};min-width:0;padding:0;border:0;text-align:left;'
        f'line-height:1.5;max-width:none;{style}">{content}</td>'
    )


def spread(left: str, right: str) -> str:
    """Put two texts at both ends of a `cell`; where styles are stripped, a comma is between."""
    return (
        f'<span style="flex:1 1 6em;white-space:nowrap;opacity:0.7">{left}</span>'
        '<span style="font-size:0">, </span>'
        f'<span style="flex:0 1 10em;white-space:nowrap;text-align:right">{right}</span>'
    )


def _cells(row: Sequence[str], tag: str, more: str = "") -> str:
    return "".join(f'<{tag}{more} style="{_CELL}">{content}</{tag}>' for content in row)
