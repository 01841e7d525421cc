"""Which files of the cache other processes, or this one, are at work on. Changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["held_locks", "is_held", "open_files"]


def is_held(lock: Path) -> bool:
    """Tell whether a process holds the lock file. A lock that cannot be asked counts as held.

    Where the file system has no locks, the existence of the file is the lock.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        # A shared lock is refused while another holds it alone, and disturbs for an instant only.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def held_locks(folder: Path) -> frozenset[str]:
    """Give the etags of the files of a repository whose locks are held.

    Args:
        folder: of the repository's locks, `<cache>/.locks/models--org--name`.
    """
    with contextlib.suppress(OSError):
        return frozenset(
            path.name.removesuffix(".lock")
            for path in folder.iterdir()
            if path.name.endswith(".lock") and is_held(path)
        )
    return frozenset()


def open_files(folder: Path, processes: Path = Path("/proc")) -> frozenset[str]:
    """Give the real paths below a folder that a process has open or mapped.

    Weights are mapped, so a model that was loaded from the cache shows here. Known on Linux, for
    the processes that this user may look into; elsewhere nothing is known.
    """
    start = f"{os.path.realpath(folder)}/"
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for process in processes.iterdir():
            if process.name.isdecimal():
                found.update(path for path in _paths(process) if path.startswith(start))
    return frozenset(found)


def _paths(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            # Address, rights, offset, device, inode, path.
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(b"/"):
                yield os.fsdecode(fields[5])
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(descriptor)  # noqa: PTH115 - what it says may be no path
