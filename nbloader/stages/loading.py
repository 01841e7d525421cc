"""The stages of a download and of a load, one after the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from nbloader.assess import Survey, fallback, gather, helped, judge
from nbloader.checks import Facts
from nbloader.errors import (
    DoesNotFitError,
    HubUnreachableError,
    RepoError,
)
from nbloader.history import recall
from nbloader.machine import HOW_TO_FREE
from nbloader.notebook import Background, running_kernel
from nbloader.records import (
    Checked,
    Event,
    FileDone,
    Kind,
    LibrariesImported,
    LoadedModel,
    Method,
    Notice,
    Placement,
    Selected,
    Selection,
    Stage,
)
from nbloader.redaction import short_path
from nbloader.stages.ahead import Ahead
from nbloader.stages.asking import run_worker
from nbloader.stages.passing import PassingLoad
from nbloader.stages.planned import Planned
from nbloader.stages.preflight import TrialBeside
from nbloader.stages.run import Run, cancelled_error
from nbloader.stages.warm import import_early
from nbloader.text import format_bytes

if TYPE_CHECKING:
    from nbloader.loaders import Arrivals, Building, Direct, Import
    from nbloader.state import PastJob
    from nbloader.transfer.protocol import Fetch

T = TypeVar("T")

TRIAL_FROM_BYTES = 4_000_000_000
"""A trial takes 8 s of a core, a download of this size at least 20 s at 200 MB/s."""


class _Loading:
    """What a load learns on its way to the model.

    Args:
        facts: what the checks looked at.
        trial: of the build, beside the download; None for none.
        early_at: when the libraries began to be imported; None if they have not yet.

    Attributes:
        placement: where the model goes.
        ahead: the build, which begins beside the download.
    """

    def __init__(
        self,
        run: Run,
        selected: Selected,
        facts: Facts,
        trial: TrialBeside | None,
        early_at: float | None,
    ) -> None:
        from nbloader.loaders import check_arguments

        assert facts.fit is not None
        self._selection = selected.selection
        check_arguments(self._selection, run.request.loader_kwargs)
        placement = facts.fit.chosen or facts.fit.nearest  # the second only if it is forced
        if placement is None:
            raise DoesNotFitError(facts.fit.problem, hint=facts.fit.hint)
        self.placement: Placement = placement
        passes = bool(facts.passes and facts.passing)
        self._passing = PassingLoad(selected, facts.passing) if passes else None
        self.ahead = Ahead(run, selected, self._building, self._direct, self._passing)
        self._importing: Import | None = None
        self._run = run
        self._facts = facts
        self._trial = trial
        self._early_at = early_at
        self._imported = self._device_is_there = False
        self._first_use: Background | None = None
        self._recalling: Background | None = None
        self._past: SimpleQueue[Sequence[PastJob]] = SimpleQueue()

    def begin(self) -> Import:
        """Begin the import of the libraries: once the order to fetch is out, not to hold it up."""
        from nbloader.loaders import Import

        if self._importing is None:
            self._importing = Import(
                self._selection,
                forced=self._run.request.force,
                notebook=running_kernel() is not None,
                take=self._run.take if self._run.turns else None,
            )
        return self._importing

    def _direct(self, folder: Path) -> Direct:
        from nbloader.loaders import Direct

        return Direct(
            self._selection,
            folder,
            self.placement,
            self._run.request.loader_kwargs,
            cancelled=self._run.cancelled,
            passing=self.ahead.passing(),
        )

    def _building(self, planned: Planned, arrivals: Arrivals, direct: Direct | None) -> Building:
        from nbloader.loaders import Building

        request = self._run.request
        return Building(
            planned.selection,
            planned.folder,
            self.placement,
            request.loader_kwargs,
            attention=request.attention,
            forced=request.force,
            next_method=self.next_method(),
            arrivals=arrivals,
            direct=direct,
            cancelled=self._run.cancelled,
        )

    def look(self) -> None:
        """Take over what the user has chosen, and say early what cannot work.

        Raises:
            NbloaderError: a library cannot be imported, the device is not there, or tensors are
                missing.
        """
        self._recall()
        if self._trial is not None:
            self._trial.look(self._run.reporter.state.done)
        self._choose()
        imported = self.begin().check()
        self._read()
        if not imported or not (self._first_use is None or self._first_use.check()):
            return
        self._tell()
        if not self._run.request.replace:  # What is loaded goes only once all files are there.
            self.ahead.look()

    def _recall(self) -> None:
        """Have the last jobs read, now that the order to fetch is out, and take over what they
        tell."""
        if self._recalling is None:
            self._recalling = Background(lambda: self._past.put(recall()), imports=False)
        with contextlib.suppress(Empty):
            self._run.reporter.recall(self._past.get_nowait())

    def _read(self, *, all_there: bool = False) -> None:
        """Begin to read weights once torch is there, while other libraries are imported."""
        from nbloader.loaders import check_device, torch_is_imported, use_first

        if not torch_is_imported():
            return
        begins = not self._device_is_there
        if begins:
            # A device that is not there is told as soon as torch can say so.
            check_device(self.placement)
            self._device_is_there = True
        if not self._run.request.replace:
            self.ahead.read(all_there=all_there)
        if begins and self.placement.device.startswith("cuda"):
            self._first_use = Background(partial(use_first, self.placement), imports=False)

    def wait(self) -> None:
        """Wait for the libraries; all files are there. Raises as `look` does, or CancelledError."""

        def meanwhile() -> None:
            self._recall()
            self._run.reporter.tick()
            self._read(all_there=True)

        self._choose()
        if not self.begin().wait(self._run.cancelled, meanwhile):
            raise cancelled_error()
        self._read(all_there=True)
        # A build beside it would load the same libraries of CUDA, and keep a work space of its own.
        first = self._first_use
        if first is not None and not first.wait(self._run.cancelled, self._run.reporter.tick):
            raise cancelled_error()
        self._tell()

    def end_trial(self) -> None:
        """End the trial beside the download, which is over."""
        if self._trial is not None:
            self._trial.close()

    def next_method(self) -> Method | None:
        """Name the plan to try should the placement fill a GPU; None if no other fits."""
        return fallback(self._run.request, self._facts, self.placement)

    def _tell(self) -> None:
        if not self._imported:
            self._imported = True
            now = time.monotonic()
            seconds = now - (self._early_at or self.begin().begun_at or now)
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
            if self._passing is not None:
                self._run.reporter.publish(_plan_is_settled())
                return
            self.ahead.forget()
            self.placement = chosen
            self._device_is_there = False
            report = judge(replace(self._facts, fit=replace(fit, chosen=chosen)))
            self._run.reporter.publish(Checked(results=report.results, fit=report.fit))


def _fetch(run: Run, loading: list[_Loading] | None = None, early_at: float | None = None) -> Path:
    """Check, then bring the files of the selection into the cache.

    Args:
        loading: gets what the load needs to know; None if nothing will be loaded.
        early_at: of `_Loading`.
    """
    request, reporter = run.request, run.reporter
    survey = Survey() if loading is not None else None

    def approve(selected: Selected) -> None:
        facts = gather(request, survey=survey, selected=selected)
        report = judge(facts)
        reporter.publish(Checked(results=report.results, fit=report.fit))
        report.raise_for_failures(force=request.force)
        if loading is not None:
            tries = report.missing_bytes >= TRIAL_FROM_BYTES and not request.force
            beside = TrialBeside(request, selected) if tries else None
            loading.append(_Loading(run, selected, facts, beside, early_at))
        if request.folder is None or report.missing_bytes:
            reporter.begin(Stage.DOWNLOAD)

    def publish(event: Event) -> None:
        reporter.publish(event)
        if loading and isinstance(event, FileDone):
            loading[0].ahead.heard(event.path)

    def may_go_on() -> None:
        reporter.tick()
        if loading:
            loading[0].look()

    reporter.begin(Stage.CONNECT if request.folder is None else Stage.SET_UP)
    try:
        return run_worker(
            request,
            request.settings.policy(),
            publish=publish,
            approve=approve,
            check=may_go_on,
            cancelled=run.cancelled,
            loads=loading is not None,
            fetch=lambda: _order(loading),
            standby=run.standby,
        )
    except (HubUnreachableError, RepoError) as error:
        raise helped(error, request, fetched=loading is None) from error
    finally:
        for each in loading or ():
            each.end_trial()


def _order(loading: list[_Loading] | None) -> Fetch:
    """Return what the worker is told to fetch."""
    from nbloader.transfer.protocol import Fetch

    return loading[0].ahead.order() if loading else Fetch()


def download(run: Run) -> tuple[Path, str]:
    """Bring the files into the cache or a folder, and return that, or the path of the only file."""
    place = run.request.place_in(_fetch(run))
    run.reporter.begin(Stage.FINISH)
    return place, short_path(place)


def load(run: Run) -> tuple[Any, str]:
    """Bring the files into the cache, and return the model that was built of them and tested."""
    learned: list[_Loading] = []
    early_at = import_early(run.request) if run.turns is None else None
    try:
        folder = _fetch(run, learned, early_at)
        run.reporter.begin(Stage.INITIALISE)
        learned[0].wait()
        from nbloader.loaders.collector import collector_off

        # Where cells run beside the job, they have the collector between the steps.
        with collector_off() if run.turns is None else contextlib.nullcontext():
            return _built(run, learned[0], folder)
    finally:
        for each in learned:
            each.ahead.close()


def _built(run: Run, loading: _Loading, folder: Path) -> tuple[Any, str]:
    """Build what is not built yet, test it, and return it."""
    from nbloader import loaders

    request, reporter = run.request, run.reporter
    selection = reporter.state.selection
    assert selection is not None
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
    if request.replace:
        for notice in in_turn(lambda: _unloaded(selection)):
            reporter.publish(notice)
    for size in in_turn(lambda: loaders.copies(key))[:1]:
        reporter.publish(_second_copy(selection, placement.device, size))
    model = loading.ahead.model(folder)
    for notice in loading.ahead.notices():
        reporter.publish(notice)
    modules = loaders.modules_of(model, selection)
    size = loaders.bytes_of(modules.values())
    for holder in loaders.holders(model, selection):
        loaders.remember(
            key, LoadedModel(repo_id=selection.repo_id, device=placement.device, bytes=size), holder
        )
    reporter.begin(Stage.SELF_TEST)
    known = None if loaders.places_itself(request.loader_kwargs) else placement
    finite, called = loading.ahead.tested
    in_turn(partial(loaders.check_modules, modules, known, finite))
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        reporter.begin(Stage.TEST_EMBEDDINGS)
    for notice in in_turn(partial(loaders.check_call, model, selection, known, called)):
        reporter.publish(notice)
    if run.cancelled.is_set():
        raise cancelled_error()
    reporter.begin(Stage.FINISH)
    return model, _summary(model, placement)


def _plan_is_settled() -> Notice:
    return Notice(
        reference="plan-settled",
        message="the plan stays as it is: files that were loaded are gone already",
        hint="Stop, and load again with `plan=` to have another one.",
    )


def _summary(model: Any, placement: Placement) -> str:
    parts = model if isinstance(model, tuple) else (model,)
    names = ", ".join(type(part).__name__ for part in parts)
    return f"{names} on {placement.device}, {placement.dtype}" if placement.components else names


def _unloaded(selection: Selection) -> list[Notice]:
    """Unload what was loaded of the same repository before."""
    from nbloader import loaders

    before = loaders.alive(selection.repo_id)
    if not before:
        return []
    return [
        Notice(
            reference="replaced",
            message=f"{selection.repo_id} was loaded in this process already, and was unloaded: "
            f"{loaders.unload(before)!r}",
            hint="Nothing is needed: the new one takes its place.",
        )
    ]


def _second_copy(selection: Selection, device: str, size: int) -> Notice:
    where = "memory" if device == "cpu" else f"memory of {device}"
    return Notice(
        reference="already-loaded",
        message=f"{selection.repo_id} is loaded in this process already; a second copy takes "
        f"another {format_bytes(size)} of {where}",
        hint="If the new one takes the place of the first in your variable, nothing is left to do. "
        + HOW_TO_FREE,
    )
