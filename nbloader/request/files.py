"""Files that a download is to bring, chosen by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import escape

from nbloader.errors import InvalidArgumentError
from nbloader.records import FileChoice, RepoType
from nbloader.request.call import DownloadCall
from nbloader.request.folders import WEIGHTS
from nbloader.request.places import Place, check_inner
from nbloader.request.values import is_text
from nbloader.text import quote

_ALL = FileChoice()


def file_choice(call: DownloadCall, repo_type: RepoType, place: Place) -> FileChoice | None:
    """Return which files are wanted; None for those that a load would use.

    Args:
        place: where they are. Where it is the page of a file or a folder, that is wanted, unless
            the arguments say something else; the page of a model's weights stands for the model.

    Raises:
        InvalidArgumentError: a pattern or a name is none, or two arguments contradict each other.
    """
    allow = _patterns("allow_patterns", call.allow_patterns)
    ignore = _patterns("ignore_patterns", call.ignore_patterns)
    filename = _filename(call.filename)
    if filename is not None and call.subfolder:  # as hf_hub_download takes them
        filename = f"{check_inner('subfolder', call.subfolder)}/{filename}"
    choice = FileChoice(allow=allow, ignore=ignore or (), filename=filename)
    is_model = repo_type is RepoType.MODEL
    loads = _of_a_load(call, filename)
    if choice == _ALL and ignore is None:
        page = place.shown
        if is_model and (not page or WEIGHTS.fullmatch(page) or (loads and page[-1] != "/")):
            return None
        choice = _of_page(page) if page else choice
    elif place.shown.endswith("/"):
        raise InvalidArgumentError(
            f"the page is of the folder {quote(place.shown)}, and other files are named as well",
            hint=f"Pass the id alone, {quote(place.repo_id)}, and the files from the root of the "
            "repository.",
        )
    if filename is not None and (allow is not None or ignore is not None):
        raise InvalidArgumentError(
            "filename= is one file, and allow_patterns= and ignore_patterns= choose among all",
            hint="Leave out filename=, or the patterns.",
        )
    for name in loads:
        raise InvalidArgumentError(
            f"{name}= says how a model would be loaded, and here files are chosen by their names",
            hint=f"Leave out {name}=, or the patterns, the file and repo_type= for the files that "
            "a load would use."
            if not place.shown
            else f"Leave out {name}=, or pass the id alone for the files that a load would use: "
            f"{quote(place.repo_id)}.",
        )
    return choice


def _of_a_load(call: DownloadCall, filename: str | None) -> list[str]:
    """Return the names of the arguments that say how a model would be loaded."""
    asked = {
        "kind": call.kind != "auto",
        "task": call.task,
        "variant": call.variant,
        "cls": call.cls,
        "subfolder": call.subfolder and filename is None,
        "components": call.components,
        "adapters": call.adapters,
    }
    return [name for name, given in asked.items() if given]


def _of_page(page: str) -> FileChoice:
    """Return what the page of a file or a folder shows."""
    return FileChoice(allow=(escape(page),)) if page[-1] == "/" else FileChoice(filename=page)


def _patterns(name: str, given: object) -> tuple[str, ...] | None:
    """Return patterns, of which a text is one; None for none at all."""
    if given is None:
        return None
    patterns = (given,) if isinstance(given, str) else given
    if isinstance(patterns, Iterable) and not isinstance(patterns, (bytes, dict)):
        # A path of pathlib is the pattern that it is written as: the Hub's library takes it, too.
        found = tuple(os.fspath(p) if isinstance(p, os.PathLike) else p for p in patterns)
        if all(isinstance(each, str) and each and is_text(each) for each in found):
            return found
    raise InvalidArgumentError(
        f"{name}={quote(given)} is not a pattern, nor a list of them",
        hint=f'Pass a text or a list, such as {name}=["*.json", "data/"].',
    )


def _filename(given: object) -> str | None:
    name = os.fspath(given) if isinstance(given, os.PathLike) else given
    if name is None or (isinstance(name, str) and name and is_text(name)):
        return name
    raise InvalidArgumentError(
        f"filename={quote(given)} is not the path of a file",
        hint='Pass its path inside the repository, such as filename="config.json"; several files '
        "are allow_patterns=[...].",
    )
