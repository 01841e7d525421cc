"""Files that are in the cache only until they are loaded.

What a load brings that is to keep no files is noted, so that after a kill the next one knows which
files are nobody's, and may go. The notes lie outside the cache, whose layout belongs to all
libraries. A note is about one file: the same content, brought again by others, is theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nbloader.hub_cache.filesystem import replacing
from nbloader.hub_cache.layout import RepoCache
from nbloader.records import RepoFile

_MAX_NOTE_BYTES = 200


@dataclass(frozen=True, slots=True)
class PassingFiles:
    """Those of one repository in one cache.

    Attributes:
        cache: where the files are.
        folder: of the notes, below the Hub's own folder.
    """

    cache: RepoCache
    folder: Path

    @classmethod
    def of(cls, cache: RepoCache, home: Path) -> PassingFiles:
        """Return those of a repository; `home` is the Hub's own folder (`HF_HOME`)."""
        return cls(cache, home / "nbloader" / "passing" / cache.folder.name)

    @classmethod
    def beside(cls, snapshot: str, home: Path) -> PassingFiles:
        """Return those of the repository that a snapshot folder is of."""
        return cls.of(RepoCache(Path(snapshot).parents[1]), home)

    def note(self, commit_hash: str, file: RepoFile) -> None:
        """Note that a file, which was just brought, may go once it is loaded.

        The caller holds the lock of the file. Where the note cannot be written, the file stays.
        """
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self._place(file)
            with replacing(place, place.with_suffix(f".{os.getpid()}")) as scratch:
                scratch.write_text(self._described(commit_hash, file), "ascii")

    def has(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file is there, and noted."""
        try:
            with self._place(file).open("rb") as note:
                said = note.read(_MAX_NOTE_BYTES)
            return said == self._described(commit_hash, file).encode("ascii")
        except OSError:
            return False

    def keep(self, file: RepoFile) -> None:
        """Let a file stay: somebody wants it."""
        with contextlib.suppress(OSError):
            self._place(file).unlink(missing_ok=True)

    def remove(self, commit_hash: str, file: RepoFile) -> bool:
        """Remove a file that is noted; return whether it is gone.

        One stays that another process is at work on, or that another commit has, too.
        """
        with contextlib.suppress(OSError):
            lock = self.cache.try_lock(file)
            if lock is None:
                return False
            with lock:
                if not self.has(commit_hash, file):
                    return False
                pointer, blob = (
                    self.cache.pointer(commit_hash, file.path_in_repo),
                    self.cache.blob(file),
                )
                if blob.exists() and self._is_named_elsewhere(pointer, blob):
                    return False
                pointer.unlink(missing_ok=True)
                blob.unlink(missing_ok=True)
                self.keep(file)
                return True
        return False

    def _is_named_elsewhere(self, pointer: Path, blob: Path) -> bool:
        """Say whether another name in any commit stands for a blob."""
        for folder, _, names in os.walk(self.cache.folder / "snapshots"):
            for name in names:
                other = Path(folder, name)
                if other != pointer and other.is_symlink() and other.readlink().name == blob.name:
                    return True
        return False

    def _place(self, file: RepoFile) -> Path:
        named = f"{os.path.realpath(self.cache.blobs)}\0{file.etag or file.path}"
        return self.folder / hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()

    def _described(self, commit_hash: str, file: RepoFile) -> str:
        """Describe the file itself. Raises OSError if it is not there."""
        content = self.cache.content(commit_hash, file)
        if content is None:
            raise FileNotFoundError(file.path)
        found = content.stat()
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
