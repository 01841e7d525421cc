"""A folder of the user's own that holds files of a repository under their names (`local_dir`).

The layout is that of the Hub's library: real files, and beside them, for each, in
`.cache/huggingface/download/<path>.metadata`, the commit and the etag that it was fetched with, and
when. A file that was written after that is not the one that was fetched, as far as anybody knows.

What nbloader has not brought to its end lies in `.cache/huggingface/nbloader/<repository>`, with
its journal, as it does in the cache. A file comes from there to its name in one step, so nothing
takes the disk twice. Until then the older file of that name stays.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from nbloader.hub_cache.claims import affixes
from nbloader.hub_cache.filesystem import FileLock, is_held, try_lock
from nbloader.hub_cache.folders import Folder, copy_bytes, open_folder, write_whole
from nbloader.hub_cache.hashing import matches
from nbloader.hub_cache.layout import COMMIT, ETAG, RepoCache
from nbloader.hub_cache.partial import Partial, open_partial
from nbloader.records import Listing, RepoFile
from nbloader.small_files import read_small

CLOCK_TOLERANCE = 1.0
"""Seconds by which a file may seem to be newer than its metadata: the Hub's library allows as much
for file systems that count in whole seconds."""

MAX_NOTE_BYTES = 1 << 10
"""Two hashes and a time."""

_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file marks a folder that backups may leave out: https://bford.info/cachedir/\n"
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is noted of a file.

    Attributes:
        time: when it was noted, seconds since the epoch.
    """

    commit_hash: str
    etag: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder(RepoCache):
    """The files of a repository in a folder of the user's own.

    It stands where the folder of a cache does: `blobs` holds the partial files, a snapshot is the
    folder itself, whatever the commit.

    Attributes:
        root: the folder.
    """

    argument: ClassVar[str] = "local_dir"

    root: Path
    # Files that are there, by their etags: what is wanted under two names is fetched once.
    _there: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, root: Path, name: str, *, donors: tuple[Path, ...] = ()) -> LocalFolder:
        """Return the files of a repository in a folder.

        Args:
            name: of the repository, as its folder in the cache is called.
            donors: see `RepoCache`.
        """
        own = root / ".cache" / "huggingface"
        return cls(folder=own / "nbloader" / name, donors=donors, root=root)

    @property
    def blobs(self) -> Path:
        return self.folder

    def snapshot(self, commit_hash: str) -> Path:  # noqa: ARG002 - there is one
        return self.root

    def open_blobs(self, *, make: bool = True) -> Folder:
        return open_folder(self.folder, below=self.root, make=make)

    def open_names(self, commit_hash: str, path: str, *, make: bool = True) -> Folder:
        names = self.pointer(commit_hash, path).parent
        return open_folder(names, below=self.root, make=make)

    def open_partial(self, file: RepoFile, *, revision: str, commit_hash: str) -> Partial:
        return open_partial(
            self.folder,
            file,
            revision=revision,
            commit_hash=commit_hash,
            below=self.root,
            flock=self.file_system.locks,
        )

    # -- what is there ---------------------------------------------------------------------

    def has_pointer(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file is there as it was fetched, whichever commit it was fetched for."""
        place = self.pointer(commit_hash, file.path_in_repo)
        known = self._valid(file.path_in_repo)
        if known is None or known.etag != file.etag:
            return False
        with contextlib.suppress(OSError):
            if place.stat().st_size == file.size:
                self._there[file.etag] = place
                return True
        return False

    def content(self, commit_hash: str, file: RepoFile) -> Path | None:
        place = self.pointer(commit_hash, file.path_in_repo)
        return place if self.has_pointer(commit_hash, file) else None

    def recognise(
        self, commit_hash: str, file: RepoFile, told: Callable[[int], object]
    ) -> bool | None:
        place = self.pointer(commit_hash, file.path_in_repo)
        if not place.is_file():
            return None
        known = self._valid(file.path_in_repo)
        if known is not None and (known.etag != file.etag or known.commit_hash == commit_hash):
            return None
        if known is None and not matches(place, file, told):
            return False
        with contextlib.suppress(OSError):  # It is hashed again the next time.
            self._note(commit_hash, file)
        return True

    def elsewhere(self, file: RepoFile) -> Path | None:
        there = self._there.get(file.etag)
        if there is not None and _size(there) == file.size:
            return there
        return RepoCache.elsewhere(self, file)

    def in_the_way(self, file: RepoFile) -> Path | None:
        place = self.pointer("", file.path_in_repo)
        above = [each for each in place.parents if self.root in each.parents]
        for folder in reversed(above):
            if not os.path.lexists(folder):
                return None
            # One that is a link would be written to, wherever it leads.
            if folder.is_symlink() or not folder.is_dir():
                return folder
        return place if place.is_dir() and not place.is_symlink() else None

    def takes_name(self, file: RepoFile) -> bool:
        # Some file systems do not tell letters by their case.
        return file.path_in_repo.lower().startswith(".cache/huggingface/")

    def takes_room(self, file: RepoFile) -> int:
        return file.size

    def commit_of(self, revision: str) -> str | None:
        """Return the commit of a revision, or what the files say that were fetched last."""
        if COMMIT.fullmatch(revision):
            return revision
        noted = (known for _, known in self._noted())
        newest = max(noted, key=lambda known: known.time, default=None)
        return newest.commit_hash if newest else None

    def listing(self, repo_id: str, revision: str) -> Listing | None:
        """List the files of which it is noted where they come from; None if there are none."""
        commit_hash = self.commit_of(revision)
        files = [
            RepoFile(path=path, size=size, etag=known.etag, lfs=len(known.etag) == 64)
            for path, known in self._noted()
            if known.commit_hash == commit_hash
            and (size := _size(self.root.joinpath(*path.split("/")))) is not None
        ]
        if commit_hash is None or not files:
            return None
        return Listing(
            repo_id=repo_id, revision=revision, commit_hash=commit_hash, files=tuple(files)
        )

    # -- how a file gets in ----------------------------------------------------------------

    def try_lock(self, file: RepoFile) -> FileLock | None:
        """Take the lock of a file, and that which the Hub's library holds while it writes it."""
        first = self.try_lock_etag(file.etag)
        if first is None:
            return None
        try:
            second = try_lock(
                self._beside(file.path_in_repo, "lock"),
                flock=self.file_system.locks,
                below=self.root,
            )
        except OSError:
            first.release()
            raise
        if second is None:
            first.release()
            return None
        return first.with_other(second)

    def try_lock_etag(self, etag: str) -> FileLock | None:
        return try_lock(self.lock_path(etag), flock=self.file_system.locks, below=self.root)

    def lock_path(self, etag: str) -> Path:
        return self.folder / f"{etag}.lock"

    def held_lock(self, file: RepoFile) -> Path:
        first = self.lock_path(file.etag)
        return first if is_held(first) else self._beside(file.path_in_repo, "lock")

    def publish(self, partial: Partial, commit_hash: str, file: RepoFile) -> None:
        partial.move_to(self.pointer(commit_hash, file.path_in_repo), below=self.root)
        self._note(commit_hash, file)

    def link(self, commit_hash: str, file: RepoFile) -> None:
        """Note that a file is there for this commit, too."""
        if not self.has_pointer(commit_hash, file):
            raise FileNotFoundError(file.path)

    def adopt(self, commit_hash: str, file: RepoFile, told: Callable[[int], object]) -> bool:
        """Copy a file whose content is elsewhere on this machine, if it is right there.

        No second link is made: what is here is the user's, and may be written to.
        """
        source = self.elsewhere(file)
        if source is None:
            return False
        with (
            self.open_blobs() as own,
            self.open_names(commit_hash, file.path_in_repo) as names,
        ):
            scratch = own.scratch_name(**affixes(file.etag))
            try:
                copy_bytes(source, own, scratch)
                if not matches(own.path / scratch, file, told):
                    return False
                own.replace(scratch, names, self.pointer(commit_hash, file.path_in_repo).name)
            finally:
                own.unlink(scratch)
        self._note(commit_hash, file)
        return True

    def discard(self, commit_hash: str, file: RepoFile) -> None:
        """Forget where a file comes from. It stays until the right one takes its place."""
        note = self._beside(file.path_in_repo, "metadata")
        with (
            contextlib.suppress(FileNotFoundError),
            open_folder(note.parent, below=self.root, make=False) as notes,
        ):
            notes.unlink(note.name)
        if self._there.get(file.etag) == self.pointer(commit_hash, file.path_in_repo):
            del self._there[file.etag]

    def write_ref(self, revision: str, commit_hash: str) -> None:
        """Do nothing: the commit is noted with each file."""

    # -- the Hub's own notes ---------------------------------------------------------------

    @property
    def _own(self) -> Path:
        return self.root / ".cache" / "huggingface"

    def _beside(self, path: str, suffix: str) -> Path:
        folder, _, name = path.rpartition("/")
        return self._own.joinpath("download", *folder.split("/"), f"{name}.{suffix}")

    def _valid(self, path: str) -> Metadata | None:
        """Return what is noted of a file, if the file is not newer; else None."""
        known = _read(self._beside(path, "metadata"))
        with contextlib.suppress(OSError):
            written = self.root.joinpath(*path.split("/")).stat().st_mtime
            if known is not None and written - CLOCK_TOLERANCE <= known.time:
                return known
        return None

    def _note(self, commit_hash: str, file: RepoFile) -> None:
        place = self._beside(file.path_in_repo, "metadata")
        self._mark()
        text = f"{commit_hash}\n{file.etag}\n{time.time()}\n"
        with (
            open_folder(place.parent, below=self.root) as notes,
            self.open_blobs() as own,
        ):
            write_whole(notes, place.name, text.encode("ascii"), beside=own, **affixes(file.etag))
        self._there[file.etag] = self.pointer(commit_hash, file.path_in_repo)

    def _mark(self) -> None:
        """Keep the notes out of git and of backups, as the Hub's library does."""
        with contextlib.suppress(OSError), open_folder(self._own, below=self.root) as own:
            for name, text in ((".gitignore", "*"), ("CACHEDIR.TAG", _TAG)):
                if not own.has(name):
                    write_whole(own, name, text.encode("ascii"))

    def _noted(self) -> Iterator[tuple[str, Metadata]]:
        """Yield the path of each file of which something valid is noted."""
        notes = self._own / "download"
        for place in sorted(notes.rglob("*.metadata")):
            path = place.relative_to(notes).as_posix().removesuffix(".metadata")
            known = self._valid(path)
            if known is not None:
                yield path, known


def _read(place: Path) -> Metadata | None:
    """Read what is noted of a file; None for what is missing or no such note."""
    try:
        lines = read_small(place, MAX_NOTE_BYTES, follow=False).decode("ascii").split("\n")
        known = Metadata(lines[0].strip(), lines[1].strip(), float(lines[2]))
    except (OSError, ValueError, IndexError):
        return None
    right = (
        COMMIT.fullmatch(known.commit_hash)
        and ETAG.fullmatch(known.etag)
        and math.isfinite(known.time)
    )
    return known if right else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
