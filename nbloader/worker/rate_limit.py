"""The Hub's request to be left alone for a while, kept by all who ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.transfer.policy import Reason
from nbloader.worker.failure import Failure, status_failure

__all__ = ["RateLimit"]


class RateLimit:
    """When the Hub may be asked again. It counts by address, so this holds for every file."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._why: Failure | None = None

    def check(self) -> None:
        """Raise Failure, with the time that is left, if the Hub may not be asked yet."""
        with self._lock:
            left, why = self._until - self._clock(), self._why
        if left > 0 and why is not None:
            raise Failure(why.reason, str(why), retry_after_s=left)

    def resets_in(self, seconds: float) -> None:
        """Note when the Hub's window ends, from an answer that refuses and asks for no wait."""
        with self._lock:
            wait_s = min(seconds, MAX_RETRY_AFTER_S)
            self._until = max(self._until, self._clock() + wait_s)

    def refusal(self, status: int, retry_after: str | None) -> Failure:
        """Give the failure that an answer of the Hub means, and keep the wait that it asks for."""
        failure = status_failure(status, retry_after)
        if failure.reason is Reason.RATE_LIMITED:
            with self._lock:
                now = self._clock()
                if failure.retry_after_s:
                    self._until = max(self._until, now + failure.retry_after_s)
                elif failure.retry_after_s is None and self._until > now:
                    failure.retry_after_s = self._until - now
                self._why = failure
        return failure
