"""A load that runs beside the notebook, with buttons that act on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbloader import arguments, stages
from nbloader.errors import (
    InvalidArgumentError,
    NbloaderError,
    WaitInterrupted,
    error_from_parts,
)
from nbloader.job_report import JobReport
from nbloader.records import Stage
from nbloader.reporter import Reporter
from nbloader.state import JobState, Status
from nbloader.turns import Turns
from nbloader.views.base import View
from nbloader.views.choose import ViewName

if TYPE_CHECKING:
    from nbloader.request import Request

__all__ = ["Job"]

WAIT_STEP_S = 0.05


class _Held:
    """A view that stays open after a failure, so that its buttons can be pressed.

    Args:
        has_buttons: whether there are any; else it is closed as soon as the job ends.
    """

    def __init__(self, view: View, *, has_buttons: bool) -> None:
        self._view = view
        self._has_buttons = has_buttons
        self.is_open = True

    def update(self, state: JobState) -> None:
        self._view.update(state)

    def close(self, state: JobState) -> None:
        cancelled = state.failure is not None and state.failure.reference == "cancelled"
        if self._has_buttons and state.status is Status.FAILED and not cancelled:
            self._view.update(state)
        else:
            self.let_go(state)

    def let_go(self, state: JobState) -> None:
        if self.is_open:
            self.is_open = False
            self._view.close(state)


class _Attempt:
    """One run of the stages on a thread of its own."""

    def __init__(self, request: Request, reporter: Reporter, turns: Turns) -> None:
        self.shared = stages.Attempt(request=request, reporter=reporter, turns=turns)
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = stages.run(self.shared, stages.load)
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
        self._view = self._new_view()
        self._attempt = self._begin(request)

    def __repr__(self) -> str:
        state = self.state
        return f"<Job {state.repo_id}: {state.status}, {state.percent:.0f} %>"

    # -- what it is at -----------------------------------------------------------------------------

    @property
    def state(self) -> JobState:
        """All that has happened so far."""
        return self._attempt.shared.reporter.state

    @property
    def report(self) -> JobReport:
        """What has happened so far, to look at: figures, retries, a chart."""
        return JobReport(state=self.state)

    def done(self) -> bool:
        """Tell whether it has ended, however."""
        return self._attempt.ended.is_set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the model and return it.

        An interrupt ends the waiting, not the job.

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
        except KeyboardInterrupt:
            raise WaitInterrupted from None
        if not ended:
            raise TimeoutError(f"{self._request.repo_id} is not ready after {timeout} s")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the model without holding the event loop; errors are those of `result`."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        import asyncio

        while not self.done():
            await asyncio.sleep(WAIT_STEP_S)
        return self._outcome()

    # -- what can be done to it --------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop it; what has arrived is kept. A model that is being built is built to its end."""
        self._attempt.shared.cancelled.set()

    def retry(self, *, force: bool = False) -> None:
        """Try again after a failure; bytes that are there are not fetched again.

        Args:
            force: go on although a check fails (disk space, packages, memory).
        """
        with self._lock:
            if self.done() and self._attempt.error is not None:
                self._attempt = self._begin(replace(self._request, force=force))

    def download_anyway(self) -> None:
        """Try again, and go on although a check fails (disk space, packages, memory)."""
        self.retry(force=True)

    def choose(self, plan: str) -> None:
        """Place the model in another way, before it is built.

        Args:
            plan: the name of a `records.Method` that fits, or `auto` for the fastest.

        Raises:
            InvalidArgumentError: it does not fit, or it is too late for a choice.
        """
        method = arguments.check_method(plan)
        state = self.state
        rows = state.fit.placements if state.fit else ()
        if method is not None and not any(row.fits and row.method is method for row in rows):
            fitting = ", ".join(str(row.method) for row in rows if row.fits)
            raise InvalidArgumentError(
                f"plan={plan!r} does not fit here, or the checks are not made yet",
                hint=f"These fit: {fitting or 'none so far'}.",
            )
        if self.done() or state.stage not in (Stage.SET_UP, Stage.DOWNLOAD):
            raise InvalidArgumentError(
                f"plan={plan!r} comes too late: the model is being built, or the job has ended",
                hint=f'Load it anew: nbloader.load("{state.repo_id}", plan="{plan}")',
            )
        self._attempt.shared.choices.put(method)

    def diagnostics(self) -> str:
        """Collect what a report of a problem needs, without secrets, as text to paste."""
        from nbloader.diagnostics import doctor

        return doctor().issue

    # -- inside ------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> _Attempt:
        """Start an attempt. Its first state is drawn here: the output belongs to this cell."""
        if not self._view.is_open:
            self._view = self._new_view()
        reporter = Reporter(
            request.repo_id,
            self._view,
            request.on_event,
            waited_for=lambda: self._turns.waited_for,
        )
        attempt = _Attempt(request, reporter, self._turns)
        reporter.tick()
        threading.Thread(target=attempt.run, name="nbloader-job", daemon=True).start()
        return attempt

    def _new_view(self) -> _Held:
        view, name = stages.view_of(self._request, actions=self)
        return _Held(view, has_buttons=name is ViewName.WIDGET)

    def _wait(self, timeout: float | None) -> bool:
        """Wait in short steps, so that an interrupt is noticed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._attempt.ended.wait(WAIT_STEP_S):
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def _outcome(self) -> Any:
        """Give the model, or raise what it failed with; nothing is offered any more."""
        attempt = self._attempt
        if attempt.error is None:
            return attempt.result
        self._view.let_go(attempt.shared.reporter.state)
        if isinstance(attempt.error, NbloaderError):
            # A new one each time: this one keeps the traceback of the thread.
            error = attempt.error
            raise error_from_parts(error.reference, error.message, error.hint) from error
        raise attempt.error
