"""Uploaded xorbs and shards on disk, and what they say of files.

`<root>/.localhub/xet/xorbs/<first two digits>/<hash>` and `.../shards/<sha256 of the shard>`. The
shards are read at the start, the headers of a xorb when a file needs it. Both are written in
`.../incoming` and appear under their names complete.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from nbloader.localhub.xet.formats import (
    FileRecord,
    FormatError,
    Term,
    XorbIndex,
    index_xorb,
    read_shard,
)

_MAX_XORB = 80 << 20
"""Bytes: 64 MiB of chunks, with room for headers and a footer."""

_MAX_SHARD = 256 << 20

ChunkRange = tuple[int, int]
"""Numbers of chunks, the second exclusive."""


class XetStore:
    """Xorbs and shards below a folder. One server at a time may use it."""

    def __init__(self, folder: Path) -> None:
        self._xorbs = folder / "xorbs"
        self._shards = folder / "shards"
        self._indexes: dict[str, XorbIndex] = {}
        self._files: dict[str, FileRecord] = {}
        self._layouts: dict[str, Layout] = {}
        self._hashes: dict[str, str] = {}
        self._incoming = folder / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)  # left by a server that was killed
        for made in (self._xorbs, self._shards, self._incoming):
            made.mkdir(parents=True, exist_ok=True)
        for shard in self._shards.iterdir():
            self._adopt(read_shard(shard.read_bytes()))

    def xet_hash(self, sha256: str) -> str | None:
        """Return the Xet hash of a content, or None if it was not uploaded."""
        return self._hashes.get(sha256)

    def sha256(self, xet_hash: str) -> str | None:
        """Return the hash of the content of a file, if the client that uploaded it gave it."""
        file = self._files.get(xet_hash)
        return file.sha256 if file else None

    def layout(self, xet_hash: str) -> Layout:
        """Return how a file is made.

        Raises:
            LookupError: there is no such file.
        """
        if xet_hash not in self._layouts:
            self._layouts[xet_hash] = Layout.of(self._files[xet_hash], self.index)
        return self._layouts[xet_hash]

    def index(self, xorb: str) -> XorbIndex:
        """Return where the chunks of a xorb are.

        Raises:
            LookupError: there is no such xorb.
        """
        if xorb not in self._indexes:
            with self.open(xorb) as file:
                self._indexes[xorb] = index_xorb(file)
        return self._indexes[xorb]

    def open(self, xorb: str) -> FileIO:
        """Open a xorb.

        Raises:
            LookupError: there is no such xorb.
        """
        try:
            return self._path(xorb).open("rb", buffering=0)
        except FileNotFoundError:
            raise LookupError(f"no xorb {xorb}") from None

    async def add_xorb(self, xorb: str, content: AsyncIterator[bytes]) -> bool:
        """Keep a xorb as it comes; return False if it is there already.

        Raises:
            FormatError: it is none.
        """
        if self._path(xorb).exists():
            return False
        with self._scratch() as scratch:
            await _write(scratch, content, _MAX_XORB)
            with scratch.open("rb", buffering=0) as file:
                index = index_xorb(file)
            self._path(xorb).parent.mkdir(exist_ok=True)
            scratch.replace(self._path(xorb))
        self._indexes[xorb] = index
        return True

    async def add_shard(self, content: AsyncIterator[bytes]) -> None:
        """Keep a shard as it comes; its files are known then.

        Raises:
            FormatError: it is none, or its files do not fit the xorbs.
            LookupError: its files take xorbs that are not there.
        """
        with self._scratch() as scratch:
            await _write(scratch, content, _MAX_SHARD)
            shard = scratch.read_bytes()
            files = read_shard(shard)
            for file in files:
                Layout.of(file, self.index)
            scratch.replace(self._shards / hashlib.sha256(shard).hexdigest())
        self._adopt(files)

    def _adopt(self, files: list[FileRecord]) -> None:
        for file in files:
            self._files[file.xet_hash] = file
            if file.sha256 is not None:
                self._hashes[file.sha256] = file.xet_hash

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield the path of a new empty file, which is removed unless it was moved away."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file:
            path = Path(file.name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _path(self, xorb: str) -> Path:
        return self._xorbs / xorb[:2] / xorb


async def _write(path: Path, content: AsyncIterator[bytes], limit: int) -> None:
    size = 0
    with path.open("wb") as file:
        async for block in content:
            size += len(block)
            if size > limit:
                raise FormatError(f"more than {limit} bytes")
            file.write(block)


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
