"""Which bytes of a file are there: a set of byte ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""A byte range [start, stop): `start` is in it, `stop` is not."""


class Spans:
    """A set of byte ranges, kept sorted, disjoint and merged.

    Finding the place of a range takes O(log n); n is small, because ranges that touch are one.
    Not safe for use by several threads at once.
    """

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._total = 0
        for start, stop in spans:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add the bytes from `start` up to `stop`; those that are there already change nothing.

        Raises:
            ValueError: `start` is negative or after `stop`.
        """
        if not _holds_bytes(start, stop):
            return
        # All ranges that overlap or touch the new one become one with it.
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._put(first, last, [(start, stop)])

    def remove(self, start: int, stop: int) -> None:
        """Remove the bytes from `start` up to `stop`; those that are not there change nothing.

        Raises:
            ValueError: `start` is negative or after `stop`.
        """
        if not _holds_bytes(start, stop):
            return
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        if first >= last:
            return
        edges = (self._starts[first], start), (stop, self._stops[last - 1])
        self._put(first, last, [(left, right) for left, right in edges if left < right])

    def _put(self, first: int, last: int, spans: list[Span]) -> None:
        """Put `spans` in the place of the ranges from number `first` up to number `last`."""
        before = sum(self._stops[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start for start, _ in spans]
        self._stops[first:last] = [stop for _, stop in spans]
        self._total += sum(stop - start for start, stop in spans) - before

    @property
    def total(self) -> int:
        """How many bytes there are."""
        return self._total

    @property
    def prefix(self) -> int:
        """How many bytes there are in one piece from the beginning of the file."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    def missing(self, size: int) -> list[Span]:
        """Return the ranges of a file of `size` bytes that are not there."""
        gaps = zip([0, *self._stops], [*self._starts, size], strict=True)
        return [(left, min(right, size)) for left, right in gaps if left < min(right, size)]

    def first_gap(self, start: int, stop: int) -> Span | None:
        """Return the first range between `start` and `stop` that is not there."""
        number = bisect_right(self._starts, start) - 1
        if number >= 0:
            start = max(start, self._stops[number])
        if number + 1 < len(self._starts):
            stop = min(stop, self._starts[number + 1])
        return (start, stop) if start < stop else None

    def within(self, start: int, stop: int) -> list[Span]:
        """Return the ranges between `start` and `stop` that are there."""
        if start >= stop:
            return []
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        found = zip(self._starts[first:last], self._stops[first:last], strict=True)
        return [(max(left, start), min(right, stop)) for left, right in found]

    def copy(self) -> Spans:
        """Return a set of the same bytes that changes by itself."""
        other = Spans()
        other._starts, other._stops = self._starts.copy(), self._stops.copy()
        other._total = self._total
        return other

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spans):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Spans({list(self)})"


def _holds_bytes(start: int, stop: int) -> bool:
    if not 0 <= start <= stop:
        raise ValueError(f"no byte range: {start} to {stop}")
    return start < stop
