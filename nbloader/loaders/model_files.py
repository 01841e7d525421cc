"""One model in a file, by its class's own reader of such files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbloader.loaders.arguments import DTYPES, PLACING, Arguments, objects_of
from nbloader.loaders.folders import rename, snapshot_of
from nbloader.records import Component, Selection

GGUF = ".gguf"


def model_from_file(
    selection: Selection, component: Component, folder: Path, arguments: Arguments
) -> Any:
    """Load one model from the file that it is in, and move it where the arguments say.

    Args:
        component: with the file, and where its configuration is.
        folder: the snapshot of the selection's own repository.
        arguments: of `from_pretrained`; without a dtype the one of the file.
    """
    cls = getattr(importlib.import_module(component.library or ""), component.class_name or "")
    path = _place(selection, folder, component.checkpoint)
    given = objects_of(without_placing(arguments), component.library or "")
    if "quantization_config" in arguments:
        given |= objects_of(
            {"quantization_config": arguments["quantization_config"]}, component.library or ""
        )
    if component.library == "transformers":
        source = {"gguf_file": path.name, "local_files_only": True}
        model = cls.from_pretrained(str(path.parent), **source, **given)
        rename(model, path.parent, component.repo_id or selection.repo_id)
    else:
        model = _by_diffusers(selection, component, folder, cls, path, given)
    device_map = arguments.get("device_map")
    return model.to(device_map[""]) if isinstance(device_map, Mapping) else model


def _by_diffusers(
    selection: Selection,
    component: Component,
    folder: Path,
    cls: Any,
    path: Path,
    given: dict[str, Any],
) -> Any:
    """Load a model by `from_single_file`, with a folder for its configuration."""
    import diffusers

    base = place_of(selection, folder, component.config)
    if component.folder:
        given["subfolder"] = component.folder
    if path.suffix.lower() == GGUF and "quantization_config" not in given:
        dtype = next((given[name] for name in DTYPES if given.get(name) is not None), None)
        given["quantization_config"] = diffusers.GGUFQuantizationConfig(
            **({} if dtype is None else {"compute_dtype": dtype})
        )
    model = cls.from_single_file(str(path), config=str(base), local_files_only=True, **given)
    rename(model, base, component.config)
    return model


def place_of(selection: Selection, folder: Path, repo_id: str) -> Path:
    """Return the folder of a repository of a selection: its own, or another."""
    own = repo_id in ("", selection.repo_id)
    return folder if own else snapshot_of(selection, folder, repo_id)


def _place(selection: Selection, folder: Path, path: str) -> Path:
    """Return where a file of a selection is."""
    repo_id, _, inner = path.rpartition(":")
    return place_of(selection, folder, repo_id) / inner


def without_placing(arguments: Arguments) -> dict[str, Any]:
    """Return arguments as `from_single_file` takes them: it reads a file, and places nothing."""
    left_out = {*PLACING, "max_memory", "local_files_only", "variant", "trust_remote_code"}
    return {key: value for key, value in arguments.items() if key not in left_out}
