"""The list of errors: every reference with its class, what it means, its usual cause and cure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from nbloader import errors
from nbloader.errors import NbloaderError

__all__ = ["causes_and_cures", "every_error", "markdown"]

_PART = re.compile(r"^(Cause|Cure): (.*)$", re.MULTILINE)


def every_error() -> Iterator[type[NbloaderError]]:
    """Yield the classes of `nbloader.errors`, each before those that are kinds of it."""
    yield from _tree(NbloaderError)


def causes_and_cures(kind: type[NbloaderError]) -> dict[str, str]:
    """Return what the documentation of an error says, by "Cause" and "Cure"."""
    return dict(_PART.findall(inspect.getdoc(kind) or ""))


def markdown() -> str:
    """Return a section for each group of errors, and in it one for each reference."""
    parts = []
    for kind in every_error():
        if kind is NbloaderError:
            continue
        title = "##" if NbloaderError in kind.__bases__ else "###"
        said = causes_and_cures(kind)
        parents = [base.__name__ for base in kind.__bases__]
        parts += [
            f"{title} `{kind.reference}`",
            f"`{kind.__name__}`, a kind of {' and '.join(f'`{name}`' for name in parents)}. "
            f"{_meaning(kind)}",
            *(f"**{name}**: {text}" for name, text in said.items()),
        ]
    return "\n\n".join(parts)


def _meaning(kind: type[NbloaderError]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _tree(root: type[NbloaderError]) -> Iterator[type[NbloaderError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)
