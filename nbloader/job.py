"""A load that runs beside the notebook, with buttons that act on it."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from nbloader import stages
from nbloader.errors import InvalidArgumentError, NbloaderError, WaitInterrupted, error_from_parts
from nbloader.limits import WAIT_STEP_S
from nbloader.notebook import Turns, batch_told_by, clear_frames, running_kernel
from nbloader.records import Method, Stage
from nbloader.reporter import Reporter
from nbloader.request import Request, check_method
from nbloader.state import JobState, Status
from nbloader.text import plain
from nbloader.views import ShownReport, View, ViewName, has_controls
from nbloader.wording import reader_here

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Job", "JobReport"]

ENDS_WITHIN_S = 2.0
"""Between a failure and the end of its thread it is written into the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport(ShownReport):
    """A job as it stood at a moment. Shows itself in a notebook, and as text by `str`."""

    state: JobState

    def plot(self) -> Figure:
        """Draw the bytes over time with retries, stalls and changes of route, and what overlapped.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        from nbloader.views.chart import plot_job

        return plot_job(self.state)

    def __str__(self) -> str:
        from nbloader.views.text import render

        return render(self._told)

    def _repr_html_(self) -> str:
        from nbloader.views.html import render

        return render(self._told)

    @property
    def _told(self) -> JobState:
        """The state with what only a report tells."""
        return replace(self.state, notices=(*self.state.remarks, *self.state.notices))


class _Spool(io.StringIO):
    """Text that one thread writes, and that another one passes on.

    What a thread prints in a notebook goes to whichever cell runs at that moment, and to none if
    there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._texts: deque[str] = deque()

    def write(self, text: str) -> int:
        """Keep the text."""
        self._texts.append(text)
        return len(text)

    def pass_on(self, stream: TextIO) -> None:
        """Write to another stream what has been kept."""
        while self._texts:
            stream.write(self._texts.popleft())
        stream.flush()


class _Held:
    """A view that stays open after a failure, so that its buttons can be pressed."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.is_open = True

    def update(self, state: JobState) -> None:
        self._view.update(state)

    def close(self, state: JobState) -> None:
        self.update(state)  # It may find the view broken, and another in its place.
        failed = state.status is Status.FAILED and not state.ended_by_user
        if not failed or not has_controls(self._view):
            self.let_go(state)

    def let_go(self, state: JobState) -> None:
        if self.is_open:
            self.is_open = False
            self._view.close(state)


class _OnThread:
    """A run of the stages on a thread of its own."""

    def __init__(
        self, request: Request, reporter: Reporter, turns: Turns, chosen: Sequence[Method | None]
    ) -> None:
        self.run = stages.Run(request=request, reporter=reporter, turns=turns)
        for method in chosen:
            self.run.choices.put(method)
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def carry_out(self) -> None:
        try:
            self.result = stages.carry_out(self.run, stages.load)
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()


class Job:
    """A load in the background. `nbloader.start` makes it.

    The files come while other cells run. The libraries are imported and the model is built between
    two cells, or while a cell waits for the result: neither can be done beside a cell.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._turns = Turns.here()
        self._lock = threading.Lock()
        self._chosen: list[Method | None] = []
        # In a batch run lines of another thread are lost, or stand under any cell.
        kernel = running_kernel()
        self._spool = _Spool() if batch_told_by(os.environ, kernel) and kernel else None
        if self._spool is not None and request.view is not ViewName.NONE:
            self._spool.write(f"started: {plain(request.repo_id)}\n")
            self._spool.pass_on(sys.stdout)
        self._view = self._new_view()
        self._latest = self._begin()

    def __repr__(self) -> str:
        state = self.state
        status = "stopped" if state.ended_by_user else state.status
        return f"<Job {state.repo_id}: {status}, {state.percent:.0f} %>"

    # -- what it is at -----------------------------------------------------------------------------

    @property
    def state(self) -> JobState:
        """All that has happened so far."""
        return self._latest.run.reporter.state

    @property
    def report(self) -> JobReport:
        """What has happened so far, to look at: figures, retries, a chart."""
        return JobReport(state=self.state)

    def done(self) -> bool:
        """Say whether it has ended, however."""
        return self._latest.ended.is_set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the model and return it. To be called by a cell, or from the main program.

        An interrupt ends the waiting, not the job. The job keeps the model, too: to free it, delete
        both.

        Args:
            timeout: seconds; None to wait as long as it takes. An import or a construction that
                is under way at its end is waited for.

        Raises:
            NbloaderError: the load failed; CancelledError if it was cancelled.
            TimeoutError: it goes on.
        """
        try:
            with self._turns.given():
                ended = self._wait(timeout)
        except KeyboardInterrupt as error:
            clear_frames(error)
            del self  # A notebook keeps this frame, and the job will have the model.
            raise WaitInterrupted from None
        if ended is None:
            late = f"{self._request.repo_id} is not ready after {timeout} s"
            del self
            raise TimeoutError(late)
        return self._outcome(ended)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the model without holding the event loop; errors are those of `result`."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        import asyncio

        latest = self._latest
        try:
            with self._turns.given():
                while not (latest := self._latest).ended.is_set():
                    await asyncio.sleep(WAIT_STEP_S)
                    self._pass_on()
        except BaseException:
            del self, latest  # As in `result`.
            raise
        return self._outcome(latest)

    # -- what can be done to it --------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop it; what has arrived is kept.

        What is being loaded is loaded to its end first: a component, or the model where its library
        loads it in one go.
        """
        self._latest.run.cancelled.set()

    def retry(self, *, force: bool = False) -> None:
        """Try again after a failure; bytes that are there are not fetched again.

        A plan that was chosen is kept. Does nothing while the job runs.

        Args:
            force: from now on, go on although a check fails (disk space, packages, memory).
        """
        if self.state.status is Status.FAILED:
            self._latest.ended.wait(ENDS_WITHIN_S)
        with self._lock:
            if self.done() and self._latest.error is not None:
                force = force or self._request.force
                self._request = replace(self._request, force=force)
                self._latest = self._begin()

    def download_anyway(self) -> None:
        """Try again, and go on although a check fails (disk space, packages, memory)."""
        self.retry(force=True)

    def choose(self, plan: str) -> None:
        """Place the model in another way, before it is built; after a failure, with `retry`.

        Args:
            plan: the name of a `records.Method` that fits, or `auto` for the fastest.

        Raises:
            InvalidArgumentError: it does not fit, or it is too late for a choice.
        """
        method = check_method(plan)
        state = self.state
        rows = state.fit.placements if state.fit else ()
        if method is not None and not any(row.fits and row.method is method for row in rows):
            fitting = ", ".join(str(row.method) for row in rows if row.fits)
            raise InvalidArgumentError(
                f"plan={plan!r} does not fit here, or the checks are not made yet",
                hint=f"These fit: {fitting or 'none so far'}.",
            )
        if state.status is Status.FAILED:
            with self._lock:
                self._request = replace(self._request, method=method)
                self._chosen = []
            return
        if self.done() or state.stage not in (Stage.SET_UP, Stage.DOWNLOAD):
            raise InvalidArgumentError(
                f"plan={plan!r} comes too late: the model is being built, or is ready",
                hint=f'Load it anew: nbloader.load("{state.repo_id}", plan="{plan}")',
            )
        self._chosen = [method]
        self._latest.run.choices.put(method)

    def diagnostics(self) -> str:
        """Collect what a report of a problem needs, without secrets, as text to paste."""
        from nbloader.diagnostics import issue_of_job

        return issue_of_job(self._request, self.state)

    # -- inside ------------------------------------------------------------------------------------

    def _begin(self) -> _OnThread:
        """Start a run. Its first state is drawn here: the output belongs to this cell."""
        if not self._view.is_open:
            self._view = self._new_view()
        reporter = Reporter(
            self._request.repo_id,
            self._view,
            self._request.on_event,
            waited_for=lambda: self._turns.waited_for,
            turn=lambda: self._turns.turn,
            reader=reader_here(),
        )
        begun = _OnThread(self._request, reporter, self._turns, self._chosen)
        reporter.tick()
        threading.Thread(target=begun.carry_out, name="nbloader-job", daemon=True).start()
        return begun

    def _new_view(self) -> _Held:
        return _Held(stages.view_of(self._request, actions=self, stream=self._spool))

    def _pass_on(self) -> None:
        if self._spool is not None:
            self._spool.pass_on(sys.stdout)

    def _wait(self, timeout: float | None) -> _OnThread | None:
        """Wait in short steps, so that an interrupt is noticed; returns the run that ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (latest := self._latest).ended.wait(WAIT_STEP_S):
            self._pass_on()
            if deadline is not None and time.monotonic() >= deadline:
                return None
        return latest

    def _outcome(self, ended: _OnThread) -> Any:
        """Return the model, or raise what it failed with; nothing is offered any more."""
        if ended.error is not None:
            self._view.let_go(ended.run.reporter.state)
        self._pass_on()
        if ended.error is None:
            return ended.result
        if isinstance(ended.error, NbloaderError):
            # A new one each time: this one keeps the traceback of the thread.
            error = ended.error
            raise error_from_parts(error.reference, error.message, error.hint) from error
        raise ended.error
