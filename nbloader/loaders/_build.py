"""One model from one folder, with the library that the plan names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbloader.errors import ModelLoadError
from nbloader.fit import Placement
from nbloader.loaders.device import dtype_argument
from nbloader.quoting import quote
from nbloader.records import Kind, Plan

__all__ = ["build", "modules_of", "places_itself", "task_of"]

_PLACING = ("device_map", "quantization_config")


def build(plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]) -> Any:
    """Build the model that `plan` describes from `folder`, without the network."""
    match plan.kind:
        case Kind.DIFFUSERS:
            return _diffusers(plan, folder, placement, loader_kwargs)
        case Kind.SENTENCE_TRANSFORMERS:
            return _sentence_transformers(plan, folder, placement, loader_kwargs)
        case Kind.TRANSFORMERS:
            return _transformers(plan, folder, placement, loader_kwargs)


def modules_of(model: Any, plan: Plan) -> dict[str, Any]:
    """Give the parts of a built model that may hold tensors, by name."""
    match plan.kind:
        case Kind.DIFFUSERS:
            return dict(model.components)
        case Kind.SENTENCE_TRANSFORMERS:
            return {"model": model}
        case Kind.TRANSFORMERS:
            return {"model": model.model}


def places_itself(loader_kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the caller's own arguments settle where the tensors go, or what they are."""
    nested = loader_kwargs.get("model_kwargs") or {}
    return any(key in given for given in (loader_kwargs, nested) for key in _PLACING)


def _diffusers(
    plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]
) -> Any:
    import diffusers

    named = None if plan.custom_code else plan.class_name
    pipeline_class = getattr(diffusers, named or "DiffusionPipeline")
    arguments: dict[str, Any] = {
        **dtype_argument("diffusers", placement.dtype),
        "local_files_only": True,
    }
    if plan.variant is not None:
        arguments["variant"] = plan.variant
    if plan.custom_code:
        arguments["trust_remote_code"] = True
    pipeline = pipeline_class.from_pretrained(str(folder), **{**arguments, **loader_kwargs})
    return pipeline if places_itself(loader_kwargs) else pipeline.to(placement.device)


def _sentence_transformers(
    plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]
) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    given = dict(loader_kwargs)
    wanted = dict(given.pop("model_kwargs", {}))
    own_dtype = bool(wanted.keys() & {"dtype", "torch_dtype"})
    model_kwargs = {
        **({} if own_dtype else dtype_argument("transformers", placement.dtype)),
        **({} if plan.variant is None else {"variant": plan.variant}),
        **wanted,
    }
    model = SentenceTransformer(
        str(folder),
        **{
            "device": placement.device,
            "local_files_only": True,
            "trust_remote_code": plan.custom_code,
            "model_kwargs": model_kwargs,
            **given,
        },
    )
    if own_dtype or places_itself(wanted):
        return model
    # Modules behind the transformer (a Dense layer) are float32 whatever the transformer is.
    return model.to(dtype=getattr(torch, placement.dtype))


def _transformers(
    plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]
) -> Any:
    import transformers

    given = dict(loader_kwargs)
    task = given.pop("task", None) or task_of(folder, _tasks())
    return transformers.pipeline(
        task,
        **{
            "model": str(folder),
            "device": placement.device,
            "local_files_only": True,
            "trust_remote_code": plan.custom_code,
            **dtype_argument("transformers", placement.dtype),
            **given,
            "model_kwargs": {
                **({} if plan.variant is None else {"variant": plan.variant}),
                **given.pop("model_kwargs", {}),
            },
        },
    )


def _tasks() -> dict[str, frozenset[str]]:
    """Give the classes that each task of the installed transformers accepts, most special last."""
    from transformers.pipelines import SUPPORTED_TASKS

    def names(auto: Any) -> frozenset[str]:
        mapping = getattr(auto, "_model_mapping", None)
        names = getattr(mapping, "_model_mapping", {}).values()
        flat = (entry if isinstance(entry, (tuple, list)) else (entry,) for entry in names)
        return frozenset(name for entry in flat for name in entry)

    return {
        task: frozenset().union(*(names(auto) for auto in facts["pt"]))
        for task, facts in SUPPORTED_TASKS.items()
    }


def task_of(folder: Path, tasks: Mapping[str, frozenset[str]]) -> str:
    """Find the task of a plain model from the class that its config names.

    `pipeline` would ask the Hub; the config's `architectures` says the same. Several tasks may
    accept a class: the first in the library's own order wins.

    Raises:
        ModelLoadError: no task fits; the hint names the argument that settles it.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    architectures = [name for name in config.get("architectures") or () if isinstance(name, str)]
    for name in architectures:
        for task, accepted in tasks.items():
            if name in accepted:
                return task
    raise ModelLoadError(
        f"no task is known for the class {', '.join(map(quote, architectures[:3])) or '(none)'}",
        hint='Name it: nbloader.load(..., loader_kwargs={"task": "feature-extraction"})',
    )
