"""What is to be placed where, what loading and computing take, and how much room there is.

All sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from nbloader.fit.families import Family, activation_bytes
from nbloader.fit.gpus import UsableGpu
from nbloader.fit.weights import (
    bits,
    bytes_as,
    cast_bytes,
    parameters,
    quantizable,
    quantized_bytes,
    unpacked,
    width,
)
from nbloader.records import (
    Component,
    ComponentWeights,
    Kind,
    MachineFacts,
    Method,
    PlacedComponent,
    Placement,
    Quantization,
    Selection,
)


class Impossible(Exception):  # noqa: N818 - the answer to a question, not a fault
    """A method is none for this model or machine; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be placed where.

    Attributes:
        adapters: what is put into the components; it is never quantized, and goes where they
            compute.
        gpus: those that torch can compute on and that were asked for.
        all_gpus: those that it can compute on.
        no_gpu: why there are none.
        device, dtype, method: what was asked for; `auto` and None for the best.
    """

    selection: Selection
    parts: tuple[tuple[Component, ComponentWeights], ...]
    family: Family
    machine: MachineFacts
    gpus: tuple[UsableGpu, ...]
    all_gpus: tuple[UsableGpu, ...]
    no_gpu: str
    device: str
    dtype: str | None
    method: Method | None
    adapters: tuple[ComponentWeights, ...] = ()


Part = tuple[Component, ComponentWeights]


def gpu_dtype(question: Question, gpus: Sequence[UsableGpu]) -> str:
    """Choose the number format for GPUs: bfloat16 where all compute in it, else float16.

    Weights that are stored in float16 stay as they are: a cast would cost memory, time and digits.
    Some families overflow in float16; they get float32 where there is no bfloat16.
    """
    if question.dtype is not None:
        return question.dtype
    family = question.family
    if all(gpu.bfloat16 for gpu in gpus) and not (family.fp16 and _mostly_float16(question)):
        return "bfloat16"
    return "float16" if family.fp16 else "float32"


def _mostly_float16(question: Question) -> bool:
    sizes = [weights.bytes_by_dtype for _, weights in question.parts]
    return 2 * sum(size.get("F16", 0) for size in sizes) > sum(sum(size.values()) for size in sizes)


def gpus_of(question: Question) -> tuple[UsableGpu, ...]:
    """Return the GPUs that come into question. Raises Impossible where there are none."""
    if not question.gpus:
        raise Impossible(question.no_gpu)
    return question.gpus


def as_loaded(question: Question, gpus: Sequence[UsableGpu]) -> Question:
    """Unpack weights in formats that the GPUs, or the CPU, do not compute in.

    The libraries turn them into plain numbers while they load.
    """
    capability = min((gpu.facts.capability for gpu in gpus), default=None)
    kernels = question.machine.has("kernels") and _has_triton(question.machine)
    parts = tuple(
        (component, unpacked(weights, component, capability, kernels=kernels))
        for component, weights in question.parts
    )
    return replace(question, parts=parts)


def _has_triton(machine: MachineFacts) -> bool:
    """Say whether there is a triton that transformers takes for MXFP4: from 3.4 on."""
    found = machine.packages.get("triton")
    if found is None or found.installed is None:
        return False
    parts = re.match(r"(\d+)\.(\d+)", found.installed)
    return parts is None or (int(parts[1]), int(parts[2])) >= (3, 4)


def require_plain_weights(question: Question) -> None:
    """Require that the weights are not quantized yet. Raises Impossible."""
    if any(part.quantization for _, part in question.parts):
        raise Impossible("the weights are quantized already")


def require_parts(question: Question) -> None:
    """Require that components can be loaded one by one. Raises Impossible."""
    if not question.machine.has("accelerate"):
        raise Impossible("accelerate is not installed")
    if question.selection.custom_code:
        raise Impossible("the repository brings code of its own")
    if question.selection.checkpoint:
        raise Impossible("a checkpoint of one file is loaded as a whole")
    if question.selection.kind is Kind.DIFFUSERS and any(
        component.library not in _LIBRARIES for component, _ in question.parts
    ):
        raise Impossible("a component is of neither diffusers nor transformers")


_LIBRARIES = frozenset({"diffusers", "transformers"})


# -- how much memory there is, and how much of it is missing ---------------------------------------

IMPORTS_BYTES = 500_000_000
"""What importing torch and a library takes of memory: 460 MB of the process's own (torch 2.13)."""

CUDA_HOST_BYTES = 500_000_000
"""What CUDA takes of the machine's memory once a GPU is used. A convention, not a measurement."""

MPS_SHARE = 0.7
"""How much of a Mac's memory its GPU may hold: Metal recommends two thirds to three quarters."""


def ram_room(question: Question, method: Method) -> int:
    """Return the memory that is there for a model: without what the libraries will take."""
    memory = question.machine.memory
    if method is Method.MPS:
        return max(0, min(memory.available, int(memory.total * MPS_SHARE)) - IMPORTS_BYTES)
    taken = IMPORTS_BYTES + (CUDA_HOST_BYTES if question.gpus else 0)
    return max(0, memory.available - taken)


def ram_needed(placement: Placement) -> int:
    """Return the memory that a placement needs at its peak.

    For computing out of memory the mapped weights have to fit, too: otherwise they are read from
    the disk again for each step.
    """
    return max(placement.ram_loading, placement.ram_after) + placement.mapped


def lacking(question: Question, placement: Placement) -> dict[str, int]:
    """Return what a placement lacks, in bytes, by where: `cuda:0`, `RAM`.

    Negative if there is more. What is not used at all is left out.
    """
    missing = {}
    for number, (needed, gpu) in enumerate(
        zip(placement.vram, question.machine.gpus, strict=False)
    ):
        if needed:
            missing[f"cuda:{number}"] = needed - gpu.free
    if (needed := ram_needed(placement)) and question.machine.memory.total:
        missing["RAM"] = needed - ram_room(question, placement.method)
        if any(gpu.unified for gpu in question.machine.gpus):
            missing["RAM"] += sum(placement.vram)  # One memory for both.
    return missing


def first_that_fits(question: Question, placements: Sequence[Placement]) -> Placement:
    """Return the first that fits, or that lacks the least."""

    def shortage(placement: Placement) -> int:
        return max(0, 0, *lacking(question, placement).values())

    return min(placements, key=shortage)


# -- what loading and computing take beside the weights --------------------------------------------

CUDA_BYTES = 735_000_000
"""What a process takes on a GPU beside tensors: the context and the libraries' work space.

0.73 GB on one H200 (torch 2.11): it grows with the GPU's processors and the kernels that are
loaded. On smaller GPUs 300 to 500 MB are common; the rest is for the gaps between tensors.
"""

_MOST_PER_WEIGHT: Mapping[Kind, int] = MappingProxyType(
    {
        Kind.DIFFUSERS: 2,
        Kind.SENTENCE_TRANSFORMERS: 10,
        Kind.TRANSFORMERS: 10,
        Kind.CLASSES: 10,
    }
)
"""Computing takes no more bytes than so many times the weights: 0.8 times in the pipeline with the
most (Stable Diffusion 1.5), 9 times in the smallest embedding model of the tables (MiniLM)."""


def device_of(gpu: UsableGpu) -> str:
    """Return the name of a GPU as users write it."""
    return "cuda" if gpu.number == 0 else gpu.device


def put(part: Part, device: str, dtype: str, to: Quantization | None) -> PlacedComponent:
    """Put a component on a device; it is quantized only where that pays."""
    component, weights = part
    if to is not None and quantizable(weights, component):
        size = quantized_bytes(weights, component, to, dtype)
    else:
        to, size = None, bytes_as(weights, component, dtype)
    return PlacedComponent(
        name=component.name, device=device, dtype=dtype, bytes=size, quantization=to
    )


def total_of(placed: Sequence[PlacedComponent]) -> int:
    """Add up components."""
    return sum(part.bytes for part in placed)


def computing_bytes(question: Question, dtype: str, component: str | None = None) -> int:
    """Return what computing takes beside the weights; adapters count here, too.

    The families' figures are for models of their published sizes. A small one of the same form, as
    tests and tutorials use, takes less.
    """
    count = sum(parameters(weights) for _, weights in question.parts)
    most = _MOST_PER_WEIGHT[question.selection.kind] * count * bits(dtype) // 8
    alone = next((part for part, _ in question.parts if part.name == component), None)
    widest = max((width(weights) for _, weights in question.parts), default=0)
    known = activation_bytes(question.family, dtype, alone, width=widest)
    added = sum(parameters(weights) for weights in question.adapters) * bits(dtype) // 8
    return (min(known, most) if count else known) + added


def work_bytes(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Return what a GPU needs beside weights where all of them are on it."""
    return max(computing_bytes(question, dtype), turn_of(question, dtype, placed)) + CUDA_BYTES


def turn_of(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Return the most that one of these components takes beside weights in its turn."""
    weights_of = {component.name: weights for component, weights in question.parts}
    return max(
        (
            computing_bytes(question, dtype, part.name)
            + (_unpacking_bytes(weights_of[part.name], dtype) if part.quantization else 0)
            for part in placed
        ),
        default=0,
    )


def _unpacking_bytes(weights: ComponentWeights, dtype: str) -> int:
    """Return what a quantized layer takes that is unpacked for its turn.

    The largest tensor of a language model is its embedding, which is not quantized; the layers are
    in its blocks.
    """
    return largest_of(weights, dtype, in_blocks=True)


def largest_of(part: ComponentWeights, dtype: str, *, in_blocks: bool = False) -> int:
    """Return the bytes of the largest tensor in `dtype`; of the whole if its tensors are unknown.

    Args:
        in_blocks: only those of repeated blocks, if there are any.
    """
    stored = part.largest_tensor or part.total
    if in_blocks and part.largest_block:
        stored = min(stored, part.largest_block)
    if part.quantization is not None or not part.total:
        return stored
    return int(stored / part.total * bytes_as(part, _NO_COMPONENT, dtype))


_NO_COMPONENT = Component(name="", paths=())


def vram_of(question: Question, loads: Mapping[UsableGpu, int]) -> tuple[int, ...]:
    """Return what each GPU of the machine has to hold, in their order."""
    by_number = {gpu.number: size for gpu, size in loads.items()}
    return tuple(by_number.get(number, 0) for number in range(len(question.machine.gpus)))


def cast_of(question: Question, dtype: str) -> int:
    """Return the bytes that are made anew in memory, not mapped from the files."""
    return sum(cast_bytes(weights, component, dtype) for component, weights in question.parts)


def cast_on_the_way(question: Question, dtype: str, *, straight: bool) -> int:
    """Return the memory for casts on the way to a GPU.

    Args:
        straight: whether accelerate brings each tensor there by itself. All but embedders, models
            with code of their own and adapters of PEFT are always brought so. Otherwise the model
            is built in memory, and then moved.
    """
    cast = cast_of(question, dtype)
    selection = question.selection
    own = selection.custom_code or any(part.library == "peft" for part in selection.components)
    alone = selection.kind in (Kind.TRANSFORMERS, Kind.CLASSES) and not own
    straight = straight or alone or selection.kind is Kind.DIFFUSERS
    if not straight or not question.machine.has("accelerate"):
        return cast
    return min(cast, max((largest_of(weights, dtype) for _, weights in question.parts), default=0))
