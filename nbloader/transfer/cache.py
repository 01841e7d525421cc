"""The Hub's own cache folder: what is in it, and whether it is right.

The layout is shared with every other library, so nothing is added to it:
`models--org--name/{blobs/<etag>, snapshots/<commit>/<path>, refs/<revision>}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from nbloader.records import Listing, RepoFile

__all__ = ["ListingStore", "RepoCache", "matches"]

_LISTING = TypeAdapter(Listing)

_ORPHAN = re.compile(r"[0-9a-f]+\.[0-9a-f]{8}\.incomplete")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def matches(path: Path, file: RepoFile) -> bool:
    """Hash a file and tell whether it is the one that the Hub lists.

    Large files are named by the sha256 of their content, small ones by git's sha1 of the blob
    (its header, then the content).
    """
    try:
        with path.open("rb") as content:
            if os.fstat(content.fileno()).st_size != file.size:
                return False
            if file.lfs:
                return hashlib.file_digest(content, "sha256").hexdigest() == file.etag
            start = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
            return hashlib.file_digest(content, lambda: start).hexdigest() == file.etag
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class RepoCache:
    """The folder of one repository in the cache.

    Attributes:
        folder: `<cache>/models--org--name`.
    """

    folder: Path

    def snapshot(self, commit_hash: str) -> Path:
        """Give the folder that holds the files of a commit under their names."""
        return self.folder / "snapshots" / commit_hash

    def pointer(self, commit_hash: str, path: str) -> Path:
        """Give the place of a file of a commit; it may not exist yet."""
        return self.snapshot(commit_hash).joinpath(*path.split("/"))

    def blob(self, file: RepoFile) -> Path:
        """Give the place of a file's content; it may not exist yet."""
        return self.folder / "blobs" / file.etag

    def has_pointer(self, commit_hash: str, file: RepoFile) -> bool:
        """Tell whether a file of a commit is there with its full size."""
        return _size(self.pointer(commit_hash, file.path)) == file.size

    def has_bytes(self, commit_hash: str, file: RepoFile) -> bool:
        """Tell whether the content of a file is there, perhaps fetched for another commit."""
        return self.has_pointer(commit_hash, file) or (_size(self.blob(file)) == file.size)

    def partial_sizes(self) -> dict[str, int]:
        """Give the sizes of the files that any process is downloading now, by their names."""
        with contextlib.suppress(OSError):
            return {
                path.name: size
                for path in (self.folder / "blobs").glob("*.incomplete")
                if (size := _size(path)) is not None
            }
        return {}

    def remove_orphans(self, file: RepoFile) -> None:
        """Remove the partial files that killed downloads of `file` left behind.

        The Hub's library never goes on from those with a random part in their name, so they only
        fill the disk. Its lock tells whether another process is at work on one.
        """
        orphans = [
            path
            for path in (self.folder / "blobs").glob(f"{file.etag}.*.incomplete")
            if _ORPHAN.fullmatch(path.name)
        ]
        if not orphans:
            return
        lock = self.folder.parent / ".locks" / self.folder.name / f"{file.etag}.lock"
        with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=0):
            for path in orphans:
                path.unlink(missing_ok=True)

    def discard(self, commit_hash: str, file: RepoFile) -> None:
        """Remove a file with the wrong content, name and blob."""
        pointer = self.pointer(commit_hash, file.path)
        for path in (pointer.resolve(), pointer, self.blob(file)):
            if path.is_relative_to(self.folder.resolve()) or path.is_relative_to(self.folder):
                path.unlink(missing_ok=True)

    def write_ref(self, revision: str, commit_hash: str) -> None:
        """Note which commit a branch or tag stands for, once its files are there.

        Raises:
            OSError: the cache cannot be written.
        """
        ref = self.folder / "refs" / revision
        if revision == commit_hash or _text(ref) == commit_hash:
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        # Not in refs/: whatever lies there is taken for a reference.
        partial = self.folder / f".ref-{os.getpid()}"
        partial.write_text(commit_hash, "ascii")
        partial.replace(ref)

    def commit_of(self, revision: str) -> str | None:
        """Give the commit that a revision stood for when it was fetched last."""
        commit = revision if _COMMIT.fullmatch(revision) else _text(self.folder / "refs" / revision)
        return commit if commit and _COMMIT.fullmatch(commit) else None

    def listing(self, repo_id: str, revision: str) -> Listing | None:
        """List what the cache holds of a revision; None if it was never fetched.

        The list is as complete as the cache is, which nothing here can tell.
        """
        commit_hash = self.commit_of(revision)
        if commit_hash is None or not self.snapshot(commit_hash).is_dir():
            return None
        snapshot = self.snapshot(commit_hash)
        files = []
        for path in sorted(snapshot.rglob("*")):
            size = _size(path)
            if size is not None:
                target = path.resolve()
                # A cache without links (as on Windows) does not say what a hash should be.
                etag = target.name if target.parent.name == "blobs" else ""
                files.append(
                    RepoFile(
                        path=path.relative_to(snapshot).as_posix(),
                        size=size,
                        etag=etag,
                        lfs=len(etag) == 64,
                    )
                )
        return Listing(
            repo_id=repo_id, revision=revision, commit_hash=commit_hash, files=tuple(files)
        )


@dataclass(frozen=True, slots=True)
class ListingStore:
    """What the Hub said about commits, so that a part of a snapshot is not taken for the whole.

    It lies outside the cache, whose layout belongs to all libraries. A commit never changes, so
    what is kept stays true.

    Attributes:
        folder: below the Hub's own folder, for one repository.
    """

    folder: Path

    def keep(self, listing: Listing) -> None:
        """Keep a listing. A folder that cannot be written only costs the knowledge."""
        partial = self.folder / f".{listing.commit_hash}-{os.getpid()}"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(_LISTING.dump_json(listing))
            partial.replace(self._place(listing.commit_hash))

    def get(self, revision: str, commit_hash: str) -> Listing | None:
        """Give the listing of a commit under the name that is asked for now; None if unknown."""
        try:
            listing = _LISTING.validate_json(self._place(commit_hash).read_bytes())
        except (OSError, ValueError):
            return None
        if listing.commit_hash != commit_hash:
            return None
        return replace(listing, revision=revision)

    def _place(self, commit_hash: str) -> Path:
        return self.folder / f"{commit_hash}.json"


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _size(path: Path) -> int | None:
    """Give the size of a file, through its links; None if there is no file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
