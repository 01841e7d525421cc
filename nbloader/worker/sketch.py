"""Copies of repositories in which the weights are holes between what describes them."""

from __future__ import annotations

import functools
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from nbloader.errors import DownloadError, NbloaderError
from nbloader.records import RepoFile, Selection
from nbloader.worker.folder import Folder
from nbloader.worker.repository import Repository

_SPARE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 14
"""For blocks that a file system takes beside each part."""


class SketchOf:
    """A copy of the files of a selection, as far as they are of its own repository.

    Args:
        one: that repository.
        at_once: how many headers are read at the same time.

    Attributes:
        small: the files that are whole in it.
    """

    def __init__(self, selection: Selection, one: Repository | Folder, *, at_once: int) -> None:
        weights = {path for part in selection.components for path in part.weights}
        own = [file for file in selection.files if not file.repo_id]
        self.small = [file for file in own if file.path not in weights]
        self._hollow = [file for file in own if file.path in weights]
        self._commit = selection.commit_hash
        self._one = one
        self._at_once = at_once

    def write(self, folder: Path) -> None:
        """Write it into a folder; the small files are where a load finds them.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """
        read = functools.partial(self._one.outline, self._commit)
        with ThreadPoolExecutor(self._at_once) as pool:
            outlines = dict(zip(self._hollow, pool.map(read, self._hollow), strict=True))
        content = {file: self._one.place(self._commit, file.path) for file in self.small}
        write_sketch(folder, content, outlines)

    def appear(self, folder: Path) -> None:
        """Write it, and let the folder appear once it is complete. Raises as `write` does.

        An earlier worker may have begun with it, or ended.
        """
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            self.write(unfinished)
            unfinished.rename(folder)

    def beside(
        self, folder: Path, done: Callable[[RepoFile], object]
    ) -> Callable[[RepoFile], None]:
        """Return what is told of each file that is there, as `done` is, and writes it in time.

        The folder appears once it is complete. What goes wrong with it is no matter: it saves the
        parent some time.
        """
        left = {file.path for file in self.small}

        def write() -> None:
            with suppress(NbloaderError, OSError):
                self.appear(folder)

        def told(file: RepoFile) -> None:
            done(file)
            if file.path in left:
                left.discard(file.path)
                if not left:
                    threading.Thread(target=write, name="sketch", daemon=True).start()

        return told


def write_sketch(
    folder: Path,
    content: Mapping[RepoFile, Path],
    outlines: Mapping[RepoFile, Mapping[int, bytes] | None],
) -> None:
    """Write a copy of a repository in which the weights are holes between what describes them.

    Args:
        content: where the small files are.
        outlines: what describes the tensors in each file of weights, by its offset.

    Raises:
        DownloadError: that is not known, or the disk writes out what is empty.
    """
    for file, place in content.items():
        shutil.copyfile(place, _place(folder, file))
    for file, parts in outlines.items():
        if parts is None:
            raise _impossible(f"what describes the tensors of {file.path} is not at hand")
        allowed = _SPARE_BYTES
        with _place(folder, file).open("wb") as hollow:
            for offset, part in parts.items():
                hollow.seek(offset)
                hollow.write(part)
                allowed += len(part) + _BLOCK_BYTES
            hollow.truncate(file.size)
            hollow.flush()
            taken = os.fstat(hollow.fileno()).st_blocks * 512
        if taken > allowed:
            raise _impossible("the temporary folder is on a disk without sparse files")


def _place(folder: Path, file: RepoFile) -> Path:
    place = folder.joinpath(*file.path.split("/"))
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _impossible(why: str) -> DownloadError:
    return DownloadError(why, hint="Nothing is needed: the load itself tells.")
