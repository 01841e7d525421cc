"""A view that may break: the job goes on with another one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from nbloader.records import Notice
from nbloader.state import JobState
from nbloader.views.base import NoView, View, has_controls

__all__ = ["Guarded"]


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
