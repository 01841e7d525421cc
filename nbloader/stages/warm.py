"""The import of the libraries for a model that is in the cache, before anybody is asked.

Nothing is downloaded then, so that the imports are what takes the time, and they begin at once.
What the cached files name is a guess: the selection that is made meanwhile decides, and imports
what the guess has left out. Beside a download it would be wrong to begin so early: the import would
hold up the order to fetch.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbloader.hub_cache import RepoCache, found_partials
from nbloader.hub_names import cache_folder
from nbloader.machine import folder_of_environment
from nbloader.notebook import Background
from nbloader.records import RepoType
from nbloader.small_files import read_small

if TYPE_CHECKING:
    from nbloader.request import Request

MAX_BYTES = 1 << 20
"""Of a file that is looked at; a `model_index.json` takes some hundred."""

_WEIGHTS = ("*.safetensors", "*.bin", "*/*.safetensors", "*/*.bin")
_LIBRARIES = ("diffusers", "transformers")


def import_early(request: Request) -> float | None:
    """Begin to import what a cached model seems to need; do nothing where none is cached whole.

    Returns:
        When it began, in seconds of the monotonic clock; None if it did not.
    """
    place = _place(request)
    if place is None:
        return None
    targets = [(one.library, one.class_name) for each in request.selection.targets for one in each]
    targets = targets or guess(place, request.selection.subfolder)
    if not targets:
        return None
    Background(lambda: _import(targets))
    return time.monotonic()


def _import(targets: list[tuple[str, str]]) -> None:
    from nbloader.loaders.collector import collector_off
    from nbloader.loaders.imports import import_torch
    from nbloader.loaders.reports import quiet_loggers

    with collector_off(), quiet_loggers():
        import_torch()
        for module, name in targets:
            # The import that knows what is needed says what is wrong.
            with suppress(Exception):
                getattr(importlib.import_module(module), name)


def _place(request: Request) -> Path | None:
    """Return the folder of a model whose weights are there; None if they seem not to be."""
    if request.repo_type is not RepoType.MODEL:
        return None
    if request.folder is not None:
        return Path(request.folder)
    root = Path(request.cache_dir) if request.cache_dir else folder_of_environment(os.environ)
    try:
        cache = RepoCache(root / cache_folder(request.repo_id, request.repo_type))
        commit = cache.commit_of(request.revision)
        place = cache.snapshot(commit or request.revision)
        there = any(file.exists() for pattern in _WEIGHTS for file in place.glob(pattern))
        return place if there and not any(found_partials(cache.blobs)) else None
    except (OSError, ValueError):
        return None


def guess(place: Path, subfolder: str = "") -> list[tuple[str, str]]:
    """Name what the files of a folder seem to be loaded with, as (module, attribute)."""
    index = _read(place / "model_index.json")
    if isinstance(index, dict) and not subfolder:
        parts = [value for value in index.values() if isinstance(value, list) and len(value) == 2]
        named = [("diffusers", "DiffusionPipeline"), ("diffusers", index.get("_class_name"))]
        named += [(library, name) for library, name in parts if library in _LIBRARIES]
    elif isinstance(_read(place / "modules.json"), list):
        named = [("sentence_transformers", "SentenceTransformer")]
    else:
        config = _read(place / subfolder / "config.json")
        config = config if isinstance(config, dict) else {}
        listed = config.get("architectures")
        own = [("diffusers", config["_class_name"])] if "_class_name" in config else []
        named = [("transformers", name) for name in listed] if isinstance(listed, list) else own
    names = [(library, name) for library, name in named if isinstance(name, str)]
    return [(library, name) for library, name in dict.fromkeys(names) if name.isidentifier()]


def _read(path: Path) -> Any:
    try:
        return json.loads(read_small(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
