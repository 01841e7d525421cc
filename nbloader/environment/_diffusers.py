"""Classes in the files of diffusers (from 0.30): its `__init__.py` lists every public one."""

from __future__ import annotations

import re

from nbloader.environment._sources import Found, Sources, backends_of

__all__ = ["find_in_pipeline", "needs_of", "renamed_classes"]

_GUARDED_IMPORT = re.compile(r"^if is_(\w+?)_available\(\):\n((?:[ \t].*\n|\n)+)", re.MULTILINE)
_NOT_NEEDED = frozenset({"torch_xla", "torch_npu", "flax"})
"""Other hardware and frameworks: the rest of the file works without."""

_DEPRECATIONS = "utils/deprecation_utils.py"
_REMAPPED = re.compile(r'"(\w+)": \{\s*"new_class": "(\w+)"')


def find_in_pipeline(sources: Sources, folder: str, name: str) -> Found | None:
    """Find a class that belongs to the pipelines in one folder."""
    path = f"pipelines/{folder}"
    return sources.listed(name, path) or sources.defined(name, path)


def needs_of(sources: Sources, found: Found, name: str) -> frozenset[str]:
    """Give the backends that a class needs."""
    if found.file is None:
        return found.backends
    text = sources.text(found.file)
    return found.backends | backends_of(text, name) | _used_unasked(text)


def renamed_classes(sources: Sources) -> dict[str, str]:
    """Give the classes of transformers that diffusers takes for others that are gone."""
    return dict(_REMAPPED.findall(sources.text(_DEPRECATIONS)))


def _used_unasked(text: str) -> frozenset[str]:
    """The packages that a file imports where they are there, and then uses without asking again.

    So `ftfy` in the pipelines of Wan: without it the first prompt ends in a NameError.
    """
    return frozenset(
        match[1]
        for match in _GUARDED_IMPORT.finditer(text)
        if match[1] not in _NOT_NEEDED
        and "import " in match[2]
        and text.count(f"is_{match[1]}_available()") == 1
    )
