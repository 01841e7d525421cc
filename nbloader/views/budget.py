"""How often a view is drawn anew, and how many messages that may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from nbloader.state import JobState

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
            state.selection is None,
            bool(state.checks),
            min(len(state.notices), _MAX_URGENT_NOTICES),
            state.waited_for,
        )
        if news == self._news and now - self._last <= self._every_s:
            return False
        self._last = now
        self._news = news
        return True


class Budget:
    """Says which message is sent next, and keeps their number in any `per_s` seconds bounded.

    Args:
        ranks: how important a message is, by its name; 0 is the most important.
        clock: seconds, steady.
        limit: messages in any `per_s` seconds, both ends included.
    """

    def __init__(
        self,
        ranks: Mapping[str, int],
        clock: Callable[[], float],
        *,
        limit: int,
        per_s: float,
    ) -> None:
        self._ranks = ranks
        self._clock = clock
        self._limit = limit
        self._per_s = per_s
        self._sent: deque[tuple[float, int]] = deque()
        self._turns: dict[str, int] = {}
        self._turn = 0

    def next(self, waiting: Collection[str], *, spare: int) -> str | None:
        """Return the name of the message to send now, and count it; None while there is no room.

        The most important one comes first, among equals the one that was sent the longest ago.

        Args:
            spare: how many of `limit` are kept for rank 0. Of the others each rank leaves one more
                to those above it, so that what is unimportant delays nothing.
        """
        now = self._clock()
        self._forget(now)
        if not waiting:
            return None
        name = min(waiting, key=lambda each: (self._ranks[each], self._turns.get(each, 0)))
        rank = self._ranks[name]
        if not self._room(rank, spare):
            return None
        self._turn += 1
        self._turns[name] = self._turn
        self._sent.append((now, rank))
        return name

    def has_room(self, count: int) -> bool:
        """Say whether so many messages may be sent now, or as many as ever at once."""
        self._forget(self._clock())
        return len(self._sent) + min(count, self._limit) <= self._limit

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] + self._per_s < now:
            self._sent.popleft()

    def _room(self, rank: int, spare: int) -> bool:
        if len(self._sent) >= self._limit:
            return False
        others = sum(rank > 0 for _, rank in self._sent)
        return rank == 0 or others < self._limit - spare - (rank - 1)
