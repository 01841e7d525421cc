"""Models of transformers with what they need to be called, built from one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbloader.errors import ModelLoadError
from nbloader.loaders._arguments import WHOLE, BuildSteps, with_model_kwargs
from nbloader.loaders._placing import Steps
from nbloader.quoting import quote
from nbloader.records import Placement, Plan

__all__ = ["build", "modules_of", "task_of"]


def build(
    plan: Plan,
    folder: Path,
    placement: Placement,
    todo: Steps,
    loader_kwargs: Mapping[str, Any],
) -> BuildSteps:
    """Build a pipeline, or the model alone where no pipeline takes it."""
    del plan, placement
    yield from ()
    import transformers

    arguments = with_model_kwargs(todo.arguments, loader_kwargs)
    task = arguments.pop("task", None) or task_of(folder, _tasks())
    return transformers.pipeline(task, **{"model": str(folder), **arguments})


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


def modules_of(built: Any) -> dict[str, Any]:
    """Give the model, of a pipeline or as it is."""
    return {WHOLE: getattr(built, "model", built)}
