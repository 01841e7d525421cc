"""One job as it stands: all that is known of it, and what follows from that.

Everything that a view shows (speed, time left, percent) is derived here, so that views only format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from nbloader.errors import CancelledError, Interrupted
from nbloader.notebook import Turn
from nbloader.records import (
    CheckResult,
    Component,
    ComponentLoaded,
    Failed,
    Fit,
    Notice,
    Retry,
    Selection,
    Stage,
)
from nbloader.state.estimate import SMALL_FILE_BYTES, Pace
from nbloader.state.forecast import Expected, PastJob, expected
from nbloader.text import format_bytes

__all__ = [
    "Awaited",
    "ComponentState",
    "FileState",
    "JobState",
    "Span",
    "StageState",
    "Status",
    "Step",
]

QUIET_S = 1.0
"""Shorter silences are not told of: between two pieces of a file there is always a pause."""

QUIET_GAPS = 2
"""Nor are those of as many pauses as there usually are: Xet storage hands over whole pieces."""


class Status(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


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
        repo_id: the repository that it comes from, where the caller has named another one.
    """

    name: str
    step: Step
    files: tuple[FileState, ...] = ()
    repo_id: str = ""

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
_NOBODY_WAITS: Mapping[str | None, float] = MappingProxyType({})
_NO_SPANS: Mapping[str, Span] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """All that is known of a job.

    Attributes:
        started_at, updated_at: seconds of the clock that `apply` is called with.
        stages: in the order in which they began.
        selection: None until the files are known.
        total: bytes of all files of the selection.
        sizes: bytes of each, by path.
        fit: the ways to place the model, and the one that is taken; None if nothing is loaded.
        copied: paths of files that are not fetched, because their content is on this machine.
        completed: bytes that are there by path, files of the cache included.
        moving: paths of which bytes have arrived.
        kept: bytes that were there before, complete files and parts.
        fetched: bytes that this job has downloaded.
        share: the largest share of all bytes that was there at any time, from 0 to 1.
        pace: how they came, the base of `speed` and `time_remaining`; None before the download.
        fastest: the highest speed so far, in bytes per second.
        history: (time, bytes fetched so far), in ever larger steps.
        byte_at: when the last byte arrived.
        stalls: times of at least `STALL_S` in the download in which no byte arrived.
        retried_at: when each of `retries` was told of.
        due: when the next attempt comes where one waits, by the path of its file; None for that of
            a call that is about no file.
        asks_again_at: when bytes that do not come are asked for again; None where nobody has said
            so.
        downloads: by component, from its first byte to the last of its files.
        remarks: notices that reports tell, and a view does not.
        past: the last jobs of this machine, the oldest first.
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
    sizes: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    cached: frozenset[str] = frozenset()
    copied: frozenset[str] = frozenset()
    completed: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    moving: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    checks: tuple[CheckResult, ...] = ()
    fit: Fit | None = None
    kept: int = 0
    loaded: tuple[ComponentLoaded, ...] = ()
    retries: tuple[Retry, ...] = ()
    notices: tuple[Notice, ...] = ()
    remarks: tuple[Notice, ...] = ()
    summary: str = ""
    failure: Failed | None = None
    fetched: int = 0
    share: float = 0.0
    pace: Pace | None = None
    fastest: float = 0.0
    history: tuple[tuple[float, int], ...] = ()
    byte_at: float | None = None
    stalls: tuple[Span, ...] = ()
    retried_at: tuple[float, ...] = ()
    due: Mapping[str | None, float] = field(default_factory=lambda: _NOBODY_WAITS)
    asks_again_at: float | None = None
    downloads: Mapping[str, Span] = field(default_factory=lambda: _NO_SPANS)
    past: tuple[PastJob, ...] = ()
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
    def history_until(self) -> float | None:
        """Until when the history of bytes reaches: to now while bytes are awaited, to the end of a
        download that has ended without all of them, else to the last byte; None before the first
        point. Nothing came between its last point and then."""
        download = self.download
        if not self.history or download is None:
            return None
        if self.fetched >= self.to_fetch:
            return self.history[-1][0]
        ended = self.updated_at if download.ended_at is None else download.ended_at
        return max(self.history[-1][0], ended)

    @property
    def next_attempt_in(self) -> float | None:
        """Seconds until the next attempt, of several the soonest; None if none is waited for."""
        if self.status is not Status.RUNNING:
            return None
        waits = [at - self.updated_at for at in self.due.values() if at > self.updated_at]
        return min(waits, default=None)

    @property
    def asked_again_in(self) -> float | None:
        """Seconds until the bytes that do not come in a silence are asked for again, at most; None
        where that is not known."""
        at = self.asks_again_at
        if at is None or self.waits_for is not Awaited.BYTES or not at > self.updated_at:
            return None
        return at - self.updated_at

    @property
    def waits_for(self) -> Awaited | None:
        """What it waits for; None while all goes on, and in a short silence."""
        if self.status is not Status.RUNNING:
            return None
        if self.has_begun(Stage.INITIALISE) and self.turn is Turn.DUE:
            return Awaited.CELL
        usual_s = self.pace.usual_gap_s if self.pace else 0.0
        quiet_s = self.quiet_s or 0.0
        return Awaited.BYTES if quiet_s >= max(QUIET_S, QUIET_GAPS * usual_s) else None

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
        """Say whether a stage has begun."""
        return any(begun.stage is stage for begun in self.stages)

    @property
    def _running_pace(self) -> Pace | None:
        """How bytes come; None while none are awaited, and in a silence."""
        awaited = self.quiet_since is not None and self.status is Status.RUNNING
        return self.pace if awaited and self.waits_for is not Awaited.BYTES else None

    @property
    def speed(self) -> float | None:
        """Bytes per second over the last `SPEED_WINDOW_S`; None in the first second, in a silence,
        and where nothing is awaited."""
        pace = self._running_pace
        return pace.speed(self.updated_at) if pace else None

    @property
    def average_speed(self) -> float | None:
        """Bytes per second over the whole download stage; None if nothing was fetched."""
        if self.download is None or not self.fetched:
            return None
        seconds = (self.download.ended_at or self.updated_at) - self.download.started_at
        return self.fetched / seconds if seconds > 0 else None

    @property
    def time_remaining(self) -> float | None:
        """Seconds until all bytes are there, if they go on to come as they have since the speed
        last changed for good; None where that is not known, in a silence, and where nothing is
        awaited."""
        pace = self._running_pace
        if pace is None:
            return None
        rest, files = self.to_fetch - self.fetched, 0
        if pace.small:
            missing = [path for path in self.sizes if path not in self.done]
            small = [path for path in missing if self.sizes[path] <= SMALL_FILE_BYTES]
            small_bytes = sum(self.sizes[path] - self.completed.get(path, 0) for path in small)
            if 2 * small_bytes < rest:
                return None  # Nobody knows how fast the large ones will come.
            files = len(small)
        return pace.seconds_left(self.updated_at, rest, files)

    @property
    def outline(self) -> PastJob | None:
        """What is known of this job for comparison with others; None before the checks are made,
        and where nothing is loaded."""
        selection, fit = self.selection, self.fit
        if selection is None or fit is None:
            return None
        placement = fit.chosen or fit.nearest
        importing = self.importing
        import_s = None
        if importing is not None and importing.ended_at is not None:
            import_s = importing.ended_at - importing.started_at
        return PastJob(
            repo_id=self.repo_id,
            kind=str(selection.kind),
            device=placement.device if placement else "",
            plan=str(placement.method) if placement else "",
            total=self.total,
            fetched=self.to_fetch > 0,
            import_s=import_s,
            build_s=self._built_in_s,
        )

    @property
    def building_since(self) -> float | None:
        """When both the bytes and the libraries were there, so that only the build was left; None
        before, and where nothing is loaded."""
        importing = self.importing
        if self.fit is None or importing is None or importing.ended_at is None:
            return None
        if self.selection is None or self.fetched < self.to_fetch:
            return None
        return max(importing.ended_at, self.byte_at or self.started_at)

    @property
    def building_s(self) -> float | None:
        """Seconds since then, while the job runs."""
        since = self.building_since
        running = self.status is Status.RUNNING
        return self.updated_at - since if since is not None and running else None

    @property
    def _built_in_s(self) -> float | None:
        """How long the build took; None before its end."""
        since, ended = self.building_since, self.stages[-1].ended_at if self.stages else None
        if since is None or ended is None or self.status is not Status.READY:
            return None
        return max(0.0, ended - since)

    @property
    def expected(self) -> Expected:
        """What the last jobs of this machine tell about imports and build."""
        outline = self.outline
        return expected(self.past, outline) if outline and self.past else Expected()

    @property
    def time_to_ready(self) -> float | None:
        """About how many seconds it is until the model is ready, as far as the last jobs tell; None
        where that is not known, or takes longer than it did."""
        if self.status is not Status.RUNNING or self.turn is Turn.DUE or self.outline is None:
            return None
        told = self.expected
        if told.build_s is None:
            return None
        building_s = self.building_s
        if building_s is not None:
            return told.build_s - building_s if building_s <= told.build_s else None
        waits = [self._download_left, self._imports_left(told.import_s)]
        if any(left is None for left in waits) or not any(waits):
            return None
        return max(left for left in waits if left is not None) + told.build_s

    @property
    def _download_left(self) -> float | None:
        return 0.0 if self.fetched >= self.to_fetch else self.time_remaining

    def _imports_left(self, import_s: float | None) -> float | None:
        """Return how long the imports will still take; 0 once it is longer than expected."""
        if self.importing is not None:
            return 0.0
        if import_s is None:
            return None
        # The worker's order to fetch goes first.
        begun = self.download.started_at if self.download else self.started_at
        return max(0.0, import_s - (self.updated_at - begun))

    @property
    def percent(self) -> float:
        """The share of the bytes that are there, from 0 to 100: 0 before the files are known, 100
        once the job is ready. It never goes back, also where bytes have to be fetched again."""
        return 100.0 if self.status is Status.READY else 100 * self.share

    @property
    def _waits(self) -> bool:
        """Whether the construction has to wait: for the libraries, or for a cell to end."""
        return self.importing is None or self.turn is Turn.DUE

    @property
    def components(self) -> tuple[ComponentState, ...]:
        """The components of the selection that have files, with their bytes, in its order."""
        if self.selection is None:
            return ()
        loaded = {event.name for event in self.loaded}
        parts = (part for part in self.selection.components if part.paths)
        return tuple(self._component(part, loaded) for part in parts)

    def _component(self, part: Component, loaded: set[str]) -> ComponentState:
        files = tuple(self._file(path, self.sizes[path]) for path in part.paths)
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
        return ComponentState(name=part.name, step=step, files=files, repo_id=part.repo_id)

    def _file(self, path: str, total: int) -> FileState:
        completed = self.completed.get(path, 0)
        step = Step.DOWNLOADING if path in self.moving else Step.WAITING
        if path in self.done:
            step = Step.DOWNLOADED
        elif completed >= total > 0:
            step = Step.VERIFYING
        return FileState(path=path, total=total, completed=completed, step=step)
