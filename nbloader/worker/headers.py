"""Headers of weights, read where the files are: of repositories, and of this machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbloader.errors import MalformedFileError
from nbloader.records import Listing, RepoFile, Selection
from nbloader.selection import Header, header_reads, look_through, parse_header
from nbloader.small_files import open_regular
from nbloader.worker.folder import Folder
from nbloader.worker.repository import Repository, header_of, range_of


def first_header(
    path: str,
    files: Mapping[str, RepoFile],
    listings: Mapping[str, Listing],
    repositories: Mapping[str, Repository | Folder],
) -> Header | None:
    """Read a header that decides the selection; None if it cannot be read.

    Args:
        path: as the selection names it; the whole path of a file of this machine.
        files: all that the listings have, by such paths.
        listings, repositories: by the `repo_id` of their files.

    Raises:
        MalformedFileError: what the Hub sends is wrong.
    """
    file = files.get(path)
    if file is None:
        return _of_this_machine(Path(path))
    one, commit = repositories[file.repo_id], listings[file.repo_id].commit_hash
    if path.endswith(".safetensors"):
        return one.read_header(commit, file)
    found = one.look_through(commit, file)
    return None if found is None else found.header


def _of_this_machine(place: Path) -> Header | None:
    try:
        file = RepoFile(path=place.name, size=place.stat().st_size, etag="")
        with os.fdopen(open_regular(place), "rb") as opened:
            if place.name.endswith(".safetensors"):
                return parse_header(header_of(opened, file), file)
            return look_through(file, functools.partial(range_of, opened)).header
    except (OSError, MalformedFileError):
        return None


def read_headers(
    selection: Selection,
    known: Mapping[str, bytes],
    headers: dict[str, Header | None],
    repositories: Mapping[str, Repository | Folder],
    at_once: int,
) -> None:
    """Read as few headers as tell what the tensors of each component take, into `headers`.

    A file whose header is read over the network is seen to be whole, too.

    Args:
        at_once: how many are read at the same time.

    Raises:
        MalformedFileError: such a header is wrong.
    """
    files = {file.path: file for file in selection.files}

    def read(file: RepoFile) -> Header | None:
        return repositories[file.repo_id].read_header(selection.commit_of(file), file)

    with ThreadPoolExecutor(at_once) as pool:
        while wanted := header_reads(selection, known, headers):
            found = pool.map(read, [files[path] for path in wanted])
            headers.update(zip(wanted, found, strict=True))
