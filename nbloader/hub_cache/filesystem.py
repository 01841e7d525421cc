"""What the file system of the cache can do, and the lock files that every library honours there."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from nbloader.errors import CacheNotWritableError
from nbloader.machine import existing_part

__all__ = ["replacing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """What a file system can do.

    Attributes:
        symlinks: whether it has them; if not, files are moved or copied to their names, as the
            Hub's library does.
        locks: whether it locks files; if not, the existence of a lock file is the lock.
    """

    symlinks: bool = True
    locks: bool = True


def probe(cache_dir: Path, *, symlinks: bool = True) -> FileSystem:
    """Try out the file system of the cache, in a folder of its own that is removed again.

    Args:
        symlinks: False where they are not wanted, as by HF_HUB_DISABLE_SYMLINKS.

    Raises:
        CacheNotWritableError: a file cannot take the place of another there in one step, so that
            a wrong or half one could be seen under the right name.
        OSError: the folder cannot be written.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=cache_dir, prefix=".nbloader-probe-"))
    try:
        if not _replaces(scratch):
            raise CacheNotWritableError(
                f"the file system of {cache_dir} cannot replace a file in one step",
                hint="Pass a folder on a disk of this machine as `cache_dir=`, or set HF_HOME.",
            )
        return FileSystem(symlinks=symlinks and _links(scratch), locks=_locks(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replaces(folder: Path) -> bool:
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with contextlib.suppress(OSError):
        new.replace(old)
        return old.read_bytes() == b"new" and not new.exists()
    return False


def _links(folder: Path) -> bool:
    (folder / "file").write_bytes(b"file")
    link = folder / "link"
    with contextlib.suppress(OSError):
        link.symlink_to("file")
        return link.read_bytes() == b"file"
    return False


def _locks(folder: Path) -> bool:
    path = folder / "lock"
    with path.open("wb") as one, path.open("wb") as other, contextlib.suppress(OSError):
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    # It refuses, or lets two hold the same lock.
    return False


@contextlib.contextmanager
def replacing(target: Path, scratch: Path) -> Iterator[Path]:
    """Yield a place to write to, and then let what was written there take `target`'s, in one step.

    Whoever reads `target` sees what was there before or all of the new, whenever this is killed.
    After an error `target` is as it was, and nothing is left at `scratch`.

    Args:
        scratch: on the same file system, and of this process alone.

    Raises:
        OSError: it cannot be written.
    """
    try:
        yield scratch
        scratch.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of `folder`, which need not exist yet.

    Raises:
        OSError: it cannot be asked.
    """
    return shutil.disk_usage(existing_part(folder)).free


class FileLock:
    """A lock that is held until it is released, by whichever thread, or until the process ends."""

    def __init__(self, *held: filelock.BaseFileLock) -> None:
        self._held = held

    def with_other(self, other: FileLock) -> FileLock:
        """Return one for two locks, which are released together."""
        return FileLock(*self._held, *other._held)

    def release(self) -> None:
        """Release the lock. May be called twice."""
        for one in self._held:
            # The end of the process gives it back where the file system does not.
            with contextlib.suppress(OSError):
                one.release()

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
