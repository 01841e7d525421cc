"""A copy of a repository in which the weights are holes between what describes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from nbloader.errors import DownloadError
from nbloader.records import RepoFile

__all__ = ["write_sketch"]

_SPARE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 14
"""For blocks that a file system takes beside each part."""


def write_sketch(
    folder: Path,
    content: Mapping[RepoFile, Path],
    outlines: Mapping[RepoFile, Mapping[int, bytes] | None],
) -> None:
    """Write such a copy into a folder.

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
