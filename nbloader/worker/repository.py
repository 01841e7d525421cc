"""One repository of a session: at the Hub, in the cache, and in what was kept of it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from nbloader.errors import CacheNotWritableError, MalformedFileError, UnsafePathError
from nbloader.hub_cache import (
    ListingStore,
    LocalFolder,
    RepoCache,
    Swept,
    found_partials,
    sweep,
)
from nbloader.records import Listing, Notice, RepoFile, Selection, TransferPolicy
from nbloader.redaction import short_path
from nbloader.selection import (
    FIRST_READ_BYTES,
    Header,
    LookedThrough,
    describe,
    format_of,
    header_end,
    look_through,
    parse_header,
    sketched,
)
from nbloader.small_files import open_regular, read_small
from nbloader.text import quote
from nbloader.transfer.protocol import Report, Tried
from nbloader.worker.download import Downloads
from nbloader.worker.hub import Hub


class Repository:
    """A repository at a revision.

    Args:
        revision: what is asked for: a branch, a tag or a commit.
        commit_hash: the commit to go on with, where an earlier worker has found it.
        is_other: whether it is another one than that of the selection.
        hub: asked about this repository.
        donors: folders of blobs that may have files of it.
        publish: takes reports, from any thread.
        stuck, tried: those of `Downloads`.

    Attributes:
        cache: its folder in the cache, or the folder of the user's own that its files go to.
        downloads: brings its files there.
        listing: what the Hub says of it; None if it was not asked.
    """

    def __init__(
        self,
        *,
        revision: str,
        commit_hash: str | None,
        is_other: bool,
        hub: Hub,
        donors: Sequence[Path] = (),
        publish: Callable[[Report], object],
        stuck: Callable[..., object],
        tried: Sequence[Tried],
    ) -> None:
        self.revision = revision
        self.hub = hub
        self.listing: Listing | None = None
        self._commit_hash = commit_hash
        self._is_other = is_other
        self.publish = publish
        name = repo_folder_name(repo_id=hub.repo_id, repo_type=str(hub.repo_type))
        cached = RepoCache(Path(constants.HF_HUB_CACHE) / name, donors=tuple(donors))
        self.cache = cached
        if hub.local_dir is not None:
            self.cache = LocalFolder.of(
                Path(hub.local_dir), name, donors=(cached.blobs, *cached.donors)
            )
        home = Path(constants.HF_HOME)
        self._kept = ListingStore(home / "nbloader" / "listings" / name, home)
        self.downloads = Downloads(
            hub=hub, cache=self.cache, publish=publish, stuck=stuck, tried=tried
        )

    @property
    def moved(self) -> object:
        """Something that changes while work is done here, or at the same files elsewhere."""
        return self.downloads.moved, self.cache.partial_sizes()

    @property
    def repo_id(self) -> str:
        """The name that was asked for."""
        return self.hub.repo_id

    def files(self, listing: Listing) -> dict[str, RepoFile]:
        """Return the files of a listing by the paths that they have in a selection."""
        return named_files(listing, self.repo_id if self._is_other else "")

    def place(self, commit_hash: str, path: str = "") -> Path:
        """Return where a file of a commit is once it is there, or the folder of all of them."""
        if not path:
            return self.cache.snapshot(commit_hash)
        return self.cache.pointer(commit_hash, path)

    def is_there(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether a file is in that place, with its full size."""
        return self.cache.has_pointer(commit_hash, file)

    def was_there(self, commit_hash: str, file: RepoFile) -> bool:
        """Say whether the content of a file was there before anything was fetched."""
        return file.path not in self.downloads.fetched and self.cache.has_bytes(commit_hash, file)

    def is_right(self, commit_hash: str, file: RepoFile) -> bool:
        """Hash a file in its place; True if its hash is not known."""
        return not file.etag or self.downloads.is_right(commit_hash, file)

    # -- what is there ---------------------------------------------------------------------

    def list_from_hub(self, policy: TransferPolicy) -> Listing:
        """List the revision, with what the Hub says of the repository.

        What the Hub says may change while the commit stays. A worker that goes on with the commit
        of another takes what that one has kept, so that both make the same selection.

        Args:
            policy: for everything after the first answer.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        hub, commit = self.hub, self._commit_hash
        kept = self._kept.get(self.revision, commit) if commit else None
        if kept is not None and kept.described:
            hub.policy = policy
            self.listing = kept
            return kept
        info = hub.resolve(commit or self.revision)
        hub.policy = policy
        if info.repo_id != self.repo_id:
            self.publish(_renamed(self.repo_id, info.repo_id))
        kept = self._kept.get(self.revision, info.commit_hash)
        listing = replace(
            kept or hub.listing(self.revision, info.commit_hash),
            pipeline_tag=info.pipeline_tag,
            library_name=info.library_name,
            base_models=info.base_models,
            described=True,
        )
        if listing != kept:
            self._kept.keep(listing)
        self.listing = listing
        return listing

    def list_from_cache(self) -> tuple[Listing | None, bool]:
        """List what the cache holds of the revision; None if it was never fetched.

        The second value tells whether it is certain: a part of a snapshot can look like the whole,
        unless the Hub's listing of that commit was kept.
        """
        commit = self._commit_hash or self.cache.commit_of(self.revision)
        kept = self._kept.get(self.revision, commit) if commit else None
        if kept is not None:
            return kept, True
        return self.cache.listing(self.repo_id, self.revision), False

    # -- what is in it ---------------------------------------------------------------------

    def read_from_hub(self, files: Sequence[RepoFile], *, verify: bool) -> list[bytes]:
        """Fetch files of the listing and read them; of weights only what describes them.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        small = [file for file in files if format_of(file.path) is None]
        self.fetch(small, done=lambda file: None, verify=verify)  # noqa: ARG005 - nobody counts
        assert self.listing is not None
        return self.read(self.listing, files)

    def read(self, listing: Listing, files: Sequence[RepoFile]) -> list[bytes]:
        """Read files of a listing where the cache has them; of weights what describes them.

        Raises:
            NbloaderError: the weights are not what the name of their file says.
            OSError: they are not there.
        """
        return [self._content(listing.commit_hash, file) for file in files]

    def _content(self, commit_hash: str, file: RepoFile) -> bytes:
        if format_of(file.path) is None:
            place = self.cache.pointer(commit_hash, file.path_in_repo)
            return read_small(place, file.size)
        with self._reading(commit_hash, file) as read:
            if read is None:
                raise FileNotFoundError(file.path)
            return describe(file, read)

    def read_header(self, commit_hash: str, file: RepoFile) -> Header | None:
        """Read a header where the file is; None if the copy in the cache does not show one.

        What is wrong with such a copy is found by its hash, or by the library that loads it.

        Raises:
            MalformedFileError: what the Hub sends is wrong.
        """
        if self.cache.content(commit_hash, file) is None:
            return None if self.listing is None else self.hub.read_header(commit_hash, file)
        try:
            start = self.header_bytes(commit_hash, file)
            return None if start is None else parse_header(start, file)
        except (OSError, MalformedFileError):
            return None

    def header_bytes(self, commit_hash: str, file: RepoFile) -> bytes | None:
        """Read a file up to the end of its header; None if neither cache nor Hub has it at hand.

        Raises:
            MalformedFileError: it is wrong.
            OSError: the cache cannot be read.
        """
        content = self.cache.content(commit_hash, file)
        if content is None:
            return None if self.listing is None else self.hub.header_bytes(commit_hash, file)
        with os.fdopen(open_regular(content), "rb") as opened:
            return header_of(opened, file)

    def look_through(self, commit_hash: str, file: RepoFile) -> LookedThrough | None:
        """Look through pickled weights where they are; None for those that cannot be read."""
        try:
            with self._reading(commit_hash, file) as read:
                return look_through(file, read) if read else None
        except OSError:
            return None

    def outline(self, commit_hash: str, file: RepoFile) -> Mapping[int, bytes] | None:
        """Read what describes the tensors of a file of weights, by offset, and not the tensors.

        None where neither cache nor Hub has it at hand, or it is not understood.

        Raises:
            MalformedFileError: it is wrong.
            OSError: the cache cannot be read.
        """
        if file.path.endswith(".safetensors"):
            header = self.header_bytes(commit_hash, file)
            return None if header is None else {0: header}
        with self._reading(commit_hash, file) as read:
            return sketched(file, read) if read else None

    @contextmanager
    def _reading(
        self, commit_hash: str, file: RepoFile
    ) -> Iterator[Callable[[int, int], bytes] | None]:
        """Yield what reads ranges of a file where it is; None if it is nowhere. Raises OSError."""
        content = self.cache.content(commit_hash, file)
        if content is None:
            there = self.listing is not None
            yield functools.partial(self.hub.read_range, commit_hash, file) if there else None
            return
        with os.fdopen(open_regular(content), "rb") as opened:
            yield functools.partial(range_of, opened)

    def left_bytes(self) -> dict[str, int]:
        """Say how much of which files an earlier download has left, by etag."""
        try:
            return {
                found.etag: found.bytes_on_disk
                for found in found_partials(self.cache.blobs)
                if found.ours and found.path is not None
            }
        except OSError:
            return {}

    # -- the files -------------------------------------------------------------------------

    def fetch(
        self,
        files: Sequence[RepoFile],
        *,
        done: Callable[[RepoFile], object],
        verify: bool,
        passing: frozenset[str] = frozenset(),
    ) -> None:
        """Bring files of the listing into the cache; see `Downloads.fetch`."""
        assert self.listing is not None
        self.downloads.fetch(
            self.listing.revision,
            self.listing.commit_hash,
            files,
            done=done,
            verify=verify,
            passing=passing,
        )

    def sweep(self) -> Swept:
        """Remove what killed downloads have left and nobody will go on from."""
        assert self.listing is not None
        return sweep(self.downloads.cache, self.listing, time.time())

    def note_revision(self) -> None:
        """Write down which commit the branch stands for; the files are there in any case."""
        assert self.listing is not None
        revision, commit = self.listing.revision, self.listing.commit_hash
        try:
            self.cache.write_ref(revision, commit)
        except OSError:
            self.publish(
                Notice(
                    reference=CacheNotWritableError.reference,
                    message=f"the cache cannot note that {revision} is {commit[:7]}",
                    hint=f'Without a network, pass revision="{commit}".',
                )
            )


def named_files(listing: Listing, repo_id: str) -> dict[str, RepoFile]:
    """Return the files of a listing by the paths that they have in a selection.

    Args:
        repo_id: of another repository than that of the selection; empty for its own.
    """
    if not repo_id:
        return {file.path: file for file in listing.files}
    named = (
        replace(file, path=f"{repo_id}:{file.path}", repo_id=repo_id) for file in listing.files
    )
    return {file.path: file for file in named}


def check_places(selection: Selection, repositories: Mapping[str, object]) -> None:
    """See that nothing of the user's own stands where the files go.

    Args:
        repositories: those that are fetched from are looked at, by the `repo_id` of their files.

    Raises:
        CacheNotWritableError: something does.
        UnsafePathError: a file would take the place of what is noted of the others.
    """
    for file in selection.files:
        one = repositories[file.repo_id]
        if not isinstance(one, Repository):
            continue
        if one.cache.takes_name(file):
            raise UnsafePathError(
                f"The file {quote(file.path)} of the repository would be taken for what the Hub's "
                "library notes in a folder.",
                hint='Leave it out: ignore_patterns=[".cache/"].',
            )
        if (path := one.cache.in_the_way(file)) is not None:
            what = "a file" if path.is_dir() else "a folder"
            raise CacheNotWritableError(
                f"{short_path(path)} is in the way: the repository has {what} of that name",
                hint="Move it away, or pass another folder as `local_dir=`.",
            )


def header_of(opened: IO[bytes], file: RepoFile) -> bytes:
    """Read an open safetensors file up to the end of its header.

    Raises:
        MalformedFileError: it does not begin like one.
        OSError: it cannot be read.
    """
    start = opened.read(FIRST_READ_BYTES)
    end = header_end(start, file)
    return (start + opened.read(max(0, end - len(start))))[:end]


def range_of(opened: IO[bytes], first: int, last: int) -> bytes:
    """Read an open file from offset `first` up to `last`. Raises OSError."""
    opened.seek(first)
    return opened.read(last - first)


def _renamed(asked: str, now: str) -> Notice:
    return Notice(
        reference="renamed",
        message=f"{asked} is called {now} now",
        hint="Nothing is needed: the Hub leads from the old name to the new one.",
    )


def files_replaced(paths: Sequence[str], folder: str) -> Notice:
    """Make the notice of files of the user's own folder that the Hub's take the place of."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return Notice(
        reference="file-replaced",
        message=f"{', '.join(paths[:5])}{more} in {short_path(folder)} "
        f"{'is' if len(paths) == 1 else 'are'} not what the Hub has, and will be replaced",
        hint="Nothing is needed, unless you have changed a file there yourself: stop now, and keep "
        "a copy of it under another name.",
    )
