"""Models of sentence-transformers, built from one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbloader.loaders._arguments import DTYPES, WHOLE, BuildSteps, places_itself, with_model_kwargs
from nbloader.loaders._placing import Steps
from nbloader.records import Placement, Plan

__all__ = ["build", "modules_of"]


def build(
    plan: Plan,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build a model of any class of the library."""
    del plan
    yield from ()
    from sentence_transformers import SentenceTransformer

    wanted = loader_kwargs.get("model_kwargs") or {}
    model = SentenceTransformer(str(folder), **with_model_kwargs(todo.arguments, loader_kwargs))
    if not places_itself(loader_kwargs) and not wanted.keys() & set(DTYPES):
        _cast_others(model, placement.dtype)
    return model


def _cast_others(model: Any, dtype: str) -> None:
    """Cast the modules that are no models of transformers, such as a Dense layer.

    They are float32, whatever the transformer is, which has its number format from its loading.
    """
    import torch
    from transformers import PreTrainedModel

    for module in model.children():
        if not any(isinstance(part, PreTrainedModel) for part in module.modules()):
            module.to(dtype=getattr(torch, dtype))


def modules_of(model: Any) -> dict[str, Any]:
    """Give the one module that a model is."""
    return {WHOLE: model}
