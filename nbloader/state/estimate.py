"""How fast bytes come, and how long the rest will take. Pure: the time is an argument.

Two questions want two memories. How fast is it now? The last five seconds say. How long will the
rest take? All says that has come since the link last changed for good, the newer the more: noise
and teeth even out, and a link that has become four times as slow is believed after four seconds.

Bytes may come in lumps: a piece over Xet is handed over whole. So speeds are taken from one arrival
to another, and between two of them the time that is left counts down. What is a long silence
depends on how often something came before.

Small files cost a question each, whatever is in them. As long as nothing else comes, the time of a
file and that of a byte are told apart, by least squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

__all__ = ["SMALL_FILE_BYTES", "SPEED_WINDOW_S", "Change", "Pace", "Point"]

SPEED_WINDOW_S = 5.0
"""The speed is that of so long: a glance back, in which a link that has changed shows soon."""

SMALL_FILE_BYTES = 1 << 20
"""A file up to this size takes about as long as a question and its answer."""

FEWEST_ARRIVALS = 4
"""A speed is taken over so many arrivals at least, however long ago the first of them was."""

MAX_POINTS = 160

_STEP_S = 0.5
"""Arrivals within so long are one point: the worker tells of them ten times a second."""

_SOONEST_S = 1.0
"""Nothing is said before so long: the first moments of a connection tell little."""

_SILENCE_S = 1.0
"""Of a silence so much counts. One is an accident, which says little about the rest."""

_AGAIN_S = 60.0
"""One that comes so soon after another counts as long as it was: they belong to the link, then."""

_SILENT_GAPS = 3
"""As many usual pauses between arrivals are no silence yet."""

# A change counts once two windows in a row, each of so many seconds, were both faster or both
# slower than before, by so much, and than whatever was seen since the change before.
_WINDOW_S = 2.0
_FACTOR = 1.8
_BEYOND = 1.5

_ALTERNATES_S = 60.0
"""A change that undoes another one so soon, and is undone in its turn, belongs to a link that goes
up and down: then what came since the first of the three is taken together."""

# What is believed of a small file before there are enough of them: that it takes so long, with the
# weight of so many files in a second.
_FILE_S = 0.012
_FILES_OF_BELIEF = 10

_RECENT = 8
"""A pause between arrivals that has come twice among so many is usual."""

_WINDOW_GAPS = 2
"""A window has so many usual pauses: pieces that began together come together."""

_MB = 1e6


class Point(NamedTuple):
    """What had come at a time.

    Attributes:
        at: seconds of the clock of the job, in which only so much of a silence counts.
        arrived: bytes that had come, also those that were lost again.
        files: small files that were complete.
    """

    at: float
    arrived: int
    files: int


class Change(NamedTuple):
    """A lasting change of the speed.

    Attributes:
        at: when it was seen.
        up: whether it became faster.
        since: when what was before it had begun.
    """

    at: float
    up: bool
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How bytes have come so far.

    Attributes:
        begun_at: since when the first of them was waited for, by the clock of the job.
        points: in ever larger steps towards the beginning.
        heard_at: when the last one came, by that clock.
        silent_at: when the last silence ended, by that clock; None if there was none.
        since: from where on the speed is taken for the time that is left.
        changes: the last two.
        small: whether nothing but small files has come.
    """

    begun_at: float
    heard_at: float
    since: float
    points: tuple[Point, ...] = ()
    silent_at: float | None = None
    changes: tuple[Change, ...] = ()
    small: bool = True

    @classmethod
    def beginning(cls, now: float) -> Pace:
        """Return that of a download which begins."""
        return cls(begun_at=now, heard_at=now, since=now)

    # -- what comes --------------------------------------------------------------------------------

    def arrived(self, now: float, count: int, *, files: int = 0, small: bool = False) -> Pace:
        """Note that bytes came.

        Args:
            now: seconds of a steady clock.
            count: how many there are more, and have not been told of.
            files: small files that are complete since.
            small: whether all of it was of small files.
        """
        if not self.points or (self.small and not small):
            # What small files took says nothing about a large one.
            first = Point(now, count, files)
            return Pace(
                begun_at=self.heard_at, heard_at=now, since=now, points=(first,), small=small
            )
        last, pause_s = self.points[-1], max(0.0, now - self.heard_at)
        silent = pause_s > _SILENCE_S and pause_s > _SILENT_GAPS * self.usual_gap_s
        at = last.at + (self._counted_s(pause_s, now, count) if silent else pause_s)
        point = Point(at, last.arrived + count, last.files + files)
        before = self.points[-2].at if len(self.points) > 1 else self.since
        is_fresh = at - before < _STEP_S
        points = (*(self.points[:-1] if is_fresh else self.points), point)
        pace = Pace(
            begun_at=self.begun_at,
            heard_at=max(now, self.heard_at),
            since=self.since,
            points=_thinned(points) if len(points) > MAX_POINTS else points,
            silent_at=now if silent else self.silent_at,
            changes=self.changes,
            small=self.small,
        )
        return pace if pace.small or is_fresh else _checked(pace)

    def _counted_s(self, silent_s: float, now: float, count: int) -> float:
        """Return how much of a silence counts.

        All of it where what came after it was on its way meanwhile, as far as anybody can tell.
        """
        if self.silent_at is not None and now - silent_s - self.silent_at < _AGAIN_S:
            return silent_s
        rate = self._rate_since
        return min(silent_s, max(_SILENCE_S, count / rate)) if rate else silent_s

    @property
    def _points_since(self) -> Sequence[Point]:
        return _between(self.points, self.since, math.inf)

    @property
    def _rate_since(self) -> float | None:
        """The bytes per second since the last change; None while nobody can tell."""
        points = self._points_since
        if not points or points[-1].at - points[0].at < _SOONEST_S:
            return None
        rate, first = _weighted_rate(points), points[0]
        if rate and first is self.points[0]:
            # The wait for the first bytes counts as far as they were on their way in it, as one
            # for a whole piece, and not for an answer that begins late.
            waited_s = min(first.at - self.begun_at, first.arrived / rate)
            rate = _weighted_rate([Point(first.at - waited_s, 0, 0), *points])
        return rate or None

    # -- what follows from it ----------------------------------------------------------------------

    @property
    def usual_gap_s(self) -> float:
        """How long it may well be from one arrival to the next, as far as points tell them apart:
        the longest pause but one of late, as the longest may have been an accident."""
        gaps = sorted(later.at - point.at for point, later in pairwise(self.points[-_RECENT:]))
        return gaps[-2] if len(gaps) > 1 else 0.0

    def speed(self, now: float) -> float | None:
        """Return the bytes per second of the last seconds; None while that would say little."""
        points, usual_s = self.points, self.usual_gap_s
        if not points:
            return None
        window_s = max(SPEED_WINDOW_S, _WINDOW_GAPS * usual_s)
        number = len(points) - 1
        while number > 0 and (
            points[number - 1].at >= points[-1].at - window_s
            or len(points) - number <= FEWEST_ARRIVALS
        ):
            number -= 1
        first, last = points[number], points[-1]
        # The pause that usually follows an arrival is no slowness.
        silent_s = max(0.0, now - self.heard_at - max(_STEP_S, 1.5 * usual_s))
        seconds = last.at - first.at + silent_s
        return (last.arrived - first.arrived) / seconds if seconds >= _SOONEST_S else None

    def seconds_left(self, now: float, count: int, files: int = 0) -> float | None:
        """Return how long the rest will take; None while that is not known.

        Args:
            count: bytes that are still to come.
            files: small files that are.
        """
        rate = self._rate_since
        if rate is None:
            return None
        left = count / rate
        if self.small:
            of_file, of_byte = _costs(self._points_since)
            left = of_file * files + of_byte * count
        return max(0.0, left - max(0.0, now - self.heard_at))


def _checked(pace: Pace) -> Pace:
    """Begin anew where the speed has changed for good."""
    points = pace.points
    window_s = max(_WINDOW_S, _WINDOW_GAPS * pace.usual_gap_s)
    middle = _window_before(points, len(points) - 1, window_s)
    start = _window_before(points, middle, window_s)
    if start <= 0:
        return pace
    windows = _rate(points[middle:]), _rate(points[start : middle + 1])
    before = _between(points, pace.since, points[start].at)
    usual = _weighted_rate(before)
    if usual is None:
        return pace
    seen = [usual, *_window_rates(before, window_s)]
    up = min(windows) > max(_FACTOR * usual, _BEYOND * max(seen))
    down = max(windows) < min(usual / _FACTOR, min(seen) / _BEYOND)
    if not (up or down):
        return pace
    now, since = points[-1].at, points[middle].at
    match pace.changes:
        case (first, second) if first.up is up is not second.up:
            if now - first.at < _ALTERNATES_S:
                since = first.since
    change = Change(now, up, pace.since)
    return replace(pace, since=since, changes=(*pace.changes, change)[-2:])


def _between(points: Sequence[Point], since: float, until: float) -> Sequence[Point]:
    return [point for point in points if since <= point.at <= until]


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Leave out every second one of the older half."""
    half = len(points) // 2
    return (*points[:half:2], *points[half:])


def _window_before(points: Sequence[Point], end: int, seconds: float) -> int:
    """Return the number of the point at which the window begins that ends at another; -1 if there
    is none."""
    start = end - FEWEST_ARRIVALS
    while start >= 0 and points[end].at - points[start].at < seconds:
        start -= 1
    return max(-1, start)


def _window_rates(points: Sequence[Point], seconds: float) -> list[float]:
    """Return the speeds of the windows that follow one another, the newest first."""
    found: list[float] = []
    end = len(points) - 1
    while (start := _window_before(points, end, seconds)) >= 0:
        found.append(_rate(points[start : end + 1]))
        end = start
    return found


def _rate(points: Sequence[Point]) -> float:
    seconds = points[-1].at - points[0].at
    return (points[-1].arrived - points[0].arrived) / seconds if seconds > 0 else 0.0


def _weighted_rate(points: Sequence[Point]) -> float | None:
    """Return bytes per second; what came last counts four times as much as what came first."""
    if len(points) < 2:
        return None
    weighted = seconds = 0.0
    begun = points[0].at - (points[-1].at - points[0].at) / 3
    for point, later in pairwise(points):
        weight = (point.at + later.at) / 2 - begun
        weighted += weight * (later.arrived - point.arrived)
        seconds += weight * (later.at - point.at)
    return weighted / seconds if seconds > 0 else None


def _costs(points: Sequence[Point]) -> tuple[float, float]:
    """Return the seconds of a file and of a byte that fit best to what came, neither below 0."""
    belief = float(_FILES_OF_BELIEF**2)
    files2, bytes2, both, files_s, bytes_s = belief, 0.0, 0.0, belief * _FILE_S, 0.0
    for point, later in pairwise(points):
        seconds, files = later.at - point.at, later.files - point.files
        count = (later.arrived - point.arrived) / _MB
        files2 += files * files
        bytes2 += count * count
        both += files * count
        files_s += files * seconds
        bytes_s += count * seconds
    determinant = files2 * bytes2 - both * both
    of_file = of_mb = 0.0
    if determinant > 1e-9 * files2 * bytes2:
        of_file = (files_s * bytes2 - bytes_s * both) / determinant
        of_mb = (bytes_s * files2 - files_s * both) / determinant
    if of_file <= 0:
        of_file, of_mb = 0.0, bytes_s / bytes2
    elif of_mb < 0:
        of_file, of_mb = files_s / files2, 0.0
    return of_file, of_mb / _MB
