"""What the parent remembers of its workers, and what follows when one dies or hangs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

from nbloader.errors import WorkerDiedError
from nbloader.records import Event, FileDone, FileProgress, Notice, Retry, Route, Selected
from nbloader.transfer.policy import Attempts, GiveUp, Reason, decide
from nbloader.transfer.protocol import Start, Stuck, Tried

__all__ = ["Ledger", "WorkerHungError"]

MAX_WORDS = 200


class WorkerHungError(Exception):
    """The worker has to be killed.

    Attributes:
        stuck: the fetch that it cannot end; None if it says nothing any more.
    """

    def __init__(self, stuck: Stuck | None) -> None:
        super().__init__(stuck)
        self.stuck = stuck


class Ledger:
    """What is known of the transfer, apart from any one worker.

    Attributes:
        selected: the selection that was approved; None before.
    """

    def __init__(
        self,
        start: Start,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.selected: Selected | None = None
        self._start = start
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._tried: dict[str, Tried] = {}
        self._completed: dict[str, int] = {}
        self._complete: set[FileDone | Notice] = set()
        self._brought = 0
        self._began_at = clock()
        self._attempts = Attempts(route=Route.XET, moved_at=clock())

    def next_start(self) -> Start:
        """Give the question for the next worker."""
        self._began_at, self._brought = self._clock(), 0
        policy = self._start.policy
        if self._attempts.route is Route.HTTP and policy.route is None:
            # It is the native code of the other that takes a process down.
            policy = replace(policy, route=Route.HTTP)
        refused = (
            self.selected is not None and self.selected.hub and self.selected.hub.token_refused
        )
        return replace(
            self._start,
            policy=policy,
            token=False if refused else self._start.token,
            commit_hash=self.selected.selection.commit_hash if self.selected else None,
            companions=self.selected.selection.companions if self.selected else (),
            tried=tuple(self._tried.values()),
        )

    def heard(self, report: Event) -> bool:
        """Note what a worker says, and tell whether it is news: a second worker says again what
        is complete."""
        if isinstance(report, (FileDone, Notice)):
            news = report not in self._complete
            self._complete.add(report)
            return news
        if isinstance(report, FileProgress):
            left = self.selected.partial.get(report.path, 0) if self.selected else 0
            before = self._completed.get(report.path, left)
            self._brought += max(0, report.completed - before)
            tried = self._tried.get(report.path)
            if tried is not None and report.completed > before:
                self._tried[report.path] = replace(tried, fruitless=0)
            self._completed[report.path] = report.completed
        elif isinstance(report, Retry) and report.path is not None and report.route is not None:
            before_it = self._tried.get(report.path)
            wrong = before_it.wrong if before_it else 0
            self._tried[report.path] = Tried(
                path=report.path,
                route=report.route,
                fruitless=report.attempt,
                wrong=wrong + (report.reason == Reason.WRONG_BYTES),
            )
        return True

    def after(self, error: WorkerDiedError | WorkerHungError) -> Retry:
        """Give the record of what follows the end of a worker.

        Raises:
            WorkerDiedError: no other worker follows.
        """
        reason, path, route, failed_route = Reason.WORKER_DIED, None, None, None
        if isinstance(error, WorkerHungError):
            reason = Reason.WORKER_STUCK
            if error.stuck is not None:
                path, failed_route = error.stuck.path, error.stuck.route
                route = self._other(error.stuck)
                self._attempts = replace(self._attempts, route=failed_route)
        elif not error.by_signal and self.selected is None:
            raise error  # It cannot even begin here.
        decision = decide(
            reason,
            self._attempts,
            brought=self._brought,
            began_at=self._began_at,
            now=self._clock(),
            policy=self._start.policy,
            limit_s=float("inf"),
            routes=frozenset(Route),
            chance=self._chance(),
        )
        self._attempts = decision.attempts
        if isinstance(decision, GiveUp):
            if isinstance(error, WorkerDiedError):
                raise error
            raise WorkerDiedError(
                f"the download process hung {decision.attempts.fruitless} times in a row",
                hint="Run the line again: what has arrived is kept. If it hangs again, set "
                "HF_HUB_DISABLE_XET=1.",
            ) from error
        return Retry(
            time=self._wall_clock(),
            path=path,
            reason=_last_words(error) if isinstance(error, WorkerDiedError) else str(reason),
            wait_s=round(decision.wait_s, 3),
            attempt=decision.attempts.fruitless,
            max_attempts=self._start.policy.max_retries,
            route=route,
            failed_route=failed_route,
        )

    def _other(self, stuck: Stuck) -> Route:
        """Note that a file has to take the other route."""
        other = Route.HTTP if stuck.route is Route.XET else Route.XET
        other = self._start.policy.route or other
        tried = self._tried.get(stuck.path) or Tried(path=stuck.path, route=other)
        self._tried[stuck.path] = replace(tried, route=other)
        return other


def _last_words(error: WorkerDiedError) -> str:
    """Say in one line how a worker ended, and what it wrote last."""
    how, _, tail = error.message.partition("\n")
    last = tail.rpartition("\n")[2].strip()
    return f"{how} {last[:MAX_WORDS]}" if last else how
