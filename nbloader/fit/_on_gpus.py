"""All weights on GPUs: on one, on several, quantized."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from nbloader.fit._needs import (
    CUDA_BYTES,
    cast_on_the_way,
    device_of,
    put,
    total_of,
    turn_of,
    vram_of,
    work_bytes,
)
from nbloader.fit._question import (
    Impossible,
    Part,
    Question,
    as_loaded,
    gpu_dtype,
    gpus_of,
    require_parts,
    require_plain_weights,
)
from nbloader.fit._room import first_that_fits
from nbloader.fit._usable import UsableGpu
from nbloader.records import Kind, Method, PlacedComponent, Placement, Quantization

__all__ = [
    "on_one",
    "on_several",
    "quantized",
    "quantized_on_several",
    "require_dealing",
    "require_quantizing",
]

_MIN_CAPABILITY: Mapping[Quantization, tuple[int, int]] = MappingProxyType(
    # bitsandbytes: NF4 from Pascal on; LLM.int8 needs the integer tensor cores of Turing.
    {Quantization.FOUR_BIT: (6, 0), Quantization.EIGHT_BIT: (7, 5)}
)


def on_one(question: Question) -> Placement:
    """All on one GPU, the first that has room."""
    return first_that_fits(
        question, [_on_one_gpu(question, gpu, None) for gpu in gpus_of(question)]
    )


def quantized(question: Question, to: Quantization) -> Placement:
    """All on one GPU, the large components quantized."""
    require_plain_weights(question)
    return first_that_fits(question, [_on_one_gpu(question, gpu, to) for gpu in gpus_of(question)])


def _on_one_gpu(question: Question, gpu: UsableGpu, to: Quantization | None) -> Placement:
    question = as_loaded(question, [gpu])
    dtype = gpu_dtype(question, [gpu])
    placed = [put(part, gpu.device, dtype, to) for part in question.parts]
    if to is not None:
        require_quantizing(question, [gpu], to, placed)
    return Placement(
        method=_ONE_GPU[to],
        device=device_of(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=vram_of(question, {gpu: total_of(placed) + work_bytes(question, dtype, placed)}),
        ram_loading=cast_on_the_way(question, dtype, straight=to is not None),
    )


_ONE_GPU: Mapping[Quantization | None, Method] = MappingProxyType(
    {
        None: Method.GPU,
        Quantization.FOUR_BIT: Method.FOUR_BIT,
        Quantization.EIGHT_BIT: Method.EIGHT_BIT,
    }
)


def on_several(question: Question) -> Placement:
    """Whole components, or the layers of one model, on all GPUs."""
    return _spread(question, None, Method.MULTI_GPU)


def quantized_on_several(question: Question) -> Placement:
    """On all GPUs, the large components in 4 bits."""
    require_plain_weights(question)
    return _spread(question, Quantization.FOUR_BIT, Method.FOUR_BIT_MULTI_GPU)


def _spread(question: Question, to: Quantization | None, method: Method) -> Placement:
    gpus = gpus_of(question)
    if len(gpus) < 2:
        raise Impossible("needs two GPUs")
    require_parts(question)
    require_dealing(question)
    question = as_loaded(question, gpus)
    dtype = gpu_dtype(question, gpus)
    parts = [(part, put(part, "", dtype, to)) for part in question.parts]
    if question.selection.kind is Kind.DIFFUSERS:
        loads, placed = _whole_components(parts, gpus)
    else:
        loads, placed = _layers(parts, gpus)
    if to is not None:
        require_quantizing(question, gpus, to, placed)
    return Placement(
        method=method,
        device=device_of(gpus[0]),
        dtype=dtype,
        components=tuple(placed),
        vram=vram_of(
            question,
            {
                gpu: loads[gpu] + _work_on(question, gpu, placed, dtype)
                for gpu in gpus
                if loads[gpu]
            },
        ),
        ram_loading=cast_on_the_way(question, dtype, straight=True),
    )


def require_dealing(question: Question) -> None:
    """Require that layers of a model can be on several devices. Raises Impossible.

    sentence-transformers leaves them there from 6.2 on.
    """
    if question.selection.kind is not Kind.SENTENCE_TRANSFORMERS:
        return
    found = question.machine.packages.get("sentence_transformers")
    parts = re.match(r"(\d+)\.(\d+)", (found.installed if found else None) or "")
    if parts is not None and (int(parts[1]), int(parts[2])) < (6, 2):
        raise Impossible("needs sentence-transformers 6.2")


def _work_on(
    question: Question,
    gpu: UsableGpu,
    placed: Sequence[PlacedComponent],
    dtype: str,
) -> int:
    """Give what a GPU needs beside weights for the components that are on it."""
    there = [part for part in placed if gpu.device in part.device.split(",")]
    return turn_of(question, dtype, there) + CUDA_BYTES


def _whole_components(
    parts: Sequence[tuple[Part, PlacedComponent]], gpus: Sequence[UsableGpu]
) -> tuple[dict[UsableGpu, int], list[PlacedComponent]]:
    """Put each component on the GPU with the most room left, the largest first."""
    loads = dict.fromkeys(gpus, 0)
    where: dict[str, UsableGpu] = {}
    for _, placed in sorted(parts, key=lambda item: -item[1].bytes):
        gpu = max(gpus, key=lambda gpu: gpu.facts.free - loads[gpu])
        loads[gpu] += placed.bytes
        where[placed.name] = gpu
    return loads, [replace(placed, device=where[placed.name].device) for _, placed in parts]


def _layers(
    parts: Sequence[tuple[Part, PlacedComponent]], gpus: Sequence[UsableGpu]
) -> tuple[dict[UsableGpu, int], list[PlacedComponent]]:
    """Spread the layers of one model evenly; no layer is cut, so each GPU may get one more."""
    total = sum(placed.bytes for _, placed in parts)
    slack = max((weights.largest_block for (_, weights), _ in parts), default=0)
    loads = dict.fromkeys(gpus, total // len(gpus) + slack)
    names = ",".join(gpu.device for gpu in gpus)
    return loads, [replace(placed, device=names) for _, placed in parts]


def require_quantizing(
    question: Question,
    gpus: Sequence[UsableGpu],
    to: Quantization,
    placed: Sequence[PlacedComponent],
) -> None:
    """Require that quantizing pays, and that it can be done here. Raises Impossible."""
    if not any(part.quantization for part in placed):
        raise Impossible("no component is large and made of linear layers")
    if not question.machine.has("bitsandbytes"):
        raise Impossible("bitsandbytes is not installed")
    require_parts(question)
    needed = _MIN_CAPABILITY[to]
    if any(gpu.facts.capability < needed for gpu in gpus):
        raise Impossible(f"bitsandbytes needs compute capability {needed[0]}.{needed[1]}")
