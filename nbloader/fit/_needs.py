"""What loading and computing take beside the weights. All sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nbloader.fit._bytes import (
    bits,
    bytes_as,
    cast_bytes,
    parameters,
    quantizable,
    quantized_bytes,
    width,
)
from nbloader.fit._families import activation_bytes
from nbloader.fit._question import Part, Question
from nbloader.fit._usable import UsableGpu
from nbloader.records import Component, ComponentWeights, Kind, PlacedComponent, Quantization

__all__ = [
    "CUDA_BYTES",
    "cast_of",
    "cast_on_the_way",
    "computing_bytes",
    "device_of",
    "largest_of",
    "put",
    "total_of",
    "turn_of",
    "vram_of",
    "work_bytes",
]

CUDA_BYTES = 735_000_000
"""What a process takes on a GPU beside tensors: the context and the libraries' work space.

0.73 GB on one H200 (torch 2.11): it grows with the GPU's processors and the kernels that are
loaded. On smaller GPUs 300 to 500 MB are common; the rest is for the gaps between tensors.
"""

_MOST_PER_WEIGHT: Mapping[Kind, int] = MappingProxyType(
    {Kind.DIFFUSERS: 2, Kind.SENTENCE_TRANSFORMERS: 10, Kind.TRANSFORMERS: 10}
)
"""Computing takes no more bytes than so many times the weights: 0.8 times in the pipeline with the
most (Stable Diffusion 1.5), 9 times in the smallest embedding model of the tables (MiniLM)."""


def device_of(gpu: UsableGpu) -> str:
    """Give the name of a GPU as users write it."""
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
    """Give what computing takes beside the weights.

    The families' figures are for models of their published sizes. A small one of the same form, as
    tests and tutorials use, takes less.
    """
    count = sum(parameters(weights) for _, weights in question.parts)
    most = _MOST_PER_WEIGHT[question.selection.kind] * count * bits(dtype) // 8
    alone = next((part for part, _ in question.parts if part.name == component), None)
    widest = max((width(weights) for _, weights in question.parts), default=0)
    known = activation_bytes(question.family, dtype, alone, width=widest)
    return min(known, most) if count else known


def work_bytes(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Give what a GPU needs beside weights where all of them are on it."""
    return max(computing_bytes(question, dtype), turn_of(question, dtype, placed)) + CUDA_BYTES


def turn_of(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Give the most that one of these components takes beside weights in its turn."""
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
    """Give what a quantized layer takes that is unpacked for its turn.

    The largest tensor of a language model is its embedding, which is not quantized; the layers are
    in its blocks.
    """
    return largest_of(weights, dtype, in_blocks=True)


def largest_of(part: ComponentWeights, dtype: str, *, in_blocks: bool = False) -> int:
    """Give the bytes of the largest tensor in `dtype`; of the whole if its tensors are unknown.

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
    """Give what each GPU of the machine has to hold, in their order."""
    by_number = {gpu.number: size for gpu, size in loads.items()}
    return tuple(by_number.get(number, 0) for number in range(len(question.machine.gpus)))


def cast_of(question: Question, dtype: str) -> int:
    """Give the bytes that are made anew in memory, not mapped from the files."""
    return sum(cast_bytes(weights, component, dtype) for component, weights in question.parts)


def cast_on_the_way(question: Question, dtype: str, *, straight: bool) -> int:
    """Give the memory for casts on the way to a GPU.

    Args:
        straight: whether accelerate brings each tensor there by itself; pipelines of diffusers are
            always brought so. Otherwise the model is built in memory, and then moved.
    """
    cast = cast_of(question, dtype)
    straight = straight or question.selection.kind is Kind.DIFFUSERS
    if not straight or not question.machine.has("accelerate"):
        return cast
    return min(cast, max((largest_of(weights, dtype) for _, weights in question.parts), default=0))
