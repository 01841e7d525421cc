"""The report of a preflight as live widgets: check again, choose a plan.

Buttons act only while no cell runs. So once the next cell begins, the widgets give way to the
static report: nothing is left that looks as if it could be pressed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nbloader.notebook import interrupts_held
from nbloader.records import Placement
from nbloader.text import format_duration, printable
from nbloader.views.checks import Report, report_html, report_text
from nbloader.views.display import (
    ROOT_CLASS,
    STYLE,
    Bundle,
    Display,
    OpenWidgets,
    bundle_of,
    new_display_id,
)
from nbloader.views.markup import box, escape, faint, line, pasted
from nbloader.views.words import placement_figures, plans

__all__ = ["ReportWidget", "notebook_events"]

_BEFORE_A_CELL = "pre_run_cell"
_MAX_LINE = 10_000
_MAX_NOTE = 600


class CellEvents(Protocol):
    """What reports the cells that begin; IPython's `events` does."""

    def register(self, event: str, function: Callable[..., object]) -> object:
        """Call a function at each event from now on."""

    def unregister(self, event: str, function: Callable[..., object]) -> object:
        """Call it no more."""


def notebook_events() -> CellEvents:
    """Return the events of the running IPython."""
    from IPython import get_ipython

    events: CellEvents = get_ipython().events
    return events


class ReportWidget:
    """Shows a report in the running cell, until the next one begins.

    Only what ipywidgets 7.7 and 8 share is used.

    Args:
        display: where to.
        again: makes the checks anew; called on a thread of its own.
        line: gives what to paste to load with a plan, by its `records.Method` value.
        events: of the notebook's cells.
        clock: seconds, steady.

    Raises:
        ImportError: ipywidgets cannot be imported.
    """

    def __init__(
        self,
        display: Display,
        report: Report,
        *,
        again: Callable[[], Report],
        line: Callable[[str], str],
        events: CellEvents,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import ipywidgets

        self._ipywidgets: Any = ipywidgets
        self._display = display
        self._display_id = new_display_id()
        self._report = report
        self._again = again
        self._line = line
        self._events = events
        self._clock = clock
        self._lock = threading.RLock()
        self._plan = _chosen(report)
        self._asked = False
        self._note = ""
        self._checking = self._drawing = self._closed = False
        self._widgets: dict[str, Any] = {}
        self._parts: tuple[Any, ...] = ()
        self._root: Any = None
        self._open = OpenWidgets()

    def show(self) -> None:
        """Show the report in the running cell. To be called once."""
        with interrupts_held(), self._lock:
            try:
                root = self._build()
                self._display.show({**bundle_of(root), **self._static()}, self._display_id)
            except BaseException:
                self._closed = True
                self._open.close()
                raise
            self._events.register(_BEFORE_A_CELL, self._cell_begins)

    def close(self) -> None:
        """Replace the widgets by static HTML and text, and close every one of them."""
        with interrupts_held(), self._lock:
            if self._closed or not self._open:
                return
            self._closed = True
            self._events.unregister(_BEFORE_A_CELL, self._cell_begins)
            try:
                self._display.update(self._static(), self._display_id)
            finally:
                self._open.close()

    def _cell_begins(self, *_: object) -> None:
        self.close()

    # -- what the user does ------------------------------------------------------------------------

    def _pressed(self, _: object) -> None:
        with self._lock:
            if self._checking or self._closed:
                return
            self._checking = True
            self._note = "checking…"
            self._draw()
        threading.Thread(target=self._check, name="nbloader-preflight", daemon=True).start()

    def _check(self) -> None:
        began = self._clock()
        report: Report | None = None
        try:
            report = self._again()
            _ = report.results  # The trial takes seconds, for which the lock is not held.
            note = f"checked again in {format_duration(self._clock() - began)}"
        except Exception as error:
            note = f"the checks could not be made: {type(error).__name__}: {error}"
        with self._lock:
            self._checking = False
            self._note = note
            if report is not None:
                self._report = report
                if not self._asked or _row(report, self._plan) is None:
                    self._plan, self._asked = _chosen(report), False
            self._draw()

    def _picked(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            if self._drawing or self._closed:
                return
            self._plan, self._asked = change["new"], True
            self._draw()

    # -- what is shown -----------------------------------------------------------------------------

    def _traits(self) -> dict[str, dict[str, object]]:
        """Say what the widgets show: values of traits by widget."""
        report = self._report
        options = plans(report.fit)
        return {
            "rows": {"value": report_html(report)},
            "again": {"disabled": self._checking},
            "note": {"value": _spoken(self._note)},
            "plan": {"options": options, "value": self._plan, "disabled": self._checking},
            "choice": {"value": self._choice()},
        }

    def _children(self) -> tuple[Any, ...]:
        """Return what is shown, from top to bottom; a choice only where there is one."""
        chooser = self._parts[-2:] if plans(self._report.fit) else ()
        return (*self._parts[:-2], *chooser)

    def _choice(self) -> str:
        """Write the figures of the plan that stands in the chooser, and the line to paste."""
        row = _row(self._report, self._plan)
        if row is None:
            return ""
        why = line(faint(_why(self._report, row)))
        return box([why, pasted(self._pasted(str(row.method)))])

    def _pasted(self, plan: str) -> str:
        """Return what to paste; its spaces matter, so they are left as they are."""
        return printable(self._line(plan)[:_MAX_LINE])

    def _static(self) -> Bundle:
        """Return what stays: the report, and under it the plan if one was chosen."""
        report = self._report
        markup, text = report_html(report), report_text(report)
        if self._asked and self._plan is not None:
            markup += self._choice()
            text += f"\n\n{self._pasted(self._plan)}"
        return {"text/html": markup, "text/plain": text}

    def _draw(self) -> None:
        """Set the traits that have changed."""
        if self._closed:
            return
        self._drawing = True
        try:
            for name, values in self._traits().items():
                widget = self._widgets[name]
                with widget.hold_sync():
                    for trait, value in values.items():
                        if getattr(widget, trait) != value:
                            setattr(widget, trait, value)
            if (children := self._children()) != self._root.children:
                self._root.children = children
        finally:
            self._drawing = False

    def _build(self) -> Any:
        """Open the widgets with their first values, and give the one that holds the others."""
        make, first = self._ipywidgets, self._traits()
        layout = self._open.keep(make.Layout(width="auto", margin="0", flex="0 0 auto"))
        apart = self._open.keep(make.Layout(width="auto", margin="0 8px 0 0", flex="0 0 auto"))
        row = self._open.keep(make.Layout(width="auto", margin="6px 0 0 0", flex_flow="row wrap"))
        wide = self._open.keep(make.Layout(width="auto", margin="0", max_width="48em"))
        texts = {
            name: make.HTML(layout=layout, **first[name]) for name in ("rows", "note", "choice")
        }
        style = make.HTML(layout=layout, value=STYLE)
        again = make.Button(
            description="Check again",
            tooltip="make the checks once more",
            layout=apart,
            **first["again"],
        )
        plan = make.Dropdown(description="Plan", layout=wide, **first["plan"])
        self._widgets = {**texts, "again": again, "plan": plan}
        for widget in (style, *self._widgets.values()):
            self._open.keep(widget.style)
            self._open.keep(widget)
        again.on_click(self._pressed)
        plan.observe(self._picked, "value")
        buttons = self._open.keep(make.HBox((again, texts["note"]), layout=row))
        self._parts = (style, texts["rows"], buttons, plan, texts["choice"])
        self._root = self._open.keep(make.VBox(self._children(), layout=layout))
        self._root.add_class(ROOT_CLASS)
        return self._root


def _row(report: Report, plan: str | None) -> Placement | None:
    """Return the placement of a plan, if it fits."""
    rows = report.fit.placements if report.fit else ()
    return next((row for row in rows if row.fits and row.method == plan), None)


def _why(report: Report, row: Placement) -> str:
    """Say what speaks for a plan, or what the line below it is for."""
    is_chosen = report.fit is not None and row is report.fit.chosen
    if is_chosen:
        return "This loads it as it stands above:"
    return f"{escape(placement_figures(row))} · {escape(row.reason)}:"


def _chosen(report: Report) -> str | None:
    """Return the plan that would be taken; where none would, the fastest that fits."""
    chosen = report.fit.chosen if report.fit else None
    if chosen is not None and _row(report, chosen.method):
        return str(chosen.method)
    return next((value for _, value in plans(report.fit)), None)


def _spoken(note: str) -> str:
    """Write a note that those who hear the page are told, too; it takes a line in any case."""
    return box([f'<div role="status">{escape(note, _MAX_NOTE) or "&nbsp;"}</div>'])
