"""Events folded into the state of a job. Pure: the time of an event is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from nbloader.notebook import Turn
from nbloader.records import (
    Checked,
    ComponentLoaded,
    Event,
    Failed,
    FileDone,
    FileProgress,
    LibrariesImported,
    Notice,
    Ready,
    Retry,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state.job_state import SPEED_WINDOW_S, JobState, Span, StageState, Status

__all__ = ["MAX_HISTORY", "STALL_S", "advance", "apply", "progress"]

STALL_S = 2.0
"""So long without a byte counts as a stall in the history of a job. Pieces of Xet storage are
handed over whole, so shorter pauses say nothing."""

MAX_HISTORY = 240
"""Points of the history of bytes: as many as a chart of a screen's width can show."""

MAX_STALLS = 200

_SAMPLE_EVERY_S = 0.5


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
            there |= {path: sizes[path] for path in event.copied if path in sizes}
            kept = sum(there.values())
            return replace(
                state,
                selection=event.selection,
                total=event.selection.total,
                cached=frozenset(event.cached),
                copied=frozenset(event.copied),
                kept=kept,
                share=_share(state, kept, event.selection.total),
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
                due=_due(state, event),
            )
        case Notice() if event.quiet:
            return replace(state, remarks=(*state.remarks, event))
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
        share=_share(state, state.kept + fetched, state.total),
        samples=_sampled(state.samples, now, fetched),
        history=_noted(state.history, now, fetched),
        byte_at=now if arrived else state.byte_at,
        stalls=_stalls(state, now) if arrived else state.stalls,
        downloads=downloads,
        due=_answered(state, changed) if arrived and state.due else state.due,
    )


def _share(state: JobState, there: int, total: int) -> float:
    """Return the share of the bytes that are there; no less than there was before."""
    return max(state.share, min(1.0, max(0, there) / total)) if total > 0 else state.share


def _due(state: JobState, retry: Retry) -> Mapping[str | None, float]:
    """Note when the next attempt for a file comes: no sooner than was said before."""
    now = state.updated_at
    due = {path: at for path, at in state.due.items() if at > now}
    if retry.wait_s > 0 and math.isfinite(retry.wait_s):
        due[retry.path] = max(due.get(retry.path, now), now + retry.wait_s)
    return MappingProxyType(due)


def _answered(state: JobState, changed: Mapping[str, int]) -> Mapping[str | None, float]:
    """Wait no more for the files of which bytes have come; a call that is about no file has gone
    well once any have."""
    came = {path for path, count in changed.items() if count > state.completed.get(path, 0)}
    return MappingProxyType(
        {path: at for path, at in state.due.items() if path is not None and path not in came}
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
