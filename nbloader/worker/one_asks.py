"""One asks, the others wait and share what comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nbloader.limits import ASKING_STEP_S
from nbloader.worker.failure import Failure

__all__ = ["OneAsks"]


class OneAsks:
    """Lets threads that want the same answer ask one after another.

    Where one fails, those that waited for it fail with it: a server that is silent would otherwise
    hold them all, each for its own timeout, in turn.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._failure: Failure | None = None

    @contextmanager
    def turn(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Wait for one's turn; within it, see first whether the answer is there by now.

        Args:
            waiting: called from time to time while others are asked.

        Raises:
            Failure: that of the one who asked meanwhile.
        """
        came_at = self._clock()
        while not self._lock.acquire(timeout=ASKING_STEP_S):
            waiting()
        try:
            waiting()
            if self._failure is not None and self._failed_at >= came_at:
                why = self._failure
                raise Failure(why.reason, str(why), retry_after_s=why.retry_after_s)
            try:
                yield
            except Failure as failure:
                self._failed_at, self._failure = self._clock(), failure
                raise
        finally:
            self._lock.release()
