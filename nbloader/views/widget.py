"""A job as live widgets, which leave static HTML behind.

The widgets are built once; from then on only traits are set, and only those that changed. All
text is HTML made by `nbloader.views.html`, so that the live view looks like what remains of it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nbloader.state import JobState, Status
from nbloader.views import html
from nbloader.views.checks import checks_markup
from nbloader.views.display import Display, new_display_id
from nbloader.views.markup import box
from nbloader.views.pace import Pace

__all__ = ["WidgetView", "traits"]

REFRESH_EVERY_S = 0.5
"""A refresh sends one message a widget that changed, and there are five: ten a second at most."""

MAX_COMPONENTS = 12
MAX_RETRIES = 5
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

_BAR_STYLES: Mapping[Status, str] = {
    Status.RUNNING: "",
    Status.READY: "success",
    Status.FAILED: "danger",
}


def traits(state: JobState, *, speed: bool, eta: bool) -> dict[str, dict[str, object]]:
    """Say what the widgets show for a state: values of traits by widget."""
    return {
        "head": {"value": box([html.head(state, speed=speed, eta=eta)])},
        "bar": {"value": round(state.percent, 1), "bar_style": _BAR_STYLES[state.status]},
        "components": {"value": box([html.components(state, limit=MAX_COMPONENTS)])},
        "checks": {"value": box([checks_markup(state.checks)])},
        "log": {"value": box([html.log(state, retries=MAX_RETRIES)])},
    }


class WidgetView:
    """Shows a job as widgets in the running cell.

    Only what ipywidgets 7.7 and 8 share is used.

    Args:
        display: where to.
        speed, eta: whether the speed and the time left are shown.
        clock: seconds, steady.

    Raises:
        ImportError: ipywidgets cannot be imported.
    """

    def __init__(
        self,
        display: Display,
        *,
        speed: bool = True,
        eta: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import ipywidgets

        self._ipywidgets = ipywidgets
        self._display = display
        self._speed = speed
        self._eta = eta
        self._pace = Pace(REFRESH_EVERY_S, clock)
        self._display_id = new_display_id()
        self._widgets: dict[str, Any] = {}
        self._values: dict[str, dict[str, object]] = {}
        self._open: list[Any] = []
        self._shown = self._closed = False

    def update(self, state: JobState) -> None:
        """Show the state, at most twice a second unless there are news."""
        if self._closed or not self._pace.due(state):
            return
        wanted = traits(state, speed=self._speed, eta=self._eta)
        if not self._shown:
            with _interrupts_held():
                self._build(wanted, state)
            return
        for name, values in wanted.items():
            shown = self._values[name]
            changed = {key: value for key, value in values.items() if shown[key] != value}
            if changed:
                widget = self._widgets[name]
                with widget.hold_sync():
                    for key, value in changed.items():
                        setattr(widget, key, value)
                self._values[name] = values

    def close(self, state: JobState) -> None:
        """Replace the widgets by static HTML and text, and close every one of them."""
        with _interrupts_held():
            if self._closed:
                return
            self._closed = True
            bundle = html.static_bundle(state, speed=self._speed, eta=self._eta)
            try:
                if self._shown:
                    self._display.update(bundle, self._display_id)
                else:
                    self._display.show(bundle, self._display_id)
            finally:
                while self._open:
                    self._open.pop().close()

    def _build(self, wanted: Mapping[str, Mapping[str, object]], state: JobState) -> None:
        """Open the widgets with their first values, and show them.

        Layouts and styles are widgets too, which closing their owner leaves open.
        """
        make = self._ipywidgets
        layout = make.Layout(width="100%", max_width="780px", margin="0", flex="0 0 auto")
        self._open.append(layout)
        for name, values in wanted.items():
            kind = make.FloatProgress if name == "bar" else make.HTML
            widget = kind(**values, layout=layout)
            self._open += [widget.style, widget]
            self._widgets[name] = widget
            self._values[name] = dict(values)
        root = make.VBox(tuple(self._widgets.values()), layout=layout)
        self._open.append(root)
        view = {"version_major": 2, "version_minor": 0, "model_id": root.model_id}
        static = html.static_bundle(state, speed=self._speed, eta=self._eta)
        self._display.show({WIDGET_MIME: view, **static}, self._display_id)
        self._shown = True


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let an interrupt wait for the milliseconds in which widgets are opened or closed.

    Between the opening of a widget and the note that it is ours, an interrupt would leave it open
    for as long as the kernel lives.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])
