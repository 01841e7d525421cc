"""Calls to the Hub's API, repeated."""

from __future__ import annotations

from typing import Any

import pytest

from nbloader.records import Retry, TransferPolicy
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure, call_with_retries


class Calls:
    """A function that fails as it is told, and a clock that only `sleep` moves."""

    def __init__(self, *outcomes: Exception | str) -> None:
        self.outcomes = list(outcomes)
        self.now = 1000.0
        self.slept: list[float] = []
        self.records: list[Retry] = []

    def __call__(self) -> str:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def run(self, policy: TransferPolicy | None = None, **keywords: Any) -> str:
        keywords.setdefault("chance", lambda: 0.0)
        return call_with_retries(
            self,
            policy=policy or TransferPolicy(),
            path="a.safetensors",
            publish=self.records.append,
            sleep=self.sleep,
            clock=lambda: self.now,
            **keywords,
        )


def test_each_failed_attempt_is_a_record() -> None:
    calls = Calls(Failure(Reason.TIMED_OUT), Failure(Reason.BUSY, "the server is away"), "there")
    assert calls.run() == "there"
    assert calls.records == [
        Retry(
            time=1000.0,
            path="a.safetensors",
            reason="timed out",
            wait_s=5.0,
            attempt=1,
            max_attempts=5,
        ),
        Retry(
            time=1005.0,
            path="a.safetensors",
            reason="the server is away",
            wait_s=10.0,
            attempt=2,
            max_attempts=5,
        ),
    ]


def test_five_attempts_wait_5_to_60_seconds_and_the_last_error_is_raised() -> None:
    last = Failure(Reason.BUSY, "the fifth")
    calls = Calls(*(Failure(Reason.BUSY) for _ in range(4)), last)
    with pytest.raises(Failure) as caught:
        calls.run()
    assert caught.value is last
    assert calls.slept == [5, 10, 20, 40]
    assert len(calls.records) == 4


def test_the_wait_is_bounded() -> None:
    calls = Calls(*(Failure(Reason.BUSY) for _ in range(8)), "there")
    calls.run(TransferPolicy(max_retries=9))
    assert calls.slept == [5, 10, 20, 40, 60, 60, 60, 60]


def test_a_part_of_the_wait_is_left_to_chance_but_never_below_the_bound() -> None:
    calls = Calls(*(Failure(Reason.BUSY) for _ in range(4)), "there")
    calls.run(chance=lambda: 1.0)
    assert calls.slept == [5, 7.5, 15, 30]


def test_the_server_may_ask_for_a_longer_wait() -> None:
    calls = Calls(
        Failure(Reason.RATE_LIMITED, retry_after_s=33.0),
        Failure(Reason.RATE_LIMITED, retry_after_s=1.0),
        "there",
    )
    calls.run()
    assert calls.slept == [33, 10]
    assert [record.wait_s for record in calls.records] == [33, 10]


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(28, "full"), TimeoutError()])
def test_what_is_no_failure_is_raised_at_once(error: Exception) -> None:
    calls = Calls(error)
    with pytest.raises(type(error)):
        calls.run()
    assert (calls.slept, calls.records) == ([], [])


def test_a_wait_that_is_longer_than_allowed_ends_the_call_at_once() -> None:
    last = Failure(Reason.RATE_LIMITED, retry_after_s=120.0)
    calls = Calls(Failure(Reason.RATE_LIMITED, retry_after_s=2.0), last, "there")
    with pytest.raises(Failure) as caught:
        calls.run(TransferPolicy(max_wait_s=2.0, retry_delay_min_s=1.0))
    assert caught.value is last
    assert calls.slept == [2.0]
