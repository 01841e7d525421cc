"""The Hub's own cache folder: what is in it, and whether it is right.

The layout is shared with every other library, so nothing is added to it:
`models--org--name/{blobs/<etag>, snapshots/<commit>/<path>, refs/<revision>}`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nbloader.bounds import MAX_FILES
from nbloader.hub_cache.claims import affixes
from nbloader.hub_cache.filesystem import FileLock, FileSystem, free_bytes, try_lock
from nbloader.hub_cache.folders import Folder, copy_bytes, open_folder, replacing, write_whole
from nbloader.hub_cache.partial import Partial, open_partial
from nbloader.hub_names import MAX_BASE_MODELS, is_etag, is_repo_id, is_tag, is_xet_hash
from nbloader.records import Listing, RepoFile
from nbloader.small_files import read_small

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_ORPHAN = re.compile(r"[0-9a-f]+\.[0-9a-f]{8}\.incomplete")
ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")

MAX_REF_BYTES = 200
"""A reference is a commit of 40 digits and perhaps a line break."""

MAX_LISTING_BYTES = 64 << 20
"""That of a repository of 250,000 files takes 50 MB; what is larger is asked for again."""


@dataclass(frozen=True, slots=True)
class RepoCache:
    """The folder of one repository in the cache.

    Attributes:
        argument: how a caller says where it is.
        folder: `<cache>/models--org--name`.
        file_system: what that of the cache can do.
        donors: folders of blobs of other repositories. What they hold need not be fetched: the
            etag of a file is a hash of its content.
    """

    argument: ClassVar[str] = "cache_dir"

    folder: Path
    file_system: FileSystem = field(default_factory=FileSystem)
    donors: tuple[Path, ...] = ()

    @property
    def blobs(self) -> Path:
        """The folder of the contents of files, under their etags."""
        return self.folder / "blobs"

    def snapshot(self, commit_hash: str) -> Path:
        """Return the folder that holds the files of a commit under their names."""
        return self.folder / "snapshots" / commit_hash

    def pointer(self, commit_hash: str, path: str) -> Path:
        """Return the place of a file of a commit; it may not exist yet."""
        return self.snapshot(commit_hash).joinpath(*path.split("/"))

    def open_blobs(self, *, make: bool = True) -> Folder:
        """Open the folder of the contents. Raises OSError."""
        return open_folder(self.blobs, make=make)

    def open_names(self, commit_hash: str, path: str, *, make: bool = True) -> Folder:
        """Open the folder in which a file of a commit has its name. Raises OSError.

        `snapshots` may be a link to another disk; what lies in it is not followed, or a commit
        could be a folder of the user's own.
        """
        names = self.pointer(commit_hash, path).parent
        return open_folder(names, below=self.folder / "snapshots", make=make)

    def open_partial(self, file: RepoFile, *, revision: str, commit_hash: str) -> Partial:
        """Open what has arrived of a file; see `open_partial`."""
        return open_partial(
            self.blobs,
            file,
            revision=revision,
            commit_hash=commit_hash,
            flock=self.file_system.locks,
        )

    def blob(self, file: RepoFile) -> Path:
        """Return the place of a file's content; it may not exist yet."""
        return self.blobs / file.etag

    def has_pointer(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file of a commit is there with its full size."""
        return _size(self.pointer(commit_hash, file.path_in_repo)) == file.size

    def has_bytes(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether the content of a file is there, perhaps fetched for another commit."""
        return self.content(commit_hash, file) is not None

    def content(self, commit_hash: str, file: RepoFile) -> Path | None:
        """Return where the content of a file is; None if it is not there with its full size."""
        if self.has_pointer(commit_hash, file):
            return self.pointer(commit_hash, file.path_in_repo)
        return self.blob(file) if _size(self.blob(file)) == file.size else None

    def recognise(
        self,
        commit_hash: str,  # noqa: ARG002
        file: RepoFile,  # noqa: ARG002
        told: Callable[[int], object],  # noqa: ARG002
    ) -> bool | None:
        """Find out whether a file that is there under its name is the right one.

        In the cache nothing has to be found out. In a folder of the user's own anybody may have
        written it.

        Args:
            told: told how many bytes were hashed, again and again.

        Returns:
            Whether it is; None where that is known without a look into it.
        """
        return None

    def elsewhere(self, file: RepoFile) -> Path | None:
        """Return where else on this machine the content of a file is; None for nowhere."""
        places = (donor / file.etag for donor in self.donors)
        return next((place for place in places if _size(place) == file.size), None)

    def in_the_way(self, file: RepoFile) -> Path | None:  # noqa: ARG002
        """Return what stands where a file, or a folder that it lies in, has to be.

        In the cache that is nobody's but the libraries'.
        """
        return None

    def takes_name(self, file: RepoFile) -> bool:  # noqa: ARG002
        """Say whether a file would take the name of what is noted about others."""
        return False

    def takes_room(self, file: RepoFile) -> int:  # noqa: ARG002
        """Return the bytes that `adopt` takes of the disk for a file: none for a second link."""
        return 0

    def partial_sizes(self) -> dict[str, int]:
        """Return the sizes of the files that any process is downloading now, by their names."""
        with contextlib.suppress(OSError):
            return {
                path.name: size
                for path in self.blobs.glob("*.incomplete")
                if (size := _size(path)) is not None
            }
        return {}

    def free_bytes(self) -> int:
        """Return the free space of the file system that new files go to.

        Raises:
            OSError: it cannot be asked.
        """
        return free_bytes(self.blobs)

    # -- how a file gets in ----------------------------------------------------------------

    def try_lock(self, file: RepoFile) -> FileLock | None:
        """Take the Hub's own lock of a file; None if another holds it, in this process too.

        Files of the same content have one lock.

        Raises:
            OSError: the lock file cannot be written.
        """
        return self.try_lock_etag(file.etag)

    def try_lock_etag(self, etag: str) -> FileLock | None:
        """Take the lock of the file with that etag, as `try_lock` does."""
        lock = self.lock_path(etag)
        return try_lock(lock, flock=self.file_system.locks, below=self.folder.parent)

    def lock_path(self, etag: str) -> Path:
        """Return the place of the Hub's own lock of the file with that etag."""
        return self.folder.parent / ".locks" / self.folder.name / f"{etag}.lock"

    def held_lock(self, file: RepoFile) -> Path:
        """Return the lock by which another process holds a file."""
        return self.lock_path(file.etag)

    def publish(self, partial: Partial, commit_hash: str, file: RepoFile) -> None:
        """Move a file that was found right to its place, and give it its name in the commit.

        The caller holds the lock of the file. A kill leaves the partial, or the file without its
        name, which `link` gives it.

        Raises:
            ValueError: the partial is not whole.
            SpoiltError: others have written to it.
            OSError: the cache cannot be written.
        """
        partial.move_to(self.blob(file), below=self.blobs)
        self._name(commit_hash, file, new=True)

    def link(self, commit_hash: str, file: RepoFile) -> None:
        """Name a file in the commit, if it has no name there; its content is there.

        The caller holds the lock of the file.

        Raises:
            OSError: the cache cannot be written, or the content is not there.
        """
        if not self.has_pointer(commit_hash, file):
            self._name(commit_hash, file, new=False)

    def adopt(
        self,
        commit_hash: str,
        file: RepoFile,
        told: Callable[[int], object],  # noqa: ARG002 - nothing is hashed
    ) -> bool:
        """Take over a file whose content is elsewhere on this machine, and name it in the commit.

        It is a second link to the same bytes where the file system has such, else a copy. The
        caller holds the lock of the file.

        Args:
            told: told how many bytes were hashed, again and again.

        Returns:
            Whether there was one.

        Raises:
            OSError: the cache cannot be written.
        """
        source = self.elsewhere(file)
        if source is None:
            return False
        with (
            self.open_blobs() as blobs,
            replacing(blobs, file.etag, **affixes(file.etag)) as scratch,
        ):
            try:
                # A blob may itself be a link, into a store that is shared.
                blobs.link(source.resolve(), scratch)
            except OSError:
                copy_bytes(source, blobs, scratch)
        self._name(commit_hash, file, new=True)
        return True

    def _name(self, commit_hash: str, file: RepoFile, *, new: bool) -> None:
        """Let the name of a file in a commit stand for its blob, in one step.

        The links are those that the Hub's library makes. Without links it moves a new blob to its
        name, and copies one that other names may stand for; so does this.
        """
        blob, pointer = self.blob(file), self.pointer(commit_hash, file.path_in_repo)
        with self.open_names(commit_hash, file.path_in_repo) as names, self.open_blobs() as blobs:
            if new and not self.file_system.symlinks:
                blobs.replace(blob.name, names, pointer.name)
                return
            if self.file_system.symlinks and not names.has(pointer.name):
                # Another process, whose lock is not seen, may be as far.
                with contextlib.suppress(FileExistsError):
                    names.symlink(_link_target(pointer, blob), pointer.name)
                    return
            # A wrong name is replaced, or a copy made, in one step: the new one is made elsewhere.
            with replacing(names, pointer.name, beside=blobs, **affixes(file.etag)) as scratch:
                if self.file_system.symlinks:
                    blobs.symlink(_link_target(pointer, blob), scratch)
                else:
                    copy_bytes(blob, blobs, scratch)

    def orphan_etags(self) -> frozenset[str]:
        """Return the etags of the files of which the Hub's library has left partial files."""
        with contextlib.suppress(OSError):
            return frozenset(
                path.name.partition(".")[0]
                for path in self.blobs.iterdir()
                if _ORPHAN.fullmatch(path.name)
            )
        return frozenset()

    def remove_orphans(self, file: RepoFile) -> None:
        """Remove the partial files that killed downloads of `file` left behind.

        The Hub's library never goes on from those with a random part in their name, so they only
        fill the disk. The caller holds the lock of the file: no other process is at work on one.
        """
        with contextlib.suppress(OSError), self.open_blobs(make=False) as blobs:
            for path in self.blobs.glob(f"{file.etag}.*.incomplete"):
                if _ORPHAN.fullmatch(path.name):
                    with contextlib.suppress(OSError):
                        blobs.unlink(path.name)

    def discard(self, commit_hash: str, file: RepoFile) -> None:
        """Remove a file with the wrong content, name and blob.

        Raises:
            OSError: it cannot be removed.
        """
        named = _etag(self.pointer(commit_hash, file.path_in_repo))
        self.remove_name(commit_hash, file)
        with contextlib.suppress(FileNotFoundError), self.open_blobs(make=False) as blobs:
            for etag in filter(ETAG.fullmatch, {named, file.etag}):
                blobs.unlink(etag)

    def remove_name(self, commit_hash: str, file: RepoFile) -> None:
        """Remove the name of a file in a commit. Raises OSError."""
        path = file.path_in_repo
        with (
            contextlib.suppress(FileNotFoundError),
            self.open_names(commit_hash, path, make=False) as names,
        ):
            names.unlink(self.pointer(commit_hash, path).name)

    def write_ref(self, revision: str, commit_hash: str) -> None:
        """Note which commit a branch or tag stands for, once its files are there.

        Raises:
            OSError: the cache cannot be written.
        """
        ref = self.folder / "refs" / revision
        if revision == commit_hash or _text(ref) == commit_hash:
            return
        with (
            open_folder(ref.parent, below=self.folder) as refs,
            # Not in refs/: whatever lies there is taken for a reference.
            open_folder(self.folder) as beside,
        ):
            write_whole(refs, ref.name, commit_hash.encode("ascii"), beside=beside, prefix=".ref-")

    def commit_of(self, revision: str) -> str | None:
        """Return the commit that a revision stood for when it was fetched last."""
        commit = revision if COMMIT.fullmatch(revision) else _text(self.folder / "refs" / revision)
        return commit if commit and COMMIT.fullmatch(commit) else None

    def listing(self, repo_id: str, revision: str) -> Listing | None:
        """List what the cache holds of a revision; None if it was never fetched.

        The list is as complete as the cache is, which nothing here can tell.
        """
        commit_hash = self.commit_of(revision)
        if commit_hash is None:
            return None
        snapshot = self.snapshot(commit_hash)
        if snapshot.is_symlink() or not snapshot.is_dir():
            return None  # Below a link may be all of the disk.
        files = []
        for path in sorted(snapshot.rglob("*")):
            size = _size(path)
            if size is not None:
                etag = _etag(path)
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
        home: that folder (`HF_HOME`); below it no link is followed. None for `folder` itself.
    """

    folder: Path
    home: Path | None = None

    def keep(self, listing: Listing) -> None:
        """Keep a listing. A folder that cannot be written only costs the knowledge."""
        # A name that cannot be written makes no selection either, which says so.
        with contextlib.suppress(OSError, ValueError):
            content = _listing_adapter().dump_json(listing)
            with open_folder(self.folder, below=self.home) as folder:
                write_whole(folder, self._place(listing.commit_hash).name, content)

    def get(self, revision: str, commit_hash: str) -> Listing | None:
        """Return the listing of a commit under the name that is asked for now; None if unknown.

        What is not as the Hub's answer has to be is not believed.
        """
        try:
            content = read_small(self._place(commit_hash), MAX_LISTING_BYTES, follow=False)
            if content.count(b"{") > MAX_FILES + 1:  # Before each takes 300 bytes.
                return None
            listing = _listing_adapter().validate_json(content)
        except (OSError, ValueError):
            return None
        if listing.commit_hash != commit_hash or not _is_sound(listing):
            return None
        return replace(listing, revision=revision)

    def _place(self, commit_hash: str) -> Path:
        return self.folder / f"{commit_hash}.json"


@cache
def _listing_adapter() -> TypeAdapter[Listing]:
    from pydantic import TypeAdapter

    return TypeAdapter(Listing)


def _is_sound(listing: Listing) -> bool:
    """Say whether a listing is one that the Hub can have given: anybody may have written it.

    The names of its files are looked at where they become paths, as those of an answer are.
    """
    tags = (listing.pipeline_tag, listing.library_name)
    return (
        COMMIT.fullmatch(listing.commit_hash) is not None
        and is_repo_id(listing.repo_id)
        and listing.folder is None
        and all(tag is None or is_tag(tag) for tag in tags)
        and len(listing.base_models) <= MAX_BASE_MODELS
        and all(map(is_repo_id, listing.base_models))
        and all(map(_is_sound_file, listing.files))
    )


def _is_sound_file(file: RepoFile) -> bool:
    return (
        is_etag(file.etag, lfs=file.lfs)
        and file.size >= 0
        and not file.repo_id
        and (file.xet_hash is None or is_xet_hash(file.xet_hash))
    )


def _link_target(pointer: Path, blob: Path) -> str:
    """Return what a link at `pointer` says to mean `blob`.

    It is relative, so that the cache can be moved. Folders between the two that are links
    themselves are followed only where they would lead it elsewhere.
    """
    target = os.path.relpath(blob, pointer.parent)
    if os.path.realpath(pointer.parent / target) == os.path.realpath(blob):
        return target
    return os.path.relpath(blob.parent.resolve() / blob.name, pointer.parent.resolve())


def _etag(pointer: Path) -> str:
    """Return the name of the blob that a pointer stands for; "" if it does not say.

    A cache without links (as on Windows) does not say what a hash should be. A blob may be a link
    itself, into a store that several repositories share, where it has another name.
    """
    try:
        target = pointer.readlink()
    except OSError:
        return ""
    return target.name if target.parent.name == "blobs" and ETAG.fullmatch(target.name) else ""


def _text(path: Path) -> str | None:
    try:
        return read_small(path, MAX_REF_BYTES, follow=False).decode("ascii").strip()
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int | None:
    """Return the size of a file, through its links; None if there is no file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
