"""A trial of the build, before a weight is fetched: would the library make a model of these files?

What a model needs is known to nobody but the library: it compares the names and shapes of tensors
with those in the files while it loads. So it is let load, in a process of its own, from a copy of
the repository in which the small files are whole, and files of weights have their true header and
no bytes on the disk behind it (a sparse file reads as zeros). The tensors keep their stored dtype,
so that nothing is cast, and memory holds next to nothing of them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbloader.errors import NbloaderError, error_from_parts
from nbloader.libraries import attention_library
from nbloader.limits import TRIAL_KILL_LIMIT_S, TRIAL_LIMIT_S, WAIT_STEP_S
from nbloader.loaders import DTYPES, PLACING
from nbloader.records import ComponentWeights, Method, PlacedComponent, Placement, Selection
from nbloader.transfer.child import Child, environment

__all__ = ["Task", "Trial", "task_of"]

MAX_SHARDS = 64
"""Headers that are read; each is a request or two."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The dtypes that a model is loaded in: the names of safetensors, and torch's."""

_NICE = 10
"""What is waited for comes first: the download, and the import in the parent."""

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A build to try.

    Attributes:
        placement: on the CPU, in the dtypes that are stored.
        loader_kwargs: those of the caller that do not place the model.
        attention: how attention is computed; None for the library's own choice.
    """

    selection: Selection
    placement: Placement
    loader_kwargs: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None


def task_of(
    selection: Selection,
    weights: Sequence[ComponentWeights],
    loader_kwargs: Mapping[str, Any],
    attention: str | None = None,
) -> Task | str:
    """Say what is to be tried; or why nothing can be, in a few words.

    Args:
        attention: of the load. Which of its classes take it, transformers says when they are made;
            diffusers is told once they are, and may then use a GPU.
    """
    files = [path for component in selection.components for path in component.weights]
    if selection.custom_code:
        return "the code of the repository is not run before a load"
    if selection.adapters:
        return "adapters are put in"
    if selection.backend:
        return f"{selection.backend} builds nothing without the numbers"
    if selection.companions:
        return "files of several repositories are put together"
    if selection.checkpoint:
        return "a checkpoint of one file is not tried beforehand"
    if not files:
        return "it has no weights"
    if any(part.quantization for part in weights):
        return "its weights are quantized"
    if len(files) > MAX_SHARDS:
        return f"{len(files)} files of weights are more than {MAX_SHARDS}"
    kept = _kept(loader_kwargs)
    if kept is None:
        return "`loader_kwargs` holds objects"
    total: Counter[str] = Counter()
    for part in weights:
        total.update(part.bytes_by_dtype)
    return Task(
        selection=selection,
        placement=Placement(
            method=Method.CPU,
            device="cpu",
            dtype=_dtype(total),
            components=tuple(
                PlacedComponent(
                    name=part.name, device="cpu", dtype=_dtype(part.bytes_by_dtype), bytes=0
                )
                for part in weights
            ),
        ),
        loader_kwargs=kept,
        attention=attention if attention_library(selection) == "transformers" else None,
    )


def _dtype(stored: Mapping[str, int]) -> str:
    """Return torch's name of the dtype that most bytes are stored in."""
    sizes = {name: stored.get(name, 0) for name in _NAMES}
    return _NAMES[max(sizes, key=sizes.__getitem__)]


_SETTLED = {*PLACING, *DTYPES, "device"}
"""Arguments that say where a model goes and in which number format, which the trial settles."""


def _kept(loader_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments that another process can be told; None if some cannot be written."""
    kept = {key: value for key, value in loader_kwargs.items() if key not in _SETTLED}
    if isinstance(inner := kept.get("model_kwargs"), Mapping):
        kept["model_kwargs"] = {k: value for k, value in inner.items() if k not in _SETTLED}
    try:
        written = json.loads(json.dumps(kept))
    except (TypeError, ValueError, RecursionError):
        return None
    return kept if written == kept else None


def verdict(answer: Mapping[str, str]) -> NbloaderError | str | None:
    """Read an answer of the process.

    Returns:
        None if the library builds it, the error that a load would end with, or, as text, why
        nothing came of the trial.
    """
    match answer:
        case {"reference": str(reference), "message": str(message), "hint": str(hint)}:
            return error_from_parts(reference, message, hint)
        case {"unmade": str(reason)}:
            return reason
    return None


class Trial(Child):
    """A process that imports what a selection needs, and builds it when it is told the folder.

    Args:
        beside: ends the build when set, for one that makes way for other work meanwhile.
    """

    def __init__(self, task: Task, *, beside: threading.Event | None = None) -> None:
        from pydantic import TypeAdapter

        self._given_up = beside or threading.Event()
        super().__init__(
            "nbloader.worker.trial",
            environment(os.environ, endpoint=None, cache_dir=None) | _OFFLINE,
            *(() if beside is None else (str(_NICE),)),
            kill_limit_s=TRIAL_KILL_LIMIT_S,
        )
        try:
            self.write(TypeAdapter(Task).dump_json(task) + b"\n")
        except BaseException:
            self.kill()
            raise

    def build(self, folder: Path) -> NbloaderError | str | None:
        """Let it build what is in a folder, and return its `verdict`."""
        self.write(json.dumps(str(folder)).encode() + b"\n")
        end = time.monotonic() + TRIAL_LIMIT_S
        while (answer := self.read(WAIT_STEP_S)) is None:
            if self._given_up.is_set() or time.monotonic() > end:
                self.kill()
                return self._end()
        return verdict(json.loads(answer)) if answer.endswith(b"\n") else self._end()

    def _end(self) -> str:
        status, tail = self.ended(), self.stderr_tail().strip().splitlines()
        told = f": {tail[-1][:200]}" if tail else ""
        return f"its process ended with status {status}{told}"
