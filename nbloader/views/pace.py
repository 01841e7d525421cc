"""How often a view is drawn anew."""

from __future__ import annotations

from collections.abc import Callable

from nbloader.state import JobState

__all__ = ["Pace"]

_MAX_URGENT_NOTICES = 10


class Pace:
    """Lets a state through at most once in `every_s` seconds, news at once.

    News are what can come right before a long step in which nothing is drawn, such as a new stage.
    There are few of them in a job, whatever happens. Bytes and retries wait for their turn.

    Args:
        every_s: the shortest time between two states, unless there are news.
        clock: seconds, steady.
    """

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s = every_s
        self._clock = clock
        self._last = -float("inf")
        self._news: tuple[object, ...] = ()

    def due(self, state: JobState) -> bool:
        """Say whether this state is to be drawn, and take it as drawn if so."""
        now = self._clock()
        news = (
            state.status,
            len(state.stages),
            state.plan is None,
            bool(state.checks),
            min(len(state.notices), _MAX_URGENT_NOTICES),
        )
        if news == self._news and now - self._last <= self._every_s:
            return False
        self._last = now
        self._news = news
        return True
