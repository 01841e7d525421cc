"""What follows a failed attempt: a table, and the rules that read it. Pure.

An attempt that brought bytes is followed at once and is not counted: a link that dies every few
megabytes still gets there. Attempts that brought nothing wait longer and longer, and are counted;
those that fail together, because they were under way together, count once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.records import NO_BYTES, WITH_ANOTHER, Retry, Route, TransferPolicy

__all__ = [
    "Attempts",
    "GiveUp",
    "Reason",
    "asks_too_much",
    "backoff_s",
    "decide",
    "retry_record",
    "rule_of",
]

_SMALL_GAIN_BYTES = 1_000_000
_SMALL_GAIN_WAIT_S = 1.0
"""A server that hangs up after every few kilobytes is not to be hammered."""

DRIP_SPEED = 100.0
"""Bytes per second. A connection that is slower has stalled: no file comes to its end so."""

MAX_WRONG = 2
"""What came with wrong bytes is fetched once more, over the other route; what was wrong twice will
not become right."""

LASTING_ATTEMPTS = 3
"""What does not change by waiting is tried so often in a row: once more at the address that the
Hub gives now, and once for chance."""

LASTING_WAIT_S = 2.0
"""The longest wait between those, so that what is wrong is told within seconds."""

_JITTER = 0.25
"""So much of a wait is left to chance, so that many clients do not come back together."""


class Reason(StrEnum):
    """Why an attempt ended before its time."""

    STALLED = NO_BYTES
    TOO_SLOW = "too slow"
    CONNECTION_LOST = "connection lost"
    TIMED_OUT = "timed out"
    CAME_SHORT = "the file came short"
    BUSY = "the server is busy"
    RATE_LIMITED = "too many requests"
    EXPIRED = "the signed address has expired"
    REFUSED = "the server refused"
    REDIRECTS = "redirected without an end"
    OTHER_VERSION = "the server has another version of the file"
    BAD_ANSWER = "the answer is not what was asked for"
    PAGE = "a web page came in its place"
    BLOCKED = "the host cannot be reached"
    CANCELLED = WITH_ANOTHER
    XET = "Xet storage failed"
    WRONG_BYTES = "wrong bytes"
    WORKER_DIED = "the download process ended"
    WORKER_STUCK = "the download process hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What follows a failure.

    Attributes:
        switch_after: failures in a row on one route after which the next attempt takes the other.
        at_once: the first attempt that brought nothing is followed without a wait, because time
            was lost already, or because waiting mends nothing.
        lasting: what is wrong will most likely still be wrong in a minute, so a few attempts
            within seconds are all.
    """

    switch_after: int = 2
    at_once: bool = False
    lasting: bool = False

    def attempts(self, policy: TransferPolicy) -> int:
        """Return how many attempts in a row may end so."""
        return min(LASTING_ATTEMPTS, policy.max_retries) if self.lasting else policy.max_retries

    def backoff_s(self, fruitless: int, policy: TransferPolicy, chance: float) -> float:
        """Return the wait after so many attempts that brought nothing; see `backoff_s`."""
        wait_s = backoff_s(fruitless, policy, chance)
        return min(wait_s, LASTING_WAIT_S) if self.lasting else wait_s


RULES: Mapping[Reason, Rule] = MappingProxyType(
    {  # CANCELLED is missing: it is the failure of another piece.
        Reason.STALLED: Rule(switch_after=1, at_once=True),
        Reason.TOO_SLOW: Rule(switch_after=1, at_once=True),
        Reason.CONNECTION_LOST: Rule(),
        Reason.TIMED_OUT: Rule(),
        Reason.CAME_SHORT: Rule(),
        Reason.BUSY: Rule(),
        Reason.RATE_LIMITED: Rule(),
        Reason.EXPIRED: Rule(at_once=True, lasting=True),
        Reason.REFUSED: Rule(switch_after=1, lasting=True),
        Reason.REDIRECTS: Rule(switch_after=1, lasting=True),
        Reason.OTHER_VERSION: Rule(switch_after=1, at_once=True, lasting=True),
        Reason.BAD_ANSWER: Rule(switch_after=1, lasting=True),
        Reason.PAGE: Rule(switch_after=1, at_once=True, lasting=True),
        Reason.BLOCKED: Rule(switch_after=1, lasting=True),
        Reason.XET: Rule(),
        Reason.WRONG_BYTES: Rule(switch_after=1, at_once=True),
        Reason.WORKER_DIED: Rule(),
        Reason.WORKER_STUCK: Rule(switch_after=1, at_once=True),
    }
)


def rule_of(reason: Reason) -> Rule:
    """Return what follows a failure of this kind."""
    return RULES.get(reason, Rule())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How the attempts for one file (or of the whole worker) have gone so far.

    Attributes:
        route: the way of the next attempt.
        fruitless: attempts in a row that brought nothing.
        on_route: failures in a row on `route`.
        moved_at: when the last byte came, or the first attempt began.
        failed_at: when an attempt failed that was counted, or would have been.
        wrong: how often the whole file had the wrong bytes.
        lasting: attempts since the last bytes that ended for a reason which waiting does not mend.
    """

    route: Route
    moved_at: float
    fruitless: int = 0
    lasting: int = 0
    on_route: int = 0
    failed_at: float = float("-inf")
    wrong: int = 0

    def was_under_way(self, began_at: float) -> bool:
        """Say whether an attempt that began then was under way when another failed: they failed
        together, and count once."""
        return began_at < self.failed_at

    def moved(self, now: float) -> Attempts:
        """Note that bytes came."""
        return replace(self, moved_at=now, fruitless=0, lasting=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """Make another attempt.

    Attributes:
        wait_s: not before so many seconds have passed.
    """

    attempts: Attempts
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """No further attempt; `timed_out` if the time ran out, else the attempts did."""

    attempts: Attempts
    timed_out: bool


def backoff_s(fruitless: int, policy: TransferPolicy, chance: float) -> float:
    """Return the wait after a number of attempts in a row that brought nothing.

    It doubles from `retry_delay_min_s` up to `retry_delay_max_s`, less a random part that never
    takes it below the lower bound.

    Args:
        chance: a random number from 0 to 1.
    """
    doubled = policy.retry_delay_min_s * 2.0 ** min(fruitless - 1, 30)
    longest = min(policy.retry_delay_max_s, doubled)
    return max(policy.retry_delay_min_s, longest * (1 - _JITTER * chance))


def asks_too_much(retry_after_s: float | None, policy: TransferPolicy) -> bool:
    """Say whether a server asks for a longer wait than the policy allows."""
    return policy.max_wait_s is not None and (retry_after_s or 0.0) > policy.max_wait_s


def retry_record(
    policy: TransferPolicy,
    *,
    time: float,
    path: str | None,
    reason: str,
    wait_s: float,
    attempt: int,
    route: Route | None = None,
    failed_route: Route | None = None,
) -> Retry:
    """Return what is published of an attempt that failed and is followed by another.

    Args:
        time, path, reason, wait_s, attempt, route, failed_route: as `Retry` has them.
    """
    return Retry(
        time=time,
        path=path,
        reason=reason,
        wait_s=round(wait_s, 3),
        attempt=attempt,
        max_attempts=policy.max_retries,
        route=route,
        failed_route=failed_route,
    )


def decide(
    reason: Reason,
    attempts: Attempts,
    *,
    brought: int,
    began_at: float,
    now: float,
    policy: TransferPolicy,
    limit_s: float,
    routes: frozenset[Route],
    chance: float,
    retry_after_s: float | None = None,
) -> GoOn | GiveUp:
    """Say what follows an attempt that failed.

    Args:
        brought: bytes that the attempt added to what is on the disk.
        began_at: when the attempt began.
        limit_s: the longest that there may be no progress.
        routes: the ways that there are.
        chance: a random number from 0 to 1.
        retry_after_s: how long the server asks to wait.
    """
    rule = RULES[reason]
    # Wrong bytes are no gain, however many they were; nor are those that drip.
    gained = brought > DRIP_SPEED * (now - began_at) and reason is not Reason.WRONG_BYTES
    together = attempts.was_under_way(began_at)
    fruitless = 0 if gained else max(1, attempts.fruitless + (not together))
    on_route = attempts.on_route + (not together)
    route = attempts.route
    if on_route >= rule.switch_after and len(routes) > 1:
        route = next(other for other in sorted(routes) if other is not route)
        on_route = 0
    after = Attempts(
        route=route,
        moved_at=now if gained else attempts.moved_at,
        fruitless=fruitless,
        lasting=0 if gained else attempts.lasting + (rule.lasting and not together),
        on_route=on_route,
        failed_at=attempts.failed_at if together else now,
        wrong=attempts.wrong + (reason is Reason.WRONG_BYTES),
    )
    if gained:
        wait_s = 0.0 if brought >= _SMALL_GAIN_BYTES else _SMALL_GAIN_WAIT_S
        return GoOn(attempts=after, wait_s=min(wait_s, policy.retry_delay_min_s))
    wrong = reason is Reason.WRONG_BYTES
    if asks_too_much(retry_after_s, policy):
        return GiveUp(attempts=after, timed_out=False)
    if after.wrong >= MAX_WRONG if wrong else fruitless >= policy.max_retries:
        return GiveUp(attempts=after, timed_out=False)
    if rule.lasting and after.lasting >= rule.attempts(policy):
        return GiveUp(attempts=after, timed_out=False)
    if now - attempts.moved_at > limit_s:
        return GiveUp(attempts=after, timed_out=True)
    wait_s = rule.backoff_s(fruitless, policy, chance)
    if (rule.at_once and fruitless == 1) or (route is not attempts.route and fruitless <= 2):
        wait_s = 0.0  # Another route may work where this one does not, and waiting mends neither.
    asked = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    return GoOn(attempts=after, wait_s=max(wait_s, asked))
