from __future__ import annotations

import errno
import socket
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from nbloader.errors import IntegrityError
from nbloader.records import Retry, TransferPolicy
from nbloader.transfer.retry import (
    TransientError,
    call_with_retries,
    is_transient,
    reason_of,
    retry_after_s,
)

REQUEST = httpx2.Request("GET", "http://127.0.0.1/x?Signature=secret")


def answer(
    status: int, kind: type[HfHubHTTPError] = HfHubHTTPError, retry_after: str | None = None
) -> HfHubHTTPError:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return kind("text", response=httpx2.Response(status, request=REQUEST, headers=headers))


def wrapped(cause: Exception) -> Exception:
    error = LocalEntryNotFoundError("not on disk and no connection")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "transient", "reason"),
    [
        (answer(429), True, "the server answered 429"),
        (answer(500), True, "the server answered 500"),
        (answer(503), True, "the server answered 503"),
        (answer(408), True, "the server answered 408"),
        (answer(401), False, "the server answered 401"),
        (answer(403), False, "the server answered 403"),
        (answer(416), False, "the server answered 416"),
        (answer(404, RepositoryNotFoundError), False, "the server answered 404"),
        (answer(403, GatedRepoError), False, "the server answered 403"),
        (wrapped(answer(503)), True, "the server answered 503"),
        (wrapped(httpx2.ConnectError("refused")), True, "connection lost (ConnectError)"),
        (wrapped(answer(404)), False, "the server answered 404"),
        (LocalEntryNotFoundError("not on disk"), False, "LocalEntryNotFoundError"),
        (EntryNotFoundError("no"), False, "EntryNotFoundError"),
        (httpx2.ReadError("reset"), True, "connection lost (ReadError)"),
        (httpx2.ReadTimeout("slow"), True, "timed out"),
        (httpx2.RemoteProtocolError("gone"), True, "connection lost (RemoteProtocolError)"),
        (ConnectionResetError(), True, "connection lost (ConnectionResetError)"),
        (TimeoutError(), True, "timed out"),
        (OSError(errno.ENETUNREACH, "no route"), True, "OSError"),
        (OSError(errno.ENOSPC, "full"), False, "OSError"),
        (OSError("Consistency check failed: size"), True, "the file came short"),
        (OSError("something"), False, "OSError"),
        (socket.gaierror(-2, "unknown host"), True, "the host name is not known"),
        (TransientError("wrong bytes"), True, "wrong bytes"),
        (IntegrityError("twice", hint="h"), False, "IntegrityError"),
        (ValueError("bug"), False, "ValueError"),
    ],
)
def test_transient_or_permanent(error: Exception, transient: bool, reason: str) -> None:
    assert (is_transient(error), reason_of(error)) == (transient, reason)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("100000", 300.0), ("soon", None), ("-1", None), ("", None)],
)
def test_retry_after_is_honoured_within_bounds(value: str, seconds: float | None) -> None:
    assert retry_after_s(answer(429, retry_after=value)) == seconds


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
    calls = Calls(TimeoutError(), answer(503), "there")
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
            reason="the server answered 503",
            wait_s=10.0,
            attempt=2,
            max_attempts=5,
        ),
    ]


def test_five_attempts_wait_5_to_60_seconds_and_the_last_error_is_raised() -> None:
    last = TimeoutError("the fifth")
    calls = Calls(*(TimeoutError() for _ in range(4)), last)
    with pytest.raises(TimeoutError) as caught:
        calls.run()
    assert caught.value is last
    assert calls.slept == [5, 10, 20, 40]


def test_the_wait_is_bounded() -> None:
    calls = Calls(*(TimeoutError() for _ in range(8)), "there")
    calls.run(TransferPolicy(max_retries=9))
    assert calls.slept == [5, 10, 20, 40, 60, 60, 60, 60]


def test_the_server_may_ask_for_a_longer_wait() -> None:
    calls = Calls(answer(429, retry_after="33"), "there")
    calls.run()
    assert calls.slept == [33]


def test_a_permanent_error_is_raised_at_once() -> None:
    calls = Calls(answer(403))
    with pytest.raises(HfHubHTTPError):
        calls.run()
    assert (calls.slept, calls.records) == ([], [])


def test_a_file_that_stands_still_for_too_long_is_given_up() -> None:
    calls = Calls(*(TimeoutError() for _ in range(5)))
    with pytest.raises(TimeoutError):
        calls.run(quiet_for=lambda: calls.now - 1000, timeout_s=14)
    assert calls.slept == [5, 10]
