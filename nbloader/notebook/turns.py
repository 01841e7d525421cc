"""Work that takes turns with the cells of a notebook.

Imports of diffusers or transformers break beside those of a running cell, and so do two models that
are built at once. What a job in the background has to import and to build is therefore done where
the cells run: on the event loop of the main thread, between two of them. A cell that waits for the
job does nothing itself, so while it waits the job's own thread may.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nbloader.limits import WAIT_STEP_S

if TYPE_CHECKING:
    import asyncio

APART_S = 0.02
"""Between two turns the kernel reads and handles what has arrived meanwhile: clicks, cells."""

DUE_S = 0.5
"""A turn that has not come for so long waits for a cell to end."""

T = TypeVar("T")


class Turn(StrEnum):
    """How work of a job stands that is done between two cells: imports, and the construction."""

    DUE = "due"
    """It waits for a cell to end."""

    UNDER_WAY = "under way"
    """Cells and clicks wait for it."""


class NoTurnError(Exception):
    """The work was given up before its turn came."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, as it does where a cell runs; else None."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Turn(Generic[T]):
    """Work that whoever comes first does, once.

    Args:
        given_up: asked right before it is done.
        asked_at: when it was asked for.

    Attributes:
        is_scheduled: whether the thread of the cells is going to do it.
    """

    def __init__(
        self, work: Callable[[], T], given_up: Callable[[], bool], asked_at: float
    ) -> None:
        self._work: Callable[[], T] | None = work
        self._given_up = given_up
        self._claim = threading.Lock()
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.asked_at = asked_at
        self.is_scheduled = False
        self.done = threading.Event()

    @property
    def is_claimed(self) -> bool:
        return self._claim.locked()

    def claim(self) -> bool:
        return self._claim.acquire(blocking=False)

    def do(self) -> None:
        # Taken out, so that a loop that still has this turn keeps nothing alive.
        work, self._work = self._work, None
        if work is None or not self.claim():
            return
        try:
            # An interrupt that came meanwhile is for this thread, not for who asked for the work.
            with interrupts_held():
                self._keep(work)
        finally:
            self.done.set()

    def _keep(self, work: Callable[[], T]) -> None:
        try:
            if self._given_up():
                raise NoTurnError
            self._found.append(work())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found.pop()


class Turns:
    """Lets work of a job's thread be done on the thread of the cells while none runs there.

    Args:
        loop: the event loop of the thread that makes this; None to do all work on the job's thread.
        clock: seconds, steady.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._thread = threading.current_thread()
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: _Turn[Any] | None = None
        self._asked: tuple[_Turn[Any], ...] = ()

    @classmethod
    def here(cls) -> Turns:
        """Make them for the event loop that runs in this thread, if one does.

        A cell of a notebook runs inside its kernel's loop. A program without a loop has none, and
        whatever it does beside a job is its own care.
        """
        return cls(running_loop())

    @property
    def waited_for(self) -> bool:
        """Whether a cell waits for the job."""
        return self._waiting > 0

    @property
    def turn(self) -> Turn | None:
        """How the work stands that is to be done where the cells run; None where there is none."""
        now = self._clock()
        asked = [turn for turn in self._asked if not turn.done.is_set()]
        if self.waited_for:
            return None
        if any(turn.is_claimed for turn in asked):
            return Turn.UNDER_WAY
        return Turn.DUE if any(now - turn.asked_at > DUE_S for turn in asked) else None

    def take(
        self,
        work: Callable[[], T],
        *,
        given_up: Callable[[], bool] = lambda: False,
        tick: Callable[[], object] = lambda: None,
    ) -> T:
        """Do the work when its turn comes, and wait for it. Not for the main thread.

        Args:
            given_up: asked until the work begins.
            tick: called while it is waited for.

        Raises:
            NoTurnError: it was given up.
            BaseException: whatever the work raised.
        """
        turn = _Turn(work, given_up, self._clock())
        with self._listed(turn):
            while not self._do_or_wait(turn):
                if given_up() and turn.claim():
                    raise NoTurnError
                tick()
        return turn.result()

    @contextmanager
    def _listed(self, turn: _Turn[Any]) -> Iterator[None]:
        with self._lock:
            self._asked = (*self._asked, turn)
        try:
            yield
        finally:
            with self._lock:
                self._asked = tuple(each for each in self._asked if each is not turn)

    def _do_or_wait(self, turn: _Turn[Any]) -> bool:
        """Do the work here if it may be, else see that its turn comes; tell whether it is done."""
        with self._lock:
            mine = self.waited_for or self._is_over()
            self._running = turn if mine else None
        if mine:
            turn.do()
            with self._lock:
                self._running = None
        elif not turn.is_scheduled:
            turn.is_scheduled = self._schedule(turn)
        return turn.done.wait(WAIT_STEP_S)

    def _is_over(self) -> bool:
        """Say whether no cell can run any more; the loop of a kernel never stops."""
        return self._loop is None or not self._loop.is_running()

    def _schedule(self, turn: _Turn[Any]) -> bool:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._loop.call_later, APART_S, self._do_between, turn)
        except RuntimeError:  # It is closed.
            return False
        return True

    def _do_between(self, turn: _Turn[Any]) -> None:
        """Do the work in its turn, unless a cell awaits the job: then the job's thread does it."""
        if self.waited_for:
            turn.is_scheduled = False
        else:
            turn.do()

    @contextmanager
    def given(self) -> Iterator[None]:
        """Lend the turns of the thread of the cells while it waits for the job.

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


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let an interrupt wait until the block has ended; off the main thread none comes anyway."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])
