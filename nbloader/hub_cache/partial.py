"""The bytes of one file that have arrived so far.

A large file grows beside the blobs of the Hub's cache, in `<etag>.nbloader.incomplete`, a sparse
file, with a journal of the ranges that are in it. Both names end in `.incomplete`, so that the
Hub's own tools list and prune them; neither is `<etag>.incomplete`, to which older versions of the
Hub's library append. Either without the other is worth nothing and is discarded.

The journal is never ahead of the data: first the bytes are handed to the system, then the record.
After a kill of the process, at any instant, all that is journaled is in the file, because the
system has it; each writer loses less than `JOURNAL_EVERY_BYTES`, and `WRITE_BYTES` more if it was
writing. After a power loss that is not promised: a file system may have kept the record and not the
bytes. Nothing here waits for the disk to prevent it, since a file enters the cache only after its
hash was found right.

A small file is held in memory and lost at a kill, which costs one request.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from nbloader.hub_cache.filesystem import replacing
from nbloader.hub_cache.journal import Journal, JournalHeader, read_journal
from nbloader.hub_cache.ranges import Span, Spans
from nbloader.records import RepoFile

SMALL_FILE_BYTES = 1 << 20
"""Files up to this size are held in memory until they are whole."""

JOURNAL_EVERY_BYTES = 256 << 10
"""So much is in the journal at the latest when a write returns: what a writer leaves out is less,
and lost at a kill."""

WRITE_BYTES = 1 << 20
"""The most that is written before its record, and lost if a kill comes in between."""

OURS = re.compile(
    r"([0-9a-f]{40}|[0-9a-f]{64})\.nbloader(?:-journal|-journal-new|\.[0-9]+)?\.incomplete"
)
"""Names of all that nbloader leaves in a folder while it fetches a file; group 1 is its etag."""


def bytes_on_disk(blobs: Path, file: RepoFile) -> int:
    """Return the bytes that the partial of a file takes, holes not counted; 0 if there is none."""
    try:
        return min(file.size, part_paths(blobs, file.etag)[0].stat().st_blocks * 512)
    except OSError:
        return 0


class Partial(ABC):
    """The bytes of one file that have arrived so far. Safe for use by several threads.

    Only one process at a time may have a file open: the caller holds the file's lock.

    Attributes:
        file: the file, as the Hub lists it.
    """

    def __init__(self, file: RepoFile, spans: Iterable[Span] = ()) -> None:
        self.file = file
        self._spans = Spans(spans)
        # What is there, and what is being written.
        self._claimed = self._spans.copy()
        self._lock = threading.Lock()
        self._writers: set[Writer] = set()
        self._open = True

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.file.size

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        with self._lock:
            return self._spans.total

    @property
    def prefix(self) -> int:
        """Bytes that are there in one piece from the beginning of the file."""
        with self._lock:
            return self._spans.prefix

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.arrived == self.size

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """The data file; None while the bytes are in memory."""

    def missing(self) -> list[Span]:
        """Return the ranges that are not there."""
        with self._lock:
            return self._spans.missing(self.size)

    def writer(self, start: int) -> Writer:
        """Return a writer of the bytes from `start` on.

        Several may write at once, even the same bytes: those that come first stay, so that what
        was hashed is what is there.

        Raises:
            ValueError: the partial is closed, or `start` is outside the file.
        """
        if not 0 <= start <= self.size:
            raise ValueError(f"{start} is outside a file of {self.size} bytes")
        writer = Writer(self, start)
        with self._lock:
            if not self._open:
                raise ValueError("the partial is closed")
            self._writers.add(writer)
        return writer

    def write_some(self, offset: int, data: memoryview) -> tuple[int, int]:
        """Write the beginning of `data` at `offset`, but nothing that is there already.

        For `Writer`, which the partial ends before it closes its files.

        Returns:
            How many bytes of `data` are dealt with, and how many of them were written.
        """
        end = offset + len(data)
        with self._lock:
            gap = self._claimed.first_gap(offset, end)
            if gap is None or gap[0] > offset:
                return (gap[0] if gap else end) - offset, 0
            self._claimed.add(*gap)
        count = 0
        try:
            count = self._write_some(offset, data[: gap[1] - offset])
        finally:
            with self._lock:
                self._claimed.remove(offset + count, gap[1])
                self._spans.add(offset, offset + count)
        return count, count

    @abstractmethod
    def _write_some(self, offset: int, data: memoryview) -> int: ...

    def note(self, span: Span) -> None:
        """Journal which bytes of `span` are there. For `Writer`.

        Raises:
            OSError: the journal cannot be written.
        """
        with self._lock:
            there = self._spans.within(*span)
        for part in there:
            self._note(part)

    @abstractmethod
    def _note(self, span: Span) -> None: ...

    def release(self, writer: Writer) -> None:
        """Forget a writer that has ended. For `Writer`."""
        with self._lock:
            self._writers.discard(writer)

    @abstractmethod
    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        """Read from `offset` on, and give how many bytes were read.

        Bytes that are not there read as zeros or not at all.

        Raises:
            ValueError: the partial is closed.
            OSError: the file cannot be read.
        """

    def close(self) -> None:
        """End all writers, journal what they wrote, and close the files. May be called twice.

        Raises:
            OSError: the journal cannot be written. All is closed nevertheless, and what was
                journaled before stays.
        """
        self._end(journal=True)

    def discard(self) -> None:
        """Close, and remove all of it.

        Raises:
            OSError: the files cannot be removed.
        """
        self._end(journal=False)
        with self._lock:
            self._spans, self._claimed = Spans(), Spans()
        self._remove()

    @abstractmethod
    def _remove(self) -> None: ...

    @abstractmethod
    def move_to(self, target: Path) -> None:
        """Close, and put the whole file at `target` by one atomic rename.

        It is not flushed to the disk before: for gigabytes that takes as long as the download.
        After a power loss a file may be short, which the check of its size finds, or have holes,
        which `verify=True` finds; the Hub's own library promises no more.

        Raises:
            ValueError: it is not whole.
            OSError: the file cannot be put there; what has arrived stays.
        """

    def _end(self, *, journal: bool) -> None:
        with self._lock:
            self._open = False
            writers = tuple(self._writers)
        with contextlib.ExitStack() as ending:
            ending.callback(self._close_files)
            for writer in writers:
                ending.callback(writer.end, journal=False)
                if journal:
                    ending.callback(writer.close)

    @abstractmethod
    def _close_files(self) -> None: ...

    def _check_whole(self) -> None:
        if not self.complete:
            raise ValueError(f"{self.arrived} of {self.size} bytes are there")


class Writer:
    """Writes one piece of a file, from its start on. Used by one thread.

    Another thread may close the partial meanwhile: this waits for the write that is under way,
    and the next one fails.
    """

    def __init__(self, partial: Partial, start: int) -> None:
        self._partial = partial
        self._position = self._journaled = start
        self._lock = threading.Lock()
        self._open = True

    @property
    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self._position

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write the next bytes; they count as arrived at once.

        Returns:
            How many of them were written; the others were there already.

        Raises:
            ValueError: the writer or the partial is closed, or the bytes go beyond the file.
            OSError: the data or the journal cannot be written. `position` tells how far it came;
                what is before it is there.
        """
        rest = memoryview(data)
        with self._lock:
            if not self._open:
                raise ValueError("the writer is closed")
            if self._position + len(rest) > self._partial.size:
                raise ValueError(f"more than the {self._partial.size} bytes of the file")
            done = written = 0
            # Nothing unless a journal has failed: first the record, then more data.
            self._journal_if_due()
            while done < len(rest):
                step = rest[done : done + WRITE_BYTES]
                count, new = self._partial.write_some(self._position, step)
                self._position += count
                done += count
                written += new
                self._journal_if_due()
            return written

    def _journal_if_due(self) -> None:
        if self._position - self._journaled >= JOURNAL_EVERY_BYTES:
            self._journal()

    def _journal(self) -> None:
        if self._journaled < self._position:
            self._partial.note((self._journaled, self._position))
            self._journaled = self._position

    def close(self) -> None:
        """Journal the rest. May be called twice.

        Raises:
            OSError: the journal cannot be written. The writer stays open, and to close it or the
                partial tries again.
        """
        self.end(journal=True)

    def end(self, *, journal: bool) -> None:
        """Let no more be written, and journal the rest if that is wanted."""
        with self._lock:
            if not self._open:
                return
            if journal:
                self._journal()
            self._open = False
        self._partial.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class DiskPartial(Partial):
    """A file that grows in the cache folder, with its journal. It outlives the process."""

    def __init__(
        self, file: RepoFile, data: Path, journal_path: Path, header: JournalHeader
    ) -> None:
        super().__init__(file, _believed(file, data, journal_path))
        self._data = data
        self._journal_path = journal_path
        self._reading = threading.Lock()
        if not self._spans:
            data.unlink(missing_ok=True)
        self._fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Written anew: shorter, with nothing torn in it, and for the load of now.
            self._journal = Journal(journal_path, header, self._spans)
        except OSError:
            os.close(self._fd)
            raise

    @classmethod
    def open(cls, blobs: Path, file: RepoFile, *, revision: str, commit_hash: str) -> DiskPartial:
        """Open the partial of `file` in the folder `blobs`, and go on from what is there.

        Raises:
            OSError: the folder cannot be written. What was there stays.
        """
        blobs.mkdir(parents=True, exist_ok=True)
        data, journal = part_paths(blobs, file.etag)
        header = JournalHeader(
            etag=file.etag,
            size=file.size,
            path=file.path_in_repo,
            revision=revision,
            commit_hash=commit_hash,
        )
        return cls(file, data, journal, header)

    @property
    def path(self) -> Path:
        """The data file."""
        return self._data

    def _write_some(self, offset: int, data: memoryview) -> int:
        return os.pwrite(self._fd, data, offset)

    def _note(self, span: Span) -> None:
        self._journal.append(span)

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        with self._reading:
            if self._fd < 0:
                raise ValueError("the partial is closed")
            return os.preadv(self._fd, [buffer], offset)

    def _remove(self) -> None:
        self._data.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def move_to(self, target: Path) -> None:
        self._check_whole()
        # A whole file needs no journal any more. But an error at the close of the data is where a
        # network file system tells that bytes were lost.
        self._end(journal=False)
        self._data.replace(target)
        # Only now: a journal that a kill leaves alone is discarded, a file alone is fetched anew.
        self._journal_path.unlink(missing_ok=True)

    def _close_files(self) -> None:
        with self._reading:
            descriptor, self._fd = self._fd, -1
            if descriptor >= 0:
                with contextlib.suppress(
                    OSError
                ):  # Its records are only believed if they are there.
                    self._journal.close()
                os.close(descriptor)


class MemoryPartial(Partial):
    """A small file that is held in memory until it is whole.

    Args:
        folder: where it is written before it takes its place; None for beside that.
    """

    def __init__(self, file: RepoFile, folder: Path | None = None) -> None:
        super().__init__(file)
        self._folder = folder
        self._content = bytearray(file.size)

    @property
    def path(self) -> None:
        """None: there is no file yet."""

    def _write_some(self, offset: int, data: memoryview) -> int:
        self._content[offset : offset + len(data)] = data
        return len(data)

    def _note(self, span: Span) -> None:
        """Do nothing: there is no journal."""

    def _close_files(self) -> None:
        """Do nothing: there is no file."""

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        if not self._open:
            raise ValueError("the partial is closed")
        with memoryview(self._content) as content, memoryview(buffer) as target:
            part = content[offset : offset + len(target)]
            target[: len(part)] = part
            return len(part)

    def _remove(self) -> None:
        self._content = bytearray()

    def move_to(self, target: Path) -> None:
        self._check_whole()
        self.close()
        folder = self._folder or target.parent
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target, scratch_path(folder, self.file.etag)) as scratch:
            scratch.write_bytes(self._content)


def open_partial(blobs: Path, file: RepoFile, *, revision: str, commit_hash: str) -> Partial:
    """Open the partial of `file`: in memory if it is small, else in the folder `blobs`.

    Raises:
        OSError: the folder cannot be written.
    """
    if file.size <= SMALL_FILE_BYTES:
        return MemoryPartial(file, blobs)
    return DiskPartial.open(blobs, file, revision=revision, commit_hash=commit_hash)


def part_paths(blobs: Path, etag: str) -> tuple[Path, Path]:
    """Return the places of the data and of the journal of a partial."""
    return (
        blobs / f"{etag}.nbloader.incomplete",
        blobs / f"{etag}.nbloader-journal.incomplete",
    )


def scratch_path(blobs: Path, etag: str) -> Path:
    """Return a place for what is about to be renamed to a file of the cache.

    It is of this process alone, and swept with its partial if a kill leaves it.
    """
    return blobs / f"{etag}.nbloader.{os.getpid()}.incomplete"


def _believed(file: RepoFile, data: Path, journal: Path) -> list[Span]:
    """Return the ranges that are in the data file according to a journal that belongs to it."""
    try:
        there = data.lstat()
    except FileNotFoundError:
        return []
    read = read_journal(journal)
    if read is None or not stat.S_ISREG(there.st_mode) or there.st_size > file.size:
        return []
    header, spans = read
    if (header.etag, header.size) != (file.etag, file.size):
        return []
    return [span for span in spans if span[1] <= there.st_size]
