"""Models of this process that are still alive: a second copy of one takes its memory again."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

from nbloader.records import LoadedModel

if TYPE_CHECKING:
    import torch

__all__ = ["bytes_of", "copies", "loaded", "remember"]

_ALIVE: list[tuple[Hashable, LoadedModel, weakref.ref[Any]]] = []


def remember(key: Hashable, facts: LoadedModel, model: Any) -> None:
    """Note that a model was made, without keeping it alive.

    Args:
        key: equal for two models that are the same.
    """
    _ALIVE[:] = [entry for entry in _ALIVE if entry[2]() is not None]
    _ALIVE.append((key, facts, weakref.ref(model)))


def loaded() -> tuple[LoadedModel, ...]:
    """Give the models that are alive, the largest first."""
    alive = [facts for _, facts, model in _ALIVE if model() is not None]
    return tuple(sorted(alive, key=lambda facts: -facts.bytes))


def copies(key: Hashable) -> list[int]:
    """Give the sizes in bytes of all models with this key that are alive.

    A model whose names are gone may live on in reference cycles. A blocking load collects it first;
    beside an event loop that would take too long (a third of a second with torch imported).
    """

    def alive() -> list[int]:
        return [
            facts.bytes for known, facts, model in _ALIVE if known == key and model() is not None
        ]

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
