"""The notices and the retries of a job as HTML, with a link that exports the retries."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from nbloader.records import CheckStatus, Notice, Retry
from nbloader.state import JobState
from nbloader.units import format_duration
from nbloader.views.base import ICONS, plain
from nbloader.views.markup import escape, faint, fold, hint, line, link, scrolled, table, whole
from nbloader.views.words import counted

__all__ = ["log"]

MAX_OPEN_RETRIES = 5
MAX_NOTICES = 20
MAX_EXPORTED = 200
MAX_EXPORTED_CHARACTERS = 30_000

_PATH_LIMIT = 120


def log(state: JobState, *, retries: int, folds: bool = True) -> str:
    """Write the notices and the retries, the newest first.

    Args:
        retries: how many of them.
        folds: whether many retries are folded. What the user has opened is closed by an update.
    """
    notices = [_notice(notice) for notice in reversed(state.notices[-MAX_NOTICES:])]
    if len(state.notices) > MAX_NOTICES:
        notices.append(line(faint(f"{len(state.notices) - MAX_NOTICES} earlier notes")))
    return "".join(notices) + _retries(state.retries, retries, folds=folds)


def _notice(notice: Notice) -> str:
    return line(f"{ICONS[CheckStatus.WARNING]} {escape(notice.message)}{hint(escape(notice.hint))}")


def _retries(retries: Sequence[Retry], limit: int, *, folds: bool) -> str:
    if not retries:
        return ""
    count = counted(len(retries), "retry", "retries")
    if len(retries) > limit:
        count += f", the last {limit}"
    rows = table(
        [_retry(retry) for retry in retries[: -limit - 1 : -1]],
        heads=tuple(map(whole, ("Time (UTC)", "File", "Reason", "Next in", "Attempt", "Over"))),
    )
    exported = _export(retries[-MAX_EXPORTED:])
    if folds and min(len(retries), limit) > MAX_OPEN_RETRIES:
        return fold(count, scrolled(rows) + line(exported))
    return line(f"{count} · {exported}") + scrolled(rows)


def _retry(retry: Retry) -> tuple[str, ...]:
    file = escape(retry.path, _PATH_LIMIT) if retry.path else "the Hub"
    return (
        _time_of_day(retry.time),
        _readable(file),
        _readable(escape(retry.reason)),
        whole(format_duration(retry.wait_s) if retry.wait_s else "at once"),
        whole(f"{retry.attempt} of {retry.max_attempts}" if retry.attempt else "–"),
        str(retry.route or "–"),
    )


def _readable(content: str) -> str:
    """Keep a column from getting so narrow that each line holds a syllable."""
    return f'<span style="display:inline-block;min-width:11em">{content}</span>'


def _export(retries: Sequence[Retry]) -> str:
    """Link to the retries as a file of CSV that the link itself holds."""
    content = base64.b64encode(_csv(reversed(retries)).encode()).decode()
    href = f"data:text/csv;base64,{content}"
    return link(href, "retries.csv", ' download="retries.csv"')


def _csv(retries: Iterable[Retry]) -> str:
    """Write retries as CSV, in the order that they come in, as many as there is room for."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ("time", "file", "reason", "wait_s", "attempt", "max_attempts", "route", "failed_route")
    )
    for retry in retries:
        writer.writerow(
            (
                _time(retry.time),
                _safe(plain(retry.path or "", _PATH_LIMIT)),
                _safe(plain(retry.reason)),
                retry.wait_s,
                retry.attempt,
                retry.max_attempts,
                retry.route or "",
                retry.failed_route or "",
            )
        )
        if out.tell() > MAX_EXPORTED_CHARACTERS:
            break
    return out.getvalue()


def _safe(content: str) -> str:
    """Keep a spreadsheet from reading foreign text as a formula."""
    return f"'{content}" if content.startswith(("=", "+", "-", "@")) else content


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # no time that a calendar knows
        return ""


def _time_of_day(seconds: float) -> str:
    return _time(seconds)[11:19] or "–"
