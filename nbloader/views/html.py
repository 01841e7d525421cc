"""A job as static HTML: what is shown without widgets, and what stays in the saved notebook."""

from __future__ import annotations

import base64
import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from nbloader.records import CheckStatus, Notice, Retry, Stage
from nbloader.state import ComponentState, FileState, JobState, StageState, Status, Step
from nbloader.units import format_bytes, format_duration, format_speed
from nbloader.views import text
from nbloader.views.base import ICONS, plain
from nbloader.views.checks import checks_markup
from nbloader.views.display import Bundle, Display, new_display_id
from nbloader.views.markup import (
    bar,
    box,
    cell,
    escape,
    faint,
    fold,
    grid,
    hint,
    line,
    link,
    scrolled,
    spread,
    table,
    whole,
)
from nbloader.views.pace import Pace
from nbloader.views.sparkline import sparkline
from nbloader.views.words import kept, placement_words, quiet, step_words

__all__ = [
    "HtmlView",
    "components",
    "files",
    "head",
    "interrupted_bundle",
    "largest",
    "log",
    "progress",
    "render",
    "static_bundle",
]

MAX_COMPONENTS = 30
MAX_FILES = 30
MAX_RETRIES = 50
MAX_OPEN_RETRIES = 5
MAX_NOTICES = 20
MAX_EXPORTED = 200
MAX_EXPORTED_CHARACTERS = 30_000
REDRAW_EVERY_S = 1.0

_NAME_LIMIT = 60
_PATH_LIMIT = 120

_COLORS: Mapping[Status, str] = MappingProxyType(
    {
        Status.RUNNING: "var(--jp-brand-color1,#2f81f7)",
        Status.READY: "var(--jp-success-color1,#2da44e)",
        Status.FAILED: "var(--jp-error-color1,#d1434b)",
    }
)
"""Of bars and marks. Text has no colour of its own."""

_INTERRUPTED = "if it no longer runs, it was interrupted; run again to continue"


def render(state: JobState, *, speed: bool = True, eta: bool = True) -> str:
    """Write a state as static HTML that needs no script and no style sheet.

    Args:
        speed, eta: whether the speed and the time left are shown.
    """
    running = state.status is Status.RUNNING
    done = state.status is Status.READY
    return box(
        [
            line(_title(state, faint(f"· {_now(state)}") if running else "")),
            *map(line, _failure(state)),
            _facts(state),
            line(_bytes(state, speed=speed, eta=eta)) if state.plan else "",
            "" if done else line(_bar(state, _share_text(state))),
            sparkline(state, kept=False) if speed else "",
            components(state.components, state, limit=MAX_COMPONENTS),
            checks_markup(state.checks),
            log(state, retries=MAX_RETRIES),
        ]
    )


def static_bundle(state: JobState, *, speed: bool = True, eta: bool = True) -> Bundle:
    """Give a state in the forms that every place can show, later and without a kernel."""
    return {
        "text/html": render(state, speed=speed, eta=eta),
        "text/plain": text.render(state, speed=speed, eta=eta),
    }


def interrupted_bundle(state: JobState) -> Bundle:
    """Say of a job that runs what is true once its kernel has died.

    It stands behind the live widgets, and is what a saved notebook shows if nothing replaces them.
    """
    mark = ICONS[Status.RUNNING]
    return {
        "text/html": box(
            [line(f"{mark} <b>{escape(state.repo_id, 100)}</b> {faint(f'· {_INTERRUPTED}')}")]
        ),
        "text/plain": f"{mark} {plain(state.repo_id, 100)}: {_INTERRUPTED}",
    }


def head(state: JobState) -> str:
    """Write what is loaded, where to, and the stages: the live view's part above the bar."""
    return "".join((line(_title(state)), *map(line, _failure(state)), _facts(state, lines=True)))


def progress(state: JobState, *, speed: bool, eta: bool) -> str:
    """Write how far the job is: the live view's bar with its figures.

    Every figure has a place of its own, whether it is known or not, so that nothing moves.
    """
    left = state.time_remaining if _downloads(state) else None
    cells = [
        (f"{state.percent:.0f} %", "3em"),
        (_there(state.there, state.total) if state.plan else "", "11em"),
        *([(format_speed(state.speed) if _downloads(state) else "", "6.5em")] if speed else []),
        *([(f"{format_duration(left)} left" if left is not None else "", "6.5em")] if eta else []),
        (quiet(state), "9em"),
    ]
    said = ", ".join(filter(None, (content for content, _ in cells)))
    places = "".join(
        f'<span style="flex:0 0 {width};white-space:nowrap">{content or "&nbsp;"}</span>'
        for content, width in cells
    )
    row = f'<div style="display:flex;flex-wrap:wrap;column-gap:1em">{places}</div>'
    return _bar(state, said) + row + (sparkline(state) if speed else "")


def components(parts: Sequence[ComponentState], state: JobState, *, limit: int) -> str:
    """Write a row a component: the largest ones in the plan's order, and one for the others."""
    seconds = {event.name: event.seconds for event in state.loaded}
    rows = (_component(part, state.status, seconds) for part in largest(parts, limit))
    return grid(rows, "components")


def files(part: ComponentState, status: Status) -> str:
    """Write a row a file of a component; its own folder is not named again and again."""
    folder = f"{part.name}/"
    rows = [_file(file, folder, status) for file in part.files[:MAX_FILES]]
    if others := part.files[MAX_FILES:]:
        total = sum(file.total for file in others)
        there = sum(file.completed for file in others)
        rows.append(_row(f"{len(others)} others", "", _there(there, total)))
    return grid(rows, f"files of {escape(part.name, _NAME_LIMIT)}")


def largest(parts: Sequence[ComponentState], limit: int) -> list[ComponentState]:
    """Give the `limit` largest components in the plan's order, and one for all others."""
    if len(parts) <= limit:
        return list(parts)
    by_size = sorted(range(len(parts)), key=lambda number: -parts[number].total)
    others = [parts[number] for number in by_size[limit:]]
    summed = ComponentState(
        name=f"{len(others)} others",
        step=min((part.step for part in others), key=list(Step).index),
        files=tuple(file for part in others for file in part.files),
    )
    return [*(parts[number] for number in sorted(by_size[:limit])), summed]


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


def _title(state: JobState, more: str = "") -> str:
    mark = f'<span style="color:{_mark_color(state.status)}">{ICONS[state.status]}</span>'
    title = f"{mark} <b>{escape(state.repo_id, 100)}</b>"
    took = format_duration(state.elapsed)
    if state.status is Status.READY:
        return f"{title}: {escape(state.summary)} {faint(f'· ready in {took}')}"
    if state.status is Status.FAILED:
        return f"{title} {faint(f'· stopped after {took}')}"
    return f"{title} {more}".rstrip()


def _mark_color(status: Status) -> str:
    """Give the colour of a mark, which is text: that of the theme, or the one around it.

    The green of Jupyter's themes is too light to be read on white.
    """
    if status is Status.READY:
        return "inherit"
    return f"{_COLORS[status].partition(',')[0]},inherit)"


def _now(state: JobState) -> str:
    at = f"{state.percent:.0f} %"
    return f"{at}{f', {state.stage}' if state.stage else ''} · {format_duration(state.elapsed)}"


def _failure(state: JobState) -> tuple[str, ...]:
    if state.failure is None:
        return ()
    reference = f"[{escape(state.failure.reference, _NAME_LIMIT)}]"
    return (
        f"<b>{escape(state.failure.message)}</b> {faint(reference)}",
        kept(state) or escape(state.failure.hint),
    )


def _facts(state: JobState, *, lines: bool = False) -> str:
    """Write what is loaded and where to, and the stages.

    Args:
        lines: whether both lines are there from the start, so that nothing moves.
    """
    about = " · ".join(_about(state))
    stages = " · ".join(_stage(state, begun) for begun in state.stages)
    return "".join(
        line(faint(content) if content else "&nbsp;")
        for content in (about, stages)
        if content or lines
    )


def _about(state: JobState) -> list[str]:
    plan = state.plan
    if plan is None:
        return []
    commit = plan.commit_hash[:8]
    named = "" if plan.revision == plan.commit_hash else escape(plan.revision, _NAME_LIMIT)
    count = f"{len(plan.files)} {'file' if len(plan.files) == 1 else 'files'}"
    chosen = state.fit.chosen if state.fit else None
    return [
        f"{named} ({escape(commit)})" if named else escape(commit),
        f"{count}, {format_bytes(plan.total)}",
        *([escape(placement_words(chosen))] if chosen else []),
    ]


def _stage(state: JobState, begun: StageState) -> str:
    if begun.seconds is None:
        seconds = max(0.0, state.updated_at - begun.started_at)
        return whole(f"{ICONS[Status.RUNNING]} {begun.stage} {_seconds(seconds)}")
    broken = state.status is Status.FAILED and begun is state.stages[-1]
    icon = ICONS[Status.FAILED if broken else Status.READY]
    return whole(f"{icon} {begun.stage} {format_duration(begun.seconds)}")


def _seconds(seconds: float) -> str:
    """Write the time of what still runs: in whole seconds, so that it changes calmly."""
    return f"{int(seconds)} s" if seconds < 60 else format_duration(int(seconds))


def _bytes(state: JobState, *, speed: bool, eta: bool) -> str:
    cached = f"{format_bytes(state.cached_bytes)} from the cache" if state.cached else ""
    if state.status is Status.RUNNING:
        parts = [_there(state.there, state.total), cached]
        if state.stage is Stage.DOWNLOAD:
            parts.append(format_speed(state.speed) if speed else "")
            parts.append(f"{format_duration(state.time_remaining)} left" if eta else "")
            parts.append(quiet(state))
    else:
        average = f" at {format_speed(state.average_speed)} on average" if speed else ""
        parts = [
            f"{format_bytes(state.fetched)} downloaded{average if state.fetched else ''}",
            cached,
        ]
    return " · ".join(part for part in parts if part)


def _downloads(state: JobState) -> bool:
    return state.stage is Stage.DOWNLOAD and state.status is Status.RUNNING


def _bar(state: JobState, said: str) -> str:
    return bar(state.percent / 100, "overall", said, color=_COLORS[state.status])


def _share_text(state: JobState) -> str:
    there = f", {_there(state.there, state.total)}" if state.plan else ""
    return f"{state.percent:.0f} %{there}"


def _there(there: int, total: int) -> str:
    """Write how many bytes are there; all of them are told of once."""
    if there >= total:
        return format_bytes(total)
    return f"{format_bytes(there)} of {format_bytes(total)}"


def _component(part: ComponentState, status: Status, seconds: Mapping[str, float]) -> str:
    name = escape(part.name, _NAME_LIMIT)
    step = step_words(part.step, status)
    if part.name in seconds:
        step += f" · {format_duration(seconds[part.name])}"
    share = min(1.0, part.completed / part.total) if part.total else 1.0
    there = _there(part.completed, part.total)
    moves = "" if status is Status.READY else bar(share, name, f"{step}, {there}")
    label = (
        f'<span title="{name}" style="flex:0 0 10em;overflow:hidden;text-overflow:ellipsis;'
        f'white-space:nowrap">{name}</span>{moves}'
    )
    return _row(label, step, there, "display:flex;align-items:center;column-gap:1em")


def _file(file: FileState, folder: str, status: Status) -> str:
    path = escape(file.path.removeprefix(folder), _PATH_LIMIT)
    return _row(path, step_words(file.step, status), _there(file.completed, file.total))


def _row(name: str, step: str, there: str, style: str = "") -> str:
    """Write a row of a grid: on one line, or on two where the page is narrow."""
    # Only what stands alone on a line takes all of it.
    return cell(name, "1000 1 15em", style) + cell(spread(step, there), "1 1 20em", "display:flex")


def _notice(notice: Notice) -> str:
    return line(f"{ICONS[CheckStatus.WARNING]} {escape(notice.message)}{hint(escape(notice.hint))}")


def _retries(retries: Sequence[Retry], limit: int, *, folds: bool) -> str:
    if not retries:
        return ""
    count = f"{len(retries)} {'retry' if len(retries) == 1 else 'retries'}"
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
    writer.writerow(("time", "file", "reason", "wait_s", "attempt", "max_attempts", "route"))
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


class HtmlView:
    """Shows a job as HTML that is replaced as a whole. For front ends without widgets.

    Args:
        display: where to.
        speed, eta: whether the speed and the time left are shown.
        clock: seconds, steady.
    """

    def __init__(
        self,
        display: Display,
        *,
        speed: bool = True,
        eta: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display
        self._speed = speed
        self._eta = eta
        self._pace = Pace(REDRAW_EVERY_S, clock)
        self._display_id = new_display_id()
        self._drawn: Bundle | None = None
        self._closed = False

    def update(self, state: JobState) -> None:
        """Show the state, at most once a second unless there are news."""
        if not self._closed and self._pace.due(state):
            self._draw(state)

    def close(self, state: JobState) -> None:
        """Leave the last state."""
        if not self._closed:
            self._draw(state)
            self._closed = True

    def _draw(self, state: JobState) -> None:
        bundle = static_bundle(state, speed=self._speed, eta=self._eta)
        if self._drawn is None:
            self._display.show(bundle, self._display_id)
        elif bundle != self._drawn:
            self._display.update(bundle, self._display_id)
        self._drawn = bundle
