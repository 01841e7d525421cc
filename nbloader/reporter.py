"""Where the events of a job go."""

from __future__ import annotations

import time
from collections.abc import Callable

from nbloader.records import Event, Failed, Ready, Stage, StageStarted
from nbloader.state import JobState, advance, apply
from nbloader.views.base import View

__all__ = ["Reporter"]


class Reporter:
    """The one way of an event: into the state, to the view, to the caller.

    Args:
        waited_for: tells whether a cell waits for the result.

    Attributes:
        state: all that has happened so far.
    """

    def __init__(
        self,
        repo_id: str,
        view: View,
        on_event: Callable[[Event], object] | None,
        *,
        waited_for: Callable[[], bool] = lambda: False,
    ) -> None:
        self._view = view
        self._waited_for = waited_for
        self._on_event = on_event
        now = time.monotonic()
        self.state = JobState(repo_id=repo_id, started_at=now, updated_at=now)

    def publish(self, event: Event) -> None:
        """Fold the event, show the state, and tell the caller."""
        self.state = apply(self.state, event, time.monotonic())
        self._view.update(self.state)
        if self._on_event is not None:
            on_event, self._on_event = self._on_event, None
            on_event(event)
            self._on_event = on_event  # Not called again once it has failed.

    def tick(self) -> None:
        """Let the view show that time passes."""
        self.state = advance(self.state, time.monotonic(), waited_for=self._waited_for())
        self._view.update(self.state)

    def begin(self, stage: Stage) -> None:
        """Publish that a stage begins."""
        self.publish(StageStarted(stage=stage))

    def finish(self, event: Ready | Failed) -> None:
        """Publish the last event; the view is closed even if `on_event` fails."""
        try:
            self.publish(event)
        finally:
            self._view.close(self.state)
