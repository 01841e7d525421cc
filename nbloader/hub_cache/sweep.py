"""What downloads left in a cache folder that nobody will go on from, and its removal."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from nbloader.hub_cache.claims import part_paths
from nbloader.hub_cache.filesystem import is_held
from nbloader.hub_cache.journal import read_header
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.partial import OURS
from nbloader.records import Listing

ORPHAN_AGE_S = 86_400.0
"""Partial files of other libraries that were not written for a day belong to no download."""

_ANY = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\.(?:.+\.)?incomplete")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPartial:
    """The partial of a file that lies in a folder, whoever left it there.

    Attributes:
        etag: what its name says.
        ours: whether nbloader made it.
        files: all that belongs to it.
        path: of the file inside the repository, as its journal says; None if that cannot be read
            or is of another file, or if the data are missing: nothing can go on from it.
        revision, commit_hash: of the load that wrote to it last; None if `path` is.
        bytes_on_disk: what it takes there, holes not counted.
        mtime: when it was written last, seconds since the epoch.
    """

    etag: str
    ours: bool
    files: tuple[Path, ...]
    path: str | None
    revision: str | None
    commit_hash: str | None
    bytes_on_disk: int
    mtime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was removed.

    Attributes:
        count: partials.
        bytes_freed: what they took on the disk.
    """

    count: int
    bytes_freed: int


def found_partials(blobs: Path) -> list[FoundPartial]:
    """Find the partials in a folder, ordered by their names. No folder holds none.

    Raises:
        OSError: the folder cannot be read.
    """
    files: defaultdict[tuple[str, bool], list[Path]] = defaultdict(list)
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(blobs.iterdir()):
            if found := _ANY.fullmatch(path.name):
                files[found[1], OURS.fullmatch(path.name) is not None].append(path)
    partials = []
    for (etag, ours), paths in files.items():
        with contextlib.suppress(FileNotFoundError):  # Its process has ended it meanwhile.
            partials.append(_found(blobs, etag, ours, paths))
    return partials


def _found(blobs: Path, etag: str, ours: bool, paths: list[Path]) -> FoundPartial:
    data, journal = part_paths(blobs, etag)
    header = read_header(journal) if data in paths and journal in paths else None
    if header is not None and header.etag != etag:
        header = None
    stats = [path.lstat() for path in paths]
    return FoundPartial(
        etag=etag,
        ours=ours,
        files=tuple(paths),
        path=header.path if header else None,
        revision=header.revision if header else None,
        commit_hash=header.commit_hash if header else None,
        bytes_on_disk=sum(each.st_blocks * 512 for each in stats),
        mtime=max(each.st_mtime for each in stats),
    )


def sweep(cache: RepoCache, listing: Listing, now: float) -> Swept:
    """Remove the partials that nobody will go on from.

    Those of nbloader: when the revision that they were fetched for no longer has that file, when
    their journal or their data are missing or wrong, or when the file is in the cache already.
    Those of other libraries: when they are older than `ORPHAN_AGE_S`. Nothing is touched while a
    process holds the lock of the file. What cannot be removed stays, and is not counted.

    Args:
        listing: of the revision that is loaded, as the Hub gives it.
        now: seconds since the epoch.
    """
    removed: list[FoundPartial] = []
    with contextlib.suppress(OSError):
        for found in found_partials(cache.blobs):
            if _is_over(found, cache, listing, now):
                with contextlib.suppress(OSError):
                    removed += _remove(found.etag, cache, listing, now)
    return Swept(count=len(removed), bytes_freed=sum(found.bytes_on_disk for found in removed))


def _remove(etag: str, cache: RepoCache, listing: Listing, now: float) -> list[FoundPartial]:
    """Remove the partials of a file under its lock, and give those that were removed."""
    lock = cache.try_lock_etag(etag)
    if lock is None:
        return []
    with lock:
        # Before the lock was taken, another process may have gone on from one.
        over = [
            found
            for found in found_partials(cache.blobs)
            if found.etag == etag and _is_over(found, cache, listing, now)
        ]
        return [found for found in over if remove_files(cache, found)]


def remove_files(cache: RepoCache, found: FoundPartial) -> bool:
    """Remove a partial; False if a process writes it whose lock is not there any more.

    Raises:
        OSError: it cannot be removed.
    """
    data = part_paths(cache.blobs, found.etag)[0]
    if data in found.files and data.is_file() and not data.is_symlink() and is_held(data):
        return False
    with cache.open_blobs(make=False) as blobs:
        for path in found.files:
            blobs.unlink(path.name)
    return True


def _is_over(found: FoundPartial, cache: RepoCache, listing: Listing, now: float) -> bool:
    """Say whether nobody will go on from a partial."""
    if not found.ours:
        return now - found.mtime > ORPHAN_AGE_S
    listed = [file for file in listing.files if file.etag == found.etag]
    if listed:
        return found.path is None or any(
            cache.has_bytes(listing.commit_hash, file) for file in listed
        )
    return (
        found.path is None
        or found.revision == listing.revision
        or (cache.blobs / found.etag).is_file()
    )
