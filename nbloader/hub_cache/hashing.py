"""Whether the bytes of a file are those that the Hub lists."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nbloader.hub_cache.partial import Partial, SpoiltError
from nbloader.records import RepoFile
from nbloader.small_files import open_regular

READ_BYTES = 1 << 20
"""Read at once: enough that other threads run while it is hashed."""


KEPT_BYTES = 32 << 20
"""Of all files together, held in memory until the bytes before them have come."""


class Room:
    """Memory for so many bytes. Safe for use by several threads."""

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self._free = size
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Say whether there is room for `count` bytes, and count them as taken if so."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def give(self, count: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._free += count


class FileHash:
    """The hash of one file, made from its beginning on. Safe for use by several threads.

    Large files are named by the sha256 of their content, small ones by git's sha1 of the blob
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects: its header, then the content).

    Args:
        room: for bytes that come before their turn; without it they are read again.

    Attributes:
        name: the kind of hash, in words.
    """

    def __init__(self, file: RepoFile, room: Room | None = None) -> None:
        self.name = "sha256" if file.lfs else "git sha1"
        self._file = file
        self._position = 0
        self._busy = threading.Lock()
        self._room = room
        self._waiting: dict[int, bytes] = {}
        self._waiting_lock = threading.Lock()
        self._buffer = memoryview(bytearray(min(READ_BYTES, file.size)))
        self._hash = hashlib.sha256() if file.lfs else hashlib.sha1(usedforsecurity=False)
        if not file.lfs:
            self._hash.update(b"blob %d\0" % file.size)

    @property
    def position(self) -> int:
        """Bytes of the content that were hashed so far."""
        return self._position

    def advance(self, partial: Partial, limit: int | None = None) -> int:
        """Hash what has arrived without a gap behind `position`, about `limit` bytes of it at most.

        Returns how many bytes that was.

        Raises:
            ValueError: the partial is closed.
            SpoiltError: something has cut it short.
            OSError: the file cannot be read.
        """
        with self._busy:
            began = self._position
            stop = partial.prefix if limit is None else min(partial.prefix, began + limit)
            while self._position < stop:
                if self._take_waiting():
                    continue
                buffer = self._buffer[: self._up_to_waiting(stop) - self._position]
                self._take(buffer, partial.readinto(self._position, buffer))
            self._take_waiting()
            return self._position - began

    def offer(self, offset: int, data: bytes | memoryview) -> None:
        """Take bytes that have just been written at `offset`, if it is their turn.

        What comes out of order, or while another thread is at it, is kept if there is room, and
        if nobody can change it. Otherwise it is left for `advance`, which has to read it again.
        """
        taken = False
        if offset == self._position and self._busy.acquire(blocking=False):
            try:
                taken = offset == self._position
                if taken:
                    self._hash.update(data)
                    self._position += len(data)
            finally:
                self._busy.release()
        if not taken and self._room is not None and isinstance(data, bytes):
            self._keep(offset, data, self._room)
        # Another may have kept something just before this let go.
        while self._position in self._waiting and self._busy.acquire(blocking=False):
            try:
                self._take_waiting()
            finally:
                self._busy.release()

    def _keep(self, offset: int, data: bytes, room: Room) -> None:
        if not data or not room.take(len(data)):
            return
        with self._waiting_lock:
            self._waiting[offset] = data
        if self._position > offset:  # `advance` has just read it, and may not come again.
            with self._waiting_lock:
                dropped = self._waiting.pop(offset, b"")
            room.give(len(dropped))

    def _take_waiting(self) -> bool:
        """Hash what was kept and has its turn now; say whether there was something."""
        began = self._position
        while self._waiting:
            with self._waiting_lock:
                data = self._waiting.pop(self._position, None)
                passed = [at for at in self._waiting if at < self._position]
                freed = sum(len(self._waiting.pop(at)) for at in passed)
            if data is not None:
                self._hash.update(data)
                self._position += len(data)
                freed += len(data)
            if self._room is not None:
                self._room.give(freed)
            if data is None:
                break
        return self._position > began

    def _up_to_waiting(self, stop: int) -> int:
        """Return where the next bytes begin that are kept, or `stop` if that comes before."""
        with self._waiting_lock:
            return min((stop, *(at for at in self._waiting if at > self._position)))

    def read(self, path: Path, told: Callable[[int], object]) -> None:
        """Hash the whole content of a file.

        Args:
            told: told how many bytes were hashed, again and again.

        Raises:
            OSError: the file cannot be read, or has another size than it should.
        """
        with os.fdopen(open_regular(path), "rb", buffering=0) as content:
            if os.fstat(content.fileno()).st_size != self._file.size:
                raise OSError(errno.EIO, "the file has another size", str(path))
            while self._position < self._file.size:
                buffer = self._buffer[: self._file.size - self._position]
                before = self._position
                self._take(buffer, content.readinto(buffer))
                told(self._position - before)

    def _take(self, buffer: memoryview, count: int) -> None:
        if not count:
            raise SpoiltError(errno.EIO, f"{self._file.path} is shorter than it was")
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
