"""A load that keeps no files: each file of weights goes once it is read.

The disk then has to have room for the largest of them, not for all. The library builds the model
of a copy of the repository in which weights are holes, and waits where it would read them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader.errors import CacheNotWritableError
from nbloader.hub_cache import PassingFiles
from nbloader.machine import home_of_environment
from nbloader.records import Notice, Selected, Selection
from nbloader.stages.planned import private_folder
from nbloader.text import format_bytes

if TYPE_CHECKING:
    from nbloader.transfer.protocol import Fetch


class PassingLoad:
    """The files of one load that go once they are read. To be closed.

    Attributes:
        paths: theirs.
        folder: of the copy; it is there once the worker has written it.
        outlines: with the headers of the weights that go.
    """

    def __init__(self, selected: Selected, paths: frozenset[str]) -> None:
        self.paths = paths
        self._selection: Selection = selected.selection
        self._snapshot = Path(selected.folder)
        self._files = PassingFiles.beside(
            selected.folder, home_of_environment(os.environ), os.getpid()
        )
        self._private = private_folder("nbloader-passing-")
        self.folder = self._private / "files"
        self.outlines = self._private / "outlines"
        self._linked = False
        self._read: dict[str, bool] = {}

    def order(self) -> Fetch:
        """Return what the next worker is told: it need not bring again what was read."""
        from nbloader.transfer.protocol import Fetch

        return Fetch(
            sketch=str(self.folder),
            passing=tuple(sorted(self.paths)),
            taken=tuple(sorted(self._read)),
        )

    def is_ready(self) -> bool:
        """Say whether the copy is there, with links to the weights that stay.

        What stands for those that go is no file of weights: whoever would read holes for numbers
        fails.
        """
        if not self._linked and self.folder.is_dir():
            weights = {path for part in self._selection.components for path in part.weights}
            for path in weights - self.paths:
                place = self.folder / path
                if place.exists():  # Those of other repositories are not in it.
                    place.unlink()
                    place.symlink_to(self._snapshot / path)
            for path in self.paths:
                place, outline = self.folder / path, self.outlines / path
                outline.parent.mkdir(parents=True, exist_ok=True)
                place.replace(outline)
                place.write_text("Weights that are not kept: they are handed over in memory.")
            self._linked = True
        return self._linked

    def heard(self, path: str) -> None:
        """Take note of a file that is in its place.

        A worker that began just when the file was read and removed has brought it once more.
        """
        if path in self._read:
            self.read(path)

    def read(self, path: str) -> None:
        """Remove a file, all of which was read. From any thread."""
        file = next(each for each in self._selection.files if each.path == path)
        self._read[path] = self._files.remove(self._selection.commit_hash, file)

    def notices(self) -> Sequence[Notice]:
        """Tell what is gone, and what has stayed."""
        sizes = {file.path: file.size for file in self._selection.files}
        gone = [path for path, removed in self._read.items() if removed]
        stayed = sorted(path for path, removed in self._read.items() if not removed)
        told: list[Notice] = []
        if gone:
            told.append(
                Notice(
                    reference="files-not-kept",
                    message=f"{format_bytes(sum(sizes[path] for path in gone))} of weights were "
                    "deleted once they were loaded, as keep_files=False asks for",
                    hint="Nothing is needed. The next load downloads them again.",
                )
            )
        if stayed:
            told.append(
                Notice(
                    reference=CacheNotWritableError.reference,
                    message=f"{stayed[0]} stays in the cache"
                    + (f", and {len(stayed) - 1} more" if len(stayed) > 1 else ""),
                    hint="Another process or another commit may use it: `nbloader.cache()` shows "
                    "what can go.",
                )
            )
        return told

    def close(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._private, ignore_errors=True)
