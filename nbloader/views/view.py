"""What every view can do, which one a job gets, and the one that takes over when it breaks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TextIO

from nbloader.notebook import batch_told_by, running_kernel
from nbloader.records import Notice
from nbloader.state import JobState

if TYPE_CHECKING:
    from nbloader.views.controls import Actions

OLDEST_IPYWIDGETS = (7, 7)


class View(Protocol):
    """Shows a job. Called from one thread at a time."""

    def update(self, state: JobState) -> None:
        """Show the state; may pass over states that come too soon after one another."""

    def close(self, state: JobState) -> None:
        """Show the last state and leave only what may stay. Called once."""


def has_controls(view: View) -> bool:
    """Say whether a view has buttons that act on the job."""
    return bool(getattr(view, "has_controls", False))


class NoView:
    """Shows nothing."""

    def update(self, state: JobState) -> None:
        """Show nothing."""

    def close(self, state: JobState) -> None:
        """Show nothing."""


class ViewName(StrEnum):
    """The views that can be asked for."""

    AUTO = "auto"
    WIDGET = "widget"
    HTML = "html"
    TEXT = "text"
    TQDM = "tqdm"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """What is known of the place where the output will be seen.

    Attributes:
        kernel: whether this process is a Jupyter kernel.
        interactive: whether someone sits at the notebook or at the terminal. In a batch run
            (papermill, nbconvert, nbclient, nbval, Kaggle's "Save & Run All") nobody does, and
            nobody does where the output goes into a pipe or a file.
        ipywidgets: its installed version, None if it is not there.
    """

    kernel: bool = False
    interactive: bool = False
    ipywidgets: tuple[int, ...] | None = None


def choose_view(requested: ViewName, facts: FrontEnd) -> ViewName:
    """Settle which view is shown.

    `auto` is the richest view that works for certain. A view that cannot be shown gives way to the
    next one that can: a model is not worth less because its progress looks plainer.

    Widgets need someone who looks: a saved notebook must not hold them, and what runs notebooks in
    a batch drops the update that would take them out (nbval), so a batch run gets text.
    """
    if requested in {ViewName.NONE, ViewName.TEXT, ViewName.TQDM}:
        return requested
    if facts.kernel and requested is ViewName.HTML:
        return ViewName.HTML
    if not facts.interactive:
        return ViewName.TEXT
    if not facts.kernel:
        return ViewName.TQDM
    widgets = facts.ipywidgets is not None and facts.ipywidgets >= OLDEST_IPYWIDGETS
    return ViewName.WIDGET if widgets else ViewName.HTML


def front_end(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> FrontEnd:
    """Find out where the output will be seen. Imports nothing that is not there already.

    Args:
        stream: where the views of text write to; None for the standard output.
    """
    kernel = running_kernel()
    batch = bool(batch_told_by(environ, kernel))
    if kernel is None:
        return FrontEnd(interactive=not batch and _is_terminal(stream or sys.stdout))
    return FrontEnd(kernel=True, interactive=not batch, ipywidgets=_installed("ipywidgets"))


def make_view(
    name: ViewName,
    *,
    stream: TextIO | None,
    speed: bool = True,
    eta: bool = True,
    actions: Actions | None = None,
) -> View:
    """Make a view that `choose_view` has chosen. One that breaks gives way to text.

    Args:
        stream: where the views of text write to; None for a program without a console.
        speed, eta: whether the speed and the time left are shown.
        actions: what the buttons of the widget do; None for a view without buttons.
    """
    # Where the call has no buttons, whoever made it sees its error, too.
    raised = actions is None

    def text() -> View:
        if stream is None:
            return NoView()
        from nbloader.views.text import TextView

        terminal = _is_terminal(stream)
        return TextView(stream, interactive=terminal, speed=speed, eta=eta, raised=raised)

    match name:
        case ViewName.NONE:
            return NoView()
        case ViewName.WIDGET | ViewName.HTML:
            return Guarded(_notebook_view(name, speed, eta, raised, actions), text)
        case ViewName.TQDM if stream is not None:
            from nbloader.views.text import TqdmView

            return Guarded(TqdmView(stream, speed=speed, eta=eta, raised=raised), text)
        case _:
            return Guarded(text(), NoView)


def _notebook_view(
    name: ViewName, speed: bool, eta: bool, raised: bool, actions: Actions | None
) -> View:
    """Make a view of a cell."""
    from nbloader.views.display import Form, NotebookDisplay
    from nbloader.views.html import HtmlView

    display = NotebookDisplay()
    form = Form(speed=speed, eta=eta, raised=raised)
    if name is ViewName.WIDGET:
        from nbloader.views.widget import WidgetView

        # Where ipywidgets is installed and broken, HTML will do.
        with contextlib.suppress(Exception):
            return WidgetView(display, form=form, actions=actions)
    return HtmlView(display, form=form)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):  # No real stream, or a closed one.
        return False


def _installed(package: str) -> tuple[int, ...] | None:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.version import InvalidVersion, Version

    try:
        return Version(version(package)).release
    except (PackageNotFoundError, InvalidVersion):
        return None


class Guarded:
    """Shows a job by one view, and by another one from the moment at which the first breaks.

    The second one says so once, as the first of its notices. Where it breaks too, nothing is shown
    any more. Only an `Exception` counts as broken: an interrupt goes on to the caller.

    Args:
        view: the one that is wanted.
        instead: makes the one that takes over.

    Attributes:
        view: the one that is in use.
        error: what the first one broke with; None while it is whole.
    """

    def __init__(self, view: View, instead: Callable[[], View]) -> None:
        self.view = view
        self.error: Exception | None = None
        self._instead = instead
        self._notice: Notice | None = None

    @property
    def has_controls(self) -> bool:
        """Whether the view in use has buttons."""
        return has_controls(self.view)

    def update(self, state: JobState) -> None:
        """Show the state in the view that works."""
        try:
            self.view.update(self._told(state))
        except Exception as error:
            with contextlib.suppress(Exception):
                self.view.close(state)
            self._replace(error)
            self.update(state)

    def close(self, state: JobState) -> None:
        """Show the last state in the view that works, and close it."""
        try:
            self.view.close(self._told(state))
        except Exception as error:
            self._replace(error)
            self.close(state)

    def _told(self, state: JobState) -> JobState:
        """Add the notice, in front, so that the place of every other one stays the same."""
        if self._notice is None:
            return state
        return replace(state, notices=(self._notice, *state.notices))

    def _replace(self, error: Exception) -> None:
        first = self.error is None
        broken, self.view = self.view, NoView()
        if not first:
            return
        self.error = error
        self._notice = Notice(
            reference="view-broken",
            message=f"{type(broken).__name__} broke with {type(error).__name__}",
            hint="The job goes on.",
        )
        with contextlib.suppress(Exception):
            self.view = self._instead()
