"""What of a cache can go, and why the rest stays. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from nbloader.hub_cache.scan import FoundBlob, FoundRepo, FoundRevision
from nbloader.hub_cache.sweep import FoundPartial

FRESH_S = 86_400.0
"""What was written within a day may belong to a load that is stopped and will go on: until the
last file is there, no reference names its commit."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


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


def judge(found: FoundRepo, now: float) -> CachedRepo:
    """Say what of a repository can go.

    A revision can go if no branch or tag names it, a blob if no revision does, a partial if it is
    old. Nothing goes that a process is at work on, or that was written within `FRESH_S`; revisions
    and orphans stay where the folder is not as the Hub's library makes it.

    Args:
        now: seconds since the epoch.
    """
    partials = tuple(_partial(each, found, now) for each in found.partials)
    waiting = {
        each.commit_hash
        for each, judged in zip(found.partials, partials, strict=True)
        if judged.stays and each.commit_hash
    }
    reasons = {
        each.commit_hash: _why_it_stays(each, found, waiting, now) for each in found.revisions
    }
    if all(not why for why in reasons.values()) and any(each.stays for each in partials):
        # With its last revision the Hub's library removes the folder, and what lies in it.
        reasons = dict.fromkeys(reasons, "a download that can go on lies in its folder")
    return CachedRepo(
        folder=found.folder.name,
        repo_id=found.repo_id,
        repo_type=found.repo_type,
        bytes=sum(blob.bytes for blob in found.blobs.values())
        + sum(each.own_bytes for each in found.revisions)
        + sum(each.bytes for each in partials),
        used=max((blob.read for blob in found.blobs.values()), default=None),
        revisions=_revisions(found, reasons),
        partials=partials,
        orphans=_orphans(found),
        problems=found.problems,
    )


def _partial(partial: FoundPartial, found: FoundRepo, now: float) -> CachedPartial:
    stays = ""
    if partial.etag in found.held:
        stays = "a process is downloading it"
    elif now - partial.mtime <= FRESH_S:
        stays = "written within the last day"
    return CachedPartial(
        etag=partial.etag,
        ours=partial.ours,
        path=partial.path,
        bytes=partial.bytes_on_disk,
        written=partial.mtime,
        stays=stays,
    )


def _why_it_stays(
    revision: FoundRevision, found: FoundRepo, waiting: Iterable[str], now: float
) -> str:
    """Return the reason, or nothing for a revision that can go."""
    if refs := found.refs.get(revision.commit_hash):
        return f"named by {', '.join(refs)}"
    if found.problems:
        return f"its folder is not in order: {found.problems[0]}"
    if not _COMMIT.fullmatch(revision.commit_hash):
        return "it is not a commit"
    if now - revision.written <= FRESH_S:
        return "written within the last day"
    if revision.commit_hash in waiting:
        return "a download for it can go on"
    if found.held:
        return "a process is downloading into its folder"
    if revision.in_use or any(found.blobs[etag].in_use for etag in revision.blobs):
        return "a process has its files open"
    return ""


def _revisions(found: FoundRepo, reasons: dict[str, str]) -> tuple[CachedRevision, ...]:
    needed: set[str] = set()
    for revision in found.revisions:
        if reasons[revision.commit_hash]:
            needed |= revision.blobs
    judged = []
    for revision in found.revisions:
        stays = reasons[revision.commit_hash]
        frees = 0
        if not stays:
            # What two that go share is counted with the first.
            frees = _bytes(found, revision.blobs - needed, free=True) + revision.own_bytes
            needed |= revision.blobs
        judged.append(
            CachedRevision(
                commit_hash=revision.commit_hash,
                refs=found.refs.get(revision.commit_hash, ()),
                files=revision.files,
                bytes=_bytes(found, revision.blobs) + revision.own_bytes,
                written=revision.written,
                frees=frees,
                stays=stays,
            )
        )
    return tuple(judged)


def _bytes(found: FoundRepo, etags: Iterable[str], *, free: bool = False) -> int:
    """Sum the sizes of blobs.

    Args:
        free: leave out what another repository needs as well.
    """
    blobs = (found.blobs[etag] for etag in etags)
    return sum(blob.bytes for blob in blobs if not (free and blob.shared))


def _orphans(found: FoundRepo) -> tuple[CachedOrphan, ...]:
    if not found.linked:
        return ()
    named = frozenset[str]().union(*(revision.blobs for revision in found.revisions))
    return tuple(
        CachedOrphan(
            etag=etag,
            # The store keeps what a link into it stood for, and so does another link.
            bytes=0 if blob.link or blob.shared else blob.bytes,
            written=blob.written,
            stays=_why_orphan_stays(etag, blob, found),
        )
        for etag, blob in found.blobs.items()
        if etag not in named
    )


def _why_orphan_stays(etag: str, blob: FoundBlob, found: FoundRepo) -> str:
    if found.problems:
        return f"its folder is not in order: {found.problems[0]}"
    if etag in found.held:
        return "a process is downloading it"
    return "a process has it open" if blob.in_use else ""


def items_of(repo: CachedRepo) -> tuple[Item, ...]:
    """Return what of a repository can go."""

    def item(kind: ItemKind, name: str, size: int, *, ours: bool = False) -> Item:
        return Item(
            kind=kind, folder=repo.folder, repo_id=repo.repo_id, name=name, bytes=size, ours=ours
        )

    return (
        *(
            item(ItemKind.REVISION, each.commit_hash, each.frees)
            for each in repo.revisions
            if not each.stays
        ),
        *(item(ItemKind.ORPHAN, each.etag, each.bytes) for each in repo.orphans if not each.stays),
        *(
            item(ItemKind.PARTIAL, each.etag, each.bytes, ours=each.ours)
            for each in repo.partials
            if not each.stays
        ),
    )
