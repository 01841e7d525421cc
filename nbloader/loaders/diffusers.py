"""Pipelines of diffusers, put together from one folder."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from nbloader.errors import CancelledError, UnsupportedRepoError
from nbloader.loaders.adapters import put_into_pipeline
from nbloader.loaders.ahead import Arrivals, parts_ahead
from nbloader.loaders.arguments import DTYPES, joined, objects_of, places_itself
from nbloader.loaders.folders import rename, snapshot_of
from nbloader.loaders.imports import COMPONENT_LIBRARIES, module_of
from nbloader.loaders.model_files import model_from_file
from nbloader.loaders.placing import BuildSteps, Built, Part, Steps, Waiting
from nbloader.loaders.reports import LoadReport, is_full
from nbloader.notebook import clear_frames
from nbloader.records import Notice, Placement, RepoType, Selection
from nbloader.text import plain, quote


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
    arrivals: Arrivals,
) -> BuildSteps:
    """Build the components of a pipeline that can be loaded by themselves, and put it together.

    Args:
        arrivals: the files that are there. Each component is built as soon as its own are.
    """
    pipeline = yield from _build(selection, folder, placement, todo, loader_kwargs, arrivals)
    rename(pipeline, folder, selection.repo_id, own=selection.folder is not None)
    return pipeline


def _build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
    arrivals: Arrivals,
) -> BuildSteps:
    import diffusers

    _check_libraries(selection, loader_kwargs)
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
    # Pipelines that are connected with others look for those in the folder; which class an
    # `AutoPipeline` takes, it decides itself.
    if not itself and not getattr(pipeline_class, "_load_connected_pipes", True):
        parts = [*parts, *parts_ahead(selection, placement, loader_kwargs, others=parts)]
    loaded = yield from load_parts(parts, selection, folder, loader_kwargs, arrivals)
    while not arrivals.all_there:
        yield Waiting()
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
        _place_others(pipeline, {part.name for part in parts if not part.is_plain}, todo.others)
    spread = [part for part in parts if part.meets_inputs]
    if spread:
        # So that the pipeline knows it must not be moved as a whole.
        pipeline.hf_device_map = {part.name: part.arguments["device_map"][""] for part in spread}
    put_into_pipeline(pipeline, selection, folder)
    for call in todo.calls:
        getattr(pipeline, call.name)(**objects_of(call.arguments))
    return pipeline


def _check_libraries(selection: Selection, handed_in: Container[str]) -> None:
    """See that the library looks for the class of each component in a place that is known.

    Up to diffusers 0.41 it imports any module that `model_index.json` names.

    Raises:
        UnsupportedRepoError: it does not.
    """
    from diffusers import pipelines

    for part in selection.components:
        library = part.library or ""
        known = library in COMPONENT_LIBRARIES or hasattr(pipelines, library)
        if library and not known and not selection.custom_code and part.name not in handed_in:
            raise UnsupportedRepoError(
                f"{quote(part.name)} of {selection.repo_id} is of the module {quote(library)}, "
                "which is code of its own or of another package",
                hint="If you trust that code, pass trust_remote_code=True, or build the component "
                f"yourself and hand it in: components={{{json.dumps(part.name)}: part}}.",
            )


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
    parts: Sequence[Part],
    selection: Selection,
    folder: Path,
    loader_kwargs: Mapping[str, Any],
    arrivals: Arrivals,
) -> BuildSteps:
    """Load components, and return them as a pipeline takes them: several of one name in a list.

    What the pipeline can load itself is left to it where it fails here, unless its files are gone.
    """
    made: dict[str, Any] = {}
    left = arrivals.in_order(parts)
    while left:
        part = next((each for each in left if arrivals.has(each.name)), None)
        if part is None:
            yield Waiting()
            continue
        left.remove(part)
        began = time.monotonic()
        try:
            component = _component(part, selection, folder, loader_kwargs)
        except Exception as error:
            once = arrivals.passing or isinstance(error, CancelledError)
            if not part.is_plain or is_full(error) or once:
                raise
            clear_frames(error)
            yield _left_to_the_pipeline(part, error)
            continue
        made[part.name] = component
        yield Built(name=part.name, component=component, seconds=time.monotonic() - began)
        del component
    # In the order of the pipeline, however they came.
    arguments: dict[str, Any] = {}
    for part in parts:
        if part.name in made and part.argument:
            arguments.setdefault(part.argument, []).append(made[part.name])
        elif part.name in made:
            arguments[part.name] = made[part.name]
    return arguments


def _left_to_the_pipeline(part: Part, error: Exception) -> Notice:
    return Notice(
        reference="whole-folder",
        message=f"{part.name} could not be built by itself ({type(error).__name__}: "
        f"{plain(str(error), 200)}), and is left to the pipeline",
        hint="Nothing is needed: it comes a little later.",
        quiet=True,
    )


def _component(
    part: Part, selection: Selection, folder: Path, loader_kwargs: Mapping[str, Any]
) -> Any:
    """Load a component straight to its device. Its class is imported already."""
    model_class = getattr(importlib.import_module(module_of(part.library)), part.class_name)
    has_dtype = not part.arguments.keys().isdisjoint(DTYPES)
    own_dtype = {key: value for key, value in loader_kwargs.items() if key in DTYPES and has_dtype}
    library = "diffusers" if part.library == "diffusers" else "transformers"
    arguments = joined(objects_of(part.arguments, library), own_dtype)
    source = next((each for each in selection.components if each.name == part.name), None)
    if source is not None and source.checkpoint:
        component = model_from_file(selection, source, folder, arguments)
    else:
        other = snapshot_of(selection, folder, part.repo_id) if part.repo_id else None
        place = other / part.folder if other is not None else folder / part.name
        component = model_class.from_pretrained(str(place), **arguments)
        if part.is_plain and not isinstance(component, model_class):
            raise TypeError(f"it is a {type(component).__name__}, not a {part.class_name}")
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


def _place_others(pipeline: Any, placed: Set[str], device: str) -> None:
    """Move all others to their device; what is quantized stays where it was put."""
    import torch

    for name, component in pipeline.components.items():
        if name in placed or not isinstance(component, torch.nn.Module):
            continue
        if not getattr(component, "is_quantized", False):  # as both libraries mark a model
            component.to(device)


def modules_of(pipeline: Any) -> dict[str, Any]:
    """Return the components of a pipeline by name."""
    return dict(pipeline.components)
