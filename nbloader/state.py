"""Events folded into one state, from which every view is drawn.

`apply` is pure: the time of an event is an argument. Everything that a view shows (speed, time
left, percent) is derived here, so that views only format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nbloader.errors import CancelledError, Interrupted
from nbloader.records import (
    Checked,
    CheckResult,
    Component,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Fit,
    LibrariesImported,
    Notice,
    Ready,
    Retry,
    Selected,
    Selection,
    Stage,
    StageStarted,
)
from nbloader.units import format_bytes

__all__ = [
    "MAX_HISTORY",
    "STAGE_SPANS",
    "Awaited",
    "ComponentState",
    "FileState",
    "JobState",
    "Span",
    "StageState",
    "Status",
    "Step",
    "Turn",
    "advance",
    "apply",
    "progress",
]

SPEED_WINDOW_S = 15.0
"""The speed is an average over this time: long enough to be calm, short enough to show a stall."""

STALL_S = 2.0
"""So long without a byte counts as a stall in the history of a job. Pieces of Xet storage are
handed over whole, so shorter pauses say nothing."""

QUIET_S = 1.0
"""Shorter silences are not told of: between two pieces of a file there is always a pause."""

MAX_HISTORY = 240
"""Points of the history of bytes: as many as a chart of a screen's width can show."""

MAX_STALLS = 200

_SAMPLE_EVERY_S = 0.5

STAGE_SPANS: Mapping[Stage, tuple[int, int]] = MappingProxyType(
    {
        Stage.CONNECT: (0, 10),
        Stage.SET_UP: (10, 20),
        Stage.DOWNLOAD: (20, 80),
        Stage.INITIALISE: (80, 85),
        Stage.SELF_TEST: (85, 92),
        Stage.TEST_EMBEDDINGS: (92, 98),
        Stage.FINISH: (98, 100),
    }
)
"""From and to which percent of the whole job a stage runs. A convention, not a measurement."""


class Status(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


class Turn(StrEnum):
    """How work of a job stands that is done between two cells: imports, and the construction."""

    DUE = "due"
    """It waits for a cell to end."""

    UNDER_WAY = "under way"
    """Cells and clicks wait for it."""


class Awaited(StrEnum):
    """What a job waits for."""

    BYTES = "bytes"
    CELL = "the end of a cell"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """A stage that has begun; `ended_at` is None while it runs."""

    stage: Stage
    started_at: float
    ended_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.ended_at is None else self.ended_at - self.started_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in the life of a job, in seconds of its clock; `ended_at` is None while it lasts."""

    started_at: float
    ended_at: float | None = None


class Step(StrEnum):
    """How far a file or a component is, in this order."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    DOWNLOADED = "downloaded"
    LOADING = "loading"
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """The bytes of one file; what was there before the job began counts as completed."""

    path: str
    total: int
    completed: int
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentState:
    """The bytes of one component.

    Attributes:
        total, completed: bytes; what the cache held already counts as completed.
        files: in the selection's order.
    """

    name: str
    step: Step
    files: tuple[FileState, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of its files."""
        return sum(file.total for file in self.files)

    @property
    def completed(self) -> int:
        """Bytes of its files that are there."""
        return sum(file.completed for file in self.files)


_STOPS = frozenset({Interrupted.reference, CancelledError.reference})
_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_SPANS: Mapping[str, Span] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """All that is known of a job.

    Attributes:
        started_at, updated_at: seconds of the clock that `apply` is called with.
        stages: in the order in which they began.
        selection: None until the files are known.
        total: bytes of all files of the selection.
        fit: the ways to place the model, and the one that is taken; None if nothing is loaded.
        completed: bytes that are there by path, files of the cache included.
        moving: paths of which bytes have arrived.
        kept: bytes that were there before, complete files and parts.
        fetched: bytes that this job has downloaded.
        samples: (time, bytes fetched so far), the base of `speed`.
        history: the same over the whole job, in ever larger steps.
        byte_at: when the last byte arrived.
        stalls: times of at least `STALL_S` in the download in which no byte arrived.
        retried_at: when each of `retries` was told of.
        downloads: by component, from its first byte to the last of its files.
        importing: from the first import of the libraries to the last.
        waited_for: whether a cell waits for the result, so that no button can be pressed.
        turn: of work that is done where the cells run; None if there is none.
    """

    repo_id: str
    started_at: float
    updated_at: float
    status: Status = Status.RUNNING
    stages: tuple[StageState, ...] = ()
    selection: Selection | None = None
    total: int = 0
    cached: frozenset[str] = frozenset()
    completed: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    moving: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    checks: tuple[CheckResult, ...] = ()
    fit: Fit | None = None
    kept: int = 0
    loaded: tuple[ComponentLoaded, ...] = ()
    retries: tuple[Retry, ...] = ()
    notices: tuple[Notice, ...] = ()
    samples: tuple[tuple[float, int], ...] = ()
    summary: str = ""
    failure: Failed | None = None
    fetched: int = 0
    history: tuple[tuple[float, int], ...] = ()
    byte_at: float | None = None
    stalls: tuple[Span, ...] = ()
    retried_at: tuple[float, ...] = ()
    downloads: Mapping[str, Span] = field(default_factory=lambda: _NO_SPANS)
    importing: Span | None = None
    waited_for: bool = False
    turn: Turn | None = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows of it; `repr` holds every file."""
        there = f"{format_bytes(self.there)} of {format_bytes(self.total)}"
        stage = f", {self.stage}" if self.stage else ""
        text = f"{self.repo_id!r}: {self.status}{stage}, {self.percent:.0f} %, {there}"
        printer.text("JobState(...)" if cycle else f"<JobState {text}>")

    @property
    def stage(self) -> Stage | None:
        """The stage that began last."""
        return self.stages[-1].stage if self.stages else None

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the last event."""
        return self.updated_at - self.started_at

    @property
    def cached_bytes(self) -> int:
        """Bytes that were there before the download began, parts of files included."""
        return self.kept

    @property
    def to_fetch(self) -> int:
        """Bytes that this job has to download."""
        return self.total - self.cached_bytes

    @property
    def there(self) -> int:
        """Bytes that are on the disk; what has arrived stays there, however the job ends."""
        return self.cached_bytes + self.fetched

    @property
    def quiet_since(self) -> float | None:
        """When the last byte came, or the download began; None where none is waited for."""
        download = self.download
        if download is None or download.ended_at is not None or self.fetched >= self.to_fetch:
            return None
        return max(download.started_at, self.byte_at or download.started_at)

    @property
    def quiet_s(self) -> float | None:
        """Seconds since then."""
        return None if self.quiet_since is None else self.updated_at - self.quiet_since

    @property
    def waits_for(self) -> Awaited | None:
        """What it waits for; None while all goes on, and in a short silence."""
        if self.status is not Status.RUNNING:
            return None
        if self.has_begun(Stage.INITIALISE) and self.turn is Turn.DUE:
            return Awaited.CELL
        return Awaited.BYTES if (self.quiet_s or 0.0) >= QUIET_S else None

    @property
    def ended_by_user(self) -> bool:
        """Whether it has failed only because its user has stopped it."""
        return self.failure is not None and self.failure.reference in _STOPS

    @property
    def is_resumable(self) -> bool:
        """Whether its user has stopped it on its way, so that the same call goes on from there."""
        return self.ended_by_user and self.total > 0

    @property
    def download(self) -> StageState | None:
        """The stage of the download; None before it."""
        return next((begun for begun in self.stages if begun.stage is Stage.DOWNLOAD), None)

    def has_begun(self, stage: Stage) -> bool:
        """Tell whether a stage has begun."""
        return any(begun.stage is stage for begun in self.stages)

    @property
    def speed(self) -> float | None:
        """Bytes per second over the last `SPEED_WINDOW_S`; None until two samples exist."""
        if len(self.samples) < 2:
            return None
        oldest = self.updated_at - SPEED_WINDOW_S
        window = [sample for sample in self.samples if sample[0] >= oldest]
        if not window:
            return 0.0
        seconds = self.updated_at - window[0][0]
        return max(0, window[-1][1] - window[0][1]) / seconds if seconds > 0 else None

    @property
    def average_speed(self) -> float | None:
        """Bytes per second over the whole download stage; None if nothing was fetched."""
        if self.download is None or not self.fetched:
            return None
        seconds = (self.download.ended_at or self.updated_at) - self.download.started_at
        return self.fetched / seconds if seconds > 0 else None

    @property
    def time_remaining(self) -> float | None:
        """Seconds until all bytes are there at the present speed; None if that is not known."""
        rest = self.to_fetch - self.fetched
        if self.selection is None or not (speed := self.speed):
            return None
        return max(0.0, rest / speed)

    @property
    def percent(self) -> float:
        """How far the job is, from 0 to 100."""
        if self.status is Status.READY:
            return 100.0
        if self.stage is None:
            return 0.0
        low, high = STAGE_SPANS[self.stage]
        share = 0.0
        if self.stage is Stage.DOWNLOAD and self.total:
            share = min(1.0, (self.cached_bytes + self.fetched) / self.total)
        return low + (high - low) * share

    @property
    def _waits(self) -> bool:
        """Whether the construction has to wait: for the libraries, or for a cell to end."""
        return self.importing is None or self.turn is Turn.DUE

    @property
    def components(self) -> tuple[ComponentState, ...]:
        """The components of the selection that have files, with their bytes, in its order."""
        if self.selection is None:
            return ()
        sizes = {file.path: file.size for file in self.selection.files}
        loaded = {event.name for event in self.loaded}
        parts = (part for part in self.selection.components if part.paths)
        return tuple(self._component(part, sizes, loaded) for part in parts)

    def _component(
        self, part: Component, sizes: Mapping[str, int], loaded: set[str]
    ) -> ComponentState:
        files = tuple(self._file(path, sizes[path]) for path in part.paths)
        steps = {file.step for file in files}
        built = self.has_begun(Stage.INITIALISE)
        if steps == {Step.DOWNLOADED}:
            step = Step.DOWNLOADED
            if part.name in loaded or (built and self.status is Status.READY):
                step = Step.READY
            elif built and self.status is Status.RUNNING and not self._waits:
                step = Step.LOADING
        elif Step.DOWNLOADING in steps:
            step = Step.DOWNLOADING
        else:
            step = Step.VERIFYING if Step.VERIFYING in steps else Step.WAITING
        return ComponentState(name=part.name, step=step, files=files)

    def _file(self, path: str, total: int) -> FileState:
        completed = self.completed.get(path, 0)
        step = Step.DOWNLOADING if path in self.moving else Step.WAITING
        if path in self.done:
            step = Step.DOWNLOADED
        elif completed >= total > 0:
            step = Step.VERIFYING
        return FileState(path=path, total=total, completed=completed, step=step)


def advance(
    state: JobState, now: float, *, waited_for: bool = False, turn: Turn | None = None
) -> JobState:
    """Let time pass while nothing happens, so that a stall shows.

    Args:
        waited_for: whether a cell waits for the result.
        turn: how the work stands that is done where the cells run.
    """
    updated_at = max(now, state.updated_at)
    return replace(state, updated_at=updated_at, waited_for=waited_for, turn=turn)


def apply(state: JobState, event: Event, now: float) -> JobState:
    """Fold one event into the state.

    Args:
        now: seconds of a steady clock; never smaller than in the call before.
    """
    if isinstance(event, FileProgress):
        return progress(state, {event.path: event.completed}, now)
    state = advance(state, now, waited_for=state.waited_for, turn=state.turn)
    match event:
        case StageStarted():
            return _begin(state, event.stage)
        case Selected():
            sizes = {file.path: file.size for file in event.selection.files}
            there = {path: sizes[path] for path in event.cached if path in sizes}
            there |= {path: left for path, left in event.partial.items() if path in sizes}
            return replace(
                state,
                selection=event.selection,
                total=event.selection.total,
                cached=frozenset(event.cached),
                kept=sum(there.values()),
                completed=MappingProxyType(there),
                done=frozenset(event.cached),
            )
        case Checked():
            return replace(state, checks=event.results, fit=event.fit)
        case FileDone():
            size = (
                {file.path: file.size for file in state.selection.files} if state.selection else {}
            )
            state = progress(state, {event.path: size.get(event.path, 0)}, now)
            state = replace(state, done=state.done | {event.path})
            downloads = _downloads(state, event.path, state.downloads, begins=False, now=now)
            return replace(state, downloads=downloads)
        case LibrariesImported():
            begun = max(state.started_at, state.updated_at - event.seconds)
            return replace(state, importing=Span(started_at=begun, ended_at=state.updated_at))
        case Retry():
            return replace(
                state,
                retries=(*state.retries, event),
                retried_at=(*state.retried_at, state.updated_at),
            )
        case Notice():
            return replace(state, notices=(*state.notices, event))
        case ComponentLoaded():
            return replace(state, loaded=(*state.loaded, event))
        case Ready():
            return replace(_end_stage(state), status=Status.READY, summary=event.summary)
        case Failed():
            stalls = _stalls(state, now)
            return replace(_end_stage(state), status=Status.FAILED, failure=event, stalls=stalls)


def _end_stage(state: JobState) -> JobState:
    if not state.stages or state.stages[-1].ended_at is not None:
        return state
    last = replace(state.stages[-1], ended_at=state.updated_at)
    return replace(state, stages=(*state.stages[:-1], last))


def _begin(state: JobState, stage: Stage) -> JobState:
    state = _end_stage(state)
    begun = StageState(stage=stage, started_at=state.updated_at)
    state = replace(state, stages=(*state.stages, begun))
    if stage is not Stage.DOWNLOAD:
        return state
    first = ((state.updated_at, state.fetched),)
    return replace(state, samples=first, history=state.history or first)


def progress(state: JobState, completed: Mapping[str, int], now: float) -> JobState:
    """Fold the newest progress of several files at once.

    Args:
        completed: bytes of a file that have arrived so far, by its path.
        now: as in `apply`.
    """
    now = max(now, state.updated_at)
    changed = {
        path: count
        for path, count in completed.items()
        if path not in state.done and count != state.completed.get(path, 0)
    }
    if state.selection is None or not changed:
        return replace(state, updated_at=now)
    gains = [count - state.completed.get(path, 0) for path, count in changed.items()]
    fetched = state.fetched + sum(gains)
    arrived = max(gains) > 0  # Otherwise an attempt starts over.
    begun = changed.keys() - state.moving
    downloads = state.downloads
    for path in begun:
        downloads = _downloads(state, path, downloads, begins=True, now=now)
    return replace(
        state,
        updated_at=now,
        completed=MappingProxyType({**state.completed, **changed}),
        moving=state.moving | begun if begun else state.moving,
        fetched=fetched,
        samples=_sampled(state.samples, now, fetched),
        history=_noted(state.history, now, fetched),
        byte_at=now if arrived else state.byte_at,
        stalls=_stalls(state, now) if arrived else state.stalls,
        downloads=downloads,
    )


def _sampled(
    samples: tuple[tuple[float, int], ...], now: float, fetched: int
) -> tuple[tuple[float, int], ...]:
    """Add a sample, or move the newest one on if it is fresh, and drop what is too old."""
    if len(samples) > 1 and now - samples[-2][0] < _SAMPLE_EVERY_S:
        return (*samples[:-1], (now, fetched))
    kept = [sample for sample in samples if now - sample[0] <= SPEED_WINDOW_S]
    if not kept and samples:
        kept = [samples[-1]]
    return (*kept, (now, fetched))


def _noted(
    history: tuple[tuple[float, int], ...], now: float, fetched: int
) -> tuple[tuple[float, int], ...]:
    """Add a point, or move the newest one on while its step of time lasts."""
    if len(history) > 2:
        step = max(_SAMPLE_EVERY_S, (now - history[0][0]) / MAX_HISTORY)
        if now - history[-2][0] < step:
            history = history[:-1]
    if len(history) >= MAX_HISTORY:
        history = _thinned(history, 2 * (now - history[0][0]) / MAX_HISTORY)
    return (*history, (now, fetched))


def _thinned(
    history: tuple[tuple[float, int], ...], step_s: float
) -> tuple[tuple[float, int], ...]:
    """Keep points that are at least so many seconds apart, and the last one."""
    kept = [history[0]]
    for point in history[1:-1]:
        if point[0] - kept[-1][0] >= step_s:
            kept.append(point)
    return (*kept, history[-1])


def _stalls(state: JobState, now: float) -> tuple[Span, ...]:
    """Add the silence that ends now, if it was a long one."""
    since = state.quiet_since
    if since is None or now - since < STALL_S:
        return state.stalls
    return (*state.stalls, Span(started_at=since, ended_at=now))[-MAX_STALLS:]


def _downloads(
    state: JobState, path: str, downloads: Mapping[str, Span], *, begins: bool, now: float
) -> Mapping[str, Span]:
    """Begin the download of the component of a file, or end it with the last of its files.

    It begins with its weights, if it has any: the small files of all components come first.

    Args:
        begins: whether the first bytes of the file have come.
    """
    for part in state.selection.components if state.selection else ():
        span = downloads.get(part.name)
        begun = span is not None or (begins and path in (part.weights or part.paths))
        if path not in part.paths or not begun:
            continue
        span = span or Span(started_at=now)
        if span.ended_at is None and state.done.issuperset(part.paths):
            span = replace(span, ended_at=now)
        return MappingProxyType({**downloads, part.name: span})
    return downloads
