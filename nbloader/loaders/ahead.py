"""Components that are built while the files of others still arrive.

A pipeline of diffusers takes its components ready-made: each is loaded by the `from_pretrained` of
its class from its folder, as the pipeline would do, and handed to it at the end. What that cannot
be done with, the pipeline loads itself from the complete folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nbloader.loaders.arguments import DTYPES
from nbloader.loaders.placing import Part, by_itself, model_arguments, part_of
from nbloader.loaders.versions import versions
from nbloader.records import Component, Method, Placement, Selection


class Arrivals:
    """The files of a selection that are where they will be loaded from.

    Args:
        passing: whether files of weights go once they are read. Components are then built in the
            order in which they are fetched, and no file is read twice.

    Attributes:
        passing: as given.
        all_there: whether they all are.
    """

    def __init__(
        self, selection: Selection, *, all_there: bool = True, passing: bool = False
    ) -> None:
        self._paths = {part.name: frozenset(part.paths) for part in selection.components}
        self.passing = passing
        self._sizes = {file.path: file.size for file in selection.files}
        self._done: set[str] = set()
        self.all_there = all_there

    def note(self, path: str) -> None:
        """Take note of a file that is there."""
        self._done.add(path)

    def has(self, component: str) -> bool:
        """Say whether the files of a component are there."""
        paths = self._paths.get(component)
        return self.all_there or (paths is not None and paths <= self._done)

    def in_order(self, parts: Iterable[Part]) -> list[Part]:
        """Return components in the order in which they are built, as far as there is a choice."""
        if not self.passing:
            return list(parts)
        return sorted(parts, key=lambda part: -self._size(part.name))

    def _size(self, component: str) -> int:
        return sum(self._sizes.get(path, 0) for path in self._paths.get(component, ()))

    def has_file(self, path: str) -> bool:
        """Say whether a file of the selection is there, by its path."""
        return self.all_there or path in self._done


_OF_COMPONENTS = frozenset(
    {
        "disable_mmap",
        "load_connected_pipeline",
        "low_cpu_mem_usage",
        "max_memory",
        "offload_folder",
        "offload_state_dict",
        "provider",
        "provider_options",
        "sess_options",
        "use_flashpack",
        "use_onnx",
        "use_safetensors",
    }
)
"""Arguments of a pipeline's `from_pretrained` that decide how its components are loaded
(`diffusers/pipelines/pipeline_utils.py`, 0.37 to 0.42)."""

_OTHER_FRAMEWORKS = ("Flax", "Onnx")
"""What the names of classes begin with that take arguments of their own."""


def parts_ahead(
    selection: Selection,
    placement: Placement,
    loader_kwargs: Mapping[str, Any],
    *,
    others: Iterable[Part] = (),
) -> tuple[Part, ...]:
    """Name the components of a pipeline that can be loaded as the pipeline itself would.

    Args:
        loader_kwargs: the caller's arguments of the pipeline.
        others: the components that are loaded by themselves in any case.
    """
    if selection.custom_code or selection.custom_pipeline or selection.checkpoint:
        return ()
    if not _OF_COMPONENTS.isdisjoint(loader_kwargs):
        return ()
    if any(isinstance(loader_kwargs.get(name), Mapping) for name in DTYPES):
        return ()
    known, found = {part.name for part in others}, versions()
    return tuple(
        _part(selection, component, placement, found)
        for component in selection.components
        if component.name not in known | loader_kwargs.keys()
        and not component.repo_id
        and not component.checkpoint
        and not component.argument
        and by_itself(selection, component)
        and not (component.class_name or "").startswith(_OTHER_FRAMEWORKS)
    )


def _part(
    selection: Selection,
    component: Component,
    placement: Placement,
    versions: Mapping[str, str],
) -> Part:
    """Return a component with the arguments that its pipeline would give it (`load_sub_model`)."""
    arguments: dict[str, Any] = {}
    if component.weights:
        placed = next((one for one in placement.components if one.name == component.name), None)
        dtype = placed.dtype if placed is not None else placement.dtype
        arguments = model_arguments(selection, component, dtype, versions)
        if placement.method is Method.GPU and "accelerate" in versions:
            arguments["device_map"] = placement.device.partition(":")[0]
    return replace(part_of(component, arguments), is_plain=True)
