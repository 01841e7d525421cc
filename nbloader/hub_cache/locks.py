"""The lock files of the Hub's cache, which every library that writes to it honours."""

from __future__ import annotations

import contextlib
from pathlib import Path

import filelock

__all__ = ["FileLock", "try_lock"]


class FileLock:
    """A lock that is held until it is released, by whichever thread, or until the process ends."""

    def __init__(self, held: filelock.BaseFileLock) -> None:
        self._held = held

    def release(self) -> None:
        """Give the lock back. May be called twice."""
        # The end of the process gives it back where the file system does not.
        with contextlib.suppress(OSError):
            self._held.release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def try_lock(path: Path, *, flock: bool) -> FileLock | None:
    """Take the lock at `path` if nobody holds it, this process included; else give None.

    Args:
        flock: whether the file system locks files. If not, the existence of the file is the lock,
            as it is for the Hub's library; a kill may leave it behind.

    Raises:
        OSError: the lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = filelock.FileLock if flock else filelock.SoftFileLock
    # The mode of the Hub's library: a group that shares a cache can wait for its locks.
    lock = kind(path, timeout=0, mode=0o664, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return FileLock(lock)
