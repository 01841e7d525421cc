"""A job as live widgets, which leave static HTML behind.

The widgets are built once; from then on only traits are set, and only those that changed. All
text is HTML made by `nbloader.views.html`, so that the live view looks like what remains of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from nbloader.notebook import interrupts_held
from nbloader.state import ComponentState, JobState, Status
from nbloader.text import plain
from nbloader.views import html
from nbloader.views.budget import Budget, Pace
from nbloader.views.checks import checks_markup
from nbloader.views.controls import Actions, ControlWidgets
from nbloader.views.display import (
    ROOT_CLASS,
    STYLE,
    WHOLE,
    Bundle,
    Display,
    Form,
    OpenWidgets,
    bundle_of,
    new_display_id,
)
from nbloader.views.markup import box, escape, unseen
from nbloader.views.parts import files, largest, retries
from nbloader.views.words import counted, next_attempt, retried

REFRESH_EVERY_S = 0.5
MESSAGES_PER_S = 10

MAX_COMPONENTS = html.MAX_LIVE_COMPONENTS
"""Panes of files; the smaller components share one more."""

_SPARE = 6
"""Messages in a second that only the job itself may use. Of a model that is in the cache all stages
but the last begin within a moment, and that one blocks for a long time: what is true then must be
shown."""

_PANES = tuple(f"pane {number}" for number in range(MAX_COMPONENTS + 1))
_PARTS = ("status", "job", "checks", "files", "retries")
"""From top to bottom. What comes and opens by itself stands last, where it moves nothing."""

FOLDS = {"retries": "retry table", "files": "file list"}
"""What opens at a click, by name, and what is in it. They keep their places and come when there is
something in them."""

_RANKS: Mapping[str, int] = MappingProxyType(
    {"job": 0, "retry table": 2, **dict.fromkeys(_PANES, 2)}
)
"""How important a widget is, 0 the most. Those that are not named have rank 1."""


def traits(
    state: JobState,
    form: Form,
    *,
    pane: Callable[[ComponentState, Status], str] = files,
) -> dict[str, dict[str, object]]:
    """Say what the widgets show for a state: values of traits by widget.

    `file list` has no trait of its own but the titles of the panes that are shown.

    Args:
        pane: writes the files of a component; it may keep what it wrote before.
    """
    parts = state.components
    panes = largest(parts, MAX_COMPONENTS)
    live = html.live(state, form, parts)
    following = next_attempt(state)
    said = ", ".join(filter(None, (retried(state.retries), following)))
    troubled = bool(following) or (state.status is Status.FAILED and not state.ended_by_user)
    wanted: dict[str, dict[str, object]] = {
        "status": {"value": STYLE + unseen(_said(state))},
        "job": {"value": box([live])},
        "checks": {"value": box([checks_markup(state.checks, state.fit, state.failure)])},
        "retries": {"titles": (plain(said),), "opened": troubled},
        "retry table": {"value": box([retries(state, limit=html.MAX_RETRIES)])},
        "files": {"titles": ("Files",), "opened": False},
        "file list": {"titles": tuple(_pane_title(part.name, len(part.files)) for part in panes)},
        "shown": {
            "names": tuple(
                name
                for name in _PARTS
                if (name != "retries" or state.retries) and (name != "files" or panes)
            )
        },
    }
    for number, name in enumerate(_PANES):
        content = pane(panes[number], state.status) if number < len(panes) else ""
        wanted[name] = {"value": box([content])}
    return wanted


def _said(state: JobState) -> str:
    """Say how the job stands, in words that change with its stages only."""
    repo_id = escape(state.repo_id, 100)
    if state.failure is not None:
        if state.ended_by_user:
            return f"{repo_id}: stopped"
        return f"{repo_id}: failed: {escape(state.failure.message)}"
    ready = state.status is Status.READY
    return f"{repo_id}: {'ready' if ready else state.stage or 'begun'}"


def _pane_title(name: str, count: int) -> str:
    return f"{plain(name, 60)}: {counted(count, 'file', 'files')}"


class WidgetView:
    """Shows a job as widgets in the running cell.

    Only what ipywidgets 7.7 and 8 share is used. One thread draws at a time; after the end of a job
    that can be begun again, that is a thread of the view's own.

    Args:
        display: where to.
        actions: what the controls do; None for a job that blocks the cell, which has no controls.
        clock: seconds, steady.
        sleep: waits for so many seconds.

    Raises:
        ImportError: ipywidgets cannot be imported.
    """

    def __init__(
        self,
        display: Display,
        *,
        form: Form = WHOLE,
        actions: Actions | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        import ipywidgets
        from ipywidgets import VBox  # noqa: F401, another module of that name lacks it

        self._ipywidgets = ipywidgets
        self._display = display
        self._form = form
        self._actions = actions
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.RLock()
        self._state: JobState | None = None
        self._pace = Pace(REFRESH_EVERY_S, clock)
        # Most files rest at any time, and to write all of them anew is most of the work.
        self._pane = lru_cache(maxsize=2 * len(_PANES))(files)
        self._display_id = new_display_id()
        self._controls: ControlWidgets | None = None
        self._widgets: dict[str, Any] = {}
        self._values: dict[str, dict[str, object]] = {}
        self._open = OpenWidgets()
        self._budget = Budget({}, clock, limit=MESSAGES_PER_S, per_s=1.0)
        self._view: Bundle = {}
        self._behind = Status.RUNNING
        self._shown = self._closed = self._followed = False

    @property
    def has_controls(self) -> bool:
        """Whether it has buttons."""
        return self._actions is not None

    def update(self, state: JobState) -> None:
        """Show the state, at most twice a second unless there are news."""
        with self._lock:
            if self._closed or not self._pace.due(state):
                return
            self._state = state
            if not self._shown:
                with interrupts_held():
                    self._build(state)
            whole = self._draw(state)
            if self._actions is not None:
                self._refresh_static(state)
                if not whole and state.status is not Status.RUNNING:
                    self._follow()

    def close(self, state: JobState) -> None:
        """Replace the widgets by static HTML and text, and close every one of them."""
        with self._lock, interrupts_held():
            if self._closed:
                return
            self._closed = True
            bundle = html.static_bundle(state, self._form)
            try:
                if self._shown:
                    self._display.update(bundle, self._display_id)
                else:
                    self._display.show(bundle, self._display_id)
            finally:
                self._open.close()
                # The buttons hold the job, and with it the model, in a circle.
                self._widgets, self._controls, self._actions = {}, None, None

    def _draw(self, state: JobState) -> bool:
        """Send what has changed, as far as the budget goes; tell whether that was all.

        The end of a job is drawn at once or not yet: a title that says it has failed must not stand
        above a button that cancels it.
        """
        wanted = self._wanted(state)
        waiting = {name for name, values in wanted.items() if values != self._values[name]}
        running = state.status is Status.RUNNING
        if not running and not self._budget.has_room(len(waiting)):
            return False
        while (name := self._budget.next(waiting, spare=_SPARE if running else 0)) is not None:
            waiting.remove(name)
            self._set(name, wanted[name])
        return not waiting

    def _refresh_static(self, state: JobState) -> None:
        """Keep true what a notebook shows that is saved while the view waits for a button."""
        if state.status is not self._behind:
            self._display.update({**self._view, **self._static(state)}, self._display_id)
            self._behind = state.status

    def _follow(self) -> None:
        """Draw on a thread what a job that has ended can draw no more: it calls no `update`."""
        if not self._followed:
            self._followed = True
            threading.Thread(target=self._draw_the_rest, name="nbloader-view", daemon=True).start()

    def _draw_the_rest(self) -> None:
        whole = False
        while not whole:
            self._sleep(REFRESH_EVERY_S)
            with self._lock:
                state = self._state
                done = self._closed or state is None or state.status is Status.RUNNING
                whole = state is None or done or self._draw(state)
                self._followed = not whole

    def _reported(self) -> None:
        """Show the diagnostics, which came from a thread of their own."""
        with self._lock:
            state = self._state
            if state is not None and state.status is not Status.RUNNING and not self._closed:
                self._follow()

    def _wanted(self, state: JobState) -> dict[str, dict[str, object]]:
        wanted = traits(state, self._form, pane=self._pane)
        return wanted | (self._controls.traits(state) if self._controls else {})

    def _static(self, state: JobState) -> Bundle:
        """Return what is seen of the view where no widget is."""
        if state.status is Status.RUNNING:
            return html.interrupted_bundle(state)
        return html.static_bundle(state, self._form)

    def _build(self, state: JobState) -> None:
        """Open the widgets with their first values, and show them.

        All are opened here, the panes of files too, so that opening needs no message later.
        Layouts and styles are widgets as well, which closing their owner leaves open.
        """
        make, keep = self._ipywidgets, self._open.keep
        self._values = traits(state, self._form)
        layout = keep(make.Layout(width="auto", margin="0 0 2px 0", flex="0 0 auto"))
        scrolled = keep(make.Layout(width="auto", margin="0", max_height="16em", overflow="auto"))
        outer = keep(make.Layout(width="100%", max_width="780px", margin="0"))
        style: dict[str, Any] = {}
        for name in ("status", "job", "checks", "retry table", *_PANES):
            where = scrolled if name == "retry table" or name in _PANES else layout
            widget = make.HTML(layout=where, **style, **self._values[name])
            style = style or {"style": keep(widget.style)}
            self._widgets[name] = keep(widget)
        for name in ("retries", "file list", "files"):
            folded = {"selected_index": None, **self._real(name, self._values[name])}
            widget = make.Accordion(layout=layout, **folded)
            self._widgets[name] = keep(widget)
        if self._actions is not None:
            self._controls = ControlWidgets(
                make, self._actions, state, keep, self._reported, self._clock
            )
            self._widgets |= self._controls.widgets
            self._values |= self._controls.values
        root = make.VBox(
            layout=outer, _dom_classes=(ROOT_CLASS,), **self._real("shown", self._values["shown"])
        )
        self._widgets["shown"] = keep(root)
        self._budget = Budget(
            {name: _RANKS.get(name, 1) for name in self._widgets},
            self._clock,
            limit=MESSAGES_PER_S,
            per_s=1.0,
        )
        self._view = bundle_of(root)
        self._behind = state.status
        self._display.show({**self._view, **self._static(state)}, self._display_id)
        self._shown = True

    def _set(self, name: str, values: dict[str, object]) -> None:
        """Set the traits of a widget, in one message."""
        widget, real = self._widgets[name], dict(self._real(name, values))
        if values.get("opened") == self._values[name].get("opened"):
            real.pop("selected_index", None)  # Its user may have opened or closed it.
        drawing = self._controls.drawing() if self._controls else nullcontext()
        with drawing, widget.hold_sync():
            for trait, value in real.items():
                setattr(widget, trait, value)
        self._values[name] = values

    def _real(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the traits that the installed ipywidgets has for what a widget shows."""
        match name:
            case "shown":
                return {"children": tuple(self._children(values["names"]))}
            case "file list":
                panes = _PANES[: len(values["titles"])]
                return self._titled(panes, values["titles"])
            case "retries" | "files":
                opened = 0 if values["opened"] else None
                return {
                    **self._titled((FOLDS[name],), values["titles"]),
                    "selected_index": opened,
                }
        return self._controls.real(name, values) if self._controls else values

    def _children(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield what is shown, from top to bottom; the controls stand below the job itself."""
        for name in names:
            yield self._widgets[name]
            if name == "job" and self._controls is not None:
                yield from self._controls.children

    def _titled(self, names: Sequence[str], titles: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the traits of an accordion, which the versions of ipywidgets name differently."""
        children = tuple(self._widgets[name] for name in names)
        if "titles" in self._ipywidgets.Accordion.class_trait_names():
            return {"children": children, "titles": titles}
        return {
            "children": children,
            "_titles": {str(number): title for number, title in enumerate(titles)},
        }
