"""The report of a preflight as text and as HTML: the checks, the components, the placements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nbloader.records import CheckResult, ComponentWeights, Fit, Placement
from nbloader.units import format_bytes
from nbloader.views.base import plain
from nbloader.views.checks import check_lines, check_rows
from nbloader.views.markup import box, escape, faint, line, scrolled, table, whole

__all__ = ["render_html", "render_text"]

MAX_ROWS = 60

_CELL_LIMIT = 120
_REASON_LIMIT = 300
_SHORT = 30
_CHOSEN = "→"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A title, heads of columns, rows of as many cells, and lines below; texts may be foreign."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def render_text(
    results: Sequence[CheckResult], weights: Sequence[ComponentWeights], fit: Fit | None
) -> str:
    """Write the report as lines of text."""
    parts = ["\n".join(check_lines(results)), *map(_lines, _tables(weights, fit))]
    return "\n\n".join(part for part in parts if part)


def render_html(
    results: Sequence[CheckResult], weights: Sequence[ComponentWeights], fit: Fit | None
) -> str:
    """Write the report as static HTML."""
    return box([check_rows(results), *map(_markup, _tables(weights, fit))])


def _tables(weights: Sequence[ComponentWeights], fit: Fit | None) -> list[_Table]:
    tables = []
    if weights:
        tables.append(
            _Table(
                title="Weights as they are stored",
                heads=("component", "bytes", "formats"),
                rows=tuple(map(_weights, weights[:MAX_ROWS])),
            )
        )
    if fit is not None and fit.placements:
        tables.append(
            _Table(
                title=f"Plans, from the fastest to the slowest, for {fit.workload}",
                heads=(
                    "",
                    "plan",
                    "dtype",
                    "VRAM",
                    "RAM while loading",
                    "RAM during inference",
                    "",
                ),
                rows=tuple(_placement(row, fit.chosen) for row in fit.placements if row.components),
                notes=tuple(_others(fit)),
            )
        )
    return tables


def _weights(part: ComponentWeights) -> tuple[str, ...]:
    formats = ", ".join(
        f"{name} {format_bytes(size)}" for name, size in sorted(part.bytes_by_dtype.items())
    )
    quantized = f"; quantized with {part.quantization}" if part.quantization else ""
    about = "" if part.counted else "; sizes of files"
    return part.name, format_bytes(part.total), f"{formats}{quantized}{about}"


def _others(fit: Fit) -> Iterator[str]:
    """Name the methods that were not worked out, those with the same reason in one line."""
    methods: dict[str, list[str]] = {}
    for row in fit.placements:
        if not row.components:
            methods.setdefault(row.reason, []).append(str(row.method))
    for why, names in methods.items():
        yield f"{', '.join(names)}: {why}"


def _placement(row: Placement, chosen: Placement | None) -> tuple[str, ...]:
    mapped = f"{format_bytes(row.mapped)} in place" if row.mapped else ""
    return (
        _CHOSEN if row is chosen else "",
        str(row.method),
        row.dtype,
        _sum(map(_size, row.vram)),
        _sum([_size(row.ram_loading)]),
        _sum([_size(row.ram_after), mapped]),
        row.reason,
    )


def _size(needed: int) -> str:
    return format_bytes(needed) if needed else ""


def _sum(parts: Iterable[str]) -> str:
    return " + ".join(filter(None, parts)) or "–"


def _lines(content: _Table) -> str:
    rows = [tuple(map(plain, row, _limits(row))) for row in content.rows]
    widths = [max(map(len, column)) for column in zip(content.heads, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (content.heads, *rows)
        if content.rows
    ]
    lines += [plain(note, _REASON_LIMIT) for note in content.notes]
    return "\n".join((plain(content.title), *(f"  {text}" for text in lines)))


def _markup(content: _Table) -> str:
    rows = [tuple(map(_cell, row, _limits(row))) for row in content.rows]
    heads = tuple(faint(whole(escape(head))) for head in content.heads)
    notes = "".join(line(escape(note, _REASON_LIMIT)) for note in content.notes)
    return line(f"<b>{escape(content.title)}</b>") + scrolled(table(rows, heads)) + notes


def _limits(row: Sequence[str]) -> list[int]:
    """Give the letters that each cell has room for: the last one holds a reason."""
    return [_CELL_LIMIT] * (len(row) - 1) + [_REASON_LIMIT]


def _cell(cell: str, limit: int) -> str:
    """Write a cell; a short one is not broken in the middle of a word or a number."""
    return whole(escape(cell, limit)) if len(cell) <= _SHORT else escape(cell, limit)
