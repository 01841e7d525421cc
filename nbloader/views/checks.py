"""The results of checks as text and as HTML: the verdict first, then what asks for something.

What passed is one line: folded in HTML, and named in text. What was not checked is folded with it,
and counted in text; its causes are told where something asks for attention, and may follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nbloader.records import (
    CheckResult,
    CheckStatus,
    ComponentWeights,
    Failed,
    Fit,
    Placement,
)
from nbloader.text import format_bytes, plain
from nbloader.views.markup import (
    box,
    code_marked,
    escape,
    faint,
    fold,
    hint,
    inset,
    line,
    marked,
    scrolled,
    strip,
    table,
    web_link,
    whole,
)
from nbloader.views.verdict import (
    Report,
    Verdict,
    joint_verdict,
    room,
    shared_failures,
    verdict,
)
from nbloader.views.words import ICONS, counted

__all__ = ["Report", "joint_html", "joint_text", "report_html", "report_text"]

MAX_CHECKS = 30
MAX_ROWS = 60

_NAME_LIMIT = 60
_REPO_LIMIT = 100
_TEXT_LIMIT = 900
"""Room for a line about every placement that does not fit."""

_CELL_LIMIT = 120
_REASON_LIMIT = 300
_SHORT = 30

_LOUD = frozenset({CheckStatus.FAILED, CheckStatus.WARNING})


# -- the checks as a part of a job -----------------------------------------------------------------


def checks_lines(
    results: Sequence[CheckResult], fit: Fit | None = None, failure: Failed | None = None
) -> list[str]:
    """Write the results as a part of a job: those that ask for something, and one line for others.

    Args:
        fit: of the model, to tell what it takes of the machine.
        failure: what the job has ended with; it tells that itself.
    """
    loud = _loud(results, failure)
    return [*check_lines(loud), *([_summary(results, fit)] if results else [])]


def checks_markup(
    results: Sequence[CheckResult], fit: Fit | None = None, failure: Failed | None = None
) -> str:
    """Write the same as HTML. Arguments are those of `checks_lines`."""
    if not results:
        return ""
    rows = check_rows(_passed(results)) + _not_checked_markup(results)
    summary = escape(_summary(results, fit))
    loud = _loud(results, failure)
    return check_rows(loud) + (fold(summary, rows) if rows else line(summary))


def count_made(results: Sequence[CheckResult]) -> int:
    """Return how many of the checks were made, whatever they found."""
    return sum(each.status is not CheckStatus.SKIPPED for each in results)


def _loud(results: Sequence[CheckResult], failure: Failed | None = None) -> list[CheckResult]:
    """Return what asks for something, failures first."""
    told = failure.message if failure else None
    loud = [each for each in results if each.status in _LOUD and each.message != told]
    return sorted(loud, key=lambda each: each.status is not CheckStatus.FAILED)


def _passed(results: Sequence[CheckResult]) -> list[CheckResult]:
    return [each for each in results if each.status is CheckStatus.PASSED]


def _summary(results: Sequence[CheckResult], fit: Fit | None) -> str:
    """Say how many passed, and what the model takes of the machine."""
    takes = room(fit)
    return _passed_words(results) + (f" · {takes}" if takes else "")


def _passed_words(results: Sequence[CheckResult]) -> str:
    mark = ICONS[CheckStatus.PASSED]
    return f"{mark} {counted(len(_passed(results)), 'check', 'checks')} passed"


# -- results in rows -------------------------------------------------------------------------------


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
    found = f"<b>{escape(result.name, _NAME_LIMIT)}</b>: {_prose(result.message)}"
    found = f"{marked(ICONS[result.status], result.status)} {found}"
    more = _cure_markup(result)
    return fold(found, hint(more), opened=result.status in _LOUD) if more else line(found)


def _cure_markup(result: CheckResult) -> str:
    """Write what to do about it, and where."""
    return " ".join(filter(None, (code_marked(result.hint, _TEXT_LIMIT), _link(result))))


def _prose(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Write a foreign text of one line with its code in code marks."""
    return code_marked(plain(text, limit), limit)


def _link(result: CheckResult) -> str:
    """Link to where it can be mended or read about, if the hint does not; only to the web."""
    if not result.link.startswith("https://") or result.link in result.hint:
        return ""
    return web_link(result.link)


def _not_checked(results: Sequence[CheckResult]) -> list[tuple[str, str]]:
    """Return what was not checked by its causes: names, and the cause of all of them."""
    skipped = (each for each in results if each.status is CheckStatus.SKIPPED)
    return _by_cause((each.name, each.message) for each in skipped)


def _by_cause(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put the names of those with the same cause together, in the order of the causes."""
    causes: dict[str, list[str]] = {}
    for name, cause in found:
        causes.setdefault(cause, []).append(name)
    return [(", ".join(names), cause) for cause, names in causes.items()]


def _not_checked_line(results: Sequence[CheckResult]) -> list[str]:
    """Write it as a line, with the causes where a check failed or warns; none for nothing."""
    mark = ICONS[CheckStatus.SKIPPED]
    if not _loud(results):
        count = len(results) - count_made(results)
        return [f"{mark} {count} not checked"] if count else []
    found = [
        f"{plain(names, _TEXT_LIMIT)} ({plain(cause, _REASON_LIMIT)})"
        for names, cause in _not_checked(results)
    ]
    return [f"{mark} not checked: {', '.join(found)}"] if found else []


def _not_checked_markup(results: Sequence[CheckResult]) -> str:
    found = [
        f"{escape(names, _TEXT_LIMIT)} {faint(f'({_prose(cause, _REASON_LIMIT)})')}"
        for names, cause in _not_checked(results)
    ]
    mark = ICONS[CheckStatus.SKIPPED]
    return line(f"{mark} {faint('not checked:')} {', '.join(found)}") if found else ""


# -- a report --------------------------------------------------------------------------------------


def report_text(report: Report, *, told: Sequence[CheckResult] = ()) -> str:
    """Write a report as lines of text.

    Args:
        told: failures that are told elsewhere, because other repositories share them.
    """
    found = verdict(report, told=told)
    results = report.results
    lines = _verdict_lines(found)
    lines += check_lines(_rest(found, results, told))
    if passed := _passed(results):
        names = ", ".join(plain(each.name, _NAME_LIMIT) for each in passed[:MAX_CHECKS])
        lines.append(f"{_passed_words(results)}: {names}")
    lines += _not_checked_line(results)
    return "\n\n".join(["\n".join(lines), *map(_lines, _tables(report))])


def report_html(report: Report, *, told: Sequence[CheckResult] = ()) -> str:
    """Write a report as static HTML. Arguments are those of `report_text`."""
    found = verdict(report, told=told)
    return box([_verdict_markup(found), *_details(report, found, told)])


def _details(report: Report, found: Verdict, told: Sequence[CheckResult]) -> Iterator[str]:
    """Write what stands below the verdict."""
    results = report.results
    yield check_rows(_rest(found, results, told))
    skipped = len(results) - count_made(results)
    if passed := _passed(results):
        title = _passed_words(results) + (f" · {skipped} not checked" if skipped else "")
        yield fold(title, check_rows(passed) + _not_checked_markup(results))
    else:
        yield _not_checked_markup(results)
    yield from map(_markup, _tables(report))


def _rest(
    found: Verdict, results: Sequence[CheckResult], told: Sequence[CheckResult]
) -> list[CheckResult]:
    """Return what asks for something and is not told yet."""
    return [each for each in _loud(results) if each is not found.failure and each not in told]


def _verdict_lines(found: Verdict) -> list[str]:
    what = f" ({plain(found.what, _CELL_LIMIT)})" if found.what else ""
    subject, says = plain(found.subject, _REPO_LIMIT), plain(found.says, _TEXT_LIMIT)
    return [
        f"{ICONS[found.status]} {subject}{what} {says}",
        *(f"  {plain(each, _TEXT_LIMIT)}" for each in _cure(found) if each),
    ]


def _verdict_markup(found: Verdict) -> str:
    return strip(_sentence(found) + _cure_line(found), found.status)


def _sentence(found: Verdict) -> str:
    what = f" ({escape(found.what, _CELL_LIMIT)})" if found.what else ""
    subject, says = escape(found.subject, _REPO_LIMIT), _prose(found.says)
    return f"{marked(ICONS[found.status], found.status)} <b>{subject}</b>{what} {says}"


def _cure_line(found: Verdict) -> str:
    cure = _cure_markup(found.failure) if found.failure else ""
    return line(cure) if cure else ""


def _cure(found: Verdict) -> list[str]:
    """Return what to do, and where, if that does not say so."""
    return [found.cure, found.link if found.link not in found.cure else ""]


def joint_text(reports: Sequence[Report], *, missing_bytes: int, shared_bytes: int) -> str:
    """Write reports of several repositories as lines of text: all together, then each.

    Args:
        missing_bytes: what would be downloaded for all of them.
        shared_bytes: what comes once for several.
    """
    found = joint_verdict(reports, missing_bytes=missing_bytes, shared_bytes=shared_bytes)
    told = shared_failures(reports)
    parts = ["\n".join([*_verdict_lines(found), *check_lines(_told_of_all(found, told))])]
    parts += [report_text(each, told=told) for each in reports]
    return "\n\n".join(parts)


def joint_html(reports: Sequence[Report], *, missing_bytes: int, shared_bytes: int) -> str:
    """Write the same as static HTML. Arguments are those of `joint_text`."""
    found = joint_verdict(reports, missing_bytes=missing_bytes, shared_bytes=shared_bytes)
    told = shared_failures(reports)
    parts = [_verdict_markup(found), check_rows(_told_of_all(found, told))]
    for each in reports:
        own = verdict(each, told=told)
        details = inset(_cure_line(own) + "".join(_details(each, own, told)))
        part = fold(_sentence(own), details, opened=own.status in _LOUD)
        parts.append(strip(part, own.status))
    return box(parts)


def _told_of_all(found: Verdict, shared: Sequence[CheckResult]) -> list[CheckResult]:
    return [each for each in shared if each is not found.failure]


# -- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A title, heads of columns, rows of as many cells, and lines below; texts may be foreign.

    Attributes:
        opened: whether its rows are shown at once where they can be folded.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    opened: bool = False


def _tables(report: Report) -> Iterator[_Table]:
    weights, fit = report.weights, report.fit
    if weights:
        yield _Table(
            title=f"Weights as they are stored: {_stored(report)}",
            heads=("component", "weights", "formats"),
            rows=tuple(map(_weights, weights[:MAX_ROWS])),
        )
    if fit is None:
        return
    others = [row for row in fit.placements if row is not fit.chosen]
    fitting = sum(row.fits for row in others)
    if others:
        yield _Table(
            title=_plans_words(fitting, len(others), "other " if fit.chosen else "")
            + f" (for {fit.workload}{'; the fastest first' if fitting > 1 else ''})",
            heads=("plan", "dtype", "VRAM", "RAM while loading", "RAM during inference", ""),
            rows=tuple(_placement(row) for row in others if row.components),
            notes=tuple(_unworked(others)),
            opened=fit.chosen is None and bool(fitting),
        )


def _stored(report: Report) -> str:
    """Say what the weights come to, and the files in which they are, which is what is fetched."""
    weights = sum(part.total for part in report.weights)
    files = report.selection.total if report.selection else 0
    stored, fetched = format_bytes(weights), format_bytes(files)
    is_more = files > weights and fetched != stored
    return f"{stored}; with all other files {fetched}" if is_more else stored


def _plans_words(fitting: int, count: int, other: str) -> str:
    """Say how many plans fit."""
    if not fitting:
        return f"No {other}plan fits"
    fit = counted(fitting, f"{other}plan fits", f"{other}plans fit")
    return f"{fit}, {count - fitting} do not" if count > fitting else fit


def _weights(part: ComponentWeights) -> tuple[str, ...]:
    formats = ", ".join(
        f"{name} {format_bytes(size)}" for name, size in sorted(part.bytes_by_dtype.items())
    )
    quantized = f"; quantized with {part.quantization}" if part.quantization else ""
    about = "" if part.counted else "; sizes of files"
    return part.name, format_bytes(part.total), f"{formats}{quantized}{about}"


def _unworked(rows: Iterable[Placement]) -> Iterator[str]:
    """Name the methods that were not worked out, those with the same reason in one line."""
    unworked = (row for row in rows if not row.components)
    for names, why in _by_cause((str(row.method), row.reason) for row in unworked):
        yield f"{names}: {why}"


def _placement(row: Placement) -> tuple[str, ...]:
    mapped = f"{format_bytes(row.mapped)} in place" if row.mapped else ""
    return (
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
    return fold(escape(content.title), scrolled(table(rows, heads)) + notes, opened=content.opened)


def _limits(row: Sequence[str]) -> list[int]:
    """Return the letters that each cell has room for: the last one holds a reason."""
    return [_CELL_LIMIT] * (len(row) - 1) + [_REASON_LIMIT]


def _cell(cell: str, limit: int) -> str:
    """Write a cell; a short one is not broken in the middle of a word or a number."""
    return whole(escape(cell, limit)) if len(cell) <= _SHORT else escape(cell, limit)
