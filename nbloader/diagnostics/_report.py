"""The report of `doctor`, as text, HTML and JSON with the same content."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbloader.quoting import plain
from nbloader.redaction import Redactor
from nbloader.sections import Row, Section, sections_html, sections_json, sections_text
from nbloader.units import format_duration

__all__ = ["DoctorReport", "fenced", "redacted_sections"]

PASTE = "To paste into a report of a problem:"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """Versions, facts, checks and the last jobs. `str` of it ends with a block to paste.

    Attributes:
        sections: the findings, without secrets.
        issue: the same, shorter, in fenced Markdown.
        seconds: how long it took to gather them.
    """

    sections: tuple[Section, ...]
    issue: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values for `json.dumps`."""
        return {
            **sections_json(self.sections),
            "issue": self.issue,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        took = f"Gathered in {format_duration(self.seconds)}."
        return f"{sections_text(self.sections)}\n\n{took} {PASTE}\n\n{self.issue}"

    def _repr_html_(self) -> str:
        took = f"Gathered in {format_duration(self.seconds)}. {PASTE}"
        block = html.escape(self.issue, quote=True)
        return sections_html(self.sections, after=f"<div>{took}</div><pre>{block}</pre>")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("DoctorReport(...)" if cycle else str(self))


def redacted_sections(sections: Iterable[Section], redact: Redactor) -> tuple[Section, ...]:
    """Take secrets and names out of all that sections hold."""
    return tuple(
        replace(
            section,
            title=redact(section.title),
            total=redact(section.total),
            rows=tuple(
                Row(
                    name=redact(row.name),
                    text=redact(row.text),
                    data=None if row.data is None else _redacted(row.data, redact),
                )
                for row in section.rows
            ),
        )
        for section in sections
    )


def _redacted(value: Any, redact: Redactor) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _redacted(each, redact) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each, redact) for each in value]
    return value


def fenced(lines: Sequence[str]) -> str:
    """Put lines into a block of Markdown that no line of them can end."""
    text = "\n".join(plain(line, 400) for line in lines)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
