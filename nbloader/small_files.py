"""Small files that others may have written, read without waiting and without end.

`read_small` is the one way to read such a file: a setting, a note, a reference, a listing that was
kept. What has its name may be anything: a FIFO would be waited for, a device acts when it is
opened, a link may lead to either, and a sparse file of a terabyte takes nobody's disk, but all of
the memory. `open_regular` is the first half of it, for files that are read in parts.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["open_regular", "read_small"]

_STEP_BYTES = 1 << 20


def open_regular(
    path: str | os.PathLike[str], *, follow: bool = True, dir_fd: int | None = None
) -> int:
    """Open a file to be read, if it is a regular one, and return its descriptor.

    Args:
        follow: whether a link is followed; False where none is meant.
        dir_fd: the folder that a relative path begins in, as for `os.open`.

    Raises:
        OSError: it is not there, may not be read, is a link where none is meant, or is no file.
    """
    # To open a device can be an act already, so first it is looked at.
    _check_regular(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow), path)
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        _check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_small(
    path: str | os.PathLike[str],
    most_bytes: int,
    *,
    follow: bool = True,
    dir_fd: int | None = None,
) -> bytes:
    """Read all of a file, if it is a regular one and no larger than its kind can be.

    Args:
        most_bytes: more than any honest file of its kind has.
        follow, dir_fd: see `open_regular`.

    Raises:
        OSError: as `open_regular`, or the file is larger. Its text never quotes what is in it.
    """
    descriptor = open_regular(path, follow=follow, dir_fd=dir_fd)
    try:
        # The size that is told need not be what comes: in /proc it is 0.
        if os.fstat(descriptor).st_size > most_bytes:
            raise _refusal(errno.EFBIG, f"the file has more than {most_bytes} bytes", path)
        parts: list[bytes] = []
        left = most_bytes + 1
        while left and (part := os.read(descriptor, min(left, _STEP_BYTES))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise _refusal(errno.EFBIG, f"the file has more than {most_bytes} bytes", path)
    return b"".join(parts)


def _check_regular(about: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise _refusal(errno.ELOOP, "it is a link", path)
    if not stat.S_ISREG(about.st_mode):
        raise _refusal(errno.EINVAL, "it is not a regular file", path)


def _refusal(number: int, why: str, path: str | os.PathLike[str]) -> OSError:
    return OSError(number, why, os.fspath(path))
