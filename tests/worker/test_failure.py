"""Failed attempts: which answers ask to come back, and when."""

from __future__ import annotations

import email.utils
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.limits import MAX_RETRY_AFTER_S
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import TRANSIENT_STATUS, Failure, retry_after_s, status_failure

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("299", 299.0),
        ("300", 300.0),
        ("301", 300.0),
        ("100000", 300.0),
        ("9" * 5000, 300.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tuesday, 14-Nov-23 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 23:13:30 +0100", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("Tue, 14 Nov 2033 22:13:20 GMT", 300.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\N{ARABIC-INDIC DIGIT FIVE}", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("Tue, 99 Nov 2023 22:13:30 GMT", None),
        ("Tue, 14 Nov 99999 22:13:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, clock=lambda: NOW) == seconds


@pytest.mark.parametrize("years", [-10, 10])
def test_a_date_is_counted_by_the_clock_of_the_server(years: int) -> None:
    there = NOW + years * 365 * 86_400
    asked = email.utils.formatdate(there + 7, usegmt=True)
    date = email.utils.formatdate(there, usegmt=True)
    assert retry_after_s(asked, date, clock=lambda: NOW) == 7.0
    failure = status_failure(503, asked, date)
    assert failure.retry_after_s == 7.0


@given(st.text(max_size=60))
def test_garbage_makes_no_sense_and_no_harm(value: str) -> None:
    seconds = retry_after_s(value, clock=lambda: NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_counted_from_now_and_bounded(offset: int) -> None:
    value = email.utils.formatdate(NOW + offset, usegmt=True)
    assert retry_after_s(value, clock=lambda: NOW) == min(max(0, offset), MAX_RETRY_AFTER_S)


@given(st.integers(0, 10**12))
def test_seconds_are_bounded(seconds: int) -> None:
    found = retry_after_s(str(seconds))
    assert found is not None
    assert math.isfinite(found)
    if seconds <= MAX_RETRY_AFTER_S:
        assert found == seconds


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.REFUSED),
        (403, Reason.REFUSED),
        (404, Reason.REFUSED),
        (408, Reason.BUSY),
        (416, Reason.REFUSED),
        (425, Reason.BUSY),
        (429, Reason.RATE_LIMITED),
        (500, Reason.BUSY),
        (501, Reason.REFUSED),
        (502, Reason.BUSY),
        (503, Reason.BUSY),
        (504, Reason.BUSY),
    ],
)
def test_what_a_status_means(status: int, reason: Reason) -> None:
    failure = status_failure(status, "7")
    assert (failure.reason, failure.retry_after_s) == (reason, 7.0)
    # In words, and by its number for whoever looks it up.
    words = "the server refuses" if reason is Reason.REFUSED else "the server"
    assert str(failure).startswith(words)
    assert str(failure).endswith(f" ({status})")
    assert (reason is not Reason.REFUSED) == (status in TRANSIENT_STATUS)


def test_a_server_that_is_busy_is_called_so() -> None:
    assert str(status_failure(503, None)) == "the server is busy (503)"
    assert str(status_failure(403, None)) == "the server refuses (403)"


def test_a_failure_says_its_reason_unless_it_has_words_of_its_own() -> None:
    assert str(Failure(Reason.STALLED)) == "no bytes came"
    assert str(Failure(Reason.XET, "Xet storage failed (Timeout)")) == (
        "Xet storage failed (Timeout)"
    )
