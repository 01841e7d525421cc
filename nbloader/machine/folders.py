"""Folders of this machine that one of the libraries can load a model from."""

from __future__ import annotations

import json
from pathlib import Path

from nbloader.records import Kind
from nbloader.small_files import read_small

MOST_BYTES = 1_000_000


def kind_of(folder: Path) -> Kind | None:
    """Say whose a folder is by the file that it begins with; None for nobody's."""
    if isinstance(index := _read(folder / "model_index.json"), dict) and "_class_name" in index:
        return Kind.DIFFUSERS
    modules = _read(folder / "modules.json")
    if isinstance(modules, list) and modules and all(isinstance(m, dict) for m in modules):
        return Kind.SENTENCE_TRANSFORMERS
    # Many things are called config.json.
    if isinstance(config := _read(folder / "config.json"), dict) and "model_type" in config:
        return Kind.TRANSFORMERS
    return None


def holds_model(folder: Path) -> bool:
    """Say whether a folder holds a model or an adapter that a `from_pretrained` takes."""
    if kind_of(folder) is not None:
        return True
    adapter, config = _read(folder / "adapter_config.json"), _read(folder / "config.json")
    return (isinstance(adapter, dict) and "peft_type" in adapter) or (
        isinstance(config, dict) and "_class_name" in config
    )


def _read(file: Path) -> object:
    try:
        return json.loads(read_small(file, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
