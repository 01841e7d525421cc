"""The buttons of a job in the background: which of them can act, and why the others cannot.

`controls` decides, `ControlWidgets` holds the real widgets. What cannot act is not shown. While a
cell runs, a kernel handles no click: it waits until the cell has ended. A button that can be
pressed then would seem broken. One whose click is kept until the present step ends looks faint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from nbloader.errors import InvalidArgumentError
from nbloader.notebook import Turn
from nbloader.records import Stage
from nbloader.state import JobState, Status
from nbloader.text import plain
from nbloader.views.display import WAITING_CLASS
from nbloader.views.markup import box, faint, line
from nbloader.views.words import plans

__all__ = ["Actions"]

BUTTONS: Mapping[str, str] = MappingProxyType(
    {
        "cancel": "Cancel",
        "retry": "Retry",
        "download_anyway": "Download anyway",
        "diagnostics": "Diagnostics",
    }
)
"""What stands on each button, by the name of its action."""

RESTS = "a cell is running: the buttons rest; stop the cell to use them"

AFTER_CELL = "a cell is running: clicks wait for its end"
AFTER_IMPORT = "the libraries are being imported: clicks and cells wait some seconds"
AFTER_STEP = "the model is being built: clicks and cells wait for the present step"

FOR_RETRY = "Plan: Retry takes the one that is chosen"

CHOICE_HOLDS_S = 5.0
"""So long a choice is shown that a running job has not taken over yet."""

_COPY = "Diagnostics: click into the text, select all (Ctrl+A) and copy it (Ctrl+C)."


class Actions(Protocol):
    """What the buttons do. Each is called on the kernel's main thread and returns at once."""

    def cancel(self) -> None:
        """Stop the job."""

    def retry(self) -> None:
        """Begin again after a failure."""

    def download_anyway(self) -> None:
        """Begin again, and pass over the checks that failed."""

    def choose(self, plan: str) -> None:
        """Place the model in another way; after a failure, in the next attempt.

        Args:
            plan: a value of `records.Method`.

        Raises:
            InvalidArgumentError: it comes too late.
        """

    def diagnostics(self) -> str:
        """Return a text for a report of a problem. May take a second, so it has its own thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """All controls for a state.

    Attributes:
        shown: names of those that can act: of `BUTTONS`, and `plan`.
        note: what a click waits for, or why none can be made, or what a choice is for; or empty.
        waits: whether a click is acted upon only later. The buttons are greyed then, and can still
            be pressed: a click is kept, and the only way to stop a job that is being built.
        options: the plans to choose from: what is shown, and the `records.Method` value.
        chosen: the value of the plan that is shown as chosen; None for none.
    """

    shown: tuple[str, ...]
    note: str = ""
    waits: bool = False
    options: tuple[tuple[str, str], ...] = ()
    chosen: str | None = None


def controls(state: JobState, *, asked: str | None = None) -> Controls:
    """Decide which controls can act.

    A plan can be chosen before the model is built, and after a failure for the next attempt.

    Args:
        asked: the plan that was chosen last, if the job has not taken it over yet.
    """
    options = plans(state.fit)
    values = [value for _, value in options]
    chosen = str(state.fit.chosen.method) if state.fit and state.fit.chosen else None
    running, failed = state.status is Status.RUNNING, state.status is Status.FAILED
    # What waits for a job that has ended is about to end, too.
    rests = running and state.waited_for
    built = running and state.has_begun(Stage.INITIALISE)
    can = {
        "cancel": running,
        "retry": failed,
        "download_anyway": failed and state.failure is not None and state.failure.forceable,
        "diagnostics": True,
        "plan": (failed or running) and not built and any(value != chosen for value in values),
    }
    shown = () if rests else tuple(name for name, acts in can.items() if acts)
    for_retry = FOR_RETRY if failed and "plan" in shown else ""
    when = "" if rests else _when(state)
    return Controls(
        shown=shown,
        note=RESTS if rests else when or for_retry,
        waits=bool(when),
        options=options,
        chosen=next((value for value in (asked, chosen) if value in values), None),
    )


def _course(state: JobState) -> tuple[object, ...]:
    """Return what diagnostics have to be of: whether the job runs, or what it has ended with."""
    return state.status, state.failure


def _when(state: JobState) -> str:
    """Say what a click waits for: a kernel does one thing at a time."""
    if state.status is not Status.RUNNING or state.turn is None:
        return ""
    if state.turn is Turn.DUE:
        return AFTER_CELL
    return AFTER_IMPORT if state.importing is None else AFTER_STEP


def control_traits(
    found: Controls, *, report: str, working: bool = False
) -> dict[str, dict[str, object]]:
    """Say what the widgets of the controls show: values of traits by widget.

    Args:
        report: the text of the diagnostics; empty until they were asked for.
        working: whether they are being gathered.
    """
    return {
        "row": {
            "names": (*found.shown, *(["note"] if found.note else [])),
            "classes": (WAITING_CLASS,) if found.waits else (),
        },
        "diagnostics": {"disabled": working},
        "plan": {"options": found.options, "value": found.chosen},
        "note": {"value": box([line(faint(found.note))] if found.note else [])},
        "report": {"value": report},
        "reports": {"shown": bool(report)},
    }


class ControlWidgets:
    """The real widgets of the controls, and what happens when they are used.

    A callback only calls its action. What the user sees of that comes with the next state, except
    for a plan, which is shown as chosen at once.

    Args:
        make: the package ipywidgets.
        actions: what the controls do.
        state: what they show first.
        keep: told of each widget that is opened, and gives it back.
        reported: called once the diagnostics are there, from a thread of their own.
        clock: seconds, steady.

    Attributes:
        widgets: those whose traits change, by the names of `control_traits`.
        children: what is shown, from top to bottom.
        values: what `traits` gave for the first state.
    """

    def __init__(
        self,
        make: Any,
        actions: Actions,
        state: JobState,
        keep: Callable[[Any], Any],
        reported: Callable[[], object],
        clock: Callable[[], float],
    ) -> None:
        self._actions = actions
        self._reported = reported
        self._clock = clock
        self._drawing: int | None = None
        self._asked: tuple[str, float] | None = None
        self._report = ""
        self._gathering = False
        self._seen = self._reported_of = _course(state)
        self.widgets: dict[str, Any] = {}
        self.values = self.traits(state)
        first = {
            name: self.real(name, values)
            for name, values in self.values.items()
            if name not in ("row", "reports")
        }
        fit = keep(make.Layout(width="auto", margin="0 6px 4px 0", flex="0 0 auto"))
        # As high as a button from the start, so that nothing moves when one comes.
        row = keep(
            make.Layout(
                width="auto",
                min_height="36px",
                margin="4px 0 0 0",
                flex_flow="row wrap",
                align_items="center",
            )
        )
        wide = keep(make.Layout(width="auto", margin="0 0 4px 0", flex="0 0 auto"))
        rest = keep(make.Layout(width="auto", margin="0 0 4px 0", flex="1 1 12em"))
        tall = keep(make.Layout(width="auto", height="12em", margin="0"))
        style = keep(make.ButtonStyle())
        for name, title in BUTTONS.items():
            button = make.Button(description=title, layout=fit, style=style, **first.get(name, {}))
            self.widgets[name] = keep(button)
            button.on_click(self._pressed(name))
        plan = keep(make.Dropdown(description="Plan", layout=rest, **first["plan"]))
        plan.observe(self._chosen, "value")
        note = keep(make.HTML(layout=rest, **first["note"]))
        copy = keep(make.HTML(layout=wide, value=box([line(_COPY)])))
        report = keep(make.Textarea(layout=tall, continuous_update=False, **first["report"]))
        for widget in (plan, note, copy, report):
            keep(widget.style)
        self._reports = (copy, report)
        self.widgets |= {"plan": plan, "note": note, "report": report}
        self.widgets["row"] = keep(make.HBox(layout=row, **self.real("row", self.values["row"])))
        reports = keep(make.VBox(layout=wide, **self.real("reports", self.values["reports"])))
        self.widgets["reports"] = reports
        self.children = (self.widgets["row"], reports)

    def asked(self, state: JobState) -> str | None:
        """Return the plan that was chosen within the last moments, or that waits for a retry."""
        asked = self._asked
        waits = state.status is Status.FAILED
        return asked[0] if asked and (waits or self._clock() <= asked[1]) else None

    def traits(self, state: JobState) -> dict[str, dict[str, object]]:
        """Say what the widgets show now: values of traits by widget.

        Diagnostics that are shown are gathered anew where the job has failed since, or has begun
        again: a text from before would say nothing of what its reader has in front of him.
        """
        self._seen = _course(state)
        if self._report and self._seen != self._reported_of:
            self._diagnose()
        found = controls(state, asked=self.asked(state))
        return control_traits(found, report=self._report, working=self._gathering)

    def real(self, name: str, values: Mapping[str, Any]) -> Mapping[str, object]:
        """Return the traits that the installed ipywidgets has for what a widget shows."""
        if name == "row":
            children = tuple(self.widgets[each] for each in values["names"])
            return {"children": children, "_dom_classes": values["classes"]}
        if name == "reports":
            return {"children": self._reports if values["shown"] else ()}
        return values

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Mark what this thread sets, so that it is not taken for what the user does."""
        self._drawing = threading.get_ident()
        try:
            yield
        finally:
            self._drawing = None

    def _pressed(self, name: str) -> Callable[[object], None]:
        action = self._diagnose if name == "diagnostics" else getattr(self._actions, name)
        return lambda _: action()

    def _chosen(self, change: Mapping[str, Any]) -> None:
        plan = change["new"]
        if plan is None or self._drawing == threading.get_ident():
            return
        try:
            self._actions.choose(plan)
        except InvalidArgumentError:  # Too late.
            with self.drawing():
                self.widgets["plan"].value = change["old"]
        else:
            self._asked = (plan, self._clock() + CHOICE_HOLDS_S)

    def _diagnose(self) -> None:
        if not self._gathering:
            self._gathering = True
            self._reported_of = self._seen
            threading.Thread(target=self._gather, name="nbloader-diagnostics", daemon=True).start()

    def _gather(self) -> None:
        try:
            self._report = self._actions.diagnostics()
        except Exception as error:
            self._report = plain(f"The diagnostics failed: {type(error).__name__}: {error}")
        finally:
            self._gathering = False
            self._reported()
