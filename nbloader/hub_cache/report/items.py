"""What is in a cache folder, and what of it can go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CachedOrphan",
    "CachedPartial",
    "CachedRepo",
    "CachedRevision",
    "Item",
    "ItemKind",
    "Kept",
    "Store",
]


class ItemKind(StrEnum):
    """A kind of thing that can go."""

    REVISION = "revision"
    ORPHAN = "orphaned blob"
    PARTIAL = "partial download"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRevision:
    """A commit of which files are in the cache.

    Attributes:
        refs: the branches and tags that stand for it.
        files: how many.
        bytes: of its files, those included that other revisions share.
        written: when it got its last file, seconds since the epoch.
        frees: bytes that no revision needs that stays.
        stays: why it is not deleted; empty if it can go.
    """

    commit_hash: str
    refs: tuple[str, ...]
    files: int
    bytes: int
    written: float
    frees: int
    stays: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPartial:
    """The part of a file that a download left, or is writing.

    Attributes:
        etag: of the file.
        ours: whether nbloader made it; then a load goes on from it. Other libraries begin anew.
        path: of the file inside the repository; None if that is not known.
        bytes: on the disk, holes not counted.
        written: when it was written last, seconds since the epoch.
        stays: why it is not deleted; empty if it can go.
    """

    etag: str
    ours: bool
    path: str | None
    bytes: int
    written: float
    stays: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedOrphan:
    """A blob that no revision names.

    Attributes:
        stays: why it is not deleted; empty if it can go.
    """

    etag: str
    bytes: int
    written: float
    stays: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRepo:
    """A repository in the cache.

    Attributes:
        folder: its name in the cache folder, such as `models--org--name`.
        repo_type: `model`, `dataset`, `space` or `kernel`.
        bytes: of all its blobs and partials.
        used: when a blob was read last, as far as the file system notes that, seconds since the
            epoch; None without blobs.
        problems: what is not as the layout of the cache has it. Then revisions and orphans stay.
    """

    folder: str
    repo_id: str
    repo_type: str
    bytes: int
    used: float | None
    revisions: tuple[CachedRevision, ...] = ()
    partials: tuple[CachedPartial, ...] = ()
    orphans: tuple[CachedOrphan, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of bytes that repositories share.

    Attributes:
        about: what it is, a few words.
    """

    folder: str
    about: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A thing that can go.

    Attributes:
        folder: of its repository, as `CachedRepo.folder`.
        name: the commit, or the etag.
        ours: of a partial, whether nbloader made it.
        bytes: what it frees.
    """

    kind: ItemKind
    folder: str
    repo_id: str
    name: str
    bytes: int
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A thing that was to go, and stayed.

    Attributes:
        why: one line.
    """

    item: Item
    why: str
