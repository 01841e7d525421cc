"""The Hub's own cache folder: what is in it, and whether it is right.

The layout is shared with every other library, so nothing is added to it:
`models--org--name/{blobs/<etag>, snapshots/<commit>/<path>, refs/<revision>}`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nbloader.records import Listing, RepoFile

__all__ = ["RepoCache", "matches"]

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

    def discard(self, commit_hash: str, file: RepoFile) -> None:
        """Remove a file with the wrong content, name and blob."""
        pointer = self.pointer(commit_hash, file.path)
        for path in (pointer.resolve(), pointer, self.blob(file)):
            if path.is_relative_to(self.folder.resolve()) or path.is_relative_to(self.folder):
                path.unlink(missing_ok=True)

    def write_ref(self, revision: str, commit_hash: str) -> None:
        """Note which commit a branch or tag stands for, once its files are there."""
        if revision == commit_hash:
            return
        ref = self.folder / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=ref.parent, prefix=".", delete=False, encoding="ascii"
        ) as partial:
            partial.write(commit_hash)
        Path(partial.name).replace(ref)

    def listing(self, repo_id: str, revision: str) -> Listing | None:
        """List what the cache holds of a revision; None if it was never fetched."""
        commit_hash = revision
        if not _COMMIT.fullmatch(revision):
            try:
                commit_hash = (self.folder / "refs" / revision).read_text("ascii").strip()
            except (OSError, UnicodeDecodeError):
                return None
        snapshot = self.snapshot(commit_hash)
        if not _COMMIT.fullmatch(commit_hash) or not snapshot.is_dir():
            return None
        files = []
        for path in sorted(snapshot.rglob("*")):
            size = _size(path)
            if size is not None:
                etag = path.resolve().name
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


def _size(path: Path) -> int | None:
    """Give the size of a file, through its links; None if there is no file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
