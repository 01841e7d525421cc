"""Calls to the Hub's API, repeated as the policy says. Only the worker imports this."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from nbloader.records import Retry, TransferPolicy
from nbloader.transfer.policy import asks_too_much, backoff_s
from nbloader.worker.failure import Failure

__all__ = ["OPENING_ATTEMPTS", "call_with_retries"]

_T = TypeVar("_T")

OPENING_ATTEMPTS = 3
"""For the first question to the Hub: nothing is lost yet, and nobody wants to wait for minutes to
hear that there is no network."""


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

    def failure(state: tenacity.RetryCallState) -> Failure:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, Failure)
        return error

    def wait(state: tenacity.RetryCallState) -> float:
        asked = failure(state).retry_after_s or 0.0
        return max(backoff_s(state.attempt_number, policy, chance()), asked)

    def stop(state: tenacity.RetryCallState) -> bool:
        used_up = state.attempt_number >= policy.max_retries
        return used_up or asks_too_much(failure(state).retry_after_s, policy)

    def announce(state: tenacity.RetryCallState) -> None:
        publish(
            Retry(
                time=clock(),
                path=path,
                reason=str(failure(state)),
                wait_s=round(state.upcoming_sleep, 3),
                attempt=state.attempt_number,
                max_attempts=policy.max_retries,
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
