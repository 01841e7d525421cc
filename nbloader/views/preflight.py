"""The report of a preflight as text and as HTML: the checks, the components, the placements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from nbloader.records import CheckResult, ComponentWeights, Fit, Placement
from nbloader.units import format_bytes
from nbloader.views.base import plain
from nbloader.views.checks import check_lines, check_rows
from nbloader.views.markup import box, escape, faint, line, table

__all__ = ["render_html", "render_text"]

MAX_ROWS = 60

_CELL_LIMIT = 120
_REASON_LIMIT = 300
_CHOSEN = "→"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A title, the heads of columns, and rows of as many cells; texts may be foreign."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


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
                heads=("", "plan", "dtype", "VRAM", "RAM while loading", "RAM after", ""),
                rows=tuple(_placements(fit)),
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


def _placements(fit: Fit) -> Iterator[tuple[str, ...]]:
    """Give a row for each way that was worked out, and one for those with one reason why not."""
    for why, rows in groupby(fit.placements, key=lambda row: "" if row.components else row.reason):
        if why:
            yield "", ", ".join(str(row.method) for row in rows), "", "", "", "", why
        else:
            yield from (_placement(row, fit.chosen) for row in rows)


def _placement(row: Placement, chosen: Placement | None) -> tuple[str, ...]:
    mapped = f" + {format_bytes(row.mapped)} in place" if row.mapped else ""
    return (
        _CHOSEN if row is chosen else "",
        str(row.method),
        row.dtype,
        " + ".join(format_bytes(needed) for needed in row.vram if needed) or "–",
        format_bytes(row.ram_loading),
        f"{format_bytes(row.ram_after)}{mapped}",
        row.reason,
    )


def _lines(content: _Table) -> str:
    rows = [tuple(plain(cell, _limit(row, cell)) for cell in row) for row in content.rows]
    full = [row for row in rows if all(row[1:])]  # the others run on over the columns
    widths = [max(map(len, column)) for column in zip(content.heads, *full, strict=True)]
    lines = [_line(row, widths) for row in (content.heads, *rows)]
    return "\n".join((plain(content.title), *lines))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    if not all(row[1:-1]):
        return f"  {row[0]:<{widths[0]}}  {row[1]}: {row[-1]}"
    cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
    return f"  {'  '.join(cells)}".rstrip()


def _markup(content: _Table) -> str:
    rows = [tuple(escape(cell, _limit(row, cell)) for cell in row) for row in content.rows]
    title = line(f"<b>{escape(content.title)}</b>")
    return title + table(rows, tuple(faint(head) for head in content.heads))


def _limit(row: Sequence[str], cell: str) -> int:
    return _REASON_LIMIT if cell is row[-1] else _CELL_LIMIT
