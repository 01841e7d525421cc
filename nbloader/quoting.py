"""Foreign names in the texts of errors."""

from __future__ import annotations

__all__ = ["quote"]


def quote(name: object) -> str:
    """Give a foreign name as a literal: escaped, in quotes, at most about 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
