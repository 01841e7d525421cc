"""Files that are wanted as they are, whatever they are for: chosen by their names alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from nbloader.errors import UnsupportedRepoError
from nbloader.records import Component, FileChoice, Kind, Listing, RepoFile, Selection
from nbloader.selection.repo import check_safe
from nbloader.text import quote

MAX_FOLDERS = 12
"""More folders than that are shown as one part."""

ROOT = "files"
"""The part of what lies in no folder; the parts of folders end with a slash."""


def select_plain(listing: Listing, choice: FileChoice) -> Selection:
    """Make the selection of the files that were chosen.

    Raises:
        UnsupportedRepoError: there are none.
        UnsafePathError: a file name could leave its folder.
    """
    for file in listing.files:
        check_safe(file.path, where="The repository")
    files = [file for file in listing.files if is_chosen(file.path, choice)]
    if not files:
        raise _nothing(listing, choice)
    return Selection(
        repo_id=listing.repo_id,
        revision=listing.revision,
        commit_hash=listing.commit_hash,
        kind=Kind.FILES,
        class_name=None,
        components=_parts(files),
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def is_chosen(path: str, choice: FileChoice) -> bool:
    """Say whether a file is among those that were chosen.

    Patterns are those of the Hub's library: `*` goes across folders, letters count as they are
    written, a pattern that ends with a slash means all of a folder, a backslash is a slash.
    """
    if choice.filename is not None:
        return path == choice.filename
    allowed = choice.allow is None or _matches(path, choice.allow)
    return allowed and not _matches(path, choice.ignore)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    path = path.replace("\\", "/")
    return any(fnmatchcase(path, _whole(pattern)) for pattern in patterns)


def _whole(pattern: str) -> str:
    pattern = pattern.replace("\\", "/")
    return f"{pattern}*" if pattern.endswith("/") else pattern


def _parts(files: Iterable[RepoFile]) -> tuple[Component, ...]:
    """Let the files of each folder in the root be a part, and the others one more."""
    folders: dict[str, list[str]] = {}
    for file in files:
        top, slash, _ = file.path.partition("/")
        folders.setdefault(f"{top}/" if slash else ROOT, []).append(file.path)
    if len(folders) > MAX_FOLDERS:
        folders = {ROOT: [path for paths in folders.values() for path in paths]}
    return tuple(
        Component(name=name, paths=tuple(sorted(paths))) for name, paths in sorted(folders.items())
    )


_EMPTY = "It has no files at all."


def _nothing(listing: Listing, choice: FileChoice) -> UnsupportedRepoError:
    paths = [file.path for file in listing.files]
    if choice.filename is not None:
        near, pattern = _near(choice.filename, paths), _meant(choice.filename, paths)
        return UnsupportedRepoError(
            f"{quote(listing.repo_id)} has no file {quote(choice.filename)}.",
            hint=f"For several files: allow_patterns={quote(pattern)}."
            if pattern is not None and pattern not in paths
            else f"Is {quote(near)} meant?"
            if near
            else f"It has {_some(paths)}."
            if paths
            else _EMPTY,
        )
    patterns = [f"allow_patterns={list(choice.allow)!r}"] if choice.allow is not None else []
    patterns += [f"ignore_patterns={list(choice.ignore)!r}"] if choice.ignore else []
    meant = next((each for name in choice.allow or () if (each := _meant(name, paths))), None)
    return UnsupportedRepoError(
        f"No file of {quote(listing.repo_id)} matches {' and '.join(patterns)}.",
        hint=f"Is allow_patterns={quote(meant)} meant?"
        if meant and not choice.ignore
        else f"It has {_some(paths)}. Letters count as they are written, and `*` goes across "
        "folders."
        if paths
        else _EMPTY,
    )


def _meant(name: str, paths: list[str]) -> str | None:
    """Return the pattern that was meant by a name that is none: that of a folder, or from it on."""
    bare = name.replace("\\", "/").removeprefix("./").strip("/")
    patterns = (bare, f"{bare}/") if bare else ()
    return next((each for each in patterns if any(_matches(path, [each]) for path in paths)), None)


def _near(filename: str, paths: list[str]) -> str | None:
    """Return the path that comes next to a name: in another folder, or nearly written so."""
    name = filename.rpartition("/")[2].lower()
    same = [path for path in paths if path.rpartition("/")[2].lower() == name]
    return next(iter(same or difflib.get_close_matches(filename, paths, n=1)), None)


def _some(paths: list[str]) -> str:
    shown = ", ".join(quote(path) for path in sorted(paths, key=lambda path: path.count("/"))[:5])
    return f"{shown} and {len(paths) - 5} more" if len(paths) > 5 else shown
