"""From a folder of files to a model that works."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbloader.errors import ModelLoadError, NbloaderError
from nbloader.frames import clear_frames
from nbloader.loaders._build import build, modules_of, places_itself, versions
from nbloader.loaders._placing import slower
from nbloader.loaders.alive import bytes_of, copies, loaded, remember
from nbloader.loaders.device import check_device, devices, spare_bytes
from nbloader.loaders.imports import Import
from nbloader.loaders.quiet import quiet
from nbloader.loaders.self_test import check_embeddings, check_modules
from nbloader.records import Method, Placement, Plan

__all__ = [
    "Import",
    "bytes_of",
    "check_device",
    "check_embeddings",
    "check_modules",
    "copies",
    "devices",
    "load",
    "loaded",
    "modules_of",
    "places_itself",
    "quiet",
    "remember",
    "spare_bytes",
]

_BUILDING = threading.Lock()
"""Both libraries patch globals while they build: two models at once come out wrong."""


def load(plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]) -> Any:
    """Build the model that `plan` describes from its complete folder, where `placement` says.

    Args:
        loader_kwargs: passed on to the library, over our own choices.

    Raises:
        ModelLoadError: the library could not build it.
    """
    with _BUILDING, quiet(), _globals_kept():
        try:
            return build(plan, folder, placement, loader_kwargs)
        except BaseException as error:
            told = _told(error, plan, placement)
            _release(error)
            if told is None:
                raise
            raise told from error


def _told(error: BaseException, plan: Plan, placement: Placement) -> ModelLoadError | None:
    """Say what an error of a library means; None where it is none, or says so itself."""
    if isinstance(error, NbloaderError) or not isinstance(error, Exception):
        return None
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    message = f"{plan.repo_id} could not be built from its files: {text}"
    if type(error).__name__ == "OutOfMemoryError":
        other = slower(placement.method, plan.kind, gpus=len(placement.vram), packages=versions())
        message = f"{plan.repo_id} does not fit on {placement.device} with {placement.method}"
        hint = f'Load with plan="{other}". Models of before may fill the GPU: a restart frees it.'
    elif isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        message = f"{plan.repo_id} does not fit into the memory of this machine"
        hint = "Restart the kernel to free what is taken, or use a machine with more memory."
        if placement.method is Method.CPU and placement.dtype == "float32":
            hint += ' dtype="bfloat16" takes half.'
    elif isinstance(error, ImportError):
        hint = "Install what is missing and restart the kernel."
    else:
        hint = "The model may need a newer library: upgrade it, restart the kernel, and load again."
    return ModelLoadError(message, hint=hint)


def _release(error: BaseException) -> None:
    """Free what a failed load holds.

    A notebook keeps the last error, and with it the tensors in the frames of its traceback.
    """
    import torch

    clear_frames(error)
    gc.collect()
    torch.cuda.empty_cache()  # It does nothing where no GPU is in use.


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
