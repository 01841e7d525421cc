"""What a chart of a job shows, decided from its state: times in seconds since its start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nbloader.records import Retry
from nbloader.state import STALL_S, JobState, Span, StageState
from nbloader.text import format_bytes, format_duration, format_speed, plain
from nbloader.views.words import counted, ended, retried

MAX_STAGES = 20

MAX_COMPONENTS = 12
"""Rows of components; where there are more, the last row sums up the smallest."""

MAX_LISTED = 6
"""Marks of retries that are numbered and told of."""

_TOGETHER = 0.025
"""Retries within this share of the chart's width are one mark: two would lie on each other."""

_REASON_LIMIT = 70
_PATH_LIMIT = 36
"""Letters at the end of a path: there is what tells files of one folder apart."""

_ROUTES = {"http": "HTTP", "xet": "Xet"}


class Lane(StrEnum):
    """What a bar of the Gantt chart stands for."""

    STAGE = "stage"
    IMPORT = "import of the libraries"
    DOWNLOAD = "download of a component"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of the Gantt chart, in seconds since the start of the job.

    Attributes:
        name: may be foreign.
        ended: False for what had not ended when the state was taken, or when the job ended.
    """

    lane: Lane
    name: str
    start: float
    end: float
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Retries that come so soon after one another that one mark stands for them.

    Attributes:
        at: seconds since the start of the job, of the first.
    """

    at: float
    retries: tuple[Retry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """From when on the attempts for a file took another route, and which."""

    at: float
    route: str


def extent(state: JobState) -> float:
    """Return the length of the axis of time; a job that took none is drawn, too."""
    return max(state.elapsed, 0.1)


def bars(state: JobState) -> list[Bar]:
    """Return the rows of the Gantt chart: the stages, the imports, the downloads as they began."""
    found = [_bar(state, Lane.STAGE, str(each.stage), each) for each in state.stages[:MAX_STAGES]]
    if state.importing is not None:
        found.append(_bar(state, Lane.IMPORT, "imports", state.importing))
    return found + _downloads(state)


def _downloads(state: JobState) -> list[Bar]:
    sizes = {part.name: part.total for part in state.components}
    largest = sorted(state.downloads.items(), key=lambda each: -sizes.get(each[0], 0))
    rows = [_bar(state, Lane.DOWNLOAD, name, span) for name, span in largest]
    alone = len(rows) if len(rows) <= MAX_COMPONENTS else MAX_COMPONENTS - 1
    found = sorted(rows[:alone], key=lambda row: row.start)
    if rest := rows[alone:]:
        found.append(
            Bar(
                lane=Lane.DOWNLOAD,
                name=f"{len(rest)} smaller ones",
                start=min(row.start for row in rest),
                end=max(row.end for row in rest),
                ended=all(row.ended for row in rest),
            )
        )
    return found


def _bar(state: JobState, lane: Lane, name: str, span: Span | StageState) -> Bar:
    end = state.updated_at if span.ended_at is None else span.ended_at
    return Bar(
        lane=lane,
        name=name,
        start=span.started_at - state.started_at,
        end=max(span.started_at, end) - state.started_at,
        ended=span.ended_at is not None,
    )


def stalls(state: JobState) -> list[tuple[float, float]]:
    """Return the times without a byte, with the one in which a job is that runs."""
    now, quiet_s = state.updated_at, state.quiet_s
    spans = [
        (span.started_at, now if span.ended_at is None else span.ended_at) for span in state.stalls
    ]
    if quiet_s is not None and quiet_s >= STALL_S:
        spans.append((now - quiet_s, now))
    return [(began - state.started_at, ended - state.started_at) for began, ended in spans]


def series(state: JobState) -> list[tuple[float, int]]:
    """Return the bytes over time, up to when the download ended or the state was taken."""
    if not state.history:
        return []
    ended = state.updated_at if state.download is None else state.download.ended_at
    until = state.updated_at if ended is None else ended
    last_at, fetched = state.history[-1]
    points = (*state.history, (max(last_at, until), fetched))
    return [(at - state.started_at, fetched) for at, fetched in points]


def bytes_at(points: Sequence[tuple[float, int]], time: float) -> float:
    """Read the bytes of a time off the line of `series`."""
    before: tuple[float, int] | None = None
    for at, fetched in points:
        if at > time:
            if before is None:
                return 0.0
            share = (time - before[0]) / (at - before[0])
            return before[1] + share * (fetched - before[1])
        before = (at, fetched)
    return float(before[1]) if before else 0.0


def marks(state: JobState) -> list[Mark]:
    """Return the retries, those that come together in one mark."""
    apart = _TOGETHER * extent(state)
    found: list[Mark] = []
    for retry, told_at in zip(state.retries, state.retried_at, strict=True):
        at = told_at - state.started_at
        if found and at - found[-1].at < apart:
            found[-1] = Mark(at=found[-1].at, retries=(*found[-1].retries, retry))
        else:
            found.append(Mark(at=at, retries=(retry,)))
    return found


def route_changes(state: JobState) -> list[RouteChange]:
    """Return the retries with which a file takes another route."""
    present: dict[str | None, str | None] = {}
    found = []
    for retry, told_at in zip(state.retries, state.retried_at, strict=True):
        # Pieces that failed after the change were still on the route before.
        before = present.get(retry.path, retry.failed_route)
        if retry.route and before and retry.route != before:
            found.append(RouteChange(at=told_at - state.started_at, route=str(retry.route)))
        if retry.route:
            present[retry.path] = retry.route
    return found


def headline(state: JobState) -> str:
    """Say how the job went, in one line."""
    silent = sum(ended - began for began, ended in stalls(state))
    retries = len(state.retries)
    speed = state.average_speed
    found = (
        ended(state),
        state.failure.reference if state.failure else "",
        f"{format_bytes(state.fetched)} downloaded",
        f"{format_speed(speed)} on average" if speed else "",
        f"{format_bytes(state.cached_bytes)} were there before" if state.cached_bytes else "",
        counted(retries, "retry", "retries") if retries else "",
        f"{format_duration(silent)} without a byte" if silent else "",
    )
    return " · ".join(part for part in found if part)


def told(found: Sequence[Mark]) -> Iterator[tuple[str, str]]:
    """Yield the time of each of the first marks and what happened; then how many more there are."""
    for mark in found[:MAX_LISTED]:
        yield format_duration(mark.at), " · ".join(filter(None, _parts(mark.retries)))
    if rest := sum(len(mark.retries) for mark in found[MAX_LISTED:]):
        yield "", f"and {rest} more, the last at {format_duration(found[-1].at)}"


def _parts(retries: Sequence[Retry]) -> Iterator[str]:
    alone = retries[0] if len(retries) == 1 else None
    yield plain(alone.reason, _REASON_LIMIT) if alone else retried(retries)
    if len(paths := {retry.path for retry in retries}) == 1:
        path = plain(paths.pop() or "")
        yield path if len(path) <= _PATH_LIMIT else f"…{path[-_PATH_LIMIT:]}"
    if routes := sorted({route_name(retry.route) for retry in retries if retry.route}):
        yield f"then over {' and '.join(routes)}"


def route_name(route: str) -> str:
    """Return the name of a route as people write it."""
    return _ROUTES.get(route, route)
