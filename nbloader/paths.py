"""Folders of this machine as its variables name them, and the one that this process runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "FOLDER_VARIABLES",
    "absolute",
    "expanded",
    "from_root",
    "with_absolute_folders",
    "working_folder",
]

FOLDER_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN_PATH",
    "HF_XET_CACHE",
    "HF_MODULES_CACHE",
    "XDG_CACHE_HOME",
)
"""Variables of the Hub's libraries that name a folder, or a file in one."""


def working_folder() -> str | None:
    """Return the folder that this process runs in; None if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None


def expanded(path: str) -> Path:
    """Expand variables and `~` as the Hub's library does: without a home folder `~` stays."""
    return Path(os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111


def from_root(path: str) -> str:
    """Return a path from the root, as `os.path.abspath` does, which keeps to the user's links.

    Where the working folder was removed, a relative one stays as it is: nothing can be there.
    """
    try:
        return os.path.abspath(path)  # noqa: PTH100
    except OSError:
        return path


def absolute(path: Path) -> Path:
    """Do what `from_root` does; what begins there stays as it was written."""
    return path if path.is_absolute() else Path(from_root(str(path)))


def with_absolute_folders(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables in which those that name a folder do so from the root.

    A relative one means another folder as soon as anybody changes the working folder. An empty one
    names none, and would be taken for that folder.
    """
    environ = {
        name: value for name, value in environ.items() if value or name not in FOLDER_VARIABLES
    }
    found = {name: expanded(value) for name in FOLDER_VARIABLES if (value := environ.get(name))}
    relative = {name: path for name, path in found.items() if not path.is_absolute()}
    return {**environ, **{name: str(absolute(path)) for name, path in relative.items()}}
