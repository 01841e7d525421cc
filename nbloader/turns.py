"""Work that takes turns with the cells of a notebook.

Imports of diffusers or transformers break beside those of a running cell, and so do two models that
are built at once. What a job in the background has to import and to build is therefore done where
the cells run: on the event loop of the main thread, between two of them. A cell that waits for the
job does nothing itself, so while it waits the job's own thread may.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nbloader.interrupts import interrupts_held

if TYPE_CHECKING:
    import asyncio

__all__ = ["NoTurnError", "Turns"]

WAIT_STEP_S = 0.05

APART_S = 0.02
"""Between two turns the kernel reads and handles what has arrived meanwhile: clicks, cells."""

T = TypeVar("T")


class NoTurnError(Exception):
    """The work was given up before its turn came."""


class _Turn(Generic[T]):
    """Work that whoever comes first does, once."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._claim = threading.Lock()
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.done = threading.Event()

    def claim(self) -> bool:
        return self._claim.acquire(blocking=False)

    def do(self) -> None:
        # Taken out, so that a loop that still has this turn keeps nothing alive.
        work, self._work = self._work, None
        if work is None or not self.claim():
            return
        try:
            with interrupts_held():
                self._found.append(work())
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found.pop()


class Turns:
    """Lets work of a job's thread be done on the thread of the cells while none runs there.

    Args:
        loop: the event loop of the thread that makes this; None to do all work on the job's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._thread = threading.current_thread()
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: _Turn[Any] | None = None

    @classmethod
    def here(cls) -> Turns:
        """Make them for the event loop that runs in this thread, if one does.

        A cell of a notebook runs inside its kernel's loop; a plain program has none, and whatever
        it does beside a job is its own care.
        """
        import asyncio

        try:
            return cls(asyncio.get_running_loop())
        except RuntimeError:
            return cls(None)

    @property
    def waited_for(self) -> bool:
        """Whether a cell waits for the job."""
        return self._waiting > 0

    def take(
        self,
        work: Callable[[], T],
        *,
        given_up: Callable[[], bool] = lambda: False,
        tick: Callable[[], object] = lambda: None,
    ) -> T:
        """Do the work when its turn comes, and wait for it. Not for the main thread.

        Args:
            given_up: asked while the turn has not come.
            tick: called while it is waited for.

        Raises:
            NoTurnError: it was given up.
            BaseException: whatever the work raised.
        """
        turn = _Turn(work)
        if not self._schedule(turn):
            turn.do()
            return turn.result()
        while not turn.done.wait(WAIT_STEP_S):
            with self._lock:
                mine = self.waited_for or self._is_over()
                self._running = turn if mine else None
            if mine:
                turn.do()
                with self._lock:
                    self._running = None
            elif given_up() and turn.claim():
                raise NoTurnError
            tick()
        return turn.result()

    def _is_over(self) -> bool:
        """Tell whether no cell can run any more."""
        return self._loop is None or self._loop.is_closed()

    def _schedule(self, turn: _Turn[Any]) -> bool:
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(self._loop.call_later, APART_S, turn.do)
        except RuntimeError:  # It is closed.
            return False
        return True

    @contextmanager
    def given(self) -> Iterator[None]:
        """Give the turns of the thread of the cells away while it waits for the job.

        At the end work that is being done is waited for, so that the next line of the cell cannot
        run beside it; not if the waiting ends by an interrupt, which must not take long.
        """
        if self._loop is None or threading.current_thread() is not self._thread:
            yield
            return
        with self._lock:
            self._waiting += 1
        try:
            yield
        except BaseException:
            self._take_back()
            raise
        if (running := self._take_back()) is not None:
            running.done.wait()

    def _take_back(self) -> _Turn[Any] | None:
        with self._lock:
            self._waiting -= 1
            return self._running
