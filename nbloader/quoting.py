"""Foreign names and texts in the texts of errors and views."""

from __future__ import annotations

__all__ = ["plain", "printable", "quote"]


def quote(name: object) -> str:
    """Give a foreign name as a literal: escaped, in quotes, at most about 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def plain(text: str, limit: int = 300) -> str:
    """Make foreign text fit for one line: bounded, printable, with single blanks."""
    text = " ".join(printable(text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """Give the lines of foreign text, with a blank for every character that cannot be printed.

    Unicode counts as unprintable what steers a terminal or the direction of text, what cannot be
    seen, and halves of surrogate pairs, which JSON can carry and UTF-8 cannot. Whatever breaks a
    line becomes a line feed; one at the end is left out.
    """
    if text.isprintable():
        return text
    return "\n".join(
        "".join(character if character.isprintable() else " " for character in line)
        for line in text.splitlines()
    )
