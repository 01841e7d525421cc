"""What is tried, and whether it can be. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbloader.loaders import DTYPES, PLACING
from nbloader.records import ComponentWeights, Method, PlacedComponent, Placement, Selection

__all__ = ["MAX_SHARDS", "Task", "task_of"]

MAX_SHARDS = 64
"""Headers that are read; each is a request or two."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The dtypes that a model is loaded in: the names of safetensors, and torch's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A build to try.

    Attributes:
        placement: on the CPU, in the dtypes that are stored.
        loader_kwargs: those of the caller that do not place the model.
    """

    selection: Selection
    placement: Placement
    loader_kwargs: dict[str, Any] = field(default_factory=dict)


def task_of(
    selection: Selection, weights: Sequence[ComponentWeights], loader_kwargs: Mapping[str, Any]
) -> Task | str:
    """Say what is to be tried; or why nothing can be, in a few words."""
    files = [path for component in selection.components for path in component.weights]
    if selection.custom_code:
        return "the code of the repository is not run before a load"
    if selection.companions:
        return "files of several repositories are put together"
    if not files:
        return "it has no weights"
    if any(part.quantization for part in weights):
        return "its weights are quantized"
    if len(files) > MAX_SHARDS:
        return f"{len(files)} files of weights are more than {MAX_SHARDS}"
    kept = _kept(loader_kwargs)
    if kept is None:
        return "`loader_kwargs` holds objects"
    total: Counter[str] = Counter()
    for part in weights:
        total.update(part.bytes_by_dtype)
    return Task(
        selection=selection,
        placement=Placement(
            method=Method.CPU,
            device="cpu",
            dtype=_dtype(total),
            components=tuple(
                PlacedComponent(
                    name=part.name, device="cpu", dtype=_dtype(part.bytes_by_dtype), bytes=0
                )
                for part in weights
            ),
        ),
        loader_kwargs=kept,
    )


def _dtype(stored: Mapping[str, int]) -> str:
    """Give torch's name of the dtype that most bytes are stored in."""
    sizes = {name: stored.get(name, 0) for name in _NAMES}
    return _NAMES[max(sizes, key=sizes.__getitem__)]


_SETTLED = {*PLACING, *DTYPES, "device"}
"""Arguments that say where a model goes and in which number format, which the trial settles."""


def _kept(loader_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the arguments that another process can be told; None if some cannot be written."""
    kept = {key: value for key, value in loader_kwargs.items() if key not in _SETTLED}
    if isinstance(inner := kept.get("model_kwargs"), Mapping):
        kept["model_kwargs"] = {k: value for k, value in inner.items() if k not in _SETTLED}
    try:
        written = json.loads(json.dumps(kept))
    except (TypeError, ValueError, RecursionError):
        return None
    return kept if written == kept else None
