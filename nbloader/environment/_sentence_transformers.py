"""Classes of modules in the files of sentence-transformers (from 3.0)."""

from __future__ import annotations

import re

from nbloader.environment._sources import Sources

__all__ = ["has_module"]

_WORDS = re.compile(r"\w+")

_MODULE_FOLDERS = (
    "models",
    "base/modules",
    "sentence_transformer/modules",
    "sparse_encoder/models",
    "sparse_encoder/modules",
    "multi_vector_encoder/modules",
    "cross_encoder/modules",
)
_OLD_PATHS = "util/deprecated_import.py"


def has_module(sources: Sources, module: str, name: str) -> bool:
    """Tell whether a class of modules is there, under the path of its module if that is known.

    New versions know the old paths; old ones do not know the new.
    """
    if module and not _has_path(sources, module):
        return False
    return any(_defines(sources, folder, name) for folder in _MODULE_FOLDERS)


def _has_path(sources: Sources, module: str) -> bool:
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    path = module.replace(".", "/")
    return bool(
        sources.text(f"{path}.py") or sources.text(f"{path}/__init__.py")
    ) or f'"sentence_transformers.{module}"' in sources.text(_OLD_PATHS)


def _defines(sources: Sources, folder: str, name: str) -> bool:
    return sources.defined(name, folder) is not None or name in _WORDS.findall(
        sources.text(f"{folder}/__init__.py")
    )
