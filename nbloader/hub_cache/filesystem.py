"""What the file system of the cache can do, and the lock files that every library honours there."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock

from nbloader.errors import CacheNotWritableError
from nbloader.hub_cache.folders import Folder, open_folder
from nbloader.machine import existing_part
from nbloader.small_files import read_small

try:
    import fcntl
except ImportError:  # Windows
    HAS_FLOCK = False
else:
    HAS_FLOCK = True

_QUIETLY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

LOCK_MODE = 0o664
"""The mode of the Hub's library: a group that shares a cache can wait for its locks."""

LOCK_TRIES = 5
"""How often a lock is opened anew whose file somebody removes at that moment."""

MAX_LOCK_BYTES = 1 << 10
"""A lock whose existence counts holds the number of a process and the name of a machine."""

MAX_LOCKS_BYTES = 4 << 20
"""The system's table of locks takes some 60 bytes for each."""


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
    with open_folder(cache_dir):  # Nothing is tried out behind a link of another user's.
        pass
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
    if not HAS_FLOCK:
        return True  # Windows locks files in another way.
    with path.open("wb") as one, path.open("wb") as other, contextlib.suppress(OSError):
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    # It refuses, or lets two hold the same lock.
    return False


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of `folder`, which need not exist yet.

    Raises:
        OSError: it cannot be asked.
    """
    return shutil.disk_usage(existing_part(folder)).free


class FileLock:
    """A lock that is held until it is released, by whichever thread, or until the process ends."""

    def __init__(self, *releases: Callable[[], object]) -> None:
        self._releases = releases

    def with_other(self, other: FileLock) -> FileLock:
        """Return one for two locks, which are released together."""
        return FileLock(*self._releases, *other._releases)

    def release(self) -> None:
        """Release the lock. May be called twice."""
        releases, self._releases = self._releases, ()
        for release in releases:
            # The end of the process gives it back where the file system does not.
            with contextlib.suppress(OSError):
                release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def try_lock(path: Path, *, flock: bool, below: Path | None = None) -> FileLock | None:
    """Take the lock at `path` if nobody holds it, this process included; else give None.

    Nothing is written into the file, which may be a link to another one, of either kind: a symbolic
    one is refused.

    Args:
        flock: whether the file system locks files. If not, the existence of the file is the lock,
            as it is for the Hub's library; a kill may leave it behind.
        below: see `open_folder`; by default the folder of the lock.

    Raises:
        OSError: the lock file cannot be written.
    """
    with open_folder(path.parent, below=below) as folder:
        if not flock or not HAS_FLOCK:
            return _try_other_lock(path, flock=flock)
        for _ in range(LOCK_TRIES):
            descriptor = _open_lock(folder, path.name)
            try:
                if not take_flock(descriptor):
                    os.close(descriptor)
                    return None
                # Or somebody has removed the file just before, and another may lock a new one.
                if os.fstat(descriptor).st_nlink:
                    return FileLock(functools.partial(os.close, descriptor))
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    return None


def _open_lock(folder: Folder, name: str) -> int:
    """Open the file of a lock, and make it if it is not there."""
    try:
        made = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, LOCK_MODE)
    except FileExistsError:
        pass
    else:
        # Whatever the umask is. Only of a file that was made here.
        with contextlib.suppress(OSError):
            os.fchmod(made, LOCK_MODE)
        return made
    try:
        descriptor = folder.open(name, os.O_RDWR)
    except PermissionError:
        # That of another user, who has not opened it to a group. To wait for it needs no more.
        descriptor = folder.open(name, os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(folder.path / name))
    return descriptor


def _try_other_lock(path: Path, *, flock: bool) -> FileLock | None:
    kind = filelock.FileLock if flock else filelock.SoftFileLock
    lock = kind(path, timeout=0, mode=LOCK_MODE, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return FileLock(lock.release)


def take_flock(descriptor: int) -> bool:
    """Lock an open file if nobody holds it; False if somebody does. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK):
            return False
        raise
    return True


def is_same(folder: Folder, name: str, descriptor: int) -> bool:
    """Say whether a name in a folder is that of an open file."""
    try:
        found = folder.stat(name)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def is_held(lock: Path) -> bool:
    """Say whether a process holds the lock file. A lock that cannot be asked counts as held.

    Where the file system has no locks, the existence of the file is the lock.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | _QUIETLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    if not HAS_FLOCK:
        os.close(descriptor)
        return True
    try:
        # A shared lock is refused while another holds it alone, and disturbs for an instant only.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder_of(path: Path, locks: Path = Path("/proc/locks")) -> int | None:
    """Return the number of the process that holds the lock of a file, where that can be known.

    Linux tells it of the processes of this machine; where the existence of a file is the lock, the
    file itself does.
    """
    with contextlib.suppress(OSError, ValueError):
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            return None
        device = os.major(about.st_dev), os.minor(about.st_dev)
        for line in read_small(locks, MAX_LOCKS_BYTES).decode("ascii").splitlines():
            # Number, kind, manner, access, process, device and file. A "->" waits for the lock.
            fields = line.split()
            if len(fields) > 5 and "->" not in fields and fields[1] == "FLOCK":
                major, minor, inode = fields[5].split(":")
                if int(inode) == about.st_ino and (int(major, 16), int(minor, 16)) == device:
                    return int(fields[4]) if int(fields[4]) > 0 else None
    with contextlib.suppress(OSError, ValueError):
        number = int(read_small(path, MAX_LOCK_BYTES, follow=False).split(b"\n")[0])
        return number if number > 0 else None
    return None
