"""The results of checks and the report of a preflight, as text and as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nbloader.records import CheckResult, CheckStatus, ComponentWeights, Fit, Placement
from nbloader.text import format_bytes, plain
from nbloader.views.markup import box, escape, faint, fold, hint, line, link, scrolled, table, whole
from nbloader.views.words import ICONS

__all__ = ["joint_html", "joint_text", "report_html", "report_text"]

MAX_CHECKS = 30
MAX_ROWS = 60

_NAME_LIMIT = 60
_TEXT_LIMIT = 900
"""Room for a line about every placement that does not fit."""

_CELL_LIMIT = 120
_REASON_LIMIT = 300
_SHORT = 30
_CHOSEN = "→"

_QUIET = frozenset({CheckStatus.PASSED, CheckStatus.SKIPPED})


def checks_lines(results: Sequence[CheckResult]) -> list[str]:
    """Write the results as a part of a job: how many passed, and those that ask for something."""
    return [_summary(results), *check_lines(_loud(results))] if results else []


def checks_markup(results: Sequence[CheckResult]) -> str:
    """Write the results as a part of a job: those that ask for something open, the rest folded."""
    quiet = [result for result in results if result.status in _QUIET]
    passed = f"{ICONS[CheckStatus.PASSED]} {_summary(results)}"
    return check_rows(_loud(results)) + (fold(passed, check_rows(quiet)) if quiet else "")


def _loud(results: Sequence[CheckResult]) -> list[CheckResult]:
    return [result for result in results if result.status not in _QUIET]


def _summary(results: Sequence[CheckResult]) -> str:
    counts = Counter(result.status for result in results)
    text = f"{counts[CheckStatus.PASSED]} of {len(results)} checks passed"
    skipped = counts[CheckStatus.SKIPPED]
    return f"{text}, {skipped} skipped" if skipped else text


def check_lines(results: Sequence[CheckResult]) -> list[str]:
    """Write each result as lines of text."""
    lines = []
    for result in results[:MAX_CHECKS]:
        icon, name = ICONS[result.status], plain(result.name, _NAME_LIMIT)
        lines.append(f"{icon} {name}: {plain(result.message, _TEXT_LIMIT)}")
        if result.hint:
            lines.append(f"  {plain(result.hint, _TEXT_LIMIT)}")
        if result.link and result.link not in result.hint:
            lines.append(f"  {plain(result.link)}")
    if len(results) > MAX_CHECKS:
        lines.append(f"and {len(results) - MAX_CHECKS} more")
    return lines


def check_rows(results: Sequence[CheckResult]) -> str:
    """Write each result as markup."""
    rows = [_row(result) for result in results[:MAX_CHECKS]]
    if len(results) > MAX_CHECKS:
        rows.append(line(f"and {len(results) - MAX_CHECKS} more"))
    return "".join(rows)


def _row(result: CheckResult) -> str:
    """Write what was found, and folded behind it what to do: open if something is to be done."""
    found = f"<b>{escape(result.name, _NAME_LIMIT)}</b>: {escape(result.message, _TEXT_LIMIT)}"
    found = f"{ICONS[result.status]} {found}"
    more = " ".join(filter(None, (escape(result.hint, _TEXT_LIMIT), _link(result))))
    return fold(found, hint(more), opened=result.status not in _QUIET) if more else line(found)


def _link(result: CheckResult) -> str:
    """Link to where it can be mended or read about; only to the web, whatever the link says."""
    if not result.link.startswith("https://"):
        return ""
    href = escape(result.link)
    return link(href, href, ' target="_blank" rel="noopener noreferrer"')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A title, heads of columns, rows of as many cells, and lines below; texts may be foreign."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def report_text(
    results: Sequence[CheckResult], weights: Sequence[ComponentWeights], fit: Fit | None
) -> str:
    """Write the report as lines of text."""
    parts = ["\n".join(check_lines(results)), *map(_lines, _tables(weights, fit))]
    return "\n\n".join(part for part in parts if part)


def report_html(
    results: Sequence[CheckResult], weights: Sequence[ComponentWeights], fit: Fit | None
) -> str:
    """Write the report as static HTML."""
    return box([check_rows(results), *map(_markup, _tables(weights, fit))])


def joint_text(reports: Sequence[tuple[str, str]], together: str) -> str:
    """Write reports of several repositories as lines of text: each under its id, then the sum."""
    parts = []
    for repo_id, text in reports:
        body = "\n".join(f"  {each}".rstrip() for each in text.split("\n"))
        parts.append(f"{plain(repo_id, _NAME_LIMIT)}\n{body}")
    return "\n\n".join([*parts, plain(together, _TEXT_LIMIT)])


def joint_html(reports: Sequence[tuple[str, str]], together: str) -> str:
    """Write reports of several repositories as static HTML, each of which is markup already."""
    parts = [line(f"<b>{escape(together, _TEXT_LIMIT)}</b>")]
    for repo_id, markup in reports:
        parts.append(fold(escape(repo_id, _NAME_LIMIT), markup, opened=True))
    return box(parts)


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
    """Return the letters that each cell has room for: the last one holds a reason."""
    return [_CELL_LIMIT] * (len(row) - 1) + [_REASON_LIMIT]


def _cell(cell: str, limit: int) -> str:
    """Write a cell; a short one is not broken in the middle of a word or a number."""
    return whole(escape(cell, limit)) if len(cell) <= _SHORT else escape(cell, limit)
