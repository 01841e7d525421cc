"""Folders that are held open while something is made, renamed or removed in them.

A cache may be shared, and who may write to it can put a link where the next folder or the next
scratch file will be looked for. So a path is walked once, from a place that the user has named, and
no link below that is followed. What follows acts on names in the open folder: none of them can be
led elsewhere. Scratch files are made anew, under names that nobody can know before.

Where the system cannot act in an open folder (Windows), the same is done by paths.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Self

from nbloader.small_files import open_regular, read_small

__all__ = ["Folder", "copy_bytes", "open_folder", "replacing", "write_all", "write_whole"]

COPY_BYTES = 1 << 20
"""Read at once where a file is copied."""

SCRATCH_BYTES = 8
"""Of randomness in the name of a scratch file: so many that none can be there by intent."""

_AT = {os.open, os.mkdir, os.stat, os.unlink, os.rename, os.link, os.symlink, os.readlink}
_HELD = os.supports_dir_fd >= _AT and hasattr(os, "O_DIRECTORY")


class Folder:
    """An open folder. Use as a context manager, or close it.

    Every method takes the name of one entry. Errors tell the whole path.

    Attributes:
        path: how it was reached; only for errors, and where there are no open folders.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    # -- what is there ---------------------------------------------------------------------

    def stat(self, name: str) -> os.stat_result:
        """Describe an entry itself, not what a link leads to. Raises OSError."""
        with self._named(name) as (place, at):
            return os.stat(place, dir_fd=at, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Say whether there is an entry of that name, whatever it is."""
        try:
            self.stat(name)
        except OSError:
            return False
        return True

    def read(self, name: str, most_bytes: int) -> bytes:
        """Read a small file; see `read_small`. A link is not followed. Raises OSError."""
        with self._named(name) as (place, at):
            return read_small(place, most_bytes, follow=False, dir_fd=at)

    def target_of(self, name: str) -> str:
        """Return what a link says. Raises OSError."""
        with self._named(name) as (place, at):
            return os.readlink(place, dir_fd=at)

    def inner(self, name: str, *, make: bool) -> Folder:
        """Open a folder in it, which is no link; `make` it where it is missing. Raises OSError."""
        with self._named(name) as (place, at):
            try:
                about = os.stat(place, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place, dir_fd=at)
                about = os.stat(place, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(about.st_mode):
                raise OSError(errno.ELOOP, "a link stands in the place of a folder")
            if not stat.S_ISDIR(about.st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return Folder(self.path / name, _open_directory(place, at, follow=False))

    # -- what is made ----------------------------------------------------------------------

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        """Open a file in it; never through a link. Returns the descriptor. Raises OSError."""
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with self._named(name) as (place, at):
            if not hasattr(os, "O_NOFOLLOW") and os.path.islink(place):  # noqa: PTH114
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            return os.open(place, flags, mode, dir_fd=at)

    def create(self, name: str, mode: int = 0o666) -> int:
        """Make a file that was not there, and return its descriptor. Raises OSError."""
        return self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def link(self, source: Path, name: str) -> None:
        """Make a second link to a file. Raises OSError."""
        with self._named(name) as (place, at):
            os.link(source, place, dst_dir_fd=at)

    def symlink(self, target: str, name: str) -> None:
        """Make a symbolic link that says `target`. Raises OSError."""
        with self._named(name) as (place, at):
            os.symlink(target, place, dir_fd=at)

    def replace(self, name: str, target: Folder, target_name: str) -> None:
        """Move an entry to a name in this or another folder, in one step. Raises OSError."""
        with target._named(target_name) as (place, at), self._named(name) as (source, source_at):
            try:
                os.replace(source, place, src_dir_fd=source_at, dst_dir_fd=at)
            except OSError as error:
                if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                    error.filename = str(target.path / target_name)
                raise

    def unlink(self, name: str) -> bool:
        """Remove an entry that is no folder; False if there is none. Raises OSError."""
        try:
            with self._named(name) as (place, at):
                os.unlink(place, dir_fd=at)
        except FileNotFoundError:
            return False
        return True

    def scratch_name(self, prefix: str, suffix: str) -> str:
        """Return a name that nobody can have known before."""
        return f"{prefix}{os.urandom(SCRATCH_BYTES).hex()}{suffix}"

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[tuple[str, int | None]]:
        """Yield what the system is told of an entry; an error tells its whole path."""
        if not name or name in (os.curdir, os.pardir) or "/" in name or os.sep in name:
            raise OSError(errno.EINVAL, "no name of an entry of a folder", str(self.path / name))
        try:
            if self._descriptor is None:
                yield str(self.path / name), None
            else:
                yield name, self._descriptor
        except OSError as error:
            if error.filename is None or error.filename == name:
                error.filename = str(self.path / name)
            raise


def open_folder(path: Path, *, below: Path | None = None, make: bool = True) -> Folder:
    """Open a folder, and hold it.

    Args:
        below: where no link is followed any more: a folder above `path`, or `path` itself (None).
            It is one that the user has named, or one of the Hub's own: both may be links that the
            user, the owner of the folder around or the system has put there, but nobody else.
        make: whether what is missing is made.

    Raises:
        OSError: it cannot be opened, or a link stands in its place.
    """
    start = path if below is None else below
    try:
        parts = path.relative_to(start).parts
    except ValueError:
        parts = (os.pardir,)
    if os.pardir in parts:
        raise OSError(errno.EINVAL, f"it is not below {start}", str(path))
    _check_links(start)  # before anything is made behind one
    if make:
        start.mkdir(parents=True, exist_ok=True)
        _check_links(start)
    folder = Folder(start, _open_directory(str(start), None, follow=True))
    for name in parts:
        with folder:
            folder = folder.inner(name, make=make)
    return folder


def _open_directory(place: str, at: int | None, *, follow: bool) -> int | None:
    if not _HELD:
        return None
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return os.open(place, flags, dir_fd=at)


def _check_links(folder: Path) -> None:
    """See that neither a folder that is there nor the one above it is a link that somebody else has
    put there. Raises OSError."""
    if not hasattr(os, "geteuid"):
        return
    for place in (folder.parent, folder):
        try:
            about = place.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(about.st_mode):
            continue
        # What the kernel itself asks of links in folders that anybody may write to.
        if about.st_uid not in (0, os.geteuid(), place.parent.stat().st_uid):
            raise OSError(errno.ELOOP, "another user has put a link there", str(place))


@contextlib.contextmanager
def replacing(
    target: Folder,
    name: str,
    *,
    beside: Folder | None = None,
    prefix: str = ".nbloader-",
    suffix: str = "",
) -> Iterator[str]:
    """Yield a name to make something under, which then takes the place of `name` in one step.

    Whoever reads `name` sees what was there before or all of the new, whenever this is killed.
    After an error it is as it was, and nothing is left of the new.

    Args:
        beside: the folder of the name that is yielded, on the same file system; `target` by
            default.
        prefix, suffix: of that name.

    Raises:
        OSError: it cannot be written.
    """
    folder = beside or target
    scratch = folder.scratch_name(prefix, suffix)
    try:
        yield scratch
        folder.replace(scratch, target, name)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.unlink(scratch)
        raise


def write_whole(
    target: Folder,
    name: str,
    content: bytes | bytearray | memoryview,
    *,
    beside: Folder | None = None,
    prefix: str = ".nbloader-",
    suffix: str = "",
) -> None:
    """Write a file in one step; the arguments are those of `replacing`. Raises OSError."""
    folder = beside or target
    with (
        replacing(target, name, beside=beside, prefix=prefix, suffix=suffix) as scratch,
        os.fdopen(folder.create(scratch), "wb", buffering=0) as file,
    ):
        write_all(file, content)


def write_all(file: RawIOBase, content: bytes | bytearray | memoryview) -> None:
    """Write all of it; a file without a buffer may take less at a time. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def copy_bytes(source: Path, folder: Folder, name: str) -> None:
    """Copy a regular file to a name in a folder that is not there yet. Raises OSError."""
    with (
        os.fdopen(open_regular(source), "rb", buffering=0) as content,
        os.fdopen(folder.create(name), "wb", buffering=0) as copy,
    ):
        buffer = memoryview(bytearray(COPY_BYTES))
        while count := content.readinto(buffer):
            write_all(copy, buffer[:count])
