"""Where the events of a job go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nbloader.notebook import Turn
from nbloader.records import Event, Failed, FileProgress, Notice, Ready, Stage, StageStarted
from nbloader.state import JobState, PastJob, advance, apply, progress, recall
from nbloader.views import View
from nbloader.wording import Reader, worded

__all__ = ["Reporter"]

FOLD_EVERY_S = 0.1
"""As often as the worker tells of the bytes of a file: more often there is nothing new."""

LATE_S = 0.3
"""An import can hold the interpreter for seconds, while the worker goes on. A look that comes so
late tells nothing about silence: first all is read that has arrived meanwhile."""


class Reporter:
    """The one way of an event: into the state, to the view, to the caller.

    However fast bytes arrive, their progress is folded a few times a second.

    Args:
        waited_for: tells whether a cell waits for the result.
        turn: tells how the work stands that is done where the cells run.
        reader: who reads what is said: the state, the view and the caller have it in his words.
        clock: seconds, steady.

    Attributes:
        state: all that has happened so far, but for the bytes of the last moment.
    """

    def __init__(
        self,
        repo_id: str,
        view: View,
        on_event: Callable[[Event], object] | None,
        *,
        waited_for: Callable[[], bool] = lambda: False,
        turn: Callable[[], Turn | None] = lambda: None,
        reader: Reader = Reader.CELL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._waited_for = waited_for
        self._turn = turn
        self._reader = reader
        self._on_event = on_event
        self._clock = clock
        self._arrived: dict[str, int] = {}
        now = self._folded_at = self._arrived_at = self._ticked_at = clock()
        self._late_until = now
        self.state = JobState(repo_id=repo_id, started_at=now, updated_at=now)

    def publish(self, event: Event) -> None:
        """Fold the event, show the state, and tell the caller."""
        now = self._clock()
        if isinstance(event, FileProgress):
            self._arrive(event, now)
        else:
            event = self._worded(event)
            self._fold(event, now)
            self._view.update(self.state)
        self._tell(event)

    def tick(self) -> None:
        """Let the view show that time passes."""
        now = self._clock()
        if now - self._ticked_at > LATE_S:
            self._late_until = now + LATE_S
        self._ticked_at = now
        self._fold_progress()
        if now >= self._late_until:
            self.state = self._advanced(now)
        self._view.update(self.state)

    def _arrive(self, event: FileProgress, now: float) -> None:
        at = now if event.at is None else min(now, event.at)
        if now - at > LATE_S:
            self._late_until = now + LATE_S
        self._arrived[event.path] = event.completed
        self._arrived_at = at
        if at - self._folded_at >= FOLD_EVERY_S:
            self._fold_progress()
            self._view.update(self.state)

    def _fold_progress(self) -> None:
        if self._arrived:
            self.state = progress(self.state, self._arrived, self._arrived_at)
            self._arrived = {}
            self._folded_at = self._arrived_at

    def recall(self, past: Sequence[PastJob]) -> None:
        """Let the state know of the last jobs of this machine."""
        self.state = recall(self.state, past)

    def begin(self, stage: Stage) -> None:
        """Publish that a stage begins."""
        self.publish(StageStarted(stage=stage))

    def finish(self, event: Ready | Failed) -> None:
        """Publish the last event; the view is closed even if `on_event` fails.

        The view shows the end at once as it will stay, not for a moment as it looks live.
        """
        told = self._worded(event)
        self._fold(told, self._clock())
        try:
            self._tell(told)
        finally:
            self._view.close(self.state)

    def _fold(self, event: Event, now: float) -> None:
        self._fold_progress()
        self.state = apply(self._advanced(now), event, now)

    def _advanced(self, now: float) -> JobState:
        return advance(self.state, now, waited_for=self._waited_for(), turn=self._turn())

    def _worded(self, event: Event) -> Event:
        if not isinstance(event, (Notice, Failed)):
            return event
        message, hint = (worded(text, self._reader) for text in (event.message, event.hint))
        return replace(event, message=message, hint=hint)

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            on_event, self._on_event = self._on_event, None
            on_event(event)
            self._on_event = on_event  # Not called again once it has failed.
