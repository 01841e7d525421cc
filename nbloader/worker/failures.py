"""Failed attempts, what they mean, and when the next one may be made."""

from __future__ import annotations

import email.utils
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import tenacity

from nbloader.errors import RUN_AGAIN, DownloadError
from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.records import Retry, TransferPolicy
from nbloader.transfer.policy import Reason, asks_too_much, retry_record, rule_of

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that ask to come back, or that a proxy gives while the Hub is busy."""

_SAID: Mapping[int, str] = MappingProxyType(
    {
        408: "the server has waited too long",
        425: "the server asks to come back later",
        429: "the server asks for fewer requests",
        500: "the server failed",
        502: "the server's gateway failed",
        503: "the server is busy",
        504: "the server's gateway has waited too long",
    }
)
"""What a status says, in words; all else is a refusal."""

_T = TypeVar("_T")

ATTEMPTS_ON_A_BAD_LINK, MAX_ATTEMPTS = 10, 100
"""What is offered where the attempts did not do, and what the setting takes at most."""

OPENING_ATTEMPTS = 3
"""For the first question to the Hub: nothing is lost yet, and nobody wants to wait for minutes to
hear that there is no network."""


class Failure(Exception):  # noqa: N818 - an outcome for the policy, shown to nobody as it is
    """An attempt ended before its time; another may do better.

    Its text says in one short line what went wrong, without addresses: those may be signed.

    Attributes:
        reason: what the policy looks at.
        retry_after_s: how long the server asks to wait.
        host: where it happened, with its port if that is not the usual one; None if nobody knows.
    """

    def __init__(
        self,
        reason: Reason,
        text: str = "",
        *,
        retry_after_s: float | None = None,
        host: str | None = None,
    ) -> None:
        super().__init__(text or str(reason))
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.host = host


def status_failure(status: int, retry_after: str | None, date: str | None = None) -> Failure:
    """Return the failure that an HTTP status means, where a later attempt may get another.

    Args:
        retry_after, date: headers of the answer.
    """
    reason = Reason.REFUSED
    if status in TRANSIENT_STATUS:
        reason = Reason.RATE_LIMITED if status == 429 else Reason.BUSY
    said = _SAID.get(status, "the server refuses")
    return Failure(reason, f"{said} ({status})", retry_after_s=retry_after_s(retry_after, date))


def seconds_of(date: str | None) -> float | None:
    """Read a date of HTTP; None for what is none."""
    try:
        seconds = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def retry_after_s(
    value: str | None, date: str | None = None, clock: Callable[[], float] = time.time
) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or a date.

    Args:
        date: when the server has answered by its own clock, which counts: that of this machine may
            be wrong. None if it does not say so.

    Returns:
        Seconds from now, from 0 to `MAX_RETRY_AFTER_S`; None where there is no such header, or it
        makes no sense.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_RETRY_AFTER_S)
    until, now = seconds_of(text), seconds_of(date)
    if until is None:
        return None
    return min(max(0.0, until - (clock() if now is None else now)), MAX_RETRY_AFTER_S)


def not_downloaded(
    path: str, failure: Failure, tried: str, attempts: int, hosts: Sequence[str] = ()
) -> DownloadError:
    """Make the error for a file that is given up, with a hint that fits what was in the way.

    Args:
        tried: how often, or how long.
        attempts: how often, in a row.
        hosts: where it was tried.
    """
    where = " and ".join(hosts)
    at = f" from {where}" if where else ""
    more = min(MAX_ATTEMPTS, max(ATTEMPTS_ON_A_BAD_LINK, 2 * attempts))
    hint = f'{RUN_AGAIN} On a bad link, pass settings={{"max_retries": {more}}}.'
    if failure.reason is Reason.BLOCKED:
        hint = (
            f"A firewall or the name server of the network may block {where or 'it'}: have it "
            f"allowed, or use another network or a mirror (HF_ENDPOINT). {RUN_AGAIN}"
        )
    elif failure.reason is Reason.PAGE:
        hint = (
            f"A firewall or a sign-in page stands before {where or 'the server'}: open "
            f"{f'https://{hosts[-1]}' if hosts else 'it'} in a browser to see it, have the host "
            f"allowed, or use another network. {RUN_AGAIN}"
        )
    elif failure.reason in (Reason.STALLED, Reason.TIMED_OUT):
        hint = (
            f"{RUN_AGAIN} Where each answer begins late, pass "
            'settings={"check_network": False, "stall_timeout_s": 120}.'
        )
    return DownloadError(f"{path} could not be downloaded{at} ({failure}; {tried})", hint=hint)


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

    def refusal(self, status: int, retry_after: str | None, date: str | None = None) -> Failure:
        """Return the failure that an answer of the Hub means; keep the wait that it asks for."""
        failure = status_failure(status, retry_after, date)
        if failure.reason is Reason.RATE_LIMITED:
            with self._lock:
                now = self._clock()
                if failure.retry_after_s:
                    self._until = max(self._until, now + failure.retry_after_s)
                elif failure.retry_after_s is None and self._until > now:
                    failure.retry_after_s = self._until - now
                self._why = failure
        return failure


def call_with_retries(
    function: Callable[[], _T],
    *,
    policy: TransferPolicy,
    path: str | None,
    publish: Callable[[Retry], object],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    chance: Callable[[], float] = random.random,
) -> _T:
    """Call until it works, an error comes that is no `Failure`, or the attempts are used up.

    A server that asks for a longer wait than the policy allows ends it as well.

    Args:
        path: the file that the call is about.
        publish: told of each failed attempt that is followed by another.
        chance: gives random numbers from 0 to 1.

    Raises:
        The last error, as it was raised.
    """

    lasting = 0

    def failure(state: tenacity.RetryCallState) -> Failure:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, Failure)
        return error

    def wait(state: tenacity.RetryCallState) -> float:
        asked = failure(state).retry_after_s or 0.0
        rule = rule_of(failure(state).reason)
        if rule.at_once and state.attempt_number == 1:
            return asked
        return max(rule.backoff_s(state.attempt_number, policy, chance()), asked)

    def stop(state: tenacity.RetryCallState) -> bool:
        nonlocal lasting
        rule = rule_of(failure(state).reason)
        lasting += rule.lasting
        used_up = state.attempt_number >= policy.max_retries
        used_up = used_up or (rule.lasting and lasting >= rule.attempts(policy))
        return used_up or asks_too_much(failure(state).retry_after_s, policy)

    def announce(state: tenacity.RetryCallState) -> None:
        publish(
            retry_record(
                policy,
                time=clock(),
                path=path,
                reason=str(failure(state)),
                wait_s=state.upcoming_sleep,
                attempt=state.attempt_number,
            )
        )

    retrying = tenacity.Retrying(
        stop=stop,
        wait=wait,
        retry=tenacity.retry_if_exception_type(Failure),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )
    return retrying(function)
