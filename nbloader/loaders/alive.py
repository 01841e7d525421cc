"""Models of this process that are still alive: a second copy of one takes its memory again."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["bytes_of", "copies", "loaded", "remember"]

_ALIVE: list[tuple[Hashable, str, weakref.ref[Any], int]] = []


def remember(key: Hashable, repo_id: str, model: Any, size: int) -> None:
    """Note that a model was made, without keeping it alive.

    Args:
        key: equal for two models that are the same.
        size: bytes of its tensors.
    """
    _ALIVE[:] = [entry for entry in _ALIVE if entry[2]() is not None]
    _ALIVE.append((key, repo_id, weakref.ref(model), size))


def loaded() -> tuple[tuple[str, int], ...]:
    """Give repository and bytes of each model that is alive, the largest first."""
    alive = [(repo_id, size) for _, repo_id, model, size in _ALIVE if model() is not None]
    return tuple(sorted(alive, key=lambda entry: -entry[1]))


def copies(key: Hashable) -> list[int]:
    """Give the sizes in bytes of all models with this key that are alive.

    A model whose names are gone may live on in reference cycles. A blocking load collects it first;
    beside an event loop that would take too long (a third of a second with torch imported).
    """

    def alive() -> list[int]:
        return [size for known, _, model, size in _ALIVE if known == key and model() is not None]

    if alive() and threading.current_thread() is threading.main_thread():
        gc.collect()
    return alive()


def bytes_of(modules: Iterable[Any]) -> int:
    """Add up the tensors of `torch.nn.Module`s, shared ones once."""
    import torch

    tensors: dict[int, torch.Tensor] = {}
    for module in modules:
        if isinstance(module, torch.nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                tensors[id(tensor)] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
