"""A failed attempt at a piece of a file, with what the policy needs to know of it."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable

from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.transfer.policy import Reason

__all__ = ["TRANSIENT_STATUS", "Failure", "retry_after_s", "status_failure"]

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that ask to come back, or that a proxy gives while the Hub is busy."""


class Failure(Exception):  # noqa: N818 - an outcome for the policy, shown to nobody as it is
    """An attempt ended before its time; another may do better.

    Its text says in one short line what went wrong, without addresses: those may be signed.

    Attributes:
        reason: what the policy looks at.
        retry_after_s: how long the server asks to wait.
    """

    def __init__(
        self, reason: Reason, text: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(text or str(reason))
        self.reason = reason
        self.retry_after_s = retry_after_s


def status_failure(status: int, retry_after: str | None) -> Failure:
    """Give the failure that an HTTP status means, where a later attempt may get another."""
    reason = Reason.REFUSED
    if status in TRANSIENT_STATUS:
        reason = Reason.RATE_LIMITED if status == 429 else Reason.BUSY
    return Failure(
        reason, f"the server answered {status}", retry_after_s=retry_after_s(retry_after)
    )


def retry_after_s(value: str | None, clock: Callable[[], float] = time.time) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or a date.

    Returns:
        Seconds from now, from 0 to `MAX_RETRY_AFTER_S`; None where there is no such header, or it
        makes no sense.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_RETRY_AFTER_S)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - clock()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None
