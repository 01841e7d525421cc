"""A copy of a repository in which the weights are holes behind their headers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from nbloader.errors import DownloadError
from nbloader.records import RepoFile

__all__ = ["write_sketch"]

_SPARE_BYTES = 1 << 20
"""For blocks that a file system takes beside the header."""


def write_sketch(
    folder: Path, content: Mapping[RepoFile, Path], headers: Mapping[RepoFile, bytes | None]
) -> None:
    """Write such a copy into a folder.

    Args:
        content: where the small files are.
        headers: of the files of weights, each up to its end.

    Raises:
        DownloadError: a header is not known, or the disk writes out what is empty.
    """
    for file, place in content.items():
        shutil.copyfile(place, _place(folder, file))
    for file, header in headers.items():
        if header is None:
            raise _impossible(f"the header of {file.path} is not at hand")
        with _place(folder, file).open("wb") as hollow:
            hollow.write(header)
            hollow.truncate(file.size)
            hollow.flush()
            taken = os.fstat(hollow.fileno()).st_blocks * 512
        if taken > len(header) + _SPARE_BYTES:
            raise _impossible("the temporary folder is on a disk without sparse files")


def _place(folder: Path, file: RepoFile) -> Path:
    place = folder.joinpath(*file.path.split("/"))
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _impossible(why: str) -> DownloadError:
    return DownloadError(why, hint="Nothing is needed: the load itself tells.")
