"""The results of checks as text and as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nbloader.records import CheckResult, CheckStatus
from nbloader.views.base import ICONS, plain
from nbloader.views.markup import box, escape, fold, hint, line

__all__ = ["checks_lines", "checks_markup", "render_html", "render_text"]

MAX_CHECKS = 30

_NAME_LIMIT = 60
_QUIET = frozenset({CheckStatus.PASSED, CheckStatus.SKIPPED})


def render_text(results: Sequence[CheckResult]) -> str:
    """Write all results as lines of text."""
    return "\n".join(_lines(results))


def render_html(results: Sequence[CheckResult]) -> str:
    """Write all results as static HTML."""
    return box([_rows(results)])


def checks_lines(results: Sequence[CheckResult]) -> list[str]:
    """Write the results as a part of a job: how many passed, and those that ask for something."""
    return [_summary(results), *_lines(_loud(results))] if results else []


def checks_markup(results: Sequence[CheckResult]) -> str:
    """Write the results as a part of a job: those that ask for something open, the rest folded."""
    quiet = [result for result in results if result.status in _QUIET]
    passed = f"{ICONS[CheckStatus.PASSED]} {_summary(results)}"
    return _rows(_loud(results)) + (fold(passed, _rows(quiet)) if quiet else "")


def _loud(results: Sequence[CheckResult]) -> list[CheckResult]:
    return [result for result in results if result.status not in _QUIET]


def _summary(results: Sequence[CheckResult]) -> str:
    counts = Counter(result.status for result in results)
    text = f"{counts[CheckStatus.PASSED]} of {len(results)} checks passed"
    skipped = counts[CheckStatus.SKIPPED]
    return f"{text}, {skipped} skipped" if skipped else text


def _lines(results: Sequence[CheckResult]) -> list[str]:
    lines = []
    for result in results[:MAX_CHECKS]:
        icon, name = ICONS[result.status], plain(result.name, _NAME_LIMIT)
        lines.append(f"{icon} {name}: {plain(result.message)}")
        if result.hint:
            lines.append(f"  {plain(result.hint)}")
    if len(results) > MAX_CHECKS:
        lines.append(f"and {len(results) - MAX_CHECKS} more")
    return lines


def _rows(results: Sequence[CheckResult]) -> str:
    rows = [_row(result) for result in results[:MAX_CHECKS]]
    if len(results) > MAX_CHECKS:
        rows.append(line(f"and {len(results) - MAX_CHECKS} more"))
    return "".join(rows)


def _row(result: CheckResult) -> str:
    found = f"<b>{escape(result.name, _NAME_LIMIT)}</b>: {escape(result.message)}"
    return line(f"{ICONS[result.status]} {found}{hint(result.hint)}")
