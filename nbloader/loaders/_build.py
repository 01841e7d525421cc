"""One model from one folder, with the library that the plan names, component by component."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from nbloader.errors import ModelLoadError
from nbloader.loaders._placing import Arguments, Part, Steps, steps
from nbloader.quoting import quote
from nbloader.records import ComponentLoaded, Kind, Placement, Plan

__all__ = ["WHOLE", "build", "current", "modules_of", "places_itself", "task_of", "versions"]

WHOLE = "model"
"""The name of a model that is one module."""

_Parts: TypeAlias = Generator[ComponentLoaded, None, Any]
"""Gives the components that are loaded by themselves, and returns the model."""

_PLACING = ("device_map", "quantization_config")
_DTYPES = ("dtype", "torch_dtype")
_PACKAGES = ("accelerate", "bitsandbytes", "diffusers", "sentence-transformers", "transformers")


def build(
    plan: Plan, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]
) -> _Parts:
    """Build the model that `plan` describes from `folder`, without the network.

    Yields:
        Each component that is loaded by itself, once it is where it belongs.

    Returns:
        The model.

    Raises:
        ModelLoadError: the libraries cannot place it so.
    """
    todo = steps(plan, placement, versions())
    match plan.kind:
        case Kind.DIFFUSERS:
            return (yield from _diffusers(plan, folder, placement.device, todo, loader_kwargs))
        case Kind.SENTENCE_TRANSFORMERS:
            return _sentence_transformers(folder, placement.dtype, todo, loader_kwargs)
        case Kind.TRANSFORMERS:
            return _transformers(folder, todo, loader_kwargs)


def versions() -> dict[str, str]:
    """Give the versions of the packages that a placement depends on, of those that are there."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def modules_of(model: Any, plan: Plan) -> dict[str, Any]:
    """Give the parts of a built model that may hold tensors, by name."""
    match plan.kind:
        case Kind.DIFFUSERS:
            return dict(model.components)
        case Kind.SENTENCE_TRANSFORMERS:
            return {WHOLE: model}
        case Kind.TRANSFORMERS:
            return {WHOLE: model.model}


def places_itself(loader_kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the caller's own arguments settle where the tensors go, or what they are."""
    nested = loader_kwargs.get("model_kwargs") or {}
    return any(key in given for given in (loader_kwargs, nested) for key in _PLACING)


# -- diffusers -------------------------------------------------------------------------------------


def _diffusers(
    plan: Plan, folder: Path, device: str, todo: Steps, loader_kwargs: Mapping[str, Any]
) -> _Parts:
    import diffusers

    named = None if plan.custom_code else plan.class_name
    pipeline_class = getattr(diffusers, named or "DiffusionPipeline")
    arguments = _joined(todo.arguments, loader_kwargs)
    if "device_map" in loader_kwargs:
        return pipeline_class.from_pretrained(str(folder), **arguments)
    if places_itself(loader_kwargs):
        arguments.pop("device_map", None)
        return pipeline_class.from_pretrained(str(folder), **arguments).to(device)
    parts = [part for part in todo.parts if part.name not in loader_kwargs]
    loaded = {}
    for part in parts:
        began = time.monotonic()
        loaded[part.name] = _component(part, folder, loader_kwargs)
        yield ComponentLoaded(name=part.name, seconds=time.monotonic() - began)
    pipeline = pipeline_class.from_pretrained(str(folder), **arguments, **loaded)
    if todo.others is not None:
        _place_others(pipeline, loaded, todo.others)
    if any(part.meets_inputs for part in parts):
        # So that the pipeline knows it must not be moved as a whole.
        pipeline.hf_device_map = {part.name: part.arguments["device_map"][""] for part in parts}
    for call in todo.calls:
        getattr(pipeline, call.name)(**_objects(call.arguments))
    return pipeline


def _component(part: Part, folder: Path, loader_kwargs: Mapping[str, Any]) -> Any:
    """Load a component straight to its device. Its class is imported already."""
    model_class = getattr(importlib.import_module(part.library), part.class_name)
    own_dtype = {key: value for key, value in loader_kwargs.items() if key in _DTYPES}
    arguments = _joined(_objects(part.arguments, part.library), own_dtype)
    component = model_class.from_pretrained(str(folder / part.name), **arguments)
    if part.rests_on is not None:
        component = component.to(part.rests_on)
    if part.meets_inputs:
        from accelerate import dispatch_model

        dispatch_model(
            component,
            device_map=part.arguments["device_map"],
            force_hooks=True,
            skip_keys=getattr(component, "_skip_keys", None),
        )
    return component


def _place_others(pipeline: Any, loaded: Mapping[str, Any], device: str) -> None:
    """Move what was not loaded to its device; what is quantized stays where it was put."""
    import torch

    for name, component in pipeline.components.items():
        if name in loaded or not isinstance(component, torch.nn.Module):
            continue
        if not getattr(component, "is_quantized", False):  # as both libraries mark a model
            component.to(device)


# -- sentence-transformers and transformers --------------------------------------------------------


def _sentence_transformers(
    folder: Path, dtype: str, todo: Steps, loader_kwargs: Mapping[str, Any]
) -> Any:
    from sentence_transformers import SentenceTransformer

    wanted = loader_kwargs.get("model_kwargs") or {}
    model = SentenceTransformer(str(folder), **_with_model_kwargs(todo.arguments, loader_kwargs))
    if not places_itself(loader_kwargs) and not wanted.keys() & set(_DTYPES):
        _cast_others(model, dtype)
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


def _transformers(folder: Path, todo: Steps, loader_kwargs: Mapping[str, Any]) -> Any:
    import transformers

    arguments = _with_model_kwargs(todo.arguments, loader_kwargs)
    task = arguments.pop("task", None) or task_of(folder, _tasks())
    return transformers.pipeline(task, **{"model": str(folder), **arguments})


def _with_model_kwargs(ours: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """Join arguments as `_joined` does, those for the model inside them too.

    Where the caller places or quantizes the model, our placing is left out.
    """
    nested = dict(ours["model_kwargs"])
    wanted = given.get("model_kwargs") or {}
    arguments = _joined(ours, given)
    if places_itself(given):
        nested = {key: value for key, value in nested.items() if key not in _PLACING}
        if ("device_map" in given or "device_map" in wanted) and "device" not in given:
            arguments.pop("device", None)  # The libraries take one of the two.
    return {**arguments, "model_kwargs": _joined(nested, wanted)}


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


# -- from names to objects -------------------------------------------------------------------------


def _joined(ours: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """Put the caller's arguments over ours; either name of the dtype replaces the other."""
    own_dtype = given.keys() & set(_DTYPES)
    kept = {key: value for key, value in ours.items() if not (own_dtype and key in _DTYPES)}
    return {**_objects(kept), **given}


def _objects(arguments: Arguments, library: str = "transformers") -> dict[str, Any]:
    """Replace the names of dtypes and devices, and settings of quantization, by the objects.

    Args:
        library: whose `BitsAndBytesConfig` is meant.
    """
    import torch

    def objects(key: str, value: Any) -> Any:
        if key in _DTYPES and isinstance(value, str):
            return getattr(torch, value)
        if key in _DTYPES and isinstance(value, Mapping):
            return {name: getattr(torch, dtype) for name, dtype in value.items()}
        if key.endswith("load_device"):
            return torch.device(value)
        if key == "quantization_config" and isinstance(value, Mapping):
            return importlib.import_module(library).BitsAndBytesConfig(**value)
        return value

    return {key: objects(key, value) for key, value in arguments.items()}


def current(device: str) -> AbstractContextManager[None]:
    """Make a GPU the one that `cuda` means; the libraries quantize there unless told otherwise."""
    return _on_gpu(device) if device.startswith("cuda:") else nullcontext()


@contextmanager
def _on_gpu(device: str) -> Iterator[None]:
    import torch

    with torch.cuda.device(device):
        yield
