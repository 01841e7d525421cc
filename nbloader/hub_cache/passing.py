"""Files that are in the cache only until they are loaded.

What a load brings that is to keep no files is noted, so that after a kill the next one knows which
files are nobody's, and may go. The notes lie outside the cache, whose layout belongs to all
libraries. A note is about one file: the same content, brought again by others, is theirs. It names
the process that loads: what that one has brought stays if another wants it before it is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nbloader.hub_cache.folders import open_folder, write_whole
from nbloader.hub_cache.layout import RepoCache
from nbloader.records import RepoFile
from nbloader.small_files import read_small

_MAX_NOTE_BYTES = 200


@dataclass(frozen=True, slots=True)
class PassingFiles:
    """Those of one repository in one cache.

    Attributes:
        cache: where the files are.
        folder: of the notes, below the Hub's own folder.
        owner: the number of the process that loads, of which a worker is a child.
    """

    cache: RepoCache
    folder: Path
    owner: int

    @classmethod
    def of(cls, cache: RepoCache, home: Path, owner: int) -> PassingFiles:
        """Return those of a repository; `home` is the Hub's own folder (`HF_HOME`)."""
        return cls(cache, home / "nbloader" / "passing" / cache.folder.name, owner)

    @classmethod
    def beside(cls, snapshot: str, home: Path, owner: int) -> PassingFiles:
        """Return those of the repository that a snapshot folder is of."""
        return cls.of(RepoCache(Path(snapshot).parents[1]), home, owner)

    def note(self, file: RepoFile, content: Path) -> None:
        """Note that a file, which is about to get its place, may go once it is loaded.

        The caller holds the lock of the file, and moves it there next: whoever finds it there finds
        the note, too. Where the note cannot be written, the file stays.

        Args:
            content: the file, where it is now.
        """
        with contextlib.suppress(OSError):
            text = f"{self.owner} {_described(content)}"
            with open_folder(self.folder, below=self.folder.parents[2]) as folder:
                write_whole(folder, self._place(file).name, text.encode("ascii"))

    def has(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file is there, and noted by this load."""
        return self._noted_by(commit_hash, file) == self.owner

    def may_go(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file is there that this load, or one that was killed, has noted."""
        by = self._noted_by(commit_hash, file)
        return by is not None and (by == self.owner or not _lives(by))

    def _noted_by(self, commit_hash: str, file: RepoFile) -> int | None:
        """Return whose note is about the file that is there; None if there is none."""
        try:
            note = read_small(self._place(file), _MAX_NOTE_BYTES, follow=False)
            owner, _, said = note.decode("ascii").partition(" ")
            content = self.cache.content(commit_hash, file)
            return int(owner) if content is not None and said == _described(content) else None
        except (OSError, ValueError):
            return None

    def keep(self, file: RepoFile) -> None:
        """Let a file stay: somebody wants it."""
        with (
            contextlib.suppress(OSError),
            open_folder(self.folder, below=self.folder.parents[2], make=False) as folder,
        ):
            folder.unlink(self._place(file).name)

    def kept(self, commit_hash: str, file: RepoFile) -> bool:
        """Let a file that is there stay; False if another process may be removing it just now."""
        if self._noted_by(commit_hash, file) is None:
            return True
        with contextlib.suppress(OSError):
            lock = self.cache.try_lock(file)
            if lock is None:
                return False
            with lock:
                self.keep(file)
                return self.cache.has_pointer(commit_hash, file)
        return True

    def claimed(self, commit_hash: str, file: RepoFile) -> bool:
        """Take over a file that is there from a load that was killed; from others, let it stay.

        Returns:
            False if another process may be removing it just now.
        """
        if not self.may_go(commit_hash, file):
            return self.kept(commit_hash, file)
        content = self.cache.content(commit_hash, file)
        if content is None:
            return False
        self.note(file, content)
        return True

    def remove(self, commit_hash: str, file: RepoFile) -> bool:
        """Remove a file that is noted; return whether it is gone.

        One stays that another process is at work on, or that another commit has, too. It is noted
        no longer, so that nobody waits for its room.
        """
        removed = self._removed(commit_hash, file)
        self.keep(file)
        return removed

    def _removed(self, commit_hash: str, file: RepoFile) -> bool:
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
                self.cache.remove_name(commit_hash, file)
                with (
                    contextlib.suppress(FileNotFoundError),
                    self.cache.open_blobs(make=False) as blobs,
                ):
                    blobs.unlink(blob.name)
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


def _lives(process: int) -> bool:
    """Say whether there is a process of that number, as far as that can be asked."""
    if os.name == "nt":  # There the question would end it.
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _described(content: Path) -> str:
    """Describe the file itself, wherever it is moved. Raises OSError if it is not there."""
    found = content.stat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
