"""A folder of this machine that is loaded as if it were a repository: it is there, and complete.

The selection is made of it by the same rules, and nothing is asked of the Hub for it. It is read
only. Whoever made it may be hostile: what is no regular file is as if it were not there, and what
leads on without an end is left.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import zipfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nbloader.errors import (
    MalformedFileError,
    NoWeightsError,
    RepoError,
    UnsafePathError,
    UnsupportedRepoError,
)
from nbloader.hub_cache import Swept
from nbloader.hub_names import is_repo_id
from nbloader.machine import holds_model
from nbloader.paths import from_root
from nbloader.records import Listing, RepoFile, Selection, TransferPolicy
from nbloader.selection import (
    Header,
    LookedThrough,
    describe,
    format_of,
    look_through,
    parse_header,
    sketched,
)
from nbloader.small_files import open_regular
from nbloader.text import quote, quote_path
from nbloader.worker.hub import Hub
from nbloader.worker.repository import header_of, named_files, range_of

MOST_FILES = 20_000
"""Many times what a model is made of. What lies nearer to the root comes first."""

MOST_LEVELS = 12

_CARD_BYTES = 1 << 16
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\\:\ud800-\udfff]")
"""Names that no path of a selection can hold. No library opens such a file by itself."""

_ZIP = b"PK\x03\x04"

_AGAIN = (
    "The folder may be half copied, or still be written: copy it again, or save the model anew."
)


class Folder:
    """A folder in the place of a repository.

    Args:
        path: absolute.
        repo_id: what its user calls it.
        hub: for the repositories that it names; it is not asked about this one.
        is_other: whether it is another one than that of the selection.

    Attributes:
        listing: None: the Hub was not asked for it.
    """

    def __init__(self, path: Path, repo_id: str, hub: Hub, *, is_other: bool = False) -> None:
        self.path = path
        self.repo_id = repo_id
        self.revision = "main"
        self.hub = hub
        self.listing: Listing | None = None
        self.moved = 0
        self._is_other = is_other
        self._found: Listing | None = None

    def files(self, listing: Listing) -> dict[str, RepoFile]:
        """Return the files of a listing by the paths that they have in a selection."""
        return named_files(listing, self.repo_id if self._is_other else "")

    def place(self, commit_hash: str, path: str = "") -> Path:
        """Return where a file is, or the folder itself."""
        del commit_hash
        return self.path.joinpath(*path.split("/")) if path else self.path

    def is_there(self, commit_hash: str, file: RepoFile) -> bool:
        """Say that a file is there."""
        del commit_hash, file
        return True

    was_there = is_right = is_there

    # -- what is in it ---------------------------------------------------------------------

    def list_from_hub(self, policy: TransferPolicy) -> Listing:
        """List it; the Hub is not asked.

        Raises:
            UnsupportedRepoError: it cannot be read.
        """
        del policy
        return self.list_from_cache()[0]

    def list_from_cache(self) -> tuple[Listing, bool]:
        """List it. It is certain that nothing is missing that could be had elsewhere.

        Raises:
            UnsupportedRepoError: it cannot be read.
        """
        if self._found is None:
            with self._readable(""):
                files = tuple(walk(self.path))
            card = self._card(files)
            self._found = Listing(
                repo_id=self.repo_id,
                revision=self.revision,
                commit_hash="",
                files=files,
                pipeline_tag=card.pipeline_tag,
                library_name=card.library_name,
                base_models=card.base_models,
                folder=str(self.path),
            )
        return self._found, True

    def _card(self, files: Sequence[RepoFile]) -> Card:
        card = next((file for file in files if file.path == "README.md"), None)
        if card is None:
            return Card()
        with self._opened(card) as opened:
            return card_of(opened.read(_CARD_BYTES).decode("utf-8", "replace"))

    def read_from_hub(self, files: Sequence[RepoFile], *, verify: bool) -> list[bytes]:
        """Read files; of weights only what describes them.

        Raises:
            MalformedFileError: weights are not what the name of their file says.
            UnsupportedRepoError: one cannot be read.
        """
        del verify
        contents = []
        for file in files:
            with self._opened(file) as opened:
                if format_of(file.path) is None:
                    contents.append(opened.read(file.size))
                else:
                    contents.append(describe(file, functools.partial(range_of, opened)))
        return contents

    def read(self, listing: Listing, files: Sequence[RepoFile]) -> list[bytes]:
        """Read files. Raises UnsupportedRepoError."""
        del listing
        return self.read_from_hub(files, verify=False)

    def read_header(self, commit_hash: str, file: RepoFile) -> Header:
        """Read a header.

        Raises:
            MalformedFileError: it is wrong, or the file is not as long as it says.
            UnsupportedRepoError: it cannot be read.
        """
        del commit_hash
        with self._opened(file) as opened:
            return parse_header(header_of(opened, file), file)

    def check_whole(self, file: RepoFile) -> None:
        """See that a file of weights is as long as it says.

        Raises:
            MalformedFileError: it is not.
            UnsupportedRepoError: it cannot be read.
        """
        if file.path.endswith(".safetensors"):
            self.read_header("", file)
            return
        with self._opened(file) as opened:
            # What torch writes is a zip, whose directory comes last.
            cut_off = opened.read(len(_ZIP)) == _ZIP and not zipfile.is_zipfile(opened)
        if cut_off or not file.size:
            raise MalformedFileError(f"The file {quote(file.path)} is cut off.", hint=_AGAIN)

    def look_through(self, commit_hash: str, file: RepoFile) -> LookedThrough | None:
        """Look through pickled weights. Raises UnsupportedRepoError."""
        del commit_hash
        with self._opened(file) as opened:
            return look_through(file, functools.partial(range_of, opened))

    def outline(self, commit_hash: str, file: RepoFile) -> Mapping[int, bytes] | None:
        """Read what describes the tensors of a file of weights; see `Repository.outline`."""
        del commit_hash
        with self._opened(file) as opened:
            if file.path.endswith(".safetensors"):
                return {0: header_of(opened, file)}
            return sketched(file, functools.partial(range_of, opened))

    @contextmanager
    def _opened(self, file: RepoFile) -> Iterator[IO[bytes]]:
        """Open a file that is a regular one now, too: opening a FIFO would wait for ever."""
        with self._readable(file.path_in_repo):
            number = open_regular(self.place("", file.path_in_repo))
            with open(number, "rb") as opened:  # noqa: PTH123 - it is no path
                yield opened

    @contextmanager
    def _readable(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{quote(path)} of the folder {quote_path(self.repo_id)}" if path else ""
            raise UnsupportedRepoError(
                f"{what or f'the folder {quote_path(self.repo_id)}'} cannot be read: "
                f"{error.strerror or error}",
                hint="See that it is there and may be read by this process.",
            ) from error

    # -- what there is nothing to do about ---------------------------------------------------

    def left_bytes(self) -> dict[str, int]:
        """Return nothing: no download has left anything here."""
        return {}

    def fetch(
        self,
        files: Sequence[RepoFile],
        *,
        done: Callable[[RepoFile], object],
        verify: bool,
        passing: frozenset[str] = frozenset(),
    ) -> None:
        """Tell that the files are there."""
        del verify, passing
        for file in files:
            done(file)

    def sweep(self) -> Swept:
        """Remove nothing."""
        return Swept(count=0, bytes_freed=0)

    def note_revision(self) -> None:
        """Write nothing down."""


# -- what lies in it -------------------------------------------------------------------------------


def walk(root: Path) -> Iterator[RepoFile]:
    """List the regular files below a folder, those nearer to it first, and by name.

    Links are followed, each folder is entered once, and what begins with a dot is left out, as are
    names that are no text. `MOST_FILES` and `MOST_LEVELS` bound it.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    waiting = deque([("", 0)])
    seen: set[tuple[int, int]] = set()
    count = 0
    while waiting:
        folder, level = waiting.popleft()
        try:
            found = os.stat(root / folder)  # noqa: PTH116
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            entries = _entries(root / folder, MOST_FILES - count)
        except OSError:
            if not folder:
                raise
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                about = entry.stat()
            except OSError:  # a link that leads nowhere, or in a circle
                continue
            if stat.S_ISREG(about.st_mode):
                count += 1
                yield RepoFile(path=path, size=about.st_size, etag="")
            elif stat.S_ISDIR(about.st_mode) and level < MOST_LEVELS:
                waiting.append((path, level + 1))
            if count >= MOST_FILES:
                return


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        plain = (e for e in entries if not e.name.startswith(".") and not _NO_NAME.search(e.name))
        few = [entry for entry, _ in zip(plain, range(most), strict=False)]
    return sorted(few, key=lambda entry: entry.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the card of a model says of it; see `Listing`."""

    pipeline_tag: str | None = None
    library_name: str | None = None
    base_models: tuple[str, ...] = ()


_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TAG = re.compile(
    r"^(pipeline_tag|library_name):[ \t]*[\"']?([A-Za-z0-9][\w.-]{0,63})[\"']?[ \t]*$",
    re.MULTILINE | re.ASCII,
)
_BASES = re.compile(
    r"^base_model:[ \t]*(?:[\"']?([\w./-]+)[\"']?[ \t]*$|\n((?:[ \t]*-[ \t]+\S+[ \t]*\n?)+))",
    re.MULTILINE | re.ASCII,
)


def card_of(text: str) -> Card:
    """Read from the head of a card what the Hub would say of its repository. Pure."""
    front = _FRONT.match(text)
    if front is None:
        return Card()
    head = front[1].replace("\r\n", "\n")
    tags = dict(_TAG.findall(head))
    named: list[str] = []
    if (bases := _BASES.search(head)) is not None:
        listed = [line.strip(" \t-").strip("\"'") for line in (bases[2] or "").splitlines()]
        named = [name for name in [bases[1], *listed] if is_repo_id(name)]
    return Card(
        pipeline_tag=tags.get("pipeline_tag"),
        library_name=tags.get("library_name"),
        base_models=tuple(named),
    )


def check_whole(selection: Selection, places: Mapping[str, object]) -> None:
    """See that weights in folders, which nobody has hashed, are whole.

    Args:
        places: those that are a `Folder` are looked at, by the `repo_id` of their files.

    Raises:
        MalformedFileError: a file is not.
    """
    weights = {path for component in selection.components for path in component.weights}
    for file in selection.files:
        if file.path in weights and isinstance(one := places[file.repo_id], Folder):
            one.check_whole(file)


# -- by name ---------------------------------------------------------------------------------------


def folder_named(name: str) -> Path | None:
    """Return the folder that a file of another folder names; None for a repository of the Hub.

    Raises:
        UnsupportedRepoError: the name can be no repository, and there is no such folder.
    """
    path = Path(from_root(name))
    is_folder = path.is_dir()
    if is_repo_id(name):
        return path if is_folder and holds_model(path) else None
    if not is_folder:
        raise UnsupportedRepoError(
            f"{quote(name)} is named, and there is no such folder on this machine",
            hint="Check the path. Where an adapter names it, write into its adapter_config.json "
            "where it is now (base_model_name_or_path), or the id of its repository.",
        )
    return path


def of_folder(error: RepoError, hub_names: Collection[str]) -> RepoError:
    """Say of a folder what is said of a repository at a revision.

    Args:
        hub_names: the repositories of the Hub that it takes files from. What is wrong there is not
            the folder's.
    """
    if any(f"{name}:" in error.message for name in hub_names):
        return error
    message = error.message.replace(" of the repository ", " of the folder ")
    message = message.replace("The repository ", "The folder ")
    hint = error.hint
    if isinstance(error, (MalformedFileError, NoWeightsError)) and "revision" in hint:
        hint = _AGAIN
    elif isinstance(error, UnsafePathError):
        hint = "Do not use this folder, unless you have made it yourself: then rename the file."
    return type(error)(message, hint=hint)
