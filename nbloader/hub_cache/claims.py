"""Who may write to the partial of a file: what lies there is taken over by one process, or left."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TypedDict

from nbloader.hub_cache.filesystem import is_same, take_flock
from nbloader.hub_cache.folders import Folder
from nbloader.hub_cache.journal import apart, most_bytes, records_of
from nbloader.hub_cache.ranges import Span
from nbloader.records import RepoFile

OPEN_TRIES = 5
"""How often a partial is opened anew that another process takes or removes at that moment."""


class HeldError(Exception):
    """Another process is writing the partial, though its lock was not seen.

    Attributes:
        path: of the partial.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


def part_paths(blobs: Path, etag: str) -> tuple[Path, Path]:
    """Return the places of the data and of the journal of a partial."""
    return (
        blobs / f"{etag}.nbloader.incomplete",
        blobs / f"{etag}.nbloader-journal.incomplete",
    )


class Affixes(TypedDict):
    """What the name of a scratch file begins and ends with."""

    prefix: str
    suffix: str


def affixes(etag: str) -> Affixes:
    """Return those of what is about to be renamed to a file of the cache.

    It is swept with the partial if a kill leaves it.
    """
    return {"prefix": f"{etag}.nbloader.", "suffix": ".incomplete"}


def taken(
    folder: Folder, file: RepoFile, data: str, journal: str, *, flock: bool
) -> tuple[int, str, list[Span]]:
    """Open the data of a partial, for this process alone.

    Args:
        flock: whether the file system locks files; to ask one that does not can take long.

    Returns:
        Its descriptor, its name, and the ranges that are in it.

    Raises:
        HeldError: another process is writing it.
        OSError: none can be made.
    """
    for _ in range(OPEN_TRIES):
        try:
            if not _is_there(folder, data):
                made = folder.create(data)
                if not flock or _take(made):
                    return made, data, []
                os.close(made)  # Another process was quicker.
                continue
            found = _opened(folder, data, flock=flock)
            try:
                spans = _believed(folder, file, found, journal)
                # While it was being locked, another process may have renamed or removed it.
                if is_same(folder, data, found):
                    if spans:
                        return os.dup(found), data, spans
                    folder.unlink(data)
            finally:
                os.close(found)
        except (FileExistsError, FileNotFoundError):
            continue
        except (IsADirectoryError, PermissionError):
            break  # It is another user's, or a folder, and stays.
    name = scratch_name(folder, file.etag)
    return folder.create(name), name, []


def scratch_name(folder: Folder, etag: str) -> str:
    return folder.scratch_name(**affixes(etag))


def _is_there(folder: Folder, name: str) -> bool:
    """Say whether there is a plain file that may be ours; what is not one is removed.

    Raises:
        PermissionError: it is a file of another user.
        OSError: it cannot be removed.
    """
    try:
        about = folder.stat(name)
    except FileNotFoundError:
        return False
    if not _is_plain(about):  # To open a device can be an act already.
        folder.unlink(name)
        return False
    if not _is_own(folder, about):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder.path / name))
    return True


def _opened(folder: Folder, name: str, *, flock: bool) -> int:
    """Open and lock the data that an earlier process has left.

    Raises:
        HeldError: another process is writing them.
        OSError: they cannot be opened.
    """
    descriptor = folder.open(name, os.O_RDWR)
    if flock and not _take(descriptor):
        os.close(descriptor)
        raise HeldError(folder.path / name)
    return descriptor


def _is_plain(about: os.stat_result) -> bool:
    return stat.S_ISREG(about.st_mode) and about.st_nlink <= 1


def _is_own(folder: Folder, about: os.stat_result) -> bool:
    """Say whether a file belongs to this user, whoever that is to a server of files."""
    if not hasattr(os, "geteuid") or about.st_uid == os.geteuid():
        return True
    name = folder.scratch_name(".nbloader-", "")
    made = folder.create(name)
    try:
        return os.fstat(made).st_uid == about.st_uid
    finally:
        os.close(made)
        folder.unlink(name)


def _take(descriptor: int) -> bool:
    """Lock the data; where the file system has no locks, they are taken for granted."""
    try:
        return take_flock(descriptor)
    except OSError:
        return True


def _believed(folder: Folder, file: RepoFile, data: int, journal: str) -> list[Span]:
    """Return the ranges that are in the data file according to a journal that belongs to it."""
    there = os.fstat(data)
    if not _is_plain(there) or there.st_size > file.size:
        return []
    try:
        read = records_of(folder.read(journal, most_bytes(file.size)))
    except OSError:
        return []
    if read is None:
        return []
    header, spans = read
    if (header.etag, header.size) != (file.etag, file.size):
        return []
    return apart(span for span in spans if span[1] <= there.st_size)
