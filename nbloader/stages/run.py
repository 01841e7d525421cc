"""A run of the stages: what they share, and what is done about its end."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, TextIO, TypeAlias, TypeVar

from nbloader.errors import (
    BY_FORCE,
    RUN_AGAIN,
    CancelledError,
    Interrupted,
    NbloaderError,
)
from nbloader.history import remember
from nbloader.notebook import NoTurnError, Turns, clear_frames
from nbloader.records import CheckStatus, Failed, Method, Ready, Stage
from nbloader.reporter import Reporter
from nbloader.state import JobState
from nbloader.views import View, ViewName, choose_view, front_end, make_view

if TYPE_CHECKING:
    from nbloader.request import Request
    from nbloader.transfer.child import Standby
    from nbloader.views.controls import Actions

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the stages of one run share.

    Attributes:
        cancelled: set to stop it.
        turns: when it may import and build; None for at any time, in the thread that asks.
        choices: plans that the user has chosen meanwhile; None for the fastest that fits.
        standby: a worker that has been started already; None for none.
    """

    request: Request
    reporter: Reporter
    cancelled: threading.Event = field(default_factory=threading.Event)
    turns: Turns | None = None
    choices: SimpleQueue[Method | None] = field(default_factory=SimpleQueue)
    standby: Standby | None = None

    def take(self, work: Callable[[], T], tick: Callable[[], object] = lambda: None) -> T:
        """Do work that must not run beside a cell.

        Args:
            tick: called while its turn is waited for.

        Raises:
            CancelledError: the run was cancelled before the turn came.
        """
        if self.turns is None:
            return work()
        try:
            return self.turns.take(work, given_up=self.cancelled.is_set, tick=tick)
        except NoTurnError:
            raise cancelled_error() from None


Work: TypeAlias = Callable[[Run], tuple[T, str]]
"""The stages of a call: return what comes of them, and that in words."""


def carry_out(run: Run, work: Work[T]) -> T:
    """Do the work, see that the view learns of its end, and keep what came of it for `doctor`."""
    try:
        return _done(run, work)
    finally:
        remember(run.reporter.state)


def _done(run: Run, work: Work[T]) -> T:
    from nbloader.transfer.supervisor import Cancelled

    reporter = run.reporter
    handled = sys.exc_info()[1]
    try:
        result, summary = work(run)
    except KeyboardInterrupt as error:
        clear_frames(error, handled=handled)
        reporter.finish(Failed(reference=Interrupted.reference, message="stopped", hint=RUN_AGAIN))
        raise _interrupted(run) from None
    except (NbloaderError, Cancelled) as error:
        clear_frames(error, handled=handled)
        told = error if isinstance(error, NbloaderError) else cancelled_error()
        reporter.finish(
            Failed(
                reference=told.reference,
                message=told.message,
                hint=told.hint,
                forceable=_is_forceable(reporter.state, told),
            )
        )
        raise told from error.__cause__
    except BaseException as error:
        clear_frames(error, handled=handled)
        with contextlib.suppress(Exception):  # `on_event` may be what failed.
            reporter.finish(
                Failed(reference="internal-error", message=type(error).__name__, hint=RUN_AGAIN)
            )
        raise
    try:
        reporter.finish(Ready(summary=summary))
    except BaseException as error:
        del result  # The traceback keeps this frame.
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted(run) from None
        raise
    return result


def _interrupted(run: Run) -> Interrupted:
    return Interrupted(shown=run.request.view is not ViewName.NONE)


def cancelled_error() -> CancelledError:
    """Return the error of a run that was cancelled."""
    return CancelledError("the job was cancelled", hint=RUN_AGAIN)


def _is_forceable(state: JobState, error: NbloaderError) -> bool:
    """Say whether with `force=True` the job would not have ended as it did.

    It ended at checks that are passed over then, or at tensors that are filled.
    """
    if BY_FORCE in error.hint:
        return True
    failed = [each for each in state.checks if each.status is CheckStatus.FAILED]
    begun = state.has_begun(Stage.DOWNLOAD) or state.has_begun(Stage.INITIALISE)
    return bool(failed) and not begun and all(each.forceable for each in failed)


def view_of(
    request: Request, *, actions: Actions | None = None, stream: TextIO | None = None
) -> View:
    """Make the view that a request asks for.

    Args:
        actions: what its buttons act on; None for a view without buttons.
        stream: where text goes; None for the standard output.
    """
    return make_view(
        choose_view(request.view, front_end()),
        stream=stream or sys.stdout,
        speed=request.settings.show_download_speed,
        eta=request.settings.show_eta,
        actions=actions,
    )
