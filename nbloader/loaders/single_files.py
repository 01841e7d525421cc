"""Checkpoints of one file, each by the `from_single_file` of its class, and models in a GGUF.

The library gets a folder for the configuration, so that it has nothing to ask the Hub for; what the
checkpoint lacks is loaded before, and handed in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbloader.loaders import diffusers
from nbloader.loaders.adapters import put_into_pipeline
from nbloader.loaders.ahead import Arrivals
from nbloader.loaders.arguments import DTYPES, PLACING, joined, objects_of, places_itself
from nbloader.loaders.folders import rename
from nbloader.loaders.model_files import model_from_file, place_of, without_placing
from nbloader.loaders.placing import BuildSteps, Built, Steps
from nbloader.records import Form, Kind, Placement, Selection


def build(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build what the checkpoint of a selection holds: a pipeline, or one model."""
    if selection.kind is Kind.DIFFUSERS:
        return (yield from _pipeline(selection, folder, todo, loader_kwargs))
    component = next(part for part in selection.components if part.weights)
    if component.library == "transformers":
        return _language_model(selection, folder, placement, todo, loader_kwargs)
    arguments = joined(without_placing(todo.arguments), loader_kwargs)
    began = time.monotonic()
    model = model_from_file(selection, component, folder, arguments)
    yield Built(name=component.name, component=model, seconds=time.monotonic() - began)
    return model if "device_map" in arguments else model.to(placement.device)


# -- a pipeline ------------------------------------------------------------------------------------


def _pipeline(
    selection: Selection,
    folder: Path,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build a pipeline of the checkpoint, and of what comes from elsewhere."""
    import diffusers as library

    pipeline_class = getattr(library, selection.built_class or "")
    taken = next(part for part in selection.components if part.checkpoint == selection.checkpoint)
    base = place_of(selection, folder, taken.config)
    parts = [part for part in todo.parts if part.name not in loader_kwargs]
    loaded = yield from diffusers.load_parts(
        parts, selection, folder, loader_kwargs, Arrivals(selection)
    )
    arguments = joined(_of_one_dtype(without_placing(todo.arguments)), loader_kwargs)
    pipeline = pipeline_class.from_single_file(
        str(folder / selection.checkpoint),
        config=str(base),
        local_files_only=True,
        **arguments,
        **loaded,
    )
    rename(pipeline, base, taken.config)
    put_into_pipeline(pipeline, selection, folder)
    if not places_itself(loader_kwargs):
        for call in todo.calls:
            getattr(pipeline, call.name)(**objects_of(call.arguments))
    return pipeline


def _of_one_dtype(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with one dtype: `from_single_file` takes none for each component."""
    return {
        key: value["default"] if key in DTYPES and isinstance(value, Mapping) else value
        for key, value in arguments.items()
    }


# -- language models -------------------------------------------------------------------------------


def _language_model(
    selection: Selection,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> Any:
    """Build what transformers makes of a GGUF: the pipeline for text, or what was asked for."""
    import transformers

    where = folder / selection.checkpoint
    source = {"gguf_file": where.name, "local_files_only": True}
    nested = todo.arguments.get("model_kwargs") or {}
    flat = {
        key: value
        for key, value in {**todo.arguments, **nested}.items()
        if key in (*PLACING, *DTYPES, "max_memory")
    }
    if places_itself(loader_kwargs):
        flat = {key: value for key, value in flat.items() if key in DTYPES}

    def made(class_name: str, arguments: Mapping[str, Any]) -> Any:
        built = getattr(transformers, class_name).from_pretrained(
            str(where.parent), **source, **arguments
        )
        rename(built, folder, selection.repo_id)
        return built

    def model() -> Any:
        component = next(part for part in selection.components if part.weights)
        arguments = joined(flat, loader_kwargs)
        found = made(component.class_name or "", arguments)
        return found if "device_map" in arguments else found.to(placement.device)

    if selection.kind is Kind.TRANSFORMERS:
        tokenizer = made("AutoTokenizer", {})
        return transformers.pipeline("text-generation", model=model(), tokenizer=tokenizer)
    built = [
        made(target.class_name, {}) if target.form is Form.PART else model()
        for target in selection.targets
    ]
    return tuple(built) if selection.as_tuple else built[0]
