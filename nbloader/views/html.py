"""A job as static HTML: what is shown without widgets, and what stays in the saved notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from nbloader.records import Selection, Stage
from nbloader.redaction import short_path
from nbloader.state import JobState, StageState, Status
from nbloader.text import format_bytes, format_duration, format_speed, plain
from nbloader.views import text
from nbloader.views.budget import Pace
from nbloader.views.checks import checks_markup
from nbloader.views.display import Bundle, Display, new_display_id
from nbloader.views.markup import bar, box, escape, faint, line, whole
from nbloader.views.parts import components, log, sparkline, there_of
from nbloader.views.words import (
    ICONS,
    counted,
    ended,
    kept,
    placement_words,
    quiet,
    time_left,
    whole_seconds,
)

__all__ = ["render"]

MAX_COMPONENTS = 30
MAX_RETRIES = 50
REDRAW_EVERY_S = 1.0

_NAME_LIMIT = 60

_COLORS: Mapping[Status, str] = MappingProxyType(
    {
        Status.RUNNING: "var(--jp-brand-color1,#2f81f7)",
        Status.READY: "var(--jp-success-color1,#2da44e)",
        Status.FAILED: "var(--jp-error-color1,#d1434b)",
    }
)
"""Of bars and marks. Text has no colour of its own."""

_INTERRUPTED = (
    "running when this was saved; if the kernel has stopped since, it was interrupted; "
    "run again to continue: what has arrived is kept"
)


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
            line(_bytes(state, speed=speed, eta=eta)) if state.selection else "",
            "" if done else line(_bar(state, state.percent, _share_text(state))),
            sparkline(state, kept=False) if speed else "",
            components(state.components, state, limit=MAX_COMPONENTS),
            checks_markup(state.checks),
            log(state, retries=MAX_RETRIES),
        ]
    )


def static_bundle(state: JobState, *, speed: bool = True, eta: bool = True) -> Bundle:
    """Return a state in the forms that every place can show, later and without a kernel."""
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
    percent = state.percent
    cells = [
        (f"job {percent:.0f} %", "5em"),  # Not the share of the bytes, which stand beside it.
        (there_of(state.there, state.total) if state.selection else "", "11em"),
        *([(format_speed(state.speed) if _downloads(state) else "", "6.5em")] if speed else []),
        *([(time_left(state), "6.5em")] if eta else []),
        (quiet(state), "9em"),
    ]
    said = ", ".join(filter(None, (content for content, _ in cells)))
    places = "".join(
        f'<span style="flex:0 0 {width};white-space:nowrap">{content or "&nbsp;"}</span>'
        for content, width in cells
    )
    row = f'<div style="display:flex;flex-wrap:wrap;column-gap:1em">{places}</div>'
    return _bar(state, percent, said) + row + (sparkline(state) if speed else "")


def _title(state: JobState, more: str = "") -> str:
    mark = f'<span style="color:{_mark_color(state.status)}">{ICONS[state.status]}</span>'
    title = f"{mark} <b>{escape(state.repo_id, 100)}</b>"
    if state.status is Status.READY:
        return f"{title}: {escape(state.summary)} {faint(f'· {ended(state)}')}"
    if state.status is Status.FAILED:
        return f"{title} {faint(f'· {ended(state)}')}"
    return f"{title} {more}".rstrip()


def _mark_color(status: Status) -> str:
    """Return the colour of a mark, which is text: that of the theme, or the one around it.

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
    advice = kept(state) or escape(state.failure.hint)
    if state.ended_by_user:  # The title says what happened.
        return (advice,)
    reference = f"[{escape(state.failure.reference, _NAME_LIMIT)}]"
    return (f"<b>{escape(state.failure.message)}</b> {faint(reference)}", advice)


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
    selection = state.selection
    if selection is None:
        return []
    count = counted(len(selection.files), "file", "files")
    chosen = state.fit.chosen if state.fit else None
    return [
        _origin(selection),
        f"{count}, {format_bytes(selection.total)}",
        *([escape(placement_words(chosen))] if chosen else []),
    ]


def _origin(selection: Selection) -> str:
    if selection.folder is not None:
        return escape(short_path(selection.folder), _NAME_LIMIT)
    commit = escape(selection.commit_hash[:8])
    if selection.revision == selection.commit_hash:
        return commit
    return f"{escape(selection.revision, _NAME_LIMIT)} ({commit})"


def _stage(state: JobState, begun: StageState) -> str:
    if begun.seconds is None:
        seconds = max(0.0, state.updated_at - begun.started_at)
        return whole(f"{ICONS[Status.RUNNING]} {begun.stage} {whole_seconds(seconds)}")
    broken = state.status is Status.FAILED and begun is state.stages[-1]
    icon = ICONS[Status.FAILED if broken else Status.READY]
    return whole(f"{icon} {begun.stage} {format_duration(begun.seconds)}")


def _bytes(state: JobState, *, speed: bool, eta: bool) -> str:
    had = state.cached or state.copied
    where = "there already" if _is_folder(state) else "from the cache"
    cached = f"{format_bytes(state.cached_bytes)} {where}" if had else ""
    if state.status is Status.RUNNING:
        parts = [there_of(state.there, state.total), cached]
        if state.stage is Stage.DOWNLOAD:
            parts.append(format_speed(state.speed) if speed else "")
            parts.append(time_left(state) if eta else "")
            parts.append(quiet(state))
    else:
        average = f" at {format_speed(state.average_speed)} on average" if speed else ""
        # Where styles are stripped, there is no bar that would show how far a failed job came.
        broken = state.status is Status.FAILED and not state.is_resumable
        parts = [
            there_of(state.there, state.total) if broken else "",
            f"{format_bytes(state.fetched)} downloaded{average if state.fetched else ''}"
            if state.fetched or not _is_folder(state)
            else "",
            cached,
        ]
    return " · ".join(part for part in parts if part)


def _is_folder(state: JobState) -> bool:
    return state.selection is not None and state.selection.folder is not None


def _downloads(state: JobState) -> bool:
    return state.stage is Stage.DOWNLOAD and state.status is Status.RUNNING


def _bar(state: JobState, percent: float, said: str) -> str:
    return bar(percent / 100, "overall", said, color=_COLORS[state.status])


def _share_text(state: JobState) -> str:
    there = f", {there_of(state.there, state.total)}" if state.selection else ""
    return f"{state.percent:.0f} %{there}"


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
