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

A file that grows belongs to one process, by its inode: who opens it locks it, beside the Hub's lock
of the file, because that may be removed or not be seen from another machine. What is found there is
gone on from only if it is a plain file of this user without a second link. What is renamed is what
was hashed: where the name has another file by then, or another process has taken over this one,
a copy of what the descriptor holds is made and hashed anew. So two processes may do the same, and a
cache may be swept under a download.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from nbloader.hub_cache.claims import affixes, part_paths, scratch_name, taken
from nbloader.hub_cache.filesystem import is_same
from nbloader.hub_cache.folders import (
    COPY_BYTES,
    Folder,
    open_folder,
    replacing,
    write_all,
    write_whole,
)
from nbloader.hub_cache.journal import Journal, JournalHeader
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
    r"([0-9a-f]{40}|[0-9a-f]{64})\.nbloader(?:-journal|-journal-new|\.[0-9a-f]+)?\.incomplete"
)
"""Names of all that nbloader leaves in a folder while it fetches a file; group 1 is its etag."""


class SpoiltError(OSError):
    """Others have written to a partial: it is no longer what was hashed."""


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

    def move_to(self, target: Path, below: Path | None = None) -> None:
        """Close, and put the whole file at `target` by one atomic rename.

        It is not flushed to the disk before: for gigabytes that takes as long as the download.
        After a power loss a file may be short, which the check of its size finds, or have holes,
        which `verify=True` finds; the Hub's own library promises no more.

        Args:
            below: see `open_folder`; by default the folder of `target`.

        Raises:
            ValueError: it is not whole.
            SpoiltError: others have written to it.
            OSError: the file cannot be put there; what has arrived stays.
        """
        self._check_whole()
        with open_folder(target.parent, below=below) as folder:
            self._move(folder, target.name)

    @abstractmethod
    def _move(self, folder: Folder, name: str) -> None: ...

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
    """A file that grows in the cache folder, with its journal. It outlives the process.

    What is there of it is gone on from.

    Args:
        blobs: the folder.
        revision, commit_hash: what it is fetched for.
        below: see `open_folder`.
        flock: whether the file system locks files.

    Raises:
        HeldError: another process is writing it.
        OSError: the folder cannot be written. What was there stays.
    """

    def __init__(
        self,
        blobs: Path,
        file: RepoFile,
        *,
        revision: str,
        commit_hash: str,
        below: Path | None = None,
        flock: bool = True,
    ) -> None:
        self._blobs, self._below = blobs, below
        header = JournalHeader(
            etag=file.etag,
            size=file.size,
            path=file.path_in_repo,
            revision=revision,
            commit_hash=commit_hash,
        )
        data, journal = part_paths(blobs, file.etag)
        self._reading = threading.Lock()
        with open_folder(blobs, below=below) as folder:
            self._fd, name, spans = taken(folder, file, data.name, journal.name, flock=flock)
            try:
                super().__init__(file, spans)
                # Up to where it was written, and whether it was ever shorter than that.
                self._extent, self._cut = max((stop for _, stop in spans), default=0), False
                self._data, self._about = blobs / name, os.fstat(self._fd)
                # Of one that nobody goes on from, the journal must not take the other's place.
                named = journal.name if name == data.name else scratch_name(folder, file.etag)
                self._journal_path = blobs / named
                # Written anew: shorter, with nothing torn in it, and for the load of now.
                self._journal = Journal(folder, self._journal_path.name, header, self._spans)
            except BaseException:
                os.close(self._fd)
                raise

    @property
    def path(self) -> Path:
        """The data file."""
        return self._data

    def _write_some(self, offset: int, data: memoryview) -> int:
        # Who cuts it short leaves a hole that the next bytes behind it would hide. The extent is
        # read first: other threads write meanwhile.
        extent = self._extent
        if os.fstat(self._fd).st_size < extent:
            self._cut = True
        count = os.pwrite(self._fd, data, offset)
        self._extent = max(self._extent, offset + count)
        return count

    def _note(self, span: Span) -> None:
        self._journal.append(span)

    def readinto(self, offset: int, buffer: bytearray | memoryview) -> int:
        with self._reading:
            if self._fd < 0:
                raise ValueError("the partial is closed")
            return os.preadv(self._fd, [buffer], offset)

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._opened() as folder:
            self._drop(folder)

    def _drop(self, folder: Folder) -> None:
        """Remove what is there of it, and nothing that another has put there."""
        for path, about in ((self._data, self._about), (self._journal_path, self._journal.about)):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(folder.stat(path.name), about):
                    folder.unlink(path.name)

    def _opened(self) -> Folder:
        """Open the folder; it may be another one than before, or none."""
        return open_folder(self._blobs, below=self._below, make=False)

    def _move(self, folder: Folder, name: str) -> None:
        # It stays open, and locked, until it has its place.
        held = os.dup(self._fd)
        try:
            # A whole file needs no journal any more. But an error at the close of the data is where
            # a network file system tells that bytes were lost.
            self._end(journal=False)
            whole = not self._cut and os.fstat(held).st_size == self.size
            if not (whole and self._renamed(held, folder, name)):
                self._copy(held, folder, name)
        finally:
            os.close(held)

    def _renamed(self, held: int, folder: Folder, name: str) -> bool:
        """Rename the file if it is still the one that was written, and ours alone."""
        with contextlib.suppress(FileNotFoundError), self._opened() as blobs:
            if not self._is_ours(held, blobs):
                return False
            blobs.replace(self._data.name, folder, name)
            # Only now: a journal that a kill leaves alone is discarded, a file alone is fetched
            # anew.
            blobs.unlink(self._journal_path.name)
            # Another may have come in between.
            return is_same(folder, name, held)
        return False

    def _is_ours(self, held: int, blobs: Folder) -> bool:
        if os.fstat(held).st_nlink > 1 or not is_same(blobs, self._data.name, held):
            return False
        try:
            journal = blobs.stat(self._journal_path.name)
        except FileNotFoundError:
            return True  # It was swept; nobody else can go on from the data.
        return os.path.samestat(journal, self._journal.about)

    def _copy(self, held: int, folder: Folder, name: str) -> None:
        """Make a copy of what is held, which nobody else can have opened, and hash it."""
        hashed = hashlib.sha256() if self.file.lfs else hashlib.sha1(usedforsecurity=False)
        if not self.file.lfs:
            hashed.update(b"blob %d\0" % self.size)
        buffer, at = memoryview(bytearray(COPY_BYTES)), 0
        with (
            open_folder(self._blobs, below=self._below) as blobs,
            replacing(folder, name, beside=blobs, **affixes(self.file.etag)) as scratch,
        ):
            with os.fdopen(blobs.create(scratch), "wb", buffering=0) as copy:
                while at < self.size and (count := os.preadv(held, [buffer], at)):
                    hashed.update(buffer[:count])
                    write_all(copy, buffer[:count])
                    at += count
            if at != self.size or hashed.hexdigest() != self.file.etag:
                raise SpoiltError(errno.EIO, "it has changed", str(self._data))
            self._drop(blobs)

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
        below: see `open_folder`.
    """

    def __init__(
        self, file: RepoFile, folder: Path | None = None, below: Path | None = None
    ) -> None:
        super().__init__(file)
        self._folder, self._below = folder, below
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

    def _move(self, folder: Folder, name: str) -> None:
        self.close()
        named = affixes(self.file.etag)
        if self._folder is None:
            write_whole(folder, name, self._content, **named)
            return
        with open_folder(self._folder, below=self._below) as beside:
            write_whole(folder, name, self._content, beside=beside, **named)


def open_partial(
    blobs: Path,
    file: RepoFile,
    *,
    revision: str,
    commit_hash: str,
    below: Path | None = None,
    flock: bool = True,
) -> Partial:
    """Open the partial of `file`: in memory if it is small, else in the folder `blobs`.

    Args:
        below: see `open_folder`.
        flock: whether the file system locks files.

    Raises:
        HeldError: another process is writing it.
        OSError: the folder cannot be written.
    """
    if file.size <= SMALL_FILE_BYTES:
        return MemoryPartial(file, blobs, below)
    return DiskPartial(
        blobs, file, revision=revision, commit_hash=commit_hash, below=below, flock=flock
    )
