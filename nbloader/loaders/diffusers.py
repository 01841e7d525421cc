"""Pipelines of diffusers, put together from one folder."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbloader.loaders.adapters import put_into_pipeline
from nbloader.loaders.folders import rename, snapshot_of
from nbloader.loaders.model_files import model_from_file
from nbloader.loaders.placing import (
    DTYPES,
    BuildSteps,
    Part,
    Steps,
    joined,
    objects_of,
    places_itself,
)
from nbloader.loaders.reports import LoadReport
from nbloader.records import ComponentLoaded, Placement, RepoType, Selection


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build a pipeline, or the parts that have to be placed by themselves first."""
    pipeline = yield from _build(selection, folder, placement, todo, loader_kwargs)
    rename(pipeline, folder, selection.repo_id, own=selection.folder is not None)
    return pipeline


def _build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    import diffusers

    # Where the class comes from code, only the base class looks for it. Otherwise the class itself
    # is better: it knows which of what the caller hands in is a component.
    named = None if selection.custom_pipeline else selection.built_class
    pipeline_class = getattr(diffusers, named or "DiffusionPipeline")
    arguments = joined(todo.arguments, loader_kwargs)
    if (code := _code_elsewhere(selection, folder)) is not None:
        arguments["custom_pipeline"] = str(code)
    itself = places_itself(loader_kwargs)
    parts = [
        part
        for part in todo.parts
        if part.name not in loader_kwargs and (part.repo_id or not itself)
    ]
    loaded = yield from load_parts(parts, selection, folder, loader_kwargs)
    arguments |= loaded
    if itself:
        placed = "device_map" in loader_kwargs
        if not placed:
            arguments.pop("device_map", None)
        pipeline = pipeline_class.from_pretrained(str(folder), **arguments)
        put_into_pipeline(pipeline, selection, folder)
        return pipeline if placed else pipeline.to(placement.device)
    pipeline = pipeline_class.from_pretrained(str(folder), **arguments)
    yield from _empty(pipeline)
    if todo.fills:
        _fill(pipeline)
    if todo.others is not None:
        _place_others(pipeline, loaded, todo.others)
    if any(part.meets_inputs for part in parts):
        # So that the pipeline knows it must not be moved as a whole.
        pipeline.hf_device_map = {part.name: part.arguments["device_map"][""] for part in parts}
    put_into_pipeline(pipeline, selection, folder)
    for call in todo.calls:
        getattr(pipeline, call.name)(**objects_of(call.arguments))
    return pipeline


def _code_elsewhere(selection: Selection, folder: Path) -> Path | None:
    """Return where the code of a pipeline is that comes from another repository.

    It is the folder of a repository, or the file of a pipeline of the community.
    """
    other = next((one for one in selection.companions if one.role == "code"), None)
    if other is None:
        return None
    place = snapshot_of(selection, folder, other.repo_id)
    if other.repo_type is RepoType.MODEL:
        return place
    files = (file for file in selection.files if file.repo_id == other.repo_id)
    return place / next(files).path_in_repo


def load_parts(
    parts: Sequence[Part], selection: Selection, folder: Path, loader_kwargs: Mapping[str, Any]
) -> BuildSteps:
    """Load components, and return them as a pipeline takes them: several of one name in a list."""
    arguments: dict[str, Any] = {}
    for part in parts:
        began = time.monotonic()
        component = _component(part, selection, folder, loader_kwargs)
        if part.argument:
            arguments.setdefault(part.argument, []).append(component)
        else:
            arguments[part.name] = component
        yield ComponentLoaded(name=part.name, seconds=time.monotonic() - began)
    return arguments


def _component(
    part: Part, selection: Selection, folder: Path, loader_kwargs: Mapping[str, Any]
) -> Any:
    """Load a component straight to its device. Its class is imported already."""
    model_class = getattr(importlib.import_module(part.library), part.class_name)
    has_dtype = not part.arguments.keys().isdisjoint(DTYPES)
    own_dtype = {key: value for key, value in loader_kwargs.items() if key in DTYPES and has_dtype}
    arguments = joined(objects_of(part.arguments, part.library), own_dtype)
    source = next((each for each in selection.components if each.name == part.name), None)
    if source is not None and source.checkpoint:
        component = model_from_file(selection, source, folder, arguments)
    else:
        other = snapshot_of(selection, folder, part.repo_id) if part.repo_id else None
        place = other / part.folder if other is not None else folder / part.name
        component = model_class.from_pretrained(str(place), **arguments)
        if other is not None:
            own = any(one.repo_id == part.repo_id and one.folder for one in selection.companions)
            rename(component, other, part.repo_id, own=own)
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


def _empty(pipeline: Any) -> Iterator[LoadReport]:
    """Report the models of which parameters were left without storage.

    The library itself does not where the index of the shards names what none of them has.
    """
    import torch

    for component in pipeline.components.values():
        if not isinstance(component, torch.nn.Module):
            continue
        if any(hasattr(module, "_hf_hook") for module in component.modules()):
            continue  # What accelerate has put elsewhere has no storage here.
        for model in component.modules():
            config = getattr(model, "config", None)
            source = config.get("_name_or_path") if isinstance(config, Mapping) else None
            names = (name for name, each in model.named_parameters() if each.is_meta)
            if source and (missing := tuple(sorted(names))):
                yield LoadReport(model=type(model).__name__, source=str(source), missing=missing)


def _fill(pipeline: Any) -> None:
    """Make up the parameters that no file had, which the library leaves without storage.

    They are what a layer commonly begins with: small random numbers for matrices and convolutions,
    zeros for the rest.
    """
    import torch

    for component in pipeline.components.values():
        if not isinstance(component, torch.nn.Module):
            continue
        device = next((each.device for each in component.parameters() if not each.is_meta), "cpu")
        for module in component.modules():
            for name, empty in list(module.named_parameters(recurse=False)):
                if empty.is_meta:
                    made = torch.zeros(empty.shape, dtype=empty.dtype, device=device)
                    if made.dim() > 1:
                        made.normal_(std=0.02)
                    parameter = torch.nn.Parameter(made, requires_grad=empty.requires_grad)
                    setattr(module, name, parameter)


def _place_others(pipeline: Any, loaded: Mapping[str, Any], device: str) -> None:
    """Move what was not loaded to its device; what is quantized stays where it was put."""
    import torch

    for name, component in pipeline.components.items():
        if name in loaded or not isinstance(component, torch.nn.Module):
            continue
        if not getattr(component, "is_quantized", False):  # as both libraries mark a model
            component.to(device)


def modules_of(pipeline: Any) -> dict[str, Any]:
    """Return the components of a pipeline by name."""
    return dict(pipeline.components)
