"""Pickled weights, looked through before they are fetched: do they hold tensors alone?

A file of `torch.save` is a zip with a pickle, `data.pkl`, that describes the tensors. Its directory
and that pickle are a few kilobytes; they are read, and the pickle is followed without running it.
What is seen is what will be loaded: the parts come from the commit of the selection, and the whole
file enters the cache only once its hash is that of the listing of the same commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nbloader.quoting import plain
from nbloader.records import PickleFacts, RepoFile, Selection
from nbloader.selection._archive import Archive, Read, Unclear, outline, read_archive
from nbloader.selection._unpickler import (
    ALLOWED,
    NOT_FOLLOWED,
    Refused,
    Tensor,
    globals_of,
    value_of,
)
from nbloader.selection.headers import Header, header_of

__all__ = ["LookedThrough", "look_through", "pickled", "sketched", "torch_refuses"]

_MAX_NAMES = 5
_NAME_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class LookedThrough:
    """What came of it.

    Attributes:
        header: what the tensors take, if the file holds a dictionary of them by name.
    """

    facts: PickleFacts
    header: Header | None = None


def pickled(selection: Selection) -> list[str]:
    """Give the files of weights that are pickled, in the order of the selection."""
    return [
        path
        for component in selection.components
        for path in component.weights
        if not path.endswith(".safetensors")
    ]


def look_through(file: RepoFile, read: Read) -> LookedThrough:
    """Find out what a file of pickled weights would make, without running any of it.

    Args:
        read: gives bytes of the file.
    """
    count = 0

    def counting(first: int, last: int) -> bytes:
        nonlocal count
        count += last - first
        content = read(first, last)
        if len(content) != last - first:
            raise Unclear("it is not as long as it should be")
        return content

    archive: Archive | None = None
    refused: tuple[str, ...] = ()
    problem, format_ = "", "zip"
    header: Header | None = None
    try:
        archive = read_archive(file.size, counting)
        header = _header(value_of(archive.content, archive.storages), len(archive.content))
    except Refused as found:
        refused = (found.name,)
    except Unclear as found:
        problem, format_ = str(found), found.format
    if archive is not None and (refused or problem):
        others = {name for name in globals_of(archive.content) if name not in ALLOWED}
        refused = (*refused, *sorted(others.difference(refused)))[:_MAX_NAMES]
    return LookedThrough(
        PickleFacts(
            path=file.path,
            tensors_only=not (refused or problem),
            format=format_,
            refused=tuple(plain(name, _NAME_CHARACTERS) for name in refused),
            problem=problem,
            bytes_read=count,
        ),
        header,
    )


def sketched(file: RepoFile, read: Read) -> dict[int, bytes] | None:
    """Give the parts of a file of pickled weights that it takes beside its tensors, by offset.

    With zeros between them, they are a file of the same tensors, all of zeros. None for a file that
    cannot be vouched for.

    Args:
        read: gives bytes of the file.
    """
    try:
        archive = read_archive(file.size, read)
        value_of(archive.content, archive.storages)
        return outline(archive, file.size, read)
    except (Refused, Unclear):
        return None


def torch_refuses(found: PickleFacts, safe_globals: Collection[str] = ()) -> bool:
    """Tell whether torch's restricted unpickler is sure to refuse a file.

    Args:
        safe_globals: names that were added to what it allows.
    """
    if found.format in ("tar", "TorchScript"):
        return True
    return any(name not in NOT_FOLLOWED and name not in safe_globals for name in found.refused)


def _header(value: object, length: int) -> Header | None:
    """Sum up the tensors of a state dict; None if the value is none."""
    if not isinstance(value, dict):
        return None
    tensors = {
        name: item for name, item in value.items() if isinstance(name, str) and type(item) is Tensor
    }
    if not tensors:
        return None
    # Tensors that are tied are one tensor under several names.
    once = {(item.storage, item.start, item.shape): name for name, item in tensors.items()}
    return header_of(
        ((name, tensors[name].dtype, tensors[name].size) for name in once.values()), length
    )
