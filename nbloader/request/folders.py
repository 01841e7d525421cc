"""A folder of this machine in the place of a repository's id."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbloader.errors import InvalidRepoIdError
from nbloader.hub_names import is_repo_id
from nbloader.machine import holds_model
from nbloader.paths import absolute, from_root
from nbloader.text import quote, quote_path

WEIGHTS = re.compile(r".*\.(safetensors|sft|ckpt|pt|pth|bin|gguf)", re.IGNORECASE | re.DOTALL)
"""The name of a file with a model of its own."""

_MARKED = re.compile(r"[/~.]|[A-Za-z]:[\\/]|\\")
"""How a path begins that can be nothing else."""


@dataclass(frozen=True, slots=True)
class NamedFolder:
    """A folder, and how its user calls it.

    Attributes:
        name: as it was written, with the home folder in the place of `~`.
        path: the absolute path.
        is_path: whether it was given as a path, so that no repository can be meant.
    """

    name: str
    path: str
    is_path: bool = False


def read_folder(given: object) -> NamedFolder | None:
    """Read the path of a folder; None for what is the name of a repository.

    A `PathLike` is always a path, and so is a text that is absolute or begins with `.` or `~`. Any
    other text is one if there is such a folder: one of three parts or more, or with a separator at
    its end, in any case; one that could be an id, if it holds a model. That is what the libraries
    take for `from_pretrained("org/name")`, too; `hf://org/name` always is the repository.

    Raises:
        InvalidRepoIdError: it is a path, and there is no such folder, or a file.
    """
    is_path = isinstance(given, os.PathLike)
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if isinstance(text, bytes) and is_path:
        raise InvalidRepoIdError(
            f"{quote(given)} is a path of bytes", hint="Pass a path of text: os.fsdecode(path)."
        )
    if not isinstance(text, str):
        return None
    is_path = is_path or (_MARKED.match(text) is not None and not text.startswith("//"))
    if not text or "\0" in text or "://" in text:
        return None
    name = os.path.expanduser(text)  # noqa: PTH111 - a path of pathlib loses how it was written
    folder = Path(name)
    # "." is still a folder where the working folder was removed.
    path = from_root(name)
    if not os.path.isabs(path) or not _is(Path.is_dir, folder):  # noqa: PTH117
        is_path = is_path or ("/" not in text and WEIGHTS.fullmatch(text) is not None)
        if is_path and _is(Path.is_file, folder):
            raise InvalidRepoIdError(
                f"{quote(text)} is a file, and no folder",
                hint="Of this machine, the folder of a model is loaded, or a file of its weights "
                "(.safetensors, .gguf, .ckpt, .pt, .pth, .bin).",
            )
        if is_path:
            raise no_folder(given, folder)
        return None
    could_be_id = is_repo_id(text)
    if not is_path and could_be_id and not holds_model(folder):
        return None
    try:
        path.encode()
        name.encode()
    except UnicodeEncodeError:
        raise InvalidRepoIdError(
            f"the path {quote(text)} is no text in UTF-8",
            hint="Rename the folder, or pass a link to it that has a plain name.",
        ) from None
    return NamedFolder(name=name, path=path, is_path=is_path)


def read_file(given: object) -> tuple[NamedFolder, str] | None:
    """Read the path of a file of weights: its folder, and its name. None for anything else.

    A text that could be a place on the Hub as well is the file, if there is one, as it is for
    `from_single_file`; `hf://org/name/file` always is the one on the Hub.
    """
    text = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str) or "://" in text or not WEIGHTS.fullmatch(text):
        return None
    file = Path(os.path.expanduser(text))  # noqa: PTH111 - as `read_folder` does
    if not _is(Path.is_file, file):
        return None
    folder = read_folder(f"{file.parent}{os.sep}")
    return None if folder is None else (folder, file.name)


def _is(what: Callable[[Path], bool], path: Path) -> bool:
    try:
        return what(path)
    except (OSError, ValueError):  # It may not be looked at, or is too long to be a path.
        return False


def no_folder(given: object, folder: Path) -> InvalidRepoIdError:
    """The error for a path that leads to nothing; its hint names where it ends."""
    above = folder.parent
    while not _is(Path.is_dir, above) and above != above.parent:
        above = above.parent
    missing = folder.relative_to(above).parts[:1]
    what = "file" if WEIGHTS.fullmatch(folder.name) else "folder"
    return InvalidRepoIdError(
        f"there is no {what} {quote_path(given)}",
        hint=f"{quote_path(absolute(above))} has no {quote(missing[0] if missing else '')}: check "
        "the path, and the folder that this process runs in (os.getcwd()). "
        'Ids of the Hub look like "Qwen/Qwen-Image-Edit-2509".',
    )
