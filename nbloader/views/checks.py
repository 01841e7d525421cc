"""The results of checks as text and as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nbloader.records import CheckResult, CheckStatus
from nbloader.views.base import ICONS, plain
from nbloader.views.markup import escape, fold, hint, line, link

__all__ = ["check_lines", "check_rows", "checks_lines", "checks_markup"]

MAX_CHECKS = 30

_NAME_LIMIT = 60
_TEXT_LIMIT = 900
"""Room for a line about every placement that does not fit."""

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
