"""A job as HTML: what is shown live, and what stays in the saved notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from nbloader.records import CheckStatus
from nbloader.state import Awaited, ComponentState, JobState, StageState, Status
from nbloader.text import format_duration, format_share, format_speed, plain
from nbloader.views import text
from nbloader.views.budget import Pace
from nbloader.views.checks import checks_markup, count_made
from nbloader.views.display import WHOLE, Bundle, Display, Form, new_display_id
from nbloader.views.markup import bar, box, code_marked, escape, faint, fold, line, strip, whole
from nbloader.views.parts import (
    components,
    grouped,
    largest,
    notices,
    retries,
    sparkline,
)
from nbloader.views.words import (
    ICONS,
    STOPPED,
    about,
    counted,
    doing,
    downloads,
    ended,
    fetched,
    kept,
    origin,
    ready_in,
    retried,
    time_left,
    title,
    waiting,
    where,
    whole_seconds,
)

__all__ = ["render"]

MAX_COMPONENTS = 30
MAX_LIVE_COMPONENTS = 12
MAX_RETRIES = 50
REDRAW_EVERY_S = 1.0

_ABOUT_LIMIT = 400
_NAME_LIMIT = 60

_COLORS: Mapping[Status, str] = MappingProxyType(
    {
        Status.RUNNING: "var(--jp-brand-color1,#2f81f7)",
        Status.READY: "var(--jp-success-color1,#2da44e)",
        Status.FAILED: "var(--jp-error-color1,#d1434b)",
    }
)
"""Of bars and marks. Text has no colour of its own."""

_AMBER = "var(--jp-warn-color0,#b45f06)"
"""Of the bar and the mark of a job that waits for bytes."""

_INTERRUPTED = (
    "running when this was saved; if the kernel has stopped since, it was interrupted; "
    "run again to continue: what has arrived is kept"
)

_TOLD_BELOW = "the error below says why"


def render(state: JobState, form: Form = WHOLE) -> str:
    """Write a state as static HTML that needs no script and no style sheet.

    A job that has ended is a few lines: what it is, how it came, and what should be known. All
    else is folded.
    """
    if state.status is Status.RUNNING:
        return box(
            [
                live(state, form, state.components, static=True),
                checks_markup(state.checks, state.fit),
                _retries(state),
            ]
        )
    return box([*_end(state, form), notices(state), _details(state, form)])


def static_bundle(state: JobState, form: Form = WHOLE) -> Bundle:
    """Return a state in the forms that every place can show, later and without a kernel."""
    return {
        "text/html": render(state, form),
        "text/plain": text.render(state, speed=form.speed, eta=form.eta),
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


def live(
    state: JobState, form: Form, parts: Sequence[ComponentState], *, static: bool = False
) -> str:
    """Write what changes while a job runs, as one piece: all of it is true at the same moment.

    Every figure has a place of its own, whether it is known or not, so that nothing moves.

    Args:
        parts: the components of the state, which take most of the work of a drawing to derive.
        static: whether places are kept only for what is known.
    """
    if state.status is not Status.RUNNING:
        return "".join((*_end(state, form), notices(state)))
    shown = largest(grouped(parts), MAX_LIVE_COMPONENTS)
    return "".join(
        (
            line(_title(state)),
            line(faint(escape(about(state), _ABOUT_LIMIT) or "&nbsp;")),
            _progress(state, form),
            line(faint(_stages(state) or "&nbsp;")),
            sparkline(state, kept=not static) if form.speed and _fetches(state) else "",
            components(shown, state, limit=len(shown)),
            notices(state),
        )
    )


def _fetches(state: JobState) -> bool:
    """Say whether bytes come, as far as it is known."""
    return state.selection is None or state.to_fetch > 0


def _title(state: JobState) -> str:
    return f"{_mark(state)} <b>{escape(title(state))}</b>"


def _mark(state: JobState) -> str:
    """Write the mark, in its colour: it is text, so it takes the theme's, or the one around it.

    The green and the amber of Jupyter's themes are too light to be read on white.
    """
    if state.ended_by_user:
        return STOPPED
    if state.status is Status.READY or _is_silent(state):
        return ICONS[state.status]
    color = f"{_color(state).partition(',')[0]},inherit)"
    return f'<span style="color:{color}">{ICONS[state.status]}</span>'


def _color(state: JobState) -> str:
    return _AMBER if _is_silent(state) else _COLORS[state.status]


def _is_silent(state: JobState) -> bool:
    return state.status is Status.RUNNING and state.waits_for is Awaited.BYTES


def _progress(state: JobState, form: Form) -> str:
    """Draw the share of the bytes that is there, and write its figures."""
    known = state.selection is not None
    share = [
        (f"{state.percent:.0f} %" if known else "", "2.8em"),
        (format_share(state.there, state.total) if known else "", "8.5em"),
    ]
    ready = ready_in(state) if form.eta else ""
    warned = waiting(state)
    going: list[tuple[str, str]] = []
    if warned:
        going.append((f"{ICONS[CheckStatus.WARNING]} {warned}", "auto"))
    elif downloads(state) or not known:
        going += [(format_speed(state.speed) if known else "", "5.5em")] if form.speed else []
        going += [(time_left(state), "9.5em")] if form.eta else []
        going += [(ready, "9.5em")] if ready else []
    else:
        going.append((", ".join(filter(None, (doing(state), ready))), "auto"))
    said = ", ".join(content for content, _ in (*share, *going) if content)
    # What goes on is one place, as wide as the longest of what is said there: where a page is too
    # narrow for it, it has a line of its own whatever it says.
    wide = f"flex:0 0 26em;display:flex;{_GAP}"
    places = f'{_places(share)}<span style="{wide}">{_places(going) or "&nbsp;"}</span>'
    row = f'<div style="display:flex;flex-wrap:wrap;{_GAP}">{places}</div>'
    return bar(state.percent / 100, "bytes", said, color=_color(state), height=8) + row


_GAP = "column-gap:0.7em"


def _places(cells: Iterable[tuple[str, str]]) -> str:
    """Write figures, each in a place of its width, whether it is known or not."""
    return "".join(
        f'<span style="flex:0 0 {width};white-space:nowrap">{content or "&nbsp;"}</span>'
        for content, width in cells
    )


def _stages(state: JobState) -> str:
    return " · ".join(_stage(state, begun) for begun in state.stages)


def _stage(state: JobState, begun: StageState) -> str:
    if begun.seconds is None:
        seconds = max(0.0, state.updated_at - begun.started_at)
        return whole(f"{ICONS[Status.RUNNING]} {begun.stage} {whole_seconds(seconds)}")
    broken = state.status is Status.FAILED and begun is state.stages[-1]
    icon = ICONS[Status.FAILED if broken else Status.READY]
    if broken and state.ended_by_user:
        icon = STOPPED
    return whole(f"{icon} {begun.stage} {format_duration(begun.seconds)}")


def _end(state: JobState, form: Form) -> list[str]:
    """Write how a job has ended: the title, and a line or two about it."""
    failure = state.failure
    if failure is None:
        came = _joined(fetched(state, seconds=False, speed=False), where(state))
        return [
            line(f"{_title(state)} {faint(f'· {ended(state)}')}"),
            line(escape(state.summary) + (faint(f" · {came}") if came else "")),
        ]
    if state.ended_by_user:
        how, _, after = ended(state).partition(" ")
        head = f"{_title(state)} · <b>{how.capitalize()}</b> {after}"
        return [strip(line(head) + line(kept(state)), CheckStatus.SKIPPED)]
    reference = escape(failure.reference, _NAME_LIMIT)
    why = f" · {_TOLD_BELOW}" if form.raised else ""
    head = line(f"{_title(state)} {faint(f'· {ended(state)} [{reference}]{why}')}")
    if form.raised:
        return [head]
    return [
        head,
        line(f"<b>{escape(failure.message)}</b>"),
        line(code_marked(failure.hint)),
        _facts(fetched(state, speed=form.speed), where(state)),
    ]


def _facts(*found: str) -> str:
    """Write facts about a job on a line; none for none."""
    return line(faint(said)) if (said := _joined(*found)) else ""


def _joined(*found: str) -> str:
    return escape(" · ".join(filter(None, found)), _ABOUT_LIMIT)


def _details(state: JobState, form: Form) -> str:
    """Fold away all that need not be read, under a line that says what there is."""
    parts = state.components
    average = state.average_speed if form.speed and state.status is Status.READY else None
    folded = [
        _facts(origin(state), f"{format_speed(average)} on average" if average else ""),
        line(faint(_stages(state))) if state.stages else "",
        sparkline(state, kept=False) if form.speed else "",
        components(parts, state, limit=MAX_COMPONENTS),
        checks_markup(state.checks, state.fit, state.failure),
        _retries(state),
    ]
    content = "".join(folded)
    counts = [
        counted(len(parts), "component", "components") if parts else "",
        counted(made, "check", "checks") if (made := count_made(state.checks)) else "",
        counted(len(state.retries), "retry", "retries") if state.retries else "",
    ]
    said = " · ".join(filter(None, counts))
    return fold(f"Details {faint(said)}".rstrip(), content) if content else ""


def _retries(state: JobState) -> str:
    """Say what was asked again, with the table behind it."""
    if not state.retries:
        return ""
    return fold(escape(retried(state.retries)), retries(state, limit=MAX_RETRIES))


class HtmlView:
    """Shows a job as HTML that is replaced as a whole. For front ends without widgets.

    Args:
        display: where to.
        clock: seconds, steady.
    """

    def __init__(
        self,
        display: Display,
        *,
        form: Form = WHOLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display
        self._form = form
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
        bundle = static_bundle(state, self._form)
        if self._drawn is None:
            self._display.show(bundle, self._display_id)
        elif bundle != self._drawn:
            self._display.update(bundle, self._display_id)
        self._drawn = bundle
