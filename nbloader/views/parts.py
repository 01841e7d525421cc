"""The parts of a job as HTML: its components and files, its speed, its notices and retries."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from nbloader.records import CheckStatus, Notice, Retry
from nbloader.state import ComponentState, FileState, JobState, Status, Step
from nbloader.text import format_duration, format_share, format_speed, middle, plain
from nbloader.views.markup import (
    bar,
    cell,
    escape,
    faint,
    grid,
    hint,
    line,
    link,
    scrolled,
    spread,
    table,
    whole,
)
from nbloader.views.words import ICONS, counted, step_words

MAX_FILES = 30

SMALL_BYTES = 1_000_000
"""What is smaller comes within moments; of an unfinished job it stands in one row."""

MAX_NOTICES = 20
MAX_EXPORTED = 200
MAX_EXPORTED_CHARACTERS = 30_000

MAX_POINTS = 60

HEIGHT = 24
"""Pixels. The place is kept from the start, so that nothing moves when the line appears."""

_NAME_LIMIT = 60
_PATH_LIMIT = 120
_SHORT_PATH = 40

_STEP_S = 0.5
"""As close as the points of the history are."""

_COLOR = "var(--jp-brand-color1,#2f81f7)"


# -- components and files --------------------------------------------------------------------------


def components(parts: Sequence[ComponentState], state: JobState, *, limit: int) -> str:
    """Write a row a component: the largest ones in the selection's order, and one for others."""
    seconds = {event.name: event.seconds for event in state.loaded}
    rows = (_component(part, state.status, seconds) for part in largest(parts, limit))
    return grid(rows, "components")


def grouped(parts: Sequence[ComponentState]) -> list[ComponentState]:
    """Return those that take time, and one for all the small ones, which come first anyway."""
    large = [part for part in parts if part.total >= SMALL_BYTES]
    small = [part for part in parts if part.total < SMALL_BYTES]
    if not large or len(small) < 2:
        return list(parts)
    return [*large, _summed(small, f"{len(small)} small parts")]


def files(part: ComponentState, status: Status) -> str:
    """Write a row a file of a component; its own folder is not named again and again."""
    folder = f"{part.repo_id}:" if part.repo_id else f"{part.name}/"
    rows = [_file(file, folder, status) for file in part.files[:MAX_FILES]]
    if others := part.files[MAX_FILES:]:
        total = sum(file.total for file in others)
        there = sum(file.completed for file in others)
        rows.append(_row(f"{len(others)} others", "", format_share(there, total)))
    return grid(rows, f"files of {escape(part.name, _NAME_LIMIT)}")


def largest(parts: Sequence[ComponentState], limit: int) -> list[ComponentState]:
    """Return the `limit` largest components in the selection's order, and one for all others."""
    if len(parts) <= limit:
        return list(parts)
    by_size = sorted(range(len(parts)), key=lambda number: -parts[number].total)
    others = [parts[number] for number in by_size[limit:]]
    summed = _summed(others, f"{len(others)} others")
    return [*(parts[number] for number in sorted(by_size[:limit])), summed]


def _summed(parts: Sequence[ComponentState], name: str) -> ComponentState:
    return ComponentState(
        name=name,
        step=min((part.step for part in parts), key=list(Step).index),
        files=tuple(file for part in parts for file in part.files),
    )


def _component(part: ComponentState, status: Status, seconds: Mapping[str, float]) -> str:
    name = escape(part.name, _NAME_LIMIT)
    step = step_words(part.step, status)
    if part.name in seconds:
        step += f" · {format_duration(seconds[part.name])}"
    if part.repo_id:
        step += f" · from {escape(part.repo_id, _PATH_LIMIT)}"
    completed, total = part.completed, part.total
    share = min(1.0, completed / total) if total else 1.0
    there = format_share(completed or total, total)
    moves = bar(share, name, f"{step}, {there}")
    if status is Status.READY:
        moves, there = "", f"{there} in {counted(len(part.files), 'file', 'files')}"
    label = (
        f'<span title="{name}" style="flex:0 0 9em;overflow:hidden;text-overflow:ellipsis;'
        f'white-space:nowrap">{name}</span>{moves}'
    )
    return _row(label, step, there, "display:flex;align-items:center;column-gap:1em")


def _file(file: FileState, folder: str, status: Status) -> str:
    path = escape(file.path.removeprefix(folder), _PATH_LIMIT)
    return _row(path, step_words(file.step, status), format_share(file.completed, file.total))


def _row(name: str, step: str, there: str, style: str = "") -> str:
    """Write a row of a grid: on one line, or on two where the page is narrow."""
    # Only what stands alone on a line takes all of it.
    return cell(name, "1000 1 11em", style) + cell(spread(step, there), "1 1 17em", "display:flex")


# -- the speed -------------------------------------------------------------------------------------


def sparkline(state: JobState, *, kept: bool = True) -> str:
    """Draw the speed from the begin of the download until now, and say how high it was.

    All that it says stands in text beside it, for places that show no SVG.

    Args:
        kept: whether its place is kept where there is nothing to draw.
    """
    until = state.history_until
    points = [] if until is None else speeds(state.history, until)
    top = max(points, default=0.0)
    if not kept and (len(points) < 2 or not top):
        return ""
    label = f"fastest {format_speed(state.fastest)}" if top and state.fastest else ""
    return (
        f'<div style="display:flex;align-items:flex-end;gap:1em;height:{HEIGHT}px;margin:3px 0">'
        f"{_svg(points, top, label)}"
        f'<span style="flex:0 0 9em;text-align:right;opacity:0.7;line-height:1">{label}</span>'
        "</div>"
    )


def speeds(history: Sequence[tuple[float, int]], until: float) -> list[float]:
    """Return the mean speeds of up to `MAX_POINTS` equal stretches of time, in bytes per second.

    Args:
        history: (time, bytes so far), as in `JobState`. Where bytes fall, an attempt has started
            over; that counts as no speed, not as a negative one.
        until: where the last stretch ends; nothing has come since the last point.
    """
    points = list(dict(history).items())  # of points of the same time the last one counts
    if len(points) < 2:
        return []
    begin, end = points[0][0], max(until, points[-1][0])
    count = min(MAX_POINTS, int((end - begin) / _STEP_S))
    if count < 1:
        return []
    step = (end - begin) / count
    totals = [0.0] * count
    for (since, before), (to, after) in pairwise(points):
        if after <= before:
            continue
        first = min(count - 1, int((since - begin) / step))
        last = min(count - 1, int((to - begin) / step))
        for number in range(first, last + 1):
            low = max(since, begin + number * step)
            high = min(to, begin + (number + 1) * step)
            totals[number] += (after - before) * (max(0.0, high - low) / (to - since))
    return [total / step for total in totals]


def _svg(points: Sequence[float], top: float, label: str) -> str:
    if len(points) < 2 or not top:
        path = ""
    else:
        # A pixel of room above and below, so that the line is not cut in half.
        line = " ".join(
            f"{number},{HEIGHT - 1 - (HEIGHT - 2) * speed / top:.1f}"
            for number, speed in enumerate(points)
        )
        edge = f"M{line.replace(' ', ' L')}"
        path = (
            f'<path d="{edge} L{len(points) - 1},{HEIGHT} L0,{HEIGHT} Z" '
            f'style="fill:{_COLOR};fill-opacity:0.15;stroke:none"></path>'
            f'<path d="{edge}" vector-effect="non-scaling-stroke" '
            f'style="fill:none;stroke:{_COLOR};stroke-width:1.5px"></path>'
        )
    return (
        f'<svg role="img" aria-label="speed over time{", " + label if label else ""}" '
        f'viewBox="0 0 {max(1, len(points) - 1)} {HEIGHT}" preserveAspectRatio="none" '
        f'style="flex:1 1 6em;min-width:0;height:{HEIGHT}px;display:block">{path}</svg>'
    )


# -- notices and retries ---------------------------------------------------------------------------


def notices(state: JobState) -> str:
    """Write what the user should know, the newest first."""
    rows = [_notice(notice) for notice in reversed(state.notices[-MAX_NOTICES:])]
    if len(state.notices) > MAX_NOTICES:
        rows.append(line(faint(f"{len(state.notices) - MAX_NOTICES} earlier notes")))
    return "".join(rows)


def _notice(notice: Notice) -> str:
    return line(f"{ICONS[CheckStatus.WARNING]} {escape(notice.message)}{hint(escape(notice.hint))}")


def retries(state: JobState, *, limit: int) -> str:
    """Write the newest retries as a table, the newest first; columns that would say nothing go."""
    shown = state.retries[: -limit - 1 : -1]
    if not shown:
        return ""
    columns = {
        "Time": [whole(_local_time(retry.time)) for retry in shown],
        "File": [_file_name(retry.path) for retry in shown],
        "Reason": [_readable(escape(retry.reason)) for retry in shown],
        "Next": [whole(_next(retry)) for retry in shown],
        "Over": [_changed_route(retry) for retry in shown],
    }
    told = {head: cells for head, cells in columns.items() if any(cells)}
    rows = table(zip(*told.values(), strict=True), heads=tuple(map(whole, told)))
    earlier = len(state.retries) - len(shown)
    more = f"{earlier} earlier ones · " if earlier else ""
    return scrolled(rows) + line(faint(more) + _export(state.retries[-MAX_EXPORTED:]))


def _file_name(path: str | None) -> str:
    if path is None:
        return "the Hub"
    name = plain(path, _PATH_LIMIT)
    return f'<span title="{escape(name)}">{whole(escape(middle(name, _SHORT_PATH)))}</span>'


def _next(retry: Retry) -> str:
    """Say when the next attempt came, and which of how many in a row failed."""
    when = f"in {format_duration(retry.wait_s)}" if retry.wait_s else "at once"
    return f"{when}, {retry.attempt} of {retry.max_attempts}" if retry.attempt else when


def _changed_route(retry: Retry) -> str:
    changed = retry.failed_route is not None and retry.route != retry.failed_route
    return str(retry.route) if changed and retry.route else ""


def _local_time(seconds: float) -> str:
    """Write the time of day where the notebook runs; a dash for one that no calendar knows."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "–"


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
