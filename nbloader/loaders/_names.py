"""The names that a model keeps of where it was loaded from: the repository, not a folder.

The libraries are given a folder of this machine, and write its path down: into configurations, and
from there into whatever is saved of the model. After a download of their own it would be the
repository's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["rename"]

_NAMES = ("_name_or_path", "name_or_path")
_LIBRARIES = ("diffusers", "transformers", "sentence_transformers", "peft")
"""With the modules that they make of a repository's own code, such as `diffusers_modules`."""

_DEEPEST = 4
"""Levels of objects below a model that are looked at: a processor has a tokenizer, a configuration
has others."""


def rename(loaded: Any, folder: Path, repo_id: str) -> None:
    """Put the repository's id wherever a path of `folder` stands for it; other names stay.

    Args:
        loaded: a pipeline, a model, a tokenizer, a processor.
    """
    seen: set[int] = set()
    _rename(loaded, str(folder), repo_id, seen, 0)


def _rename(thing: Any, folder: str, repo_id: str, seen: set[int], depth: int) -> None:
    if id(thing) in seen or depth > _DEEPEST:
        return
    seen.add(id(thing))
    held = getattr(thing, "__dict__", {})
    for name in _NAMES:
        if _inside(held.get(name), folder):
            setattr(thing, name, repo_id)
    # A tokenizer keeps its arguments for when it is saved.
    arguments = held.get("init_kwargs")
    if isinstance(arguments, dict) and _inside(arguments.get("name_or_path"), folder):
        arguments["name_or_path"] = repo_id
    # diffusers: a mapping that cannot be written to, replaced as a whole by its own method.
    settings = held.get("_internal_dict")
    if settings is not None and _inside(settings.get("_name_or_path"), folder):
        thing.register_to_config(_name_or_path=repo_id)
    for part in _parts(thing):
        # The modules of a model are on its own level, however deep they are in it.
        down = not (_is_module(thing) and _is_module(part))
        _rename(part, folder, repo_id, seen, depth + down)


def _inside(name: Any, folder: str) -> bool:
    if not isinstance(name, (str, Path)):
        return False
    path = str(name)
    return path == folder or path.startswith((f"{folder}/", f"{folder}\\"))


def _parts(thing: Any) -> Iterator[Any]:
    """Give what keeps names inside a thing: its parts, and their configurations."""
    if _is_module(thing):
        for module in thing.modules():
            if module is not thing:
                yield module
    for value in list(getattr(thing, "__dict__", {}).values()):
        if isinstance(value, (list, tuple)):
            yield from (part for part in value if _is_named(part))
        elif _is_named(value):
            yield value


def _is_module(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Module)


def _is_named(value: Any) -> bool:
    """Tell whether a value is an object of the libraries that may keep a name."""
    return type(value).__module__.startswith(_LIBRARIES)
