"""A job as static HTML: what is shown without widgets, and what stays in the saved notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from nbloader.records import CheckStatus, Notice, Retry, Stage
from nbloader.state import ComponentState, JobState, StageState, Status, Step
from nbloader.units import format_bytes, format_duration, format_speed
from nbloader.views import text
from nbloader.views.base import ICONS
from nbloader.views.checks import checks_markup
from nbloader.views.display import Bundle, Display, new_display_id
from nbloader.views.markup import bar, box, escape, faint, fold, hint, line, table
from nbloader.views.pace import Pace

__all__ = ["HtmlView", "components", "head", "log", "render", "static_bundle"]

MAX_COMPONENTS = 30
MAX_RETRIES = 50
MAX_OPEN_RETRIES = 5
MAX_NOTICES = 20
REDRAW_EVERY_S = 1.0

_NAME_LIMIT = 60
_PATH_LIMIT = 120


def render(state: JobState, *, speed: bool = True, eta: bool = True) -> str:
    """Write a state as static HTML that needs no script and no style sheet.

    Args:
        speed, eta: whether the speed and the time left are shown.
    """
    running = "" if state.status is Status.READY else bar(state.percent / 100)
    return box(
        [
            head(state, speed=speed, eta=eta),
            running,
            components(state, limit=MAX_COMPONENTS),
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


def head(state: JobState, *, speed: bool, eta: bool) -> str:
    """Write what is loaded, how it stands, the stages and the bytes."""
    return "".join(
        line(content)
        for content in (
            _title(state),
            *_failure(state),
            faint(" · ".join(_stage(state, begun) for begun in state.stages)),
            _bytes(state, speed=speed, eta=eta),
        )
        if content
    )


def components(state: JobState, *, limit: int) -> str:
    """Write a row a component: the largest ones in the plan's order, and one for the others."""
    seconds = {event.name: event.seconds for event in state.loaded}
    return table(
        (
            escape(part.name, _NAME_LIMIT),
            bar(_share(part), width="10em"),
            f"{format_bytes(part.completed)} of {format_bytes(part.total)}",
            f"{100 * _share(part):.0f} %",
            f"loaded in {format_duration(seconds.get(part.name))}" if part.name in seconds else "",
        )
        for part in _largest(state.components, limit)
    )


def log(state: JobState, *, retries: int) -> str:
    """Write the notices and the newest retries."""
    notices = [_notice(notice) for notice in state.notices[-MAX_NOTICES:]]
    if len(state.notices) > MAX_NOTICES:
        notices.insert(0, line(faint(f"{len(state.notices) - MAX_NOTICES} earlier notes")))
    return "".join(notices) + _retries(state.retries, retries)


def _title(state: JobState) -> str:
    title = f"{ICONS[state.status]} <b>{escape(state.repo_id, 100)}</b>"
    took = format_duration(state.elapsed)
    if state.status is Status.READY:
        return f"{title}: {escape(state.summary)} {faint(f'· ready in {took}')}"
    if state.status is Status.FAILED:
        return f"{title} {faint(f'· stopped after {took}')}"
    at = f"{state.percent:.0f} %"
    return f"{title} · {at}{f', {state.stage}' if state.stage else ''} {faint(f'· {took}')}"


def _failure(state: JobState) -> tuple[str, ...]:
    if state.failure is None:
        return ()
    reference = f"[{escape(state.failure.reference, _NAME_LIMIT)}]"
    return (
        f"<b>{escape(state.failure.message)}</b> {faint(reference)}",
        escape(state.failure.hint),
    )


def _stage(state: JobState, begun: StageState) -> str:
    if begun.seconds is None:
        return f"{ICONS[Status.RUNNING]} {begun.stage}"
    broken = state.status is Status.FAILED and begun is state.stages[-1]
    icon = ICONS[Status.FAILED if broken else Status.READY]
    return f"{icon} {begun.stage} {format_duration(begun.seconds)}"


def _bytes(state: JobState, *, speed: bool, eta: bool) -> str:
    if state.plan is None:
        return ""
    cached = f"{format_bytes(state.cached_bytes)} from the cache" if state.cached else ""
    if state.status is Status.RUNNING:
        there = state.cached_bytes + state.fetched
        parts = [f"{format_bytes(there)} of {format_bytes(state.total)}", cached]
        if state.stage is Stage.DOWNLOAD:
            parts.append(format_speed(state.speed) if speed else "")
            parts.append(f"{format_duration(state.time_remaining)} left" if eta else "")
    else:
        average = f" at {format_speed(state.average_speed)} on average" if speed else ""
        parts = [
            f"{len(state.plan.files)} files, {format_bytes(state.total)}",
            f"{format_bytes(state.fetched)} downloaded{average if state.fetched else ''}",
            cached,
        ]
    return " · ".join(part for part in parts if part)


def _share(part: ComponentState) -> float:
    return min(1.0, part.completed / part.total) if part.total else 1.0


def _largest(parts: Sequence[ComponentState], limit: int) -> list[ComponentState]:
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


def _notice(notice: Notice) -> str:
    return line(f"{ICONS[CheckStatus.WARNING]} {escape(notice.message)}{hint(escape(notice.hint))}")


def _retries(retries: Sequence[Retry], limit: int) -> str:
    if not retries:
        return ""
    count = f"{len(retries)} {'retry' if len(retries) == 1 else 'retries'}"
    if len(retries) > limit:
        count += f", the last {limit}:"
    rows = table(
        [_retry(retry) for retry in retries[-limit:]],
        heads=("Time (UTC)", "File", "Reason", "Next in", "Attempt", "Over"),
    )
    shown = min(len(retries), limit)
    return fold(count, rows) if shown > MAX_OPEN_RETRIES else line(count) + rows


def _retry(retry: Retry) -> tuple[str, ...]:
    return (
        _time_of_day(retry.time),
        escape(retry.path, _PATH_LIMIT) if retry.path else "the Hub",
        escape(retry.reason),
        format_duration(retry.wait_s),
        f"{retry.attempt} of {retry.max_attempts}" if retry.attempt else "–",
        str(retry.route or "–"),
    )


def _time_of_day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # no time that a calendar knows
        return "–"


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
