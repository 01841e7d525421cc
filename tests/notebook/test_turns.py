from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from nbloader.notebook import Turn
from nbloader.notebook.turns import NoTurnError, Turns

MAIN = threading.main_thread()


class OnThread:
    """A call on a thread of its own, with what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(timeout=30)
        assert self.is_over


def where() -> threading.Thread:
    return threading.current_thread()


def noting(notes: list[str], note: str) -> threading.Thread:
    notes.append(note)
    return threading.current_thread()


def test_without_a_loop_the_work_is_done_where_it_is_asked_for() -> None:
    turns = Turns.here()
    call = OnThread(lambda: (turns.take(where), where()))
    call.join()
    assert call.result[0] is call.result[1]


def test_work_comes_between_two_cells_on_the_main_thread() -> None:
    """A cell holds the loop; the work waits for its end."""
    order: list[str] = []

    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(lambda: noting(order, "work")))
        time.sleep(0.2)  # a cell that runs: the work must not, however long it is waited for
        order.append("cell")
        while not call.is_over:
            await asyncio.sleep(0.01)
        return call

    assert asyncio.run(cells()).result is MAIN
    assert order == ["cell", "work"]


def test_while_a_cell_waits_for_the_job_its_own_thread_does_the_work() -> None:
    async def cells() -> tuple[Any, bool, bool]:
        turns = Turns.here()
        with turns.given():
            call = OnThread(lambda: turns.take(lambda: (where(), turns.waited_for)))
            call.join()
        return *call.result, turns.waited_for

    thread, during, after = asyncio.run(cells())
    assert thread is not MAIN
    assert (during, after) == (True, False)


def test_the_end_of_the_waiting_comes_after_what_is_under_way() -> None:
    begun, may_end, order = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        may_end.wait(30)
        order.append("work")

    async def cells() -> None:
        turns = Turns.here()
        with turns.given():
            call = OnThread(lambda: turns.take(work))
            assert begun.wait(30)
            threading.Timer(0.1, may_end.set).start()
        order.append("next line")
        call.join()

    asyncio.run(cells())
    assert order == ["work", "next line"]


def test_an_interrupt_of_the_waiting_does_not_wait_for_the_work() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return may_end.wait(30)

    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(work))

        def wait() -> None:
            with turns.given():
                assert begun.wait(30)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            wait()
        assert not call.is_over
        may_end.set()
        return call

    call = asyncio.run(cells())
    call.join()
    assert call.result is True


def test_work_that_is_given_up_is_not_done() -> None:
    done: list[str] = []

    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(lambda: done.append("x"), given_up=lambda: True))
        call.join()  # The loop is held meanwhile.
        await asyncio.sleep(0.05)
        return call

    assert isinstance(asyncio.run(cells()).error, NoTurnError)
    assert done == []


def test_work_that_is_given_up_right_before_its_turn_is_not_done() -> None:
    """By a click that is handled between two turns, when nobody else asks whether it goes on."""
    order: list[str] = []

    async def cells() -> OnThread:
        turns = Turns.here()
        waits = threading.Event()
        call = OnThread(
            lambda: turns.take(
                lambda: order.append("work"), given_up=lambda: bool(order), tick=waits.set
            )
        )
        assert waits.wait(30)
        # After the last look of the one who waits, and before the turn.
        asyncio.get_running_loop().call_soon(order.append, "click")
        while not call.is_over:
            await asyncio.sleep(0)
        return call

    assert isinstance(asyncio.run(cells()).error, NoTurnError)
    assert order == ["click"]


def test_how_the_work_stands_is_told() -> None:
    seen: list[Turn | None] = []
    now = [0.0]

    async def cells() -> Turns:
        turns = Turns(asyncio.get_running_loop(), clock=lambda: now[0])
        waits = threading.Event()
        call = OnThread(lambda: turns.take(lambda: seen.append(turns.turn), tick=waits.set))
        assert waits.wait(30)
        seen.append(turns.turn)
        now[0] = 1.0
        seen.append(turns.turn)
        while not call.is_over:
            await asyncio.sleep(0.01)
        return turns

    turns = asyncio.run(cells())
    assert (*seen, turns.turn) == (None, Turn.DUE, Turn.UNDER_WAY, None)


def test_nothing_is_told_of_work_while_a_cell_waits_for_it() -> None:
    async def cells() -> list[Turn | None]:
        turns = Turns.here()
        with turns.given():
            call = OnThread(lambda: turns.take(lambda: turns.turn))
            call.join()
        return [call.result]

    assert asyncio.run(cells()) == [None]


def test_what_the_work_raises_reaches_who_asked_for_it() -> None:
    def fail() -> None:
        raise SystemExit("no")

    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(fail))
        while not call.is_over:
            await asyncio.sleep(0.01)
        return call

    assert isinstance(asyncio.run(cells()).error, SystemExit)


def test_an_interrupt_waits_for_the_end_of_the_work() -> None:
    """One in the middle of an import would ruin the module for the life of the process."""
    order: list[str] = []

    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        order.append("work")

    async def cells() -> None:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(work))
        while not call.is_over:
            await asyncio.sleep(0.01)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: order.append("interrupt"))
    try:
        # asyncio.run would put a handler of its own in its place.
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cells())
        loop.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert order == ["work", "interrupt"]


def test_an_interrupt_ends_the_program_and_not_the_work() -> None:
    def work() -> str:
        signal.raise_signal(signal.SIGINT)
        return "done"

    async def cells() -> None:
        turns = Turns.here()
        calls.append(OnThread(lambda: turns.take(work)))
        await asyncio.sleep(3600)

    calls: list[OnThread] = []
    loop = asyncio.new_event_loop()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task = loop.create_task(cells())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
    finally:
        signal.signal(signal.SIGINT, before)
    calls[0].join()
    assert (calls[0].result, calls[0].error) == ("done", None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_loop_that_has_stopped_needs_no_turns() -> None:
    async def cells() -> OnThread:
        turns = Turns.here()
        return OnThread(lambda: turns.take(where))

    loop = asyncio.new_event_loop()
    call = loop.run_until_complete(cells())
    call.join()
    loop.close()
    assert call.result is not MAIN


def test_what_has_arrived_is_handled_before_the_next_turn() -> None:
    """A kernel takes a click from its socket to its callback in several rounds of the loop."""
    order: list[str] = []

    def rounds(left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(rounds, left - 1)
        else:
            order.append("click")

    async def cells() -> None:
        turns = Turns.here()
        waits = threading.Event()
        call = OnThread(lambda: turns.take(lambda: noting(order, "work"), tick=waits.set))
        assert waits.wait(30)  # What ran until now has held the loop, and the work waits for it.
        rounds(10)
        while not call.is_over:
            await asyncio.sleep(0.01)

    asyncio.run(cells())
    assert order == ["click", "work"]


def test_a_closed_loop_needs_no_turns() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    call = OnThread(lambda: Turns(loop).take(where))
    call.join()
    assert call.result is not MAIN


def test_a_loop_that_ends_before_the_turn_comes_needs_none() -> None:
    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(where, tick=asked.set))
        assert asked.wait(30)
        asyncio.get_running_loop().stop()
        return call

    asked = threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(cells())
    with pytest.raises(RuntimeError, match="stopped"):
        loop.run_until_complete(asyncio.sleep(3600))
    loop.close()
    call = task.result()
    call.join()
    assert call.result is not MAIN


def test_a_loop_of_another_thread_has_its_cells_there() -> None:
    async def cells() -> tuple[Any, Any]:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(where))
        while not call.is_over:
            await asyncio.sleep(0.01)
        with turns.given():
            other = OnThread(lambda: turns.take(where))
            other.join()
        return call.result, other.result

    outer = OnThread(lambda: (asyncio.run(cells()), where()))
    outer.join()
    assert outer.error is None
    (between, beside), thread = outer.result
    assert between is thread
    assert beside is not thread


def test_the_one_who_waits_is_told_that_time_passes() -> None:
    ticks = threading.Event()

    async def cells() -> OnThread:
        turns = Turns.here()
        call = OnThread(lambda: turns.take(where, tick=ticks.set))
        assert ticks.wait(30)
        while not call.is_over:
            await asyncio.sleep(0.01)
        return call

    assert asyncio.run(cells()).result is MAIN
