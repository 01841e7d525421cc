"""Events folded into one state, from which every view is drawn.

`apply` is pure: the time of an event is an argument. Everything that a view shows (speed, time
left, percent) is derived here, so that views only format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from nbloader.records import (
    Checked,
    CheckResult,
    Component,
    ComponentDownloaded,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    Notice,
    Plan,
    Planned,
    Ready,
    Retry,
    Stage,
    StageStarted,
)

__all__ = ["STAGE_SPANS", "ComponentState", "JobState", "StageState", "Status", "advance", "apply"]

SPEED_WINDOW_S = 15.0
"""The speed is an average over this time: long enough to be calm, short enough to show a stall."""

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
class ComponentState:
    """The bytes of one component.

    Attributes:
        total, completed: bytes; what the cache held already counts as completed.
        downloaded: whether all its files are in the cache, verified.
        loaded: whether it is in memory.
    """

    name: str
    total: int
    completed: int
    downloaded: bool
    loaded: bool


_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """All that is known of a job.

    Attributes:
        started_at, updated_at: seconds of the clock that `apply` is called with.
        stages: in the order in which they began.
        plan: None until the files are known.
        completed: bytes that are there by path, files of the cache included.
        kept: bytes that were there before, complete files and parts.
        downloaded: names of the components that are complete in the cache.
        fetched: bytes that this job has downloaded.
        samples: (time, bytes fetched so far), the base of `speed`.
    """

    repo_id: str
    started_at: float
    updated_at: float
    status: Status = Status.RUNNING
    stages: tuple[StageState, ...] = ()
    plan: Plan | None = None
    cached: frozenset[str] = frozenset()
    completed: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    done: frozenset[str] = frozenset()
    checks: tuple[CheckResult, ...] = ()
    kept: int = 0
    downloaded: frozenset[str] = frozenset()
    loaded: tuple[ComponentLoaded, ...] = ()
    retries: tuple[Retry, ...] = ()
    notices: tuple[Notice, ...] = ()
    samples: tuple[tuple[float, int], ...] = ()
    summary: str = ""
    failure: Failed | None = None
    fetched: int = 0

    @property
    def stage(self) -> Stage | None:
        """The stage that began last."""
        return self.stages[-1].stage if self.stages else None

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the last event."""
        return self.updated_at - self.started_at

    @property
    def total(self) -> int:
        """Bytes of all files of the plan."""
        return self.plan.total if self.plan else 0

    @property
    def cached_bytes(self) -> int:
        """Bytes that were there before the download began, parts of files included."""
        return self.kept

    @property
    def to_fetch(self) -> int:
        """Bytes that this job has to download."""
        return self.total - self.cached_bytes

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
        for stage in self.stages:
            if stage.stage is Stage.DOWNLOAD and self.fetched:
                seconds = (stage.ended_at or self.updated_at) - stage.started_at
                return self.fetched / seconds if seconds > 0 else None
        return None

    @property
    def time_remaining(self) -> float | None:
        """Seconds until all bytes are there at the present speed; None if that is not known."""
        rest = self.to_fetch - self.fetched
        if self.plan is None or not (speed := self.speed):
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
    def components(self) -> tuple[ComponentState, ...]:
        """The components of the plan that have files, with their bytes, in the plan's order."""
        if self.plan is None:
            return ()
        sizes = {file.path: file.size for file in self.plan.files}
        loaded = {event.name for event in self.loaded}
        parts = (part for part in self.plan.components if part.paths)
        return tuple(self._component(part, sizes, loaded) for part in parts)

    def _component(
        self, part: Component, sizes: Mapping[str, int], loaded: set[str]
    ) -> ComponentState:
        return ComponentState(
            name=part.name,
            total=sum(sizes[path] for path in part.paths),
            completed=sum(self.completed.get(path, 0) for path in part.paths),
            downloaded=part.name in self.downloaded,
            loaded=part.name in loaded,
        )


def advance(state: JobState, now: float) -> JobState:
    """Let time pass while nothing happens, so that a stall shows."""
    return replace(state, updated_at=max(now, state.updated_at))


def apply(state: JobState, event: Event, now: float) -> JobState:
    """Fold one event into the state.

    Args:
        now: seconds of a steady clock; never smaller than in the call before.
    """
    state = advance(state, now)
    match event:
        case StageStarted():
            return _begin(state, event.stage)
        case Planned():
            sizes = {file.path: file.size for file in event.plan.files}
            there = {path: sizes[path] for path in event.cached if path in sizes}
            there |= {path: left for path, left in event.partial.items() if path in sizes}
            return replace(
                state,
                plan=event.plan,
                cached=frozenset(event.cached),
                kept=sum(there.values()),
                completed=MappingProxyType(there),
                done=frozenset(event.cached),
            )
        case Checked():
            return replace(state, checks=event.results)
        case FileProgress():
            return _progress(state, event.path, event.completed)
        case FileDone():
            size = {file.path: file.size for file in state.plan.files} if state.plan else {}
            state = _progress(state, event.path, size.get(event.path, 0))
            return replace(state, done=state.done | {event.path})
        case ComponentDownloaded():
            return replace(state, downloaded=state.downloaded | {event.name})
        case Retry():
            return replace(state, retries=(*state.retries, event))
        case Notice():
            return replace(state, notices=(*state.notices, event))
        case ComponentLoaded():
            return replace(state, loaded=(*state.loaded, event))
        case Ready():
            return replace(_end_stage(state), status=Status.READY, summary=event.summary)
        case Failed():
            return replace(_end_stage(state), status=Status.FAILED, failure=event)


def _end_stage(state: JobState) -> JobState:
    if not state.stages or state.stages[-1].ended_at is not None:
        return state
    last = replace(state.stages[-1], ended_at=state.updated_at)
    return replace(state, stages=(*state.stages[:-1], last))


def _begin(state: JobState, stage: Stage) -> JobState:
    state = _end_stage(state)
    begun = StageState(stage=stage, started_at=state.updated_at)
    samples = ((state.updated_at, state.fetched),) if stage is Stage.DOWNLOAD else state.samples
    return replace(state, stages=(*state.stages, begun), samples=samples)


def _progress(state: JobState, path: str, completed: int) -> JobState:
    before = state.completed.get(path, 0)
    if state.plan is None or path in state.done or completed == before:
        return state
    fetched = state.fetched + completed - before
    return replace(
        state,
        completed=MappingProxyType({**state.completed, path: completed}),
        fetched=fetched,
        samples=_sampled(state.samples, state.updated_at, fetched),
    )


def _sampled(
    samples: tuple[tuple[float, int], ...], now: float, fetched: int
) -> tuple[tuple[float, int], ...]:
    """Add a sample, or move the newest one on if it is fresh, and drop what is too old."""
    if len(samples) > 1 and now - samples[-2][0] < _SAMPLE_EVERY_S:
        samples = samples[:-1]
    kept = [sample for sample in samples if now - sample[0] <= SPEED_WINDOW_S]
    if not kept and samples:
        kept = [samples[-1]]
    return (*kept, (now, fetched))
