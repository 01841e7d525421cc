"""The stages of a load, a download and a preflight, put together. It alone knows them all."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, TypeVar

from nbloader.assess import Survey, assess, fallback, gather, helped, judge
from nbloader.checks import FORCEABLE, Facts, PreflightReport, trial
from nbloader.errors import (
    RUN_AGAIN,
    CancelledError,
    DoesNotFitError,
    HubUnreachableError,
    Interrupted,
    MissingTensorsError,
    NbloaderError,
    ProtocolError,
    RepoError,
    RepoNotFoundError,
    TransferError,
    WorkerDiedError,
)
from nbloader.history import remember
from nbloader.machine import how_to_free
from nbloader.notebook import Background, NoTurnError, Turns, clear_frames, running_kernel
from nbloader.records import (
    Checked,
    CheckResult,
    CheckStatus,
    ComponentWeights,
    Event,
    Failed,
    Kind,
    LibrariesImported,
    LoadedModel,
    Method,
    Notice,
    Placement,
    Ready,
    Selected,
    Selection,
    Stage,
    TransferPolicy,
)
from nbloader.redaction import short_path
from nbloader.reporter import Reporter
from nbloader.state import JobState
from nbloader.text import format_bytes
from nbloader.views import View, choose_view, front_end, make_view

if TYPE_CHECKING:
    from nbloader.request import Request
    from nbloader.transfer.protocol import Fetch, Sketch
    from nbloader.views.controls import Actions

__all__ = ["Run", "Work", "carry_out", "check", "download", "load", "view_of"]

T = TypeVar("T")

TRIAL_FROM_BYTES = 4_000_000_000
"""A trial takes 8 s of a core, a download of this size at least 20 s at 200 MB/s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the stages of one run share.

    Attributes:
        cancelled: set to stop it.
        turns: when it may import and build; None for at any time, in the thread that asks.
        choices: plans that the user has chosen meanwhile; None for the fastest that fits.
    """

    request: Request
    reporter: Reporter
    cancelled: threading.Event = field(default_factory=threading.Event)
    turns: Turns | None = None
    choices: SimpleQueue[Method | None] = field(default_factory=SimpleQueue)

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
            raise _cancelled() from None


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
        raise Interrupted from None
    except (NbloaderError, Cancelled) as error:
        clear_frames(error, handled=handled)
        told = error if isinstance(error, NbloaderError) else _cancelled()
        reporter.finish(
            Failed(
                reference=told.reference,
                message=told.message,
                hint=told.hint,
                forceable=_is_forceable(reporter.state),
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
            raise Interrupted from None
        raise
    return result


def _cancelled() -> CancelledError:
    return CancelledError("the job was cancelled", hint=RUN_AGAIN)


def _is_forceable(state: JobState) -> bool:
    """Tell whether the job ended at checks that `force=True` passes over."""
    failed = [each.name for each in state.checks if each.status is CheckStatus.FAILED]
    begun = state.has_begun(Stage.DOWNLOAD)
    return bool(failed) and not begun and FORCEABLE.issuperset(failed)


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


# -- the transfer ----------------------------------------------------------------------------------


def _transfer(
    request: Request,
    policy: TransferPolicy,
    *,
    publish: Callable[[Event], object],
    approve: Callable[[Selected], object],
    check: Callable[[], object],
    cancelled: threading.Event,
    loads: bool = True,
    commit_hash: str | None = None,
    order: Fetch | Sketch | None = None,
) -> Path:
    """Run the worker for a request.

    Args:
        commit_hash: what the revision stands for, where that is known.
        order: what to do with the selection; None to fetch its files.
    """
    from nbloader.transfer.protocol import Start
    from nbloader.transfer.supervisor import transfer

    return transfer(
        Start(
            repo_id=request.repo_id,
            revision=request.revision,
            request=request.selection,
            policy=policy,
            token=request.token,
            local_files_only=request.local_files_only,
            verify=request.verify,
            loads=loads,
            commit_hash=commit_hash,
        ),
        endpoint=request.endpoint,
        cache_dir=request.cache_dir,
        publish=publish,
        approve=approve,
        check=check,
        cancelled=cancelled,
        order=order,
    )


class _Loading:
    """What a load learns on its way to the model.

    Args:
        facts: what the checks looked at.

    Attributes:
        importing: the import of the libraries, which begins with the download.
        placement: where the model goes.
    """

    def __init__(self, run: Run, facts: Facts) -> None:
        from nbloader.loaders import Import, check_arguments

        assert facts.selection is not None
        assert facts.fit is not None
        check_arguments(facts.selection, run.request.loader_kwargs)
        placement = facts.fit.chosen or facts.fit.nearest  # the second only if it is forced
        if placement is None:
            raise DoesNotFitError(facts.fit.problem, hint=facts.fit.hint)
        self.placement: Placement = placement
        self.importing = Import(
            facts.selection,
            forced=run.request.force,
            notebook=running_kernel() is not None,
            take=run.take if run.turns else None,
        )
        self._run = run
        self._facts = facts
        self._imported = self._device_is_there = False

    def look(self) -> None:
        """Take over what the user has chosen, and say early what cannot work.

        Raises:
            NbloaderError: a library cannot be imported, or the device is not there.
        """
        self._choose()
        if not self.importing.check():
            return
        self._tell()
        if not self._device_is_there:
            # A device that is not there is told as soon as torch can say so.
            from nbloader.loaders import check_device

            check_device(self.placement)
            self._device_is_there = True

    def wait(self) -> None:
        """Wait for the libraries. Raises as `look` does, and CancelledError."""
        self._choose()
        if not self.importing.wait(self._run.cancelled, self._run.reporter.tick):
            raise _cancelled()
        self._tell()

    def next_method(self) -> Method | None:
        """Name the plan to try should the placement fill a GPU; None if no other fits."""
        return fallback(self._run.request, self._facts, self.placement)

    def _tell(self) -> None:
        if not self._imported:
            self._imported = True
            now = time.monotonic()
            seconds = now - (self.importing.begun_at or now)
            self._run.reporter.publish(LibrariesImported(seconds=seconds))

    def _choose(self) -> None:
        fit = self._facts.fit
        assert fit is not None
        with contextlib.suppress(Empty):
            method = self._run.choices.get_nowait()
            chosen = next(
                (row for row in fit.placements if row.fits and row.method is method), fit.chosen
            )
            if chosen is None or chosen is self.placement:
                return
            self.placement = chosen
            self._device_is_there = False
            report = judge(replace(self._facts, fit=replace(fit, chosen=chosen)))
            self._run.reporter.publish(Checked(results=report.results, fit=report.fit))


class _TrialBeside:
    """A trial of the build beside a download that it may spare. Closing it ends it.

    It begins once the small files are there, which it would fetch else.
    """

    def __init__(self, request: Request, selected: Selected) -> None:
        selection = selected.selection
        weights = {path for component in selection.components for path in component.weights}
        self._needed = {file.path for file in selection.files} - weights
        self._request = request
        self._selected = selected
        self._found: NbloaderError | str | None = None
        self._begun = False
        self._closed = threading.Event()

    def look(self, done: Set[str]) -> None:
        """Begin when it can, and raise MissingTensorsError where that came out.

        What else a build may end with depends on this machine and this moment; the load tells it.

        Args:
            done: the files that are there.
        """
        if not self._begun and self._needed <= done:
            self._begun = True
            Background(self._try, imports=False)
        if isinstance(self._found, MissingTensorsError):
            raise self._found

    def _try(self) -> None:
        selection, weights = self._selected.selection, self._selected.weights
        self._found = _tried(self._request, selection, weights, beside=self._closed)

    def close(self) -> None:
        self._closed.set()


def _fetch(run: Run, loading: list[_Loading] | None = None) -> Path:
    """Check, then bring the files of the selection into the cache.

    Args:
        loading: gets what the load needs to know; None if nothing will be loaded.
    """
    request, reporter = run.request, run.reporter
    survey = Survey() if loading is not None else None
    ending = contextlib.ExitStack()
    trials: list[_TrialBeside] = []

    def approve(selected: Selected) -> None:
        facts = gather(request, survey=survey, selected=selected)
        report = judge(facts)
        reporter.publish(Checked(results=report.results, fit=report.fit))
        report.raise_for_failures(force=request.force)
        if loading is not None:
            loading.append(_Loading(run, facts))
            if report.missing_bytes >= TRIAL_FROM_BYTES and not request.force:
                trials.append(ending.enter_context(closing(_TrialBeside(request, selected))))
        reporter.begin(Stage.DOWNLOAD)

    def may_go_on() -> None:
        reporter.tick()
        if loading:
            loading[0].look()
        for each in trials:
            each.look(reporter.state.done)

    reporter.begin(Stage.CONNECT)
    try:
        with ending:
            return _transfer(
                request,
                request.settings.policy(),
                publish=reporter.publish,
                approve=approve,
                check=may_go_on,
                cancelled=run.cancelled,
                loads=loading is not None,
            )
    except (HubUnreachableError, RepoNotFoundError) as error:
        raise helped(error, request.repo_id) from error


# -- the works -------------------------------------------------------------------------------------


def download(run: Run) -> tuple[Path, str]:
    """Bring the files into the cache; gives the folder."""
    folder = _fetch(run)
    run.reporter.begin(Stage.FINISH)
    return folder, short_path(folder)


def load(run: Run) -> tuple[Any, str]:
    """Bring the files into the cache, and give the model that was built of them and tested."""
    from nbloader import loaders

    request, reporter = run.request, run.reporter
    learned: list[_Loading] = []
    folder = _fetch(run, learned)
    selection, loading = reporter.state.selection, learned[0]
    assert selection is not None
    reporter.begin(Stage.INITIALISE)
    loading.wait()
    placement = loading.placement
    loaders.check_device(placement)

    # The model goes in as an argument: a cleared frame keeps what its function closes over.
    def in_turn(work: Callable[[], T]) -> T:
        return run.take(work, reporter.tick)

    key = (
        selection,
        placement.method,
        placement.device,
        placement.dtype,
        repr(request.loader_kwargs),
    )
    for size in in_turn(lambda: loaders.copies(key))[:1]:
        reporter.publish(_second_copy(selection, placement.device, size))
    with closing(
        loaders.Building(
            selection,
            folder,
            placement,
            request.loader_kwargs,
            forced=request.force,
            next_method=loading.next_method(),
        )
    ) as building:
        while (loaded := in_turn(building.step)) is not None:
            reporter.publish(loaded)
            if run.cancelled.is_set():
                raise _cancelled()
        model = building.model()
    modules = loaders.modules_of(model, selection)
    size = loaders.bytes_of(modules.values())
    loaders.remember(
        key, LoadedModel(repo_id=selection.repo_id, device=placement.device, bytes=size), model
    )
    reporter.begin(Stage.SELF_TEST)
    known = None if loaders.places_itself(request.loader_kwargs) else placement
    in_turn(partial(loaders.check_modules, modules, known))
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        reporter.begin(Stage.TEST_EMBEDDINGS)
    for notice in in_turn(partial(loaders.check_call, model, selection, known)):
        reporter.publish(notice)
    if run.cancelled.is_set():
        raise _cancelled()
    reporter.begin(Stage.FINISH)
    return model, f"{type(model).__name__} on {placement.device}, {placement.dtype}"


def _second_copy(selection: Selection, device: str, size: int) -> Notice:
    where = "memory" if device == "cpu" else f"memory of {device}"
    return Notice(
        reference="already-loaded",
        message=f"{selection.repo_id} is loaded in this process already; a second copy takes "
        f"another {format_bytes(size)} of {where}",
        hint="If the new one takes the place of the first in your variable, nothing is left to do. "
        + how_to_free(notebook=running_kernel() is not None),
    )


# -- the checks alone ------------------------------------------------------------------------------


class _Enough(Exception):  # noqa: N818 - the way out, not an error
    pass


def check(
    request: Request, line: Callable[[str], str] | None = None, *, tries: bool = True
) -> PreflightReport:
    """Make the checks of a load and nothing more: no weight is fetched, nothing is raised by them.

    Args:
        line: gives the line that loads with a plan, for the report in a notebook.
        tries: whether a trial of the build is among the checks.

    Raises:
        InputError: the device that was asked for is not there.
        WorkerDiedError, ProtocolError: the checks could not be made.
    """
    survey = Survey()
    found: list[Selected] = []

    def stop(selected: Selected) -> None:
        found.append(selected)
        raise _Enough

    try:
        _look(request, approve=stop)
    except _Enough:
        report = assess(request, survey=survey, selected=found[0])
    except (ProtocolError, WorkerDiedError):
        raise
    except (RepoError, TransferError) as error:
        report = assess(request, survey=survey, problem=error)
    if line is not None:
        report = replace(report, _again=partial(check, request, line), _line=line)
    return replace(report, results=partial(_with_trial, request, report)) if tries else report


def _look(
    request: Request,
    *,
    approve: Callable[[Selected], object],
    cancelled: threading.Event | None = None,
    **more: Any,
) -> Path:
    """Run the worker for checks: nobody is told of retries there, so there are few, short ones."""
    policy = replace(
        request.settings.policy(),
        max_retries=min(2, request.settings.max_retries),
        retry_delay_min_s=1.0,
        retry_delay_max_s=1.0,
        max_wait_s=2.0,
    )
    return _transfer(
        request,
        policy,
        publish=lambda event: None,  # noqa: ARG005 - nobody is told
        approve=approve,
        check=lambda: None,
        cancelled=cancelled or threading.Event(),
        **more,
    )


def _with_trial(request: Request, report: PreflightReport) -> tuple[CheckResult, ...]:
    """Give the results of a report, and that of the trial where all others leave it open."""
    if not report.ok or report.selection is None:
        return report.results
    return *report.results, trial(_tried(request, report.selection, report.weights))


def _tried(
    request: Request,
    selection: Selection,
    weights: Sequence[ComponentWeights],
    *,
    beside: threading.Event | None = None,
) -> NbloaderError | str | None:
    """Have the library build a selection from its small files and the headers of its weights.

    Args:
        beside: ends it when set, for one that runs beside other work, and makes way for that; None
            for one that is waited for.

    Returns:
        What `checks.trial` judges.
    """
    from nbloader.transfer.protocol import Sketch
    from nbloader.trial import Trial, task_of

    task = task_of(selection, weights, request.loader_kwargs)
    if isinstance(task, str):
        return task
    try:
        with (
            tempfile.TemporaryDirectory(prefix="nbloader-trial-") as folder,
            Trial(task, beside=beside) as building,
        ):
            _look(
                request,
                approve=lambda selected: None,  # noqa: ARG005 - it was approved before
                cancelled=beside,
                commit_hash=selection.commit_hash,
                order=Sketch(folder=folder),
            )
            return building.build(Path(folder))
    except (RepoError, TransferError) as error:
        return error.message
    except (OSError, ValueError) as error:  # No temporary folder, no process, an odd name.
        return f"{type(error).__name__}: {error}"[:200]
