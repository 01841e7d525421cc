"""From a folder of files to a model that works."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbloader.errors import ModelLoadError, NbloaderError
from nbloader.fit import Placement, choose_placement
from nbloader.loaders._build import build, modules_of, places_itself
from nbloader.loaders.alive import bytes_of, copies, remember
from nbloader.loaders.device import device_facts
from nbloader.loaders.imports import Import
from nbloader.loaders.quiet import quiet
from nbloader.loaders.self_test import check_embeddings, check_modules
from nbloader.records import Plan

__all__ = [
    "Import",
    "bytes_of",
    "check_embeddings",
    "check_modules",
    "copies",
    "load",
    "modules_of",
    "place",
    "places_itself",
    "quiet",
    "remember",
]

_BUILDING = threading.Lock()
"""Both libraries patch globals while they build: two models at once come out wrong."""


def place(device: str, dtype: str) -> Placement:
    """Settle device and dtype on this machine. Imports torch. Raises InvalidArgumentError."""
    return choose_placement(device, dtype, device_facts())


def load(plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]) -> Any:
    """Build the model that `plan` describes from its complete folder.

    Args:
        loader_kwargs: passed on to the library, over our own choices.

    Raises:
        ModelLoadError: the library could not build it.
    """
    with _BUILDING, quiet(), _globals_kept():
        try:
            return build(plan, folder, placement, loader_kwargs)
        except NbloaderError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            raise ModelLoadError(
                f"{plan.repo_id} could not be built from its files: {text}",
                hint=_hint(error),
            ) from error


def _hint(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError":
        return 'The GPU is full. Restart the kernel to free it, or load with `device="cpu"`.'
    if isinstance(error, ImportError):
        return "Install what is missing and restart the kernel."
    return "The model may need a newer library: upgrade it, restart the kernel, and load again."


@contextmanager
def _globals_kept() -> Iterator[None]:
    """Restore what a failed construction can leave changed: both libraries patch it meanwhile."""
    import torch

    dtype, collecting = torch.get_default_dtype(), gc.isenabled()
    register = torch.nn.Module.register_parameter
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
        if collecting:
            gc.enable()
