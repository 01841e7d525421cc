"""From a placement and the caller's arguments to what the libraries are asked for, call by call.

Pure: number formats and devices stand by torch's names, quantization by its settings; objects are
made of them in `arguments`. Read in diffusers 0.37 to 0.42, transformers 5.0 to 5.23,
sentence-transformers 5.0 to 6.2, accelerate 1.15.

A pipeline that is spread over GPUs or quantized is put together from components that are loaded one
by one, each straight to where it belongs. The library's own `device_map="balanced"` deals the
components out by turns, by their sizes before they are quantized, so it cannot follow a placement;
and with a `quantization_config` for the whole pipeline all its components are on the GPU before the
first can be moved away.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from packaging.version import Version

from nbloader.errors import ModelLoadError
from nbloader.loaders.arguments import Arguments
from nbloader.loaders.reports import LoadReport
from nbloader.records import (
    Component,
    Kind,
    Method,
    Notice,
    PlacedComponent,
    Placement,
    Quantization,
    Selection,
)
from nbloader.text import quote

OFFLOADING = frozenset(
    {
        Method.MODEL_OFFLOAD,
        Method.FOUR_BIT_MODEL_OFFLOAD,
        Method.GROUP_OFFLOAD,
        Method.SEQUENTIAL_OFFLOAD,
    }
)
"""The methods whose weights wait in memory and come to the GPU when they are needed."""

_SPREADING = frozenset({Method.MULTI_GPU, Method.FOUR_BIT_MULTI_GPU})
_DEALING = _SPREADING | {Method.CPU_OFFLOAD}
"""The methods by which accelerate deals out the layers of one model."""

_BY_PARTS = _SPREADING | {Method.FOUR_BIT, Method.EIGHT_BIT, Method.FOUR_BIT_MODEL_OFFLOAD}

_DTYPE_SINCE = {"diffusers": "0.40", "transformers": "4.56"}
"""The versions from which `dtype=` replaces `torch_dtype=`, which warns from there on."""

_DEVICE_MAP_SINCE = "6.2"
"""The version of sentence-transformers that leaves a model where `device_map` has put it; those
before it move the whole model to one device afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component that is loaded by itself, and then handed to its pipeline.

    Attributes:
        arguments: of its class's `from_pretrained`.
        repo_id, argument: those of its `Component`.
        folder: the one that its class is given, of another repository; else its name is that.
        rests_on: the device that it is moved to when it is loaded; None if it stays.
        meets_inputs: whether its inputs have to be brought to its device, and its outputs back.
        is_plain: whether the pipeline would load it in the same way.
    """

    name: str
    library: str
    class_name: str
    arguments: Arguments
    rests_on: str | None = None
    meets_inputs: bool = False
    repo_id: str = ""
    folder: str = ""
    argument: str = ""
    is_plain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A method of the pipeline to call once it is built."""

    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What to do to build a model where it belongs.

    Attributes:
        arguments: of `from_pretrained`, `SentenceTransformer` or `pipeline`.
        parts: loaded before, in this order.
        others: the device for the components that are not in `parts`, with `parts` only; None if
            they stay.
        calls: made afterwards, in this order.
        fills: whether tensors that no file has are made up, where the library leaves them empty.
    """

    arguments: Arguments
    parts: tuple[Part, ...] = ()
    others: str | None = None
    calls: tuple[Call, ...] = ()
    fills: bool = False


def steps(selection: Selection, placement: Placement, versions: Mapping[str, str]) -> Steps:
    """Say how a placement is carried out.

    Args:
        versions: of the installed packages, by their names on the package index.

    Raises:
        ModelLoadError: the libraries cannot do it; the hint names another way.
    """
    match selection.kind:
        case Kind.DIFFUSERS:
            return _pipeline(selection, placement, versions)
        case Kind.SENTENCE_TRANSFORMERS:
            return _embeddings(selection, placement, versions)
        case Kind.TRANSFORMERS:
            return _task(selection, placement, versions)
        case Kind.FILES:
            raise ValueError("files alone are placed nowhere")
        case Kind.CLASSES:
            return _classes(selection, placement, versions)


# -- pipelines of diffusers ------------------------------------------------------------------------


def _pipeline(selection: Selection, placement: Placement, versions: Mapping[str, str]) -> Steps:
    if placement.method is Method.CPU_OFFLOAD:
        raise ModelLoadError(
            f"{placement.method} is for models of one piece, and this is a pipeline of diffusers",
            hint='Choose plan="group-offload" or plan="cpu".',
        )
    arguments: dict[str, Any] = {
        _dtype_name("diffusers", versions): _dtypes(placement),
        "local_files_only": True,
    }
    if selection.variant is not None:
        arguments["variant"] = selection.variant
    if selection.custom_code:
        arguments["trust_remote_code"] = True
    device = placement.device
    calls: tuple[Call, ...] = ()
    match placement.method:
        case Method.GPU if "accelerate" in versions:
            # Each tensor goes to the GPU as soon as it is read and cast: nothing piles up in
            # memory. "cuda" is the only name that is taken; it means the current device.
            arguments["device_map"] = device.partition(":")[0]
            calls = (_move(device),)
        case Method.GPU | Method.MPS | Method.CPU:
            calls = (_move(device),)
        case Method.MODEL_OFFLOAD | Method.FOUR_BIT_MODEL_OFFLOAD:
            calls = (Call(name="enable_model_cpu_offload", arguments={"device": device}),)
        case Method.SEQUENTIAL_OFFLOAD:
            calls = (Call(name="enable_sequential_cpu_offload", arguments={"device": device}),)
        case Method.GROUP_OFFLOAD:
            calls = (_group_offload(placement),)
    if placement.method not in _BY_PARTS:
        others = tuple(
            _from_elsewhere(selection, component, placement, versions)
            for component in selection.components
            if component.repo_id and component.class_name  # without one, an adapter
        )
        return Steps(arguments=arguments, parts=others, calls=calls)
    return Steps(
        arguments=arguments,
        parts=_parts(selection, placement, versions),
        others=None if placement.method in OFFLOADING else device,
        calls=calls,
    )


def _move(device: str) -> Call:
    return Call(name="to", arguments={"device": device})


def _group_offload(placement: Placement) -> Call:
    """Layer by layer, the next on its way while one computes.

    With `low_cpu_mem_usage` only the layer on its way is copied to pinned memory, not all of them
    beforehand. Without a stream weights would be copied back from the GPU, which is slower and
    takes memory for those that are mapped from files.
    """
    return Call(
        name="enable_group_offload",
        arguments={
            "onload_device": placement.device,
            "offload_device": "cpu",
            "offload_type": "leaf_level",
            "use_stream": True,
            "low_cpu_mem_usage": not placement.group_stream,
        },
    )


def _dtypes(placement: Placement) -> str | dict[str, str]:
    """Return the number format of the pipeline, or of each component where they differ."""
    own = {
        part.name: part.dtype
        for part in placement.components
        if part.dtype != placement.dtype and part.quantization is None
    }
    return {**own, "default": placement.dtype} if own else placement.dtype


def _parts(
    selection: Selection, placement: Placement, versions: Mapping[str, str]
) -> tuple[Part, ...]:
    components = {component.name: component for component in selection.components}
    placed_names = {placed.name for placed in placement.components}
    parts = [
        _from_elsewhere(selection, component, placement, versions)
        for component in selection.components
        if component.repo_id and component.class_name and component.name not in placed_names
    ]
    for placed in placement.components:
        component = components.get(placed.name)
        if placement.method is Method.FOUR_BIT_MODEL_OFFLOAD and placed.quantization is None:
            if component is not None and component.repo_id:
                parts.append(_from_elsewhere(selection, component, placement, versions))
            continue  # The pipeline loads it to where it waits.
        if component is not None and by_itself(selection, component):
            parts.append(_part(selection, component, placed, placement, versions))
        elif placed.quantization is not None or placement.method in _SPREADING:
            raise ModelLoadError(
                f"{quote(placed.name)} of {selection.repo_id} cannot be loaded by itself, which "
                f"{placement.method} needs: its class comes from the pipeline's own code",
                hint='Choose another way, such as plan="model-offload" or plan="cpu".',
            )
    return tuple(parts)


def _from_elsewhere(
    selection: Selection,
    component: Component,
    placement: Placement,
    versions: Mapping[str, str],
) -> Part:
    """Return a component of another repository, which is loaded to where the pipeline begins."""
    placed = next((part for part in placement.components if part.name == component.name), None)
    if placed is None:
        return part_of(component, {"local_files_only": True})
    return part_of(component, model_arguments(selection, component, placed.dtype, versions))


def by_itself(selection: Selection, component: Component) -> bool:
    """Say whether a component of a pipeline is of a class that can be found without it."""
    known = component.library in ("diffusers", "transformers") or bool(component.repo_id)
    return known and component.class_name is not None and not selection.custom_code


def _part(
    selection: Selection,
    component: Component,
    placed: PlacedComponent,
    placement: Placement,
    versions: Mapping[str, str],
) -> Part:
    waits = placement.method in OFFLOADING
    dtype = placed.dtype if placed.quantization is None else placement.dtype
    arguments = model_arguments(selection, component, dtype, versions)
    arguments["device_map"] = {"": placement.device if waits else placed.device}
    if placed.quantization is not None:
        arguments["quantization_config"] = _quantization(placed.quantization, placement.dtype)
    return replace(
        part_of(component, arguments),
        rests_on=placed.device if waits else None,
        meets_inputs=placement.method in _SPREADING,
    )


def part_of(component: Component, arguments: Arguments) -> Part:
    """Return a component whose class is known, to be loaded with these arguments."""
    assert component.library is not None
    assert component.class_name is not None
    return Part(
        name=component.name,
        library=component.library,
        class_name=component.class_name,
        arguments=arguments,
        repo_id=component.repo_id,
        folder=component.folder,
        argument=component.argument,
    )


def model_arguments(
    selection: Selection, component: Component, dtype: str, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the arguments of a component with weights: of `from_pretrained`, without a place."""
    assert component.library is not None
    arguments: dict[str, Any] = {
        _dtype_name(component.library, versions): dtype,
        "local_files_only": True,
    }
    if selection.variant is not None and _has_variant(component, selection.variant):
        arguments["variant"] = selection.variant
    return arguments


def _has_variant(component: Component, variant: str) -> bool:
    """A repository may have a variant of some components only; the others come plain."""
    part_of_name = re.compile(rf"\.{re.escape(variant)}[.-][^/]*$")
    return any(part_of_name.search(path) for path in component.weights)


# -- models of transformers, and what builds on them -----------------------------------------------


def _embeddings(selection: Selection, placement: Placement, versions: Mapping[str, str]) -> Steps:
    own = {_dtype_name("transformers", versions): placement.dtype, **_model_placing(placement)}
    model_kwargs = {
        **({} if selection.variant is None else {"variant": selection.variant}),
        **({} if selection.backend else own),
    }
    arguments: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": selection.custom_code,
        "model_kwargs": model_kwargs,
    }
    version = versions.get("sentence-transformers", _DEVICE_MAP_SINCE)
    stays = Version(version) >= Version(_DEVICE_MAP_SINCE)
    if placement.method in _DEALING and not stays:
        raise ModelLoadError(
            f"sentence-transformers {version} cannot spread a model over devices",
            hint=f'Upgrade it: %pip install -U "sentence-transformers>={_DEVICE_MAP_SINCE}", or '
            'choose plan="gpu", plan="4-bit" or plan="cpu".',
        )
    if "device_map" not in model_kwargs or not stays:
        arguments["device"] = placement.device
    return Steps(arguments=arguments)


def _task(selection: Selection, placement: Placement, versions: Mapping[str, str]) -> Steps:
    model_kwargs = {
        **({} if selection.variant is None else {"variant": selection.variant}),
        **_model_placing(placement, straight=_goes_straight(selection, versions)),
    }
    dealt = placement.method in _DEALING
    return Steps(
        arguments={
            _dtype_name("transformers", versions): placement.dtype,
            "trust_remote_code": selection.custom_code,
            "model_kwargs": model_kwargs,
            # A model that lies on several devices refuses to be given one.
            **({} if dealt else {"device": placement.device}),
        }
    )


def _classes(selection: Selection, placement: Placement, versions: Mapping[str, str]) -> Steps:
    """Say how the one model of the classes is loaded; what has no weights needs nothing of it."""
    if not any(part.weights for part in selection.components):
        return Steps(arguments={"trust_remote_code": selection.custom_code})
    library = "diffusers" if selection.of_diffusers else "transformers"
    arguments: dict[str, Any] = {
        _dtype_name(library, versions): placement.dtype,
        "local_files_only": True,
        **({} if selection.variant is None else {"variant": selection.variant}),
        **_model_placing(placement, straight=_goes_straight(selection, versions)),
    }
    if library == "transformers":
        arguments["trust_remote_code"] = selection.custom_code
    return Steps(arguments=arguments)


def _goes_straight(selection: Selection, versions: Mapping[str, str]) -> bool:
    """Say whether the tensors of one model can go to a GPU one by one, not all through memory."""
    own = selection.custom_code or any(part.library == "peft" for part in selection.components)
    return "accelerate" in versions and not own


def _model_placing(placement: Placement, *, straight: bool = False) -> dict[str, Any]:
    """Return what `from_pretrained` of transformers needs to place or quantize one model.

    Spread, its layers are dealt out evenly by accelerate, over all GPUs of the machine; with
    memory, until each GPU has what it may have.

    Args:
        straight: whether a model that is whole on one GPU is loaded there, and not moved.
    """
    if placement.method in OFFLOADING:
        raise ModelLoadError(
            f"{placement.method} is for pipelines of diffusers, and this is not one",
            hint='Choose plan="4-bit" or plan="cpu".',
        )
    placing: dict[str, Any] = {}
    if placement.method in _SPREADING:
        placing["device_map"] = "balanced"
    elif placement.method is Method.CPU_OFFLOAD:
        placing["device_map"] = "auto"
        placing["max_memory"] = {
            _number(device): size for device, size in placement.max_memory.items()
        }
    elif placement.method in _BY_PARTS or (straight and placement.method is Method.GPU):
        placing["device_map"] = {"": placement.device}
    to = next((part.quantization for part in placement.components if part.quantization), None)
    if to is not None:
        placing["quantization_config"] = _quantization(to, placement.dtype)
    return placing


def _number(device: str) -> int | str:
    """Return a device as accelerate names it: GPUs by their numbers."""
    kind, _, index = device.partition(":")
    return int(index or 0) if kind == "cuda" else device


# -- what both have in common ----------------------------------------------------------------------


def _dtype_name(library: str, versions: Mapping[str, str]) -> str:
    """Return the name that a library's version has for the number format.

    What belongs to pipelines of diffusers may be made of either library.
    """
    names = (library,) if library in _DTYPE_SINCE else tuple(_DTYPE_SINCE)
    known = all(Version(versions[name]) >= Version(_DTYPE_SINCE[name]) for name in names)
    return "dtype" if known else "torch_dtype"


def _quantization(to: Quantization, dtype: str) -> dict[str, Any]:
    """Return the settings of a `BitsAndBytesConfig`: NF4 is the format for weights (QLoRA)."""
    if to is Quantization.EIGHT_BIT:
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": dtype,
    }


WHOLE = "model"
"""The name of a model that is one module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A component that was built by itself.

    Attributes:
        component: a `torch.nn.Module`, a tokenizer, a scheduler.
        seconds: that it took.
    """

    name: str
    component: Any
    seconds: float


class Waiting:
    """A build goes on once more files are there."""


BuildSteps: TypeAlias = Generator[Built | LoadReport | Notice | Waiting, None, Any]
"""What a build gives: the components that are built by themselves, what is to be told, what a model
lacks without the library's word, that it waits for files, and at the end the model."""
