"""Several that want one answer: one asks, the others wait."""

from __future__ import annotations

import threading

import pytest

from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure
from nbloader.worker.links import SingleFlight


def test_those_who_wait_fail_with_the_one_who_asked_and_later_ones_ask_again() -> None:
    asks, asked, outcomes = SingleFlight(), [0], list[str]()
    others_wait, may_fail = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            with asks.turn(others_wait.set):
                asked[0] += 1
                may_fail.wait()
                raise Failure(Reason.STALLED, "silent", retry_after_s=3.0)
        except Failure as failure:
            outcomes.append(f"{failure} {failure.retry_after_s}")

    threads = [threading.Thread(target=ask)]
    threads[0].start()
    while not asked[0]:
        pass
    others_wait.clear()
    threads += [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    # It is called while another asks, so one of them waits by now; the rest have at least begun.
    others_wait.wait()
    may_fail.set()
    for thread in threads:
        thread.join()
    assert outcomes == ["silent 3.0"] * 4
    assert asked[0] <= 3

    with asks.turn(lambda: None):
        asked[0] = 100
    assert asked[0] == 100


def test_an_error_of_another_kind_is_not_shared() -> None:
    asks = SingleFlight()
    with pytest.raises(OSError, match="mine"), asks.turn(lambda: None):
        raise OSError("mine")
    with asks.turn(lambda: None):
        pass


def test_a_failure_is_not_that_of_those_who_come_after_it() -> None:
    now = [0.0]
    asks = SingleFlight(clock=lambda: now[0])
    with pytest.raises(Failure), asks.turn(lambda: None):
        raise Failure(Reason.STALLED)
    now[0] = 1.0
    with asks.turn(lambda: None):
        now[0] = 2.0
    assert now[0] == 2.0
