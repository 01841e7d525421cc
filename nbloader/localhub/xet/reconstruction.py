"""What a client has to fetch for a range of a file: terms, and ranges of xorbs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from nbloader.localhub.xet.formats import FileRecord, FormatError, Term, XorbIndex

__all__ = ["Layout", "Reconstruction", "answer_v1", "answer_v2", "reconstruct"]

ChunkRange = tuple[int, int]
"""Numbers of chunks, the second exclusive."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A file with the indexes of all xorbs that it takes, checked against each other.

    Attributes:
        offsets: where in the file each term starts, bytes; the last is the size of the file.
    """

    terms: tuple[Term, ...]
    xorbs: Mapping[str, XorbIndex]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, record: FileRecord, index_of: Callable[[str], XorbIndex]) -> Layout:
        """Make the layout of a file.

        Raises:
            FormatError: a term names chunks that its xorb does not have, or a wrong length.
        """
        xorbs = {term.xorb: index_of(term.xorb) for term in record.terms}
        for term in record.terms:
            raw_offsets = xorbs[term.xorb].raw_offsets
            if not term.start < term.stop < len(raw_offsets):
                raise FormatError(f"no chunks {term.start} to {term.stop} in xorb {term.xorb}")
            if raw_offsets[term.stop] - raw_offsets[term.start] != term.length:
                raise FormatError(f"a term of xorb {term.xorb} has a wrong length")
        offsets = accumulate((term.length for term in record.terms), initial=0)
        return cls(record.terms, xorbs, tuple(offsets))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.offsets[-1]


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How to make a range of a file.

    Attributes:
        skip: bytes of the first term that come before the range.
        terms: with only the chunks that the range touches, in the order of the file.
        ranges: chunks to fetch by xorb, in order, apart from each other; each term is inside one.
    """

    skip: int
    terms: tuple[Term, ...]
    ranges: Mapping[str, tuple[ChunkRange, ...]]


def reconstruct(layout: Layout, start: int, stop: int) -> Reconstruction:
    """Return how to make the bytes `start` up to and without `stop`, which are in the file."""
    skip = 0
    terms: list[Term] = []
    number = bisect_right(layout.offsets, start) - 1
    while number < len(layout.terms) and layout.offsets[number] < stop:
        term, offset = layout.terms[number], layout.offsets[number]
        raw_offsets = layout.xorbs[term.xorb].raw_offsets
        base = raw_offsets[term.start] - offset  # what leads from the file into the xorb
        first = max(term.start, bisect_right(raw_offsets, start + base) - 1)
        last = min(term.stop, bisect_right(raw_offsets, stop - 1 + base))
        if not terms:
            skip = start + base - raw_offsets[first]
        terms.append(Term(term.xorb, raw_offsets[last] - raw_offsets[first], first, last))
        number += 1
    wanted: dict[str, list[ChunkRange]] = {}
    for term in terms:
        wanted.setdefault(term.xorb, []).append((term.start, term.stop))
    return Reconstruction(skip, tuple(terms), {xorb: _merged(wanted[xorb]) for xorb in wanted})


def _merged(ranges: list[ChunkRange]) -> tuple[ChunkRange, ...]:
    merged: list[ChunkRange] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)


def answer_v2(
    layout: Layout, parts: Reconstruction, url_of: Callable[[str], str]
) -> dict[str, Any]:
    """Return the answer of `/v2/reconstructions`: one URL for each xorb."""
    return _terms(parts) | {
        "xorbs": {
            xorb: [
                {
                    "url": url_of(xorb),
                    "ranges": [
                        {
                            "chunks": {"start": start, "end": stop},
                            "bytes": _byte_range(layout.xorbs[xorb], start, stop),
                        }
                        for start, stop in ranges
                    ],
                }
            ]
            for xorb, ranges in parts.ranges.items()
        }
    }


def answer_v1(
    layout: Layout, parts: Reconstruction, url_of: Callable[[str], str]
) -> dict[str, Any]:
    """Return the answer of `/v1/reconstructions`: one URL for each range."""
    return _terms(parts) | {
        "fetch_info": {
            xorb: [
                {
                    "range": {"start": start, "end": stop},
                    "url": url_of(xorb),
                    "url_range": _byte_range(layout.xorbs[xorb], start, stop),
                }
                for start, stop in ranges
            ]
            for xorb, ranges in parts.ranges.items()
        }
    }


def _terms(parts: Reconstruction) -> dict[str, Any]:
    return {
        "offset_into_first_range": parts.skip,
        "terms": [
            {
                "hash": term.xorb,
                "unpacked_length": term.length,
                "range": {"start": term.start, "end": term.stop},
            }
            for term in parts.terms
        ],
    }


def _byte_range(index: XorbIndex, start: int, stop: int) -> dict[str, int]:
    """Return the bytes of a range of chunks; their end is inclusive, as in a Range header."""
    return {"start": index.offsets[start], "end": index.offsets[stop] - 1}
