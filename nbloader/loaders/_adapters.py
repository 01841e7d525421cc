"""A model of transformers with an adapter of PEFT: where its parts lie, and their names.

The library finds the base model by the name in `adapter_config.json`, and asks the Hub for it; the
first of version 5 do so even where the base lies beside. Here it finds a folder: the adapter is
handed to it in a folder of its own, whose configuration names the snapshot of the base.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbloader.loaders._companions import snapshot_of
from nbloader.loaders._names import rename
from nbloader.records import Plan

__all__ = ["Places", "adapted", "replaced_modules", "whole_folder"]

_CONFIG = "adapter_config.json"
_BASE_NAME = "base_model_name_or_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a model is loaded from.

    Attributes:
        model: what `from_pretrained` of a model is given.
        base: the folder of the configuration, of the tokenizer and of the processors.
        base_id: the repository that `base` is of.
        revision: what was asked for of it.
        base_name: what an adapter calls its base.
    """

    model: Path
    base: Path
    base_id: str
    revision: str
    base_name: object = None

    def rename(self, loaded: Any) -> None:
        """Put ids of repositories wherever a folder stands for one."""
        rename(loaded, self.base, self.base_id)
        model = getattr(loaded, "model", loaded)
        for config in getattr(model, "peft_config", {}).values():
            if getattr(config, _BASE_NAME, None) == str(self.base):
                setattr(config, _BASE_NAME, self.base_name)


@contextmanager
def adapted(plan: Plan, folder: Path) -> Iterator[Places]:
    """Give where the model of a plan is loaded from, while it is built.

    A model without an adapter is loaded from its own folder.
    """
    adapter = next((part for part in plan.components if part.library == "peft"), None)
    if adapter is None:
        yield Places(model=folder, base=folder, base_id=plan.repo_id, revision=plan.revision)
        return
    other = next((one for one in plan.companions if one.role == "base-model"), None)
    base = snapshot_of(plan, folder, other.repo_id) if other else folder
    # Links: the weights stay where they are, and mapped, when the folder is gone.
    private = Path(tempfile.mkdtemp(prefix="nbloader-adapter-"))
    try:
        config = json.loads((folder / _CONFIG).read_text("utf-8"))
        (private / _CONFIG).write_text(json.dumps(config | {_BASE_NAME: str(base)}), "utf-8")
        for path in adapter.weights:
            _link(folder / path, private / path)
        yield Places(
            model=private,
            base=base,
            base_id=other.repo_id if other else plan.repo_id,
            revision=other.revision if other else plan.revision,
            base_name=config.get(_BASE_NAME),
        )
    finally:
        # A system that keeps files that are mapped keeps this one until it cleans up by itself.
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def whole_folder(plan: Plan, folder: Path) -> Iterator[Path]:
    """Give a folder with a plan's own files, in which an adapter names the snapshot of its base.

    It is `folder` where no other repository has the base.
    """
    named = next((one for one in plan.companions if one.role == "base-model"), None)
    if named is None:
        yield folder
        return
    base = snapshot_of(plan, folder, named.repo_id)
    private = Path(tempfile.mkdtemp(prefix="nbloader-adapter-"))
    try:
        for path in (file.path for file in plan.files if not file.repo_id):
            (private / path).parent.mkdir(parents=True, exist_ok=True)
            if path.rpartition("/")[2] == _CONFIG:
                config = json.loads((folder / path).read_text("utf-8"))
                (private / path).write_text(json.dumps(config | {_BASE_NAME: str(base)}), "utf-8")
            else:
                _link(folder / path, private / path)
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def replaced_modules(model: Any) -> frozenset[str]:
    """Name the modules of a model that an adapter brings whole, such as a new head."""
    parts = model.modules() if hasattr(model, "modules") else (model,)
    found = (getattr(part, "peft_config", None) for part in parts)
    return frozenset(
        name
        for configs in found
        if isinstance(configs, dict)
        for config in configs.values()
        for name in getattr(config, "modules_to_save", None) or ()
    )


def _link(source: Path, target: Path) -> None:
    """Make a file appear at another place, at the least cost that the file system allows."""
    source = source.resolve()
    for make in (target.symlink_to, target.hardlink_to):
        try:
            make(source)
        except OSError:
            continue
        return
    shutil.copyfile(source, target)
