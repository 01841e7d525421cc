"""Whether the bytes of a file are those that the Hub lists."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nbloader.hub_cache.partial import Partial
from nbloader.records import RepoFile

READ_BYTES = 1 << 20
"""Read at once: enough that other threads run while it is hashed."""


class FileHash:
    """The hash of one file, made from its beginning on. Safe for use by several threads.

    Large files are named by the sha256 of their content, small ones by git's sha1 of the blob
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects: its header, then the content).

    Attributes:
        name: the kind of hash, in words.
    """

    def __init__(self, file: RepoFile) -> None:
        self.name = "sha256" if file.lfs else "git sha1"
        self._file = file
        self._position = 0
        self._busy = threading.Lock()
        self._buffer = memoryview(bytearray(min(READ_BYTES, file.size)))
        self._hash = hashlib.sha256() if file.lfs else hashlib.sha1(usedforsecurity=False)
        if not file.lfs:
            self._hash.update(b"blob %d\0" % file.size)

    @property
    def position(self) -> int:
        """Bytes of the content that were hashed so far."""
        return self._position

    def advance(self, partial: Partial, limit: int | None = None) -> int:
        """Hash what has arrived without a gap behind `position`, at most `limit` bytes of it.

        Returns how many bytes that was.

        Raises:
            ValueError: the partial is closed.
            OSError: the file cannot be read, or something has cut it short.
        """
        with self._busy:
            began = self._position
            stop = partial.prefix if limit is None else min(partial.prefix, began + limit)
            while self._position < stop:
                buffer = self._buffer[: stop - self._position]
                self._take(buffer, partial.readinto(self._position, buffer))
            return self._position - began

    def offer(self, offset: int, data: bytes | memoryview) -> None:
        """Take bytes that have just been written at `offset`, if it is their turn.

        What comes out of order, or while another thread is at it, is left for `advance`, which
        has to read it again.
        """
        if offset == self._position and self._busy.acquire(blocking=False):
            try:
                if offset == self._position:
                    self._hash.update(data)
                    self._position += len(data)
            finally:
                self._busy.release()

    def read(self, path: Path, told: Callable[[int], object]) -> None:
        """Hash the whole content of a file.

        Args:
            told: told how many bytes were hashed, again and again.

        Raises:
            OSError: the file cannot be read, or has another size than it should.
        """
        with path.open("rb", buffering=0) as content:
            if os.fstat(content.fileno()).st_size != self._file.size:
                raise OSError(errno.EIO, "the file has another size", str(path))
            while self._position < self._file.size:
                buffer = self._buffer[: self._file.size - self._position]
                before = self._position
                self._take(buffer, content.readinto(buffer))
                told(self._position - before)

    def _take(self, buffer: memoryview, count: int) -> None:
        if not count:
            raise OSError(errno.EIO, f"{self._file.path} is shorter than it was")
        self._hash.update(buffer[:count])
        self._position += count

    def hexdigest(self) -> str:
        """Return the hash of what was hashed so far, in hex."""
        return self._hash.hexdigest()

    @property
    def matches(self) -> bool:
        """Whether all of the file was hashed, and is what the Hub lists."""
        return self._position == self._file.size and self.hexdigest() == self._file.etag


def matches(
    path: Path,
    file: RepoFile,
    told: Callable[[int], object] = lambda count: None,  # noqa: ARG005
) -> bool:
    """Hash a file on the disk and tell whether it is the one that the Hub lists.

    Args:
        told: told how many bytes were hashed, again and again.
    """
    hashed = FileHash(file)
    try:
        hashed.read(path, told)
    except OSError:
        return False
    return hashed.matches
