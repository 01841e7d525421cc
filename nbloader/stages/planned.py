"""What a library is given to build from: a private folder that holds the planned files alone.

A snapshot of the Hub's cache holds whatever was ever fetched of a commit, and a folder of the
user's whatever is in it. The libraries look around there: for code beside a component, for pickles
where a configuration names them. Only what was planned was checked, so only that is to be seen.

It is laid out as the cache is, with each repository under its commit, so that a library finds code
by the name of its repository, and messages name the same folders.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbloader.errors import CacheNotWritableError
from nbloader.hub_names import cache_folder
from nbloader.records import RepoType, Selection

if TYPE_CHECKING:
    from collections.abc import Callable


class Planned:
    """Links to the files of one selection, of all its repositories. To be closed.

    Args:
        snapshot: the folder of the selection's own files.
        own: the copy that is read in its place; None for the snapshot itself.

    Attributes:
        selection: the same, with its repositories in the private folder.
        folder: of the selection's own files there.
    """

    def __init__(self, selection: Selection, snapshot: Path, own: Path | None = None) -> None:
        from nbloader.loaders import snapshot_of

        self._private = private_folder("nbloader-load-")
        self._repo_id = selection.repo_id
        # In the Hub's layout, code that is named with its repository is found by its commit.
        commit = selection.commit_hash if selection.folder is None else ""
        self.folder = self._place(0, selection.repo_id, RepoType.MODEL, commit, snapshot)
        self._places = [(self.folder, snapshot)]
        companions = []
        for number, one in enumerate(selection.companions, 1):
            true = snapshot_of(selection, snapshot, one.repo_id)
            if true == snapshot:
                companions.append(one)
                continue
            commit = one.commit_hash if one.folder is None else ""
            place = self._place(number, one.repo_id, one.repo_type, commit, true)
            self._places.append((place, true))
            companions.append(one if one.folder is None else replace(one, folder=str(place)))
        self.selection = replace(
            selection, companions=tuple(companions), cache_dir=str(self._private)
        )
        self._left: list[tuple[Path, Path]] = []
        for file in selection.files:
            if not file.repo_id:
                pair = (own or snapshot) / file.path, self.folder / file.path
            else:
                inner = file.path_in_repo
                true = snapshot_of(selection, snapshot, file.repo_id) / inner
                pair = true, snapshot_of(self.selection, self.folder, file.repo_id) / inner
            pair[1].parent.mkdir(parents=True, exist_ok=True)
            self._left.append(pair)
        self.update()

    def _place(
        self, number: int, repo_id: str, repo_type: RepoType, commit: str, true: Path
    ) -> Path:
        """Return where a repository lies; the last part is that of its true place.

        Libraries name modules after it.
        """
        if commit:
            home = self._private / cache_folder(repo_id, repo_type)
            # Some of what is looked for is asked for by no revision, and then it is this one.
            reference = home / "refs" / "main"
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)
            return home / "snapshots" / commit
        return self._private / str(number) / true.name

    def update(self) -> None:
        """Link what was not there before, where a link to nothing cannot be made."""
        self._left = [pair for pair in self._left if not _appear(*pair)]

    def named(self, text: str) -> str:
        """Put the name of the repository in the place of the private folder."""
        return text.replace(str(self.folder), self._repo_id)

    def leave(self, model: Any, move: Callable[[Any, Path, Path], object]) -> None:
        """Let what a model knows of files lead to their true places.

        Args:
            move: `loaders.move_paths`.
        """
        for place, true in self._places:
            move(model, place, true)

    def close(self) -> None:
        """Remove the links."""
        # A system that keeps files that are mapped keeps those until it cleans up by itself.
        shutil.rmtree(self._private, ignore_errors=True)


def private_folder(prefix: str) -> Path:
    """Make a temporary folder.

    Raises:
        CacheNotWritableError: none can be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise CacheNotWritableError(
            f"a temporary folder cannot be made: {error.strerror or error}",
            hint="A load needs one for links. Name a folder that can be written, such as: "
            "%env TMPDIR=/data/tmp",
        ) from error


def _appear(true: Path, place: Path) -> bool:
    """Make a file appear at another place; False if it has to be there first."""
    from nbloader.loaders import link

    if os.path.lexists(place):
        return True
    if true.exists():
        link(true, place)
        return True
    try:
        place.symlink_to(os.path.abspath(true))  # noqa: PTH100 - the link there may come later
    except OSError:
        return False
    return True
