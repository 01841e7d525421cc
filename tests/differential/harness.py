"""A case of the differential suite, and what is done with it.

A case is a tiny model that is written to a folder, published on the local Hub, loaded with
`nbloader.load`, and compared with what the library's own call makes of the same folder. How to add
one: put it into `CASES` of a module in `tests/differential/cases/`; every module there is found.
Such a module is read whenever tests are collected, so it imports its libraries inside functions.

    Case(
        name="bert-text-classification",       # unique within its kind: [a-z0-9.-]
        kind=Kind.TRANSFORMERS,
        save=save_classifier,                   # writes the repository's files, with fixed seeds
        plain=lambda folder: transformers.pipeline("text-classification", model=str(folder)),
        call=lambda made: made("a good b"),     # its output is compared, too
    )

- A model card decides what the Hub says: write a README.md with `pipeline_tag` or `library_name`.
- Other repositories that the model needs are in `companions`, by their ids; `plain` finds their
  folders beside its own: `folder.parents[1] / "org/base"`. A data set has its kind before its id.
- What has to be refused has `refused`: the reference of the error, which has to come before a
  weight is fetched, and which `preflight` has to foresee.
- What has to be told has `notices`: references that must be among those of the load's notices.
- Tensors that the files lack are refused with `missing-tensors`. The trial that finds them before
  the download builds in this process here, where the libraries are imported already.
- Warnings in `save`, `plain` and `call` are passed over; in `load` they are errors.

Run one: `pytest tests/differential --models=all -k bert-text-classification`.
"""

from __future__ import annotations

import random
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nbloader
from nbloader.checks import PreflightReport
from nbloader.errors import NbloaderError
from nbloader.loaders import Import
from nbloader.localhub import LocalHub
from nbloader.records import Event, Kind, Notice, Selected, Stage, StageStarted
from nbloader.trial import Task, verdict
from nbloader.worker.trial import answer
from tests.differential.comparison import differences, paths_in
from tests.sockets import connections

__all__ = ["Case", "Outcome", "TrialHere", "check", "seeded"]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A tiny model and what has to come of it.

    Attributes:
        name: unique within the kind; the repository is named after it.
        save: writes the files of the repository into a folder that is there and empty.
        plain: the library's own call on the folder; it gives what `load` has to give. None where
            `load` has to refuse.
        call: one call of what was loaded, whose output is compared; all generators are seeded
            before. None for none.
        arguments: further ones of `load` (and `preflight`). The device is the CPU.
        companions: other repositories, by id, and what writes them.
        refused: the reference of the error that has to come; None if it loads.
        notices: references that the load has to tell.
        ours: makes of what `load` gives what is compared with `plain`, where that is not the whole.
        group: what stands in the table of what was compared, such as a task; the class if None.
        oldest: whether it is compared with the oldest versions that are allowed, too.
    """

    name: str
    kind: Kind
    save: Callable[[Path], object]
    plain: Callable[[Path], Any] | None = None
    call: Callable[[Any], Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    companions: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    refused: str | None = None
    notices: frozenset[str] = frozenset()
    ours: Callable[[Any], Any] | None = None
    group: str | None = None
    oldest: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"not a name of a case: {self.name!r}")
        if (self.plain is None) is (self.refused is None):
            raise ValueError(f"{self.name}: either `plain` or `refused`")

    @property
    def id(self) -> str:
        """What pytest and the results call it."""
        return f"{self.kind}-{self.name}"

    @property
    def repo_id(self) -> str:
        """Its repository on the local Hub."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case.

    Attributes:
        made: the class of what was loaded; None if it was refused.
        refused: the reference of the error; None if it was loaded.
        called: whether the output of a call was compared.
        differences: those that were found, and everything else that is not as it should be.
    """

    id: str
    kind: str
    group: str
    made: str | None
    refused: str | None
    called: bool
    differences: tuple[str, ...]


class TrialHere:
    """Stands for `nbloader.trial.Trial`: builds the same, in this process."""

    def __init__(self, task: Task, *, beside: threading.Event | None = None) -> None:
        del beside  # What is built in this process is waited for.
        self._task = task

    def __enter__(self) -> TrialHere:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def build(self, folder: Path) -> NbloaderError | str | None:
        """Do what the process does with a folder."""
        importing = Import(self._task.selection)
        return verdict(answer(self._task, folder, importing.wait))


def check(case: Case, hub: LocalHub, root: Path, cache: Path) -> Outcome:
    """Publish a case, load it in both ways, and compare.

    Args:
        root: of the local Hub.
        cache: an empty folder for nbloader's downloads.
    """
    folder = _written(root, case.repo_id, case.save)
    for repo_id, save in case.companions.items():
        _written(root, repo_id, save)
    found: list[str] = []
    theirs = None
    if (plain := case.plain) is not None:
        with _unheard():
            theirs = seeded(lambda: plain(folder))
    arguments = {
        "kind": "auto",
        "device": "cpu",
        "endpoint": hub.endpoint,
        "cache_dir": cache,
        **case.arguments,
    }
    report = nbloader.preflight(case.repo_id, **_of_preflight(arguments))
    events: list[Event] = []
    ours, error = None, None
    with connections() as opened:
        try:
            ours = seeded(
                lambda: nbloader.load(
                    case.repo_id, **arguments, view="none", on_event=events.append
                )
            )
        except NbloaderError as caught:
            error = caught
    found += [f"opened by this process: {each}" for each in opened]
    found += _about_refusals(case, report, error, events)
    made = None
    if error is None:
        made = type(ours).__name__
        found += paths_in(ours, cache)
        if theirs is not None:
            compared = case.ours(ours) if case.ours else ours
            found += differences(compared, theirs)
            found += _of_calls(case, compared, theirs)
        told = {event.reference for event in events if isinstance(event, Notice)}
        found += [f"not told: {notice}" for notice in sorted(case.notices - told)]
    return Outcome(
        id=case.id,
        kind=str(case.kind),
        group=case.group or made or str(case.refused),
        made=made,
        refused=error.reference if error else None,
        called=case.call is not None and made is not None,
        differences=tuple(found),
    )


def seeded(make: Callable[[], Any]) -> Any:
    """Make something with all generators at their beginning, and put them back after it."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            return make()
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _written(root: Path, repo_id: str, save: Callable[[Path], object]) -> Path:
    """Write a repository of the local Hub, unless it is there already."""
    folder = root / repo_id if repo_id.startswith("datasets/") else root / "models" / repo_id
    if not folder.exists():
        folder.mkdir(parents=True)
        with _unheard():
            seeded(lambda: save(folder))
    return folder


@contextmanager
def _unheard() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _of_preflight(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what only a load takes."""
    return {key: value for key, value in arguments.items() if key not in ("verify", "force")}


def _of_calls(case: Case, ours: Any, theirs: Any) -> list[str]:
    if case.call is None:
        return []
    with _unheard():
        mine, other = (seeded(partial(case.call, each)) for each in (ours, theirs))
    return [f"output{line}" for line in differences(mine, other)]


def _about_refusals(
    case: Case,
    report: PreflightReport,
    error: NbloaderError | None,
    events: list[Event],
) -> list[str]:
    """Say what is wrong with whether it was loaded, and when that was told."""
    found = []
    got = error.reference if error else None
    if got != case.refused:
        found.append(f"refused: {str(error)[:600] if error else None} instead of {case.refused}")
    failed = {each.name: each.message for each in report.failures}
    if report.ok is not (case.refused is None):
        found.append(f"the preflight's ok is {report.ok}: {failed}")
    begun = any(isinstance(e, StageStarted) and e.stage is Stage.DOWNLOAD for e in events)
    if error is not None and begun and got not in _AFTER_DOWNLOAD:
        found.append(f"refused after the download: {error.message[:300]}")
    if error is None and not any(isinstance(event, Selected) for event in events):
        found.append("no selection was told")
    return found


_AFTER_DOWNLOAD = frozenset({"missing-tensors", "model-load-failed"})
"""What a load can say only once it builds; a preflight says it before."""
