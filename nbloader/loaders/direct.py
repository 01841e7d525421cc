"""Weights that are read straight to where they stay, and why others are left to the library.

Whatever is decided here, the model comes out the same: see `handing`. It is only a question of time
and memory.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nbloader.errors import ModelLoadError
from nbloader.loaders.arguments import DTYPES, PLACING
from nbloader.loaders.folders import read_object, snapshot_of
from nbloader.loaders.handing import handed
from nbloader.loaders.reading import PINNED, Reading
from nbloader.loaders.versions import versions as installed_versions
from nbloader.records import (
    Component,
    Kind,
    Method,
    Notice,
    PlacedComponent,
    Placement,
    Selection,
)
from nbloader.text import plain, quote

_METHODS = frozenset({Method.GPU, Method.MULTI_GPU})
"""The plans by which weights lie on GPUs as they are: whole models, or whole components. Beside
them there is group offload, from memory that is pinned."""

_DEVICES = frozenset({"cuda"})
"""Elsewhere mapped weights cost less than a copy of them."""

_KINDS = frozenset({Kind.DIFFUSERS, Kind.TRANSFORMERS, Kind.CLASSES})
"""sentence-transformers builds a model in memory, and moves it afterwards."""

_AROUND_TRANSFORMERS = frozenset({"MLMTransformer", "Transformer"})
"""Modules of sentence-transformers whose weights transformers reads. Others open their files
themselves, a few megabytes each."""

_SETTLED = frozenset(
    {
        *DTYPES,
        *PLACING,
        "disable_mmap",
        "gguf_file",
        "low_cpu_mem_usage",
        "max_memory",
        "model",
        "offload_folder",
        "offload_state_dict",
        "parallel_config",
        "state_dict",
        "tp_plan",
        "use_flashpack",
    }
)
"""Arguments of the caller's that change what becomes of a file of weights."""

_SAME_SHARE, _SAME_BYTES = 1.02, 1_000_000
"""How much larger than its tensors a file may be, with its header and what stays in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What is read straight to its device.

    Attributes:
        components: each with its device, in the order in which they are built.
        reason: why there are none, as a clause; empty where the plan has no use for it.
    """

    components: tuple[tuple[Component, str], ...] = ()
    reason: str = ""


def way(
    selection: Selection,
    placement: Placement,
    loader_kwargs: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Way:
    """Say which weights are read straight to their device. Pure.

    Args:
        versions: of the installed packages, by their names on the package index.
    """
    parts = _parts(selection, placement)
    if not _suits(selection, placement) or not parts:
        return Way()
    reason = (
        _of_call(selection, loader_kwargs, versions)
        or _of_files(parts)
        or _of_memory(selection, placement, parts)
    )
    if reason:
        return Way(reason=reason)
    return Way(
        components=tuple((component, _device(placement, placed)) for component, placed in parts)
    )


def way_of_passing(
    selection: Selection,
    placement: Placement,
    loader_kwargs: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Way:
    """Say which weights can be read by us whatever the plan, so that their files may go. Pure.

    They go to their device as they are, or to memory, from which the library then takes them.

    Args:
        versions: as for `way`.
    """
    parts = [
        (component, placed)
        for component, placed in _parts(selection, placement)
        if not (component.library or "").startswith("sentence_transformers")
        or component.class_name in _AROUND_TRANSFORMERS
    ]
    reason = (
        _of_call(selection, loader_kwargs, versions)
        or _of_files(parts)
        or _of_second_look(selection)
        if parts
        else "it has no weights of its own"
    )
    if reason:
        return Way(reason=reason)
    suits = _suits(selection, placement)
    sizes = {file.path: file.size for file in selection.files}
    return Way(
        components=tuple(
            (
                component,
                _device(placement, placed)
                if suits and _is_same(component, placed, sizes)
                else "cpu",
            )
            for component, placed in parts
        )
    )


def _is_same(component: Component, placed: PlacedComponent, sizes: Mapping[str, int]) -> bool:
    """Say whether weights stay in the number format that they are stored in."""
    stored = sum(sizes.get(path, 0) for path in component.weights)
    return placed.bytes <= stored <= _SAME_SHARE * placed.bytes + _SAME_BYTES


def _suits(selection: Selection, placement: Placement) -> bool:
    """Say whether a plan leaves whole components, as they are, on GPUs or in pinned memory."""
    if placement.method is Method.GROUP_OFFLOAD:
        return selection.kind in _KINDS and placement.group_stream
    return (
        placement.method in _METHODS
        and selection.kind in _KINDS
        and all(
            part.device.partition(":")[0] in _DEVICES and "," not in part.device
            for part in placement.components
        )
    )


def _device(placement: Placement, placed: PlacedComponent) -> str:
    """Return where a component is read to.

    Layers that wait for their turn wait in pinned memory. The library copies them there, unless
    that is where they are.
    """
    return PINNED if placement.method is Method.GROUP_OFFLOAD else placed.device


_Part = tuple[Component, PlacedComponent]


def _parts(selection: Selection, placement: Placement) -> list[_Part]:
    components = {component.name: component for component in selection.components}
    return [
        (component, placed)
        for placed in placement.components
        if (component := components.get(placed.name)) is not None
        and component.weights
        and component.library != "peft"  # It is read by a reader of its own.
        and not component.repo_id  # The library moves those as a whole.
    ]


def _of_call(
    selection: Selection, loader_kwargs: Mapping[str, Any], versions: Mapping[str, str]
) -> str:
    nested = loader_kwargs.get("model_kwargs") or {}
    settled = sorted(_SETTLED & {*loader_kwargs, *nested})
    if settled:
        return f"the caller gives {settled[0]}"
    if selection.custom_code:
        return "it is built by code of its repository"
    if selection.checkpoint or any(part.checkpoint for part in selection.components):
        return "it comes from a single file"
    if "accelerate" not in versions:
        return "accelerate is not installed"
    return "" if hasattr(os, "preadv") else "this system cannot read so"


def _of_files(parts: list[_Part]) -> str:
    others = (
        path
        for component, _ in parts
        for path in component.weights
        if not path.endswith(".safetensors")
    )
    found = next(others, None)
    return f"{found} is not in safetensors" if found else ""


def _of_second_look(selection: Selection) -> str:
    """The authors of ColBERT keep a projection among the weights of the encoder, where
    sentence-transformers looks for it once the encoder is built."""
    names = {file.path for file in selection.files}
    late = selection.class_name == "MultiVectorEncoder" and "modules.json" not in names
    return "sentence-transformers reads its weights twice" if late else ""


def _of_memory(selection: Selection, placement: Placement, parts: list[_Part]) -> str:
    """Weights that are cast lie on the GPU twice, for a moment; the plan has to have the room."""
    sizes = {file.path: file.size for file in selection.files}
    needed: Counter[str] = Counter()
    casts = False
    for component, placed in parts:
        stored = sum(sizes.get(path, 0) for path in component.weights)
        same = _is_same(component, placed, sizes)
        casts = casts or not same
        needed[_device(placement, placed)] += placed.bytes if same else stored + placed.bytes
    for device, size in needed.items() if casts else ():
        if device == PINNED:
            return "it is cast in memory"
        kind, _, number = device.partition(":")
        if kind == "cuda" and size > sum(placement.vram[int(number or 0) :][:1]):
            return f"casting it on {device} takes more memory than using it"
    return ""


# -- doing it --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """Files that go once they are read.

    Attributes:
        paths: theirs in the selection; weights, all of the selection's own repository.
        folder: a copy of the repository for the library to open. What stands for weights there
            cannot be read, so that nobody takes it for them.
        outlines: a folder with the headers of those, each at the path of its file.
        is_there: says whether a file of the selection is in its place.
        read: told of the path of each once it is read, from a thread that reads.
    """

    paths: frozenset[str]
    folder: Path
    outlines: Path
    is_there: Callable[[str], bool]
    read: Callable[[str], object]


class Direct:
    """The weights of a build on their way to their devices, beside it. To be closed.

    Args:
        cancelled: whoever waits for them stops when it is set.
        passing: files that go once they are read; only those are, then.

    Attributes:
        problem: why weights are left to the library, as a clause; empty where none are, and where
            the plan has no use for it.
    """

    def __init__(
        self,
        selection: Selection,
        folder: Path,
        placement: Placement,
        loader_kwargs: Mapping[str, Any],
        *,
        cancelled: threading.Event | None = None,
        passing: Passing | None = None,
    ) -> None:
        choose = way if passing is None else way_of_passing
        found = choose(selection, placement, loader_kwargs, installed_versions())
        self.problem = found.reason
        self._selection, self._folder = selection, folder
        self._told = False
        self._lock = threading.Lock()
        self._left = [
            (component, path, device)
            for component, device in found.components
            for path in component.weights
            if passing is None or path in passing.paths
        ]
        self._reading = Reading(cancelled=cancelled) if found.components else None
        self._passing = passing
        if self._reading is not None and passing is not None:
            for _, path, device in self._left:
                outline = passing.outlines / path
                self._reading.expect(passing.folder / path, device, name=path, outline=outline)

    def begin(self, there: Callable[[str], bool]) -> None:
        """Begin to read the files that are there. Torch is imported.

        Args:
            there: says so of a path of the selection.
        """
        reading = self._reading
        if reading is None:
            return
        passing = self._passing
        there = passing.is_there if passing is not None else there
        with self._lock:  # A build may go on beside the download that is looked at.
            due = [each for each in self._left if _is_due(*each[:2], there)]
            self._left = [each for each in self._left if each not in due]
        for component, path, device in due:
            place = self._place(path)
            if passing is not None:
                read = partial(passing.read, path)
                reading.add_expected(passing.folder / path, place, read)
            elif "quantization_config" in read_object(place.parent / "config.json"):
                self.problem = self.problem or f"the weights of {component.name} are quantized"
            else:
                reading.add(place, device)

    def _place(self, path: str) -> Path:
        """Return where a file of the selection lies, which may be from another repository."""
        file = next(each for each in self._selection.files if each.path == path)
        if not file.repo_id:
            return self._folder / path
        return snapshot_of(self._selection, self._folder, file.repo_id) / file.path_in_repo

    def handed(self) -> AbstractContextManager[None]:
        """Let the libraries take what was read, on this thread, until the end of the block."""
        reading = self._reading
        return handed(reading) if reading is not None else nullcontext()

    def give_up(self, error: BaseException) -> bool:
        """Leave all to the library after an error; say whether that may help."""
        if self._reading is None or self._passing is not None:
            return False
        self.problem = f"{type(error).__name__}: {plain(str(error), 200)}"
        self.close()
        return True

    def check_asked(self) -> None:
        """See that the library has asked for all files that are gone.

        Raises:
            ModelLoadError: it has not, and may have read what only stands for them.
        """
        reading = self._reading
        never = reading.never_asked() if reading is not None else []
        if never:
            raise ModelLoadError(
                f"the library has not asked for {quote(never[0])}, which is gone",
                hint="Load without `keep_files=False`.",
            )

    def close(self) -> None:
        """Free what nobody has taken. From any thread."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()
            self.problem = self.problem or reading.problem
        self._left = []

    def notice(self) -> Notice | None:
        """Tell once why weights were left to the library; None if there is nothing to tell."""
        if not self.problem or self._told:
            return None
        self._told = True
        return Notice(
            reference="weights-by-library",
            message=f"The library itself has read the weights: {self.problem}",
            hint="Nothing is needed: it takes a little longer.",
            quiet=True,
        )


def _is_due(component: Component, path: str, there: Callable[[str], bool]) -> bool:
    """Say whether a file can be read: it is there, with what says how its weights are stored."""
    return there(path) and all(there(each) for each in component.paths if each.endswith(".json"))
