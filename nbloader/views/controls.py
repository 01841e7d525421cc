"""The buttons of a job in the background: which of them can act, and why the others cannot.

`controls` decides, `ControlWidgets` holds the real widgets. While a cell runs, a kernel handles no
click: it waits until the cell has ended. A button that can be pressed then would seem broken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from nbloader.errors import InvalidArgumentError
from nbloader.notebook import Turn
from nbloader.records import Stage
from nbloader.state import JobState, Status
from nbloader.text import plain
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

PLACES = "where the model is placed"
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
class Control:
    """One control.

    Attributes:
        why: why it cannot act, a few words; empty if it can.
        when: what a click waits for, a few words; empty if it acts at once.
    """

    why: str = ""
    when: str = ""

    @property
    def enabled(self) -> bool:
        """Whether it can act."""
        return not self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """All controls for a state.

    Attributes:
        options: the plans to choose from: what is shown, and the `records.Method` value.
        chosen: the value of the plan that is shown as chosen; None for none.
    """

    cancel: Control
    retry: Control
    download_anyway: Control
    diagnostics: Control
    plan: Control
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

    # What waits for a job that has ended is about to end, too.
    rests = state.waited_for and state.status is Status.RUNNING

    def control(why: str) -> Control:
        why = RESTS if rests else why
        return Control(why=why, when="" if why else _when(state))

    return Controls(
        cancel=control(_ended(state)),
        retry=control("" if state.status is Status.FAILED else "nothing has failed"),
        download_anyway=control(_why_not_anyway(state)),
        diagnostics=control(""),
        plan=control(_no_choice(state, values, chosen)),
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


def _ended(state: JobState) -> str:
    return "" if state.status is Status.RUNNING else "it has ended"


def _why_not_anyway(state: JobState) -> str:
    if state.status is not Status.FAILED or state.failure is None:
        return "no check has failed"
    return "" if state.failure.forceable else "what failed is not a check that can be passed over"


def _no_choice(state: JobState, fitting: Sequence[str], chosen: str | None) -> str:
    """Say why no plan can be chosen.

    Args:
        fitting: the plans that fit.
        chosen: the one that is taken; None where one was asked for that does not fit.
    """
    if state.status is Status.READY:
        return _ended(state)
    if state.status is Status.RUNNING and state.has_begun(Stage.INITIALISE):
        return "the files are there, and the model is built next"
    if state.fit is None:
        return "the checks have not been made yet"
    others = [plan for plan in fitting if plan != chosen]
    return "" if others else "only one plan fits" if fitting else "no plan fits"


def control_traits(
    found: Controls, *, report: str, working: bool = False
) -> dict[str, dict[str, object]]:
    """Say what the widgets of the controls show: values of traits by widget.

    Args:
        report: the text of the diagnostics; empty until they were asked for.
        working: whether they are being gathered.
    """
    wanted: dict[str, dict[str, object]] = {}
    for name in BUTTONS:
        control: Control = getattr(found, name)
        why = control.why or ("being gathered" if working and name == "diagnostics" else "")
        wanted[name] = {"disabled": bool(why), "tooltip": why or control.when or BUTTONS[name]}
    wanted["plan"] = {
        "options": found.options,
        "value": found.chosen,
        "disabled": not found.plan.enabled,
        "tooltip": found.plan.why or (FOR_RETRY if found.retry.enabled else PLACES),
    }
    wanted["note"] = {"value": box([_note(found), line(_COPY) if report else ""])}
    wanted["report"] = {"value": report}
    wanted["reports"] = {"shown": bool(report)}
    return wanted


def _note(found: Controls) -> str:
    """Say why what cannot act cannot, each reason once; or what clicks wait for."""
    names: dict[str, list[str]] = {}
    for name, title in (*BUTTONS.items(), ("plan", "Plan")):
        control: Control = getattr(found, name)
        if control.when:
            return line(faint(control.when))
        if not control.enabled:
            names.setdefault(control.why, []).append(title)
    if list(names) == [RESTS]:
        return line(faint(RESTS))
    said = [f"{', '.join(titles)}: {why}" for why, titles in names.items()]
    if found.retry.enabled and found.plan.enabled:
        said.append(FOR_RETRY)
    return line(faint(" · ".join(said) or "&nbsp;"))


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
        self._tooltip = (
            "tooltip" if "tooltip" in make.Dropdown.class_trait_names() else "description_tooltip"
        )
        self.widgets: dict[str, Any] = {}
        self.values = self.traits(state)
        first = {
            name: self.real(name, values)
            for name, values in self.values.items()
            if name != "reports"
        }
        fit = keep(make.Layout(width="auto", margin="0 6px 4px 0", flex="0 0 auto"))
        row = keep(make.Layout(width="auto", margin="4px 0 0 0", flex_flow="row wrap"))
        wide = keep(make.Layout(width="auto", margin="0 0 4px 0", flex="0 0 auto"))
        tall = keep(make.Layout(width="auto", height="12em", margin="0"))
        style = keep(make.ButtonStyle())
        for name, title in BUTTONS.items():
            button = make.Button(description=title, layout=fit, style=style, **first[name])
            self.widgets[name] = keep(button)
            button.on_click(self._pressed(name))
        buttons = keep(make.HBox(tuple(self.widgets.values()), layout=row))
        plan = keep(make.Dropdown(description="Plan", layout=wide, **first["plan"]))
        plan.observe(self._chosen, "value")
        note = keep(make.HTML(layout=wide, **first["note"]))
        report = keep(make.Textarea(layout=tall, continuous_update=False, **first["report"]))
        for widget in (plan, note, report):
            keep(widget.style)
        self.widgets |= {"plan": plan, "note": note, "report": report}
        reports = keep(make.VBox(layout=wide, **self.real("reports", self.values["reports"])))
        self.widgets["reports"] = reports
        self.children = (buttons, plan, note, reports)

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

    def real(self, name: str, values: Mapping[str, object]) -> Mapping[str, object]:
        """Return the traits that the installed ipywidgets has for what a widget shows."""
        if name == "reports":
            return {"children": (self.widgets["report"],) if values["shown"] else ()}
        if name == "plan":
            return {
                self._tooltip if trait == "tooltip" else trait: value
                for trait, value in values.items()
            }
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
