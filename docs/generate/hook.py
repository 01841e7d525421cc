"""The hook by which mkdocs has pages filled."""

from __future__ import annotations

from typing import Any

from docs.generate import filled

__all__ = ["on_page_markdown"]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page as the site shows it; mkdocs calls this for each."""
    return filled(markdown)
