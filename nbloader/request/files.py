"""Files that a download is to bring, chosen by their names."""

from __future__ import annotations

from collections.abc import Iterable

from nbloader.errors import InvalidArgumentError
from nbloader.records import FileChoice, RepoType
from nbloader.request.call import DownloadCall
from nbloader.request.parts import check_inner
from nbloader.text import quote

_ALL = FileChoice()


def file_choice(call: DownloadCall, repo_type: RepoType) -> FileChoice | None:
    """Return which files are wanted; None for those that a load would use.

    Raises:
        InvalidArgumentError: a pattern or a name is none, or two arguments contradict each other.
    """
    allow = _patterns("allow_patterns", call.allow_patterns)
    ignore = _patterns("ignore_patterns", call.ignore_patterns)
    filename = _filename(call.filename)
    if filename is not None and call.subfolder:  # as hf_hub_download takes them
        filename = f"{check_inner('subfolder', call.subfolder)}/{filename}"
    choice = FileChoice(allow=allow, ignore=ignore or (), filename=filename)
    if choice == _ALL and ignore is None and repo_type is RepoType.MODEL:
        return None
    if filename is not None and (allow is not None or ignore is not None):
        raise InvalidArgumentError(
            "filename= is one file, and allow_patterns= and ignore_patterns= choose among all",
            hint="Leave out filename=, or the patterns.",
        )
    asked = {
        "kind": call.kind != "auto",
        "task": call.task,
        "variant": call.variant,
        "cls": call.cls,
        "subfolder": call.subfolder and filename is None,
        "components": call.components,
        "adapters": call.adapters,
    }
    for name, given in asked.items():
        if given:
            raise InvalidArgumentError(
                f"{name}= says how a model would be loaded, and here files are chosen by their "
                "names",
                hint=f"Leave out {name}=, or the patterns, the file and repo_type= for the files "
                "that a load would use.",
            )
    return choice


def _patterns(name: str, given: object) -> tuple[str, ...] | None:
    """Return patterns, of which a text is one; None for none at all."""
    if given is None:
        return None
    patterns = (given,) if isinstance(given, str) else given
    if isinstance(patterns, Iterable) and not isinstance(patterns, (bytes, dict)):
        found = tuple(patterns)
        if all(isinstance(each, str) and each for each in found):
            return found
    raise InvalidArgumentError(
        f"{name}={quote(given)} is not a pattern, nor a list of them",
        hint=f'Pass a text or a list, such as {name}=["*.json", "data/"].',
    )


def _filename(given: object) -> str | None:
    if given is None or (isinstance(given, str) and given):
        return given
    raise InvalidArgumentError(
        f"filename={quote(given)} is not the path of a file",
        hint='Pass its path inside the repository, such as filename="config.json"; several files '
        "are allow_patterns=[...].",
    )
