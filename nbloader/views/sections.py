"""Reports that show themselves in a notebook; sections with rows, as text, HTML and JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbloader.text import plain
from nbloader.views.markup import box, escape, fold, table

NAME_LIMIT = 120
TEXT_LIMIT = 600
_WIDEST_NAME = 44
"""Longer names of a section do not push its texts to the right."""


class ShownReport(ABC):
    """Shows itself in a notebook as HTML, and as its `str` where there is only text."""

    __slots__ = ()

    @abstractmethod
    def _repr_html_(self) -> str:
        """Return the report as static HTML."""

    def __init_subclass__(cls) -> None:
        # IPython goes up the classes, and at each takes `__repr__`, which a dataclass has of its
        # own, before it looks at what the next one has.
        cls._repr_pretty_ = ShownReport._repr_pretty_  # type: ignore[method-assign]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{type(self).__name__}(...)" if cycle else str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding.

    Attributes:
        name: of what; may come from elsewhere, and so may `text`.
        text: what was found, as people read it.
        data: the same as plain values, for `json.dumps`.
    """

    name: str
    text: str
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows that belong together.

    Attributes:
        key: its name in JSON.
        title: its name for people.
        total: what its rows come to, in a few words, for where they are folded away; may be empty.
        opened: whether its rows are shown at once even there.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    total: str = ""
    opened: bool = False


class SectionsReport(ShownReport):
    """A report whose three forms are made of its sections."""

    __slots__ = ()

    @abstractmethod
    def sections(self) -> tuple[Section, ...]:
        """Return the report as rows, from which all its forms are made."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values for `json.dumps`."""
        return sections_json(self.sections())

    def __str__(self) -> str:
        return sections_text(self.sections())

    def _repr_html_(self) -> str:
        return sections_html(self.sections())


def sections_text(sections: Iterable[Section]) -> str:
    """Write sections as text; one without rows is left out."""
    return "\n\n".join(_lines(section) for section in sections if section.rows)


def _lines(section: Section) -> str:
    names = [plain(row.name, NAME_LIMIT) for row in section.rows]
    width = max((len(name) for name in names if len(name) <= _WIDEST_NAME), default=0)
    rows = (
        f"  {name:<{width}}  {plain(row.text, TEXT_LIMIT)}".rstrip()
        for name, row in zip(names, section.rows, strict=True)
    )
    return "\n".join((plain(section.title), *rows))


def sections_html(sections: Iterable[Section], before: str = "", after: str = "") -> str:
    """Write sections as static HTML, each behind its title, between two pieces of markup."""
    folds = (
        fold(
            _title(section),
            table(
                (escape(row.name, NAME_LIMIT), escape(row.text, TEXT_LIMIT)) for row in section.rows
            ),
            opened=section.opened,
        )
        for section in sections
        if section.rows
    )
    return box((before, *folds, after))


def _title(section: Section) -> str:
    title = f"<b>{escape(section.title)}</b>"
    return f"{title}: {escape(section.total)}" if section.total else title


def sections_json(sections: Iterable[Section]) -> dict[str, Any]:
    """Return sections as plain values: a row by its name, `text` beside the values it has."""
    return {section.key: _rows(section.rows) for section in sections}


def _rows(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        name, number = plain(row.name, NAME_LIMIT), 1
        while (key := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        text = plain(row.text, TEXT_LIMIT)
        found[key] = text if row.data is None else {"text": text, **row.data}
    return found
