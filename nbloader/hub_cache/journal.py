"""The journal of a partial file: which of its bytes are on the disk.

A header of one line (a CRC-32 in hex, a space, a JSON object), then binary records of one size:
start and stop of a byte range, and a CRC-32 that begins with that of the header, so that a record
of another journal is not believed. Numbers are little-endian.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nbloader.hub_cache.folders import Folder, replacing
from nbloader.hub_cache.ranges import Span, Spans
from nbloader.small_files import open_regular, read_small

FORMAT = 1
"""Goes up when an older reader would misread what is written."""

MAX_HEADER_BYTES = 1 << 16
"""A longer first line is no header."""

MAX_SPANS = 1000
"""Ranges that are apart from each other. There is one for each piece that was on its way, some
dozens, and each attempt to go on fills the gaps first."""

RECORDS_PER_BYTE = 1 / (64 << 10)
"""Four times as many records as a download makes that writes one for each 256 KiB."""

MAX_RECORDS = 2_000_000
"""For a file of any size: 40 MB, read in three seconds."""

_RANGE = struct.Struct("<QQ")
_CRC = struct.Struct("<I")
_RECORD_BYTES = _RANGE.size + _CRC.size


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """Which file the bytes belong to, and for which load they were fetched last.

    Attributes:
        etag, size, path: of the file, as the Hub lists it.
        revision: what was asked for: a branch, a tag or a commit.
        commit_hash: the commit that it stood for.
    """

    etag: str
    size: int
    path: str
    revision: str
    commit_hash: str


class Journal:
    """A journal that is being written. Safe for use by several threads.

    Attributes:
        about: its file, as it was made.
    """

    def __init__(
        self, folder: Folder, name: str, header: JournalHeader, spans: Iterable[Span]
    ) -> None:
        """Write a new journal that says `spans` in the place of the one of that name.

        A kill leaves the old one or the new one, whole.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        line, self._seed = _header_line(header)
        start = line + b"".join(_record(span, self._seed) for span in spans)
        self._lock = threading.Lock()
        self._end = 0
        self._fd = -1
        try:
            with replacing(
                folder, name, prefix=f"{header.etag}.nbloader.", suffix=".incomplete"
            ) as scratch:
                self._fd = folder.create(scratch)
                self.about = os.fstat(self._fd)
                self._write(start)
        except OSError:
            self.close()
            raise

    def append(self, span: Span) -> None:
        """Note that the bytes of `span` are in the data file.

        Raises:
            OSError: it could not be noted. What the journal said before, it still says, and the
                next record takes the place of the one that failed.
        """
        with self._lock:
            self._write(_record(span, self._seed))

    def _write(self, content: bytes) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._fd, content[done:], self._end + done)
        self._end += done

    def close(self) -> None:
        """Close the file; no more can be appended."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)


def read_header(path: Path) -> JournalHeader | None:
    """Read the header of a journal; None if it has none, or one of another format."""
    try:
        with os.fdopen(open_regular(path, follow=False), "rb") as journal:
            return _parse_header(journal.readline(MAX_HEADER_BYTES))
    except OSError:
        return None


def most_bytes(size: int | None = None) -> int:
    """Return how large the journal of a file of `size` bytes can be; None for a file of any size.

    One with more records than a download makes is not read at all: to count them takes minutes.
    """
    records = MAX_RECORDS
    if size is not None:
        records = min(records, MAX_SPANS + int(size * RECORDS_PER_BYTE))
    return MAX_HEADER_BYTES + records * _RECORD_BYTES


def read_journal(path: Path) -> tuple[JournalHeader, list[Span]] | None:
    """Read a journal, and parse it; None if it cannot be read, too."""
    try:
        return parse_journal(read_small(path, most_bytes(), follow=False))
    except OSError:
        return None


def parse_journal(content: bytes) -> tuple[JournalHeader, list[Span]] | None:
    """Read a journal up to its end, or to the first record that is torn or wrong.

    Nothing after such a record is believed. Returns None if there is no header.
    """
    read = records_of(content)
    return None if read is None else (read[0], list(read[1]))


def records_of(content: bytes) -> tuple[JournalHeader, Iterator[Span]] | None:
    """Read a journal as `parse_journal` does, one range after the other.

    As a list they would take six times the memory.
    """
    line, end, records = content.partition(b"\n")
    header = _parse_header(line + end)
    if header is None:
        return None
    return header, _parse_records(records, zlib.crc32(line))


def apart(spans: Iterable[Span]) -> list[Span]:
    """Return what records say as ranges that are apart; none if those are too many to be true."""
    found = Spans()
    # Each range that is added costs as much as there are.
    for span in spans:
        found.add(*span)
        if len(found) > MAX_SPANS:
            return []
    return list(found)


def _header_line(header: JournalHeader) -> tuple[bytes, int]:
    text = json.dumps({"format": FORMAT, **asdict(header)}).encode("ascii")
    line = b"%08x %s" % (zlib.crc32(text), text)
    return line + b"\n", zlib.crc32(line)


def _parse_header(line: bytes) -> JournalHeader | None:
    crc, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        return None
    types = {"etag": str, "size": int, "path": str, "revision": str, "commit_hash": str}
    if {name: type(value) for name, value in fields.items()} != types:
        return None
    return JournalHeader(**fields)


def _record(span: Span, seed: int) -> bytes:
    content = _RANGE.pack(*span)
    return content + _CRC.pack(zlib.crc32(content, seed))


def _parse_records(records: bytes, seed: int) -> Iterator[Span]:
    for at in range(0, len(records) - _RECORD_BYTES + 1, _RECORD_BYTES):
        start, stop = _RANGE.unpack_from(records, at)
        record = records[at : at + _RECORD_BYTES]
        if record != _record((start, stop), seed) or start >= stop:
            return
        yield start, stop
