"""Events folded into the state of a job. Pure: the time of an event is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    Silence,
    Stage,
    StageStarted,
)
from nbloader.state.estimate import SMALL_FILE_BYTES, Pace
from nbloader.state.forecast import PastJob
from nbloader.state.job_state import JobState, Span, StageState, Status

__all__ = ["MAX_HISTORY", "STALL_S", "advance", "apply", "progress", "recall"]

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


def recall(state: JobState, past: Sequence[PastJob]) -> JobState:
    """Let a job know of the last ones on this machine.

    Args:
        past: the oldest first.
    """
    return replace(state, past=tuple(past))


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
                sizes=MappingProxyType(sizes),
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
            return _done(state, event.path, now)
        case Silence():
            at = (now if event.at is None else min(now, event.at)) + event.asked_again_in_s
            return replace(state, asks_again_at=at if math.isfinite(at) else None)
        case LibrariesImported():
            begun = max(state.started_at, state.updated_at - event.seconds)
            return replace(state, importing=Span(started_at=begun, ended_at=state.updated_at))
        case Retry():
            return replace(
                state,
                retries=(*state.retries, event),
                retried_at=(*state.retried_at, state.updated_at),
                due=_due(state, event),
                asks_again_at=None,
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
    pace = Pace.beginning(state.updated_at)
    return replace(state, pace=pace, history=state.history or first)


def progress(state: JobState, completed: Mapping[str, int], now: float) -> JobState:
    """Fold the newest progress of several files at once.

    Args:
        completed: bytes of a file that have arrived so far, by its path.
        now: as in `apply`.
    """
    return _progress(state, completed, now, fetched_here=True)


def _progress(
    state: JobState, completed: Mapping[str, int], now: float, *, fetched_here: bool
) -> JobState:
    """Fold progress.

    Args:
        fetched_here: whether the bytes came over the link, and so tell how fast it is.
    """
    now = max(now, state.updated_at)
    changed = {
        path: count
        for path, count in completed.items()
        if path not in state.done and count != state.completed.get(path, 0)
    }
    if state.selection is None or not changed:
        return replace(state, updated_at=now)
    gains = {path: count - state.completed.get(path, 0) for path, count in changed.items()}
    fetched = state.fetched + sum(gains.values())
    came = {path: gain for path, gain in gains.items() if gain > 0}  # Else it starts over.
    begun = changed.keys() - state.moving
    downloads = state.downloads
    for path in begun:
        downloads = _downloads(state, path, downloads, begins=True, now=now)
    pace, fastest = state.pace, state.fastest
    if came and fetched_here and pace is not None:
        small = all(state.sizes.get(path, 0) <= SMALL_FILE_BYTES for path in came)
        pace = pace.arrived(now, sum(came.values()), small=small)
        fastest = max(fastest, pace.speed(now) or 0.0)
    return replace(
        state,
        updated_at=now,
        completed=MappingProxyType({**state.completed, **changed}),
        moving=state.moving | begun if begun else state.moving,
        fetched=fetched,
        share=_share(state, state.kept + fetched, state.total),
        pace=pace,
        fastest=fastest,
        history=_noted(state.history, now, fetched),
        byte_at=now if came else state.byte_at,
        stalls=_stalls(state, now) if came else state.stalls,
        downloads=downloads,
        due=_answered(state.due, came) if came and state.due else state.due,
        asks_again_at=None if came else state.asks_again_at,
    )


def _done(state: JobState, path: str, now: float) -> JobState:
    """Fold that a file is in its place."""
    size, is_new = state.sizes.get(path, 0), path not in state.done
    small = size <= SMALL_FILE_BYTES
    # A large file that nobody saw coming was brought by another process, or lay elsewhere.
    state = _progress(state, {path: size}, now, fetched_here=small or path in state.moving)
    state = replace(state, done=state.done | {path})
    if is_new and small and state.pace is not None and state.pace.small:
        state = replace(state, pace=state.pace.arrived(now, 0, files=1, small=True))
    downloads = _downloads(state, path, state.downloads, begins=False, now=now)
    return replace(state, downloads=downloads)


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


def _answered(
    due: Mapping[str | None, float], came: Mapping[str, int]
) -> Mapping[str | None, float]:
    """Wait no more for the files of which bytes have come; a call that is about no file has gone
    well once any have."""
    return MappingProxyType(
        {path: at for path, at in due.items() if path is not None and path not in came}
    )


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
        if path not in part.paths:
            continue
        span = downloads.get(part.name)
        if span is None and not (begins and path in (part.weights or part.paths)):
            continue
        span = span or Span(started_at=now)
        if span.ended_at is None and state.done.issuperset(part.paths):
            span = replace(span, ended_at=now)
        return MappingProxyType({**downloads, part.name: span})
    return downloads
