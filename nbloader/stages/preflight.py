"""The checks alone, and a trial of the build among them or beside a download."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader.assess import Survey, assess
from nbloader.checks import PreflightReport, in_words_of, trial
from nbloader.errors import (
    MissingTensorsError,
    NbloaderError,
    ProtocolError,
    RepoError,
    TransferError,
    WorkerDiedError,
)
from nbloader.notebook import Background
from nbloader.records import CheckResult, ComponentWeights, Event, Selected, Selection
from nbloader.stages.asking import look, run_worker
from nbloader.wording import reader_here

if TYPE_CHECKING:
    from nbloader.request import Request


class _Enough(Exception):  # noqa: N818 - the way out, not an error
    pass


def check(
    request: Request, line: Callable[[str], str] | None = None, *, tries: bool = True
) -> PreflightReport:
    """Make the checks of a load and nothing more: no weight is fetched, nothing is raised by them.

    Args:
        line: returns the line that loads with a plan, for the report in a notebook.
        tries: whether a trial of the build is among the checks.

    Raises:
        InputError: the device that was asked for is not there.
        WorkerDiedError, ProtocolError: the checks could not be made.
    """
    survey = Survey()
    found = seen(request)
    if isinstance(found, Selected):
        report = assess(request, survey=survey, selected=found)
    else:
        report = assess(request, survey=survey, problem=found)
    if line is not None:
        report = replace(report, _again=partial(check, request, line), _line=line)
    return replace(report, results=partial(with_trial, request, report)) if tries else report


def seen(
    request: Request,
    *,
    publish: Callable[[Event], object] | None = None,
    cancelled: threading.Event | None = None,
) -> Selected | NbloaderError:
    """Find out which files a request is about, or return the error that this ends with.

    Args:
        publish: told of every event, for a look before a download, which is as patient as that;
            None for checks.

    Raises:
        WorkerDiedError, ProtocolError: it cannot be found out.
    """
    found: list[Selected] = []

    def stop(selected: Selected) -> None:
        found.append(selected)
        raise _Enough

    try:
        if publish is None:
            look(request, approve=stop, cancelled=cancelled)
        else:
            run_worker(
                request,
                request.settings.policy(),
                publish=publish,
                approve=stop,
                check=lambda: None,
                cancelled=cancelled or threading.Event(),
                loads=False,
            )
    except _Enough:
        return found[0]
    except (ProtocolError, WorkerDiedError):
        raise
    except (RepoError, TransferError) as error:
        return error
    raise AssertionError("a look ends before a byte is fetched")


def with_trial(request: Request, report: PreflightReport) -> tuple[CheckResult, ...]:
    """Return the results of a report, and that of the trial where all others leave it open."""
    if not report.ok or report.selection is None:
        return report.results
    found = trial(tried(request, report.selection, report.weights))
    return *report.results, in_words_of(reader_here(), found)


def tried(
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

    task = task_of(selection, weights, request.loader_kwargs, request.attention)
    if isinstance(task, str):
        return task
    try:
        with (
            tempfile.TemporaryDirectory(prefix="nbloader-trial-") as folder,
            Trial(task, beside=beside) as building,
        ):
            look(
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


class TrialBeside:
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
        self._found = tried(self._request, selection, weights, beside=self._closed)

    def close(self) -> None:
        self._closed.set()
