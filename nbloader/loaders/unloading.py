"""Give back the memory of models, whoever still refers to them.

Deleting a name is not enough in a notebook: `Out[]`, the last traceback, a job or a cycle of hooks
keeps the model. So the tensors are taken out of it: each one that its modules hold is replaced by
an empty one in place, which leaves those who refer to it with nothing to hold.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbloader.errors import InvalidArgumentError, LoadError
from nbloader.loaders.device import alive, forget, trim_memory
from nbloader.text import format_bytes

if TYPE_CHECKING:
    import torch

_LIBRARIES = frozenset(
    {
        "accelerate",
        "bitsandbytes",
        "diffusers",
        "peft",
        "sentence_transformers",
        "torchao",
        "transformers",
    }
)
"""Whose objects are looked into: hooks with a copy of the weights, states of quantized weights."""


@dataclass(frozen=True, repr=False)
class Freed:
    """What was given back. Shows itself as a sentence.

    Attributes:
        bytes_by_device: of the tensors that were taken out, by torch's name of the device. On the
            CPU it counts those that are mapped from files, too.
    """

    bytes_by_device: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """The sum over all devices."""
        return sum(self.bytes_by_device.values())

    def __repr__(self) -> str:
        parts = [
            f"{format_bytes(size)} of {'memory' if device == 'cpu' else device}"
            for device, size in sorted(self.bytes_by_device.items())
        ]
        return f"freed {' and '.join(parts)}" if parts else "nothing was there to be freed"


def unload(models: Any) -> Freed:
    """Take the tensors out of models; see `nbloader.unload`."""
    if isinstance(models, str):
        if models != "all":
            raise _unknown(models)
        wanted = alive()
    else:
        wanted = list(models) if isinstance(models, list | tuple) else [models]
    given_up = {id(model) for model in wanted}
    kept = [module for other in alive() if id(other) not in given_up for module in _modules(other)]
    modules = [module for model in wanted for module in _modules(model)]
    if wanted and not modules:
        raise _unknown(wanted[0])
    freed = _emptied(modules, kept)
    for model in wanted:
        forget(model)
    del modules, kept
    _collect()
    return Freed(freed)


def _unknown(given: Any) -> InvalidArgumentError:
    what = repr(given) if isinstance(given, str) else f"something of type {type(given).__name__}"
    return InvalidArgumentError(
        f"unload takes a model, a list of models, or 'all', not {what}",
        hint='Pass what `load` has returned: nbloader.unload(pipe), or nbloader.unload("all").',
    )


def _modules(model: Any) -> list[torch.nn.Module]:
    """Return the modules of a model: itself, or those among its attributes."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    if isinstance(model, torch.nn.Module):
        return [model]
    found = getattr(model, "__dict__", {}).values()
    return [each for each in found if isinstance(each, torch.nn.Module)]


def _emptied(modules: Iterable[torch.nn.Module], kept: Iterable[torch.nn.Module]) -> dict[str, int]:
    """Empty all tensors of modules but those that others hold as well, which work on.

    Returns:
        The bytes of their storages, by device; each storage is counted once.
    """
    import torch

    others = {id(tensor) for module in kept for tensor in _tensors(module)}
    work_on = {id(part) for module in kept for part in module.modules()}
    storages: dict[tuple[str, int], int] = {}
    for module in modules:
        # All are found before one is emptied: hooks and states hold some twice.
        for tensor in [each for each in _tensors(module) if id(each) not in others]:
            device, empty = str(tensor.device), torch.empty(0, dtype=tensor.dtype)
            # What wraps other tensors has no storage of its own; those are found by themselves.
            with contextlib.suppress(RuntimeError, NotImplementedError):
                storage = tensor.untyped_storage()
                key, size = (device, storage.data_ptr()), storage.nbytes()
                tensor.data = empty.to(tensor.device)
                storages[key] = size
            tensor.grad = None
        for part in module.modules():
            if id(part) in work_on:
                continue
            with contextlib.suppress(AttributeError, RuntimeError):  # It is compiled.
                part.forward = _gone
    freed: dict[str, int] = {}
    for (device, _), size in storages.items():
        freed[device] = freed.get(device, 0) + size
    return {device: size for device, size in freed.items() if device != "meta"}


def _gone(*_arguments: object, **_keywords: object) -> None:
    raise LoadError(
        "this model was unloaded: its tensors are gone",
        hint="Load it again: its files are in the cache.",
    )


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield every tensor that a module, its hooks and the states of its weights hold, once."""
    import torch

    seen: set[int] = set()
    waiting: list[object] = [module]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            waiting.append(getattr(each, "__dict__", {}))
            yield each
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            waiting.extend(each)
        elif isinstance(each, torch.nn.Module) or _is_theirs(each):
            waiting.append(getattr(each, "__dict__", {}))


def _is_theirs(each: object) -> bool:
    if isinstance(each, type):
        return False
    return type(each).__module__.partition(".")[0] in _LIBRARIES


def _collect() -> None:
    """Return to the system what torch and the C library hold for later use."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # Without a GPU in use it does nothing.
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    # Pinned memory, through which weights are offloaded, is kept apart.
    with contextlib.suppress(AttributeError, RuntimeError):
        torch._C._host_emptyCache()  # noqa: SLF001 - it has no public name
    trim_memory()
