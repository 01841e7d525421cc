"""A call that leaves no trace: what a model and the generators were like is put back after it."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from operator import is_
from typing import Any


@contextmanager
def as_it_was(*modules: Any) -> Iterator[None]:
    """Put back, after a call, the attributes of modules and the generators of random numbers.

    The libraries switch models to evaluation, fill caches, make buffers when they are first needed
    (in inference mode, so that they could not be trained with afterwards), and set how tokenizers
    pad and cut.

    Args:
        modules: `torch.nn.Module`s, with all that is inside of them.
    """
    import numpy as np
    import torch

    parts = {id(part): part for module in modules for part in module.modules()}.values()
    kept = [(part, _attributes(part)) for part in parts]
    tokenizers = [
        (core, core.padding, core.truncation)
        for core in {
            id(core): core
            for part in parts
            for value in vars(part).values()
            for core in _cores(value)
        }.values()
    ]
    numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=_gpus(*modules)):
            yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])
        for part, attributes in kept:
            _put_back(part, attributes)
        for core, padding, truncation in tokenizers:
            _restore_padding(core, padding, truncation)


@contextmanager
def settings_kept(model: Any) -> Iterator[None]:
    """Put back what calls write into the configurations of a model."""
    settings = [getattr(model, name, None) for name in ("config", "generation_config")]
    kept = [(each, dict(vars(each))) for each in settings if hasattr(each, "__dict__")]
    try:
        yield
    finally:
        for each, values in kept:
            vars(each).clear()
            vars(each).update(values)


@contextmanager
def attributes_kept(thing: Any) -> Iterator[None]:
    """Put back the attributes of a pipeline: it counts calls, and keeps what it made for them."""
    kept = {
        name: dict(value) if type(value) is dict else value for name, value in vars(thing).items()
    }
    try:
        yield
    finally:
        vars(thing).clear()
        vars(thing).update(kept)


@contextmanager
def padding_kept(tokenizer: Any) -> Iterator[None]:
    """Put back how a tokenizer pads and cuts."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    padding, truncation = getattr(core, "padding", None), getattr(core, "truncation", None)
    try:
        yield
    finally:
        if core is not None:
            _restore_padding(core, padding, truncation)


def _restore_padding(core: Any, padding: Any, truncation: Any) -> None:
    with suppress(Exception):  # Of a version that gives other names than it takes.
        core.enable_padding(**padding) if padding else core.no_padding()
        core.enable_truncation(**truncation) if truncation else core.no_truncation()


def _gpus(*modules: Any) -> list[int]:
    devices = {weight.device for module in modules for weight in module.parameters()}
    return sorted(device.index or 0 for device in devices if device.type == "cuda")


_HOLDERS = (dict, list, OrderedDict, set)


def _attributes(part: Any) -> dict[str, tuple[Any, Any]]:
    """Return the attributes of a module, each with a copy of what it holds if it can be changed."""
    return {
        name: (value, copy(value) if type(value) in _HOLDERS else None)
        for name, value in vars(part).items()
    }


def _put_back(part: Any, attributes: dict[str, tuple[Any, Any]]) -> None:
    """Restore attributes and what they held: hooks that know a flag have to go with it."""
    now = vars(part)
    for name in now.keys() - attributes.keys():
        del now[name]
    for name, (value, held) in attributes.items():
        now[name] = value
        if held is not None and not _same(value, held):
            value.clear()
            value.extend(held) if isinstance(value, list) else value.update(held)


def _same(value: Any, held: Any) -> bool:
    """Compare what two hold by what it is: tensors have no equality."""
    if len(value) != len(held):
        return False
    if isinstance(value, dict):
        return all(key in value and value[key] is held[key] for key in held)
    return value == held if isinstance(value, set) else all(map(is_, value, held))


def _cores(value: Any) -> Iterator[Any]:
    """Find the cores of the fast tokenizers that an attribute of a module is, or holds."""
    for each in (value, getattr(value, "tokenizer", None)):
        core = getattr(each, "backend_tokenizer", each)
        if hasattr(core, "no_padding") and hasattr(core, "no_truncation"):
            yield core
