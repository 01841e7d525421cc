"""Classes in the files of sentence-transformers (from 3.0)."""

from __future__ import annotations

import re

from nbloader.libraries.sources import Sources

__all__ = ["has_class"]

_WORDS = re.compile(r"\w+")
_PACKAGE = "sentence_transformers."
_OLD_PATHS = "util/deprecated_import.py"

_MODULE_FOLDERS = (
    "models",
    "base/modules",
    "sentence_transformer/modules",
    "sparse_encoder/models",
    "sparse_encoder/modules",
    "multi_vector_encoder/modules",
    "cross_encoder/modules",
)


def has_class(sources: Sources, module: str, name: str) -> bool:
    """Tell whether a class can be imported from a module, by its path inside the package.

    New versions know the old paths; old ones do not know the new. Without a path, a class of a
    whole model or of a module is meant, wherever it is.
    """
    if not module:
        return _exports(sources, "__init__.py", name) or any(
            _defines(sources, folder, name) for folder in _MODULE_FOLDERS
        )
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    path = module.replace(".", "/")
    if not _is_module(sources, path):
        # Old paths were those of single classes, and of packages of them.
        moved = re.search(
            rf'"{re.escape(_PACKAGE + module)}":\s*"{_PACKAGE}([\w.]+)"', sources.text(_OLD_PATHS)
        )
        if moved is None:
            return False
        path = moved[1].replace(".", "/")
    return _exports(sources, f"{path}.py", name) or _defines(sources, path, name)


def _is_module(sources: Sources, path: str) -> bool:
    return bool(sources.text(f"{path}.py") or sources.text(f"{path}/__init__.py"))


def _defines(sources: Sources, folder: str, name: str) -> bool:
    return sources.defined(name, folder) is not None or _exports(
        sources, f"{folder}/__init__.py", name
    )


def _exports(sources: Sources, file: str, name: str) -> bool:
    return name in _WORDS.findall(sources.text(file))
