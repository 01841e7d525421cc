"""Weights in memory that come to the GPU while it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nbloader.fit._needs import (
    CUDA_BYTES,
    cast_of,
    cast_on_the_way,
    computing_bytes,
    device_of,
    largest_of,
    put,
    total_of,
    turn_of,
    vram_of,
)
from nbloader.fit._on_gpus import require_dealing, require_quantizing
from nbloader.fit._question import (
    Impossible,
    Question,
    as_loaded,
    gpu_dtype,
    gpus_of,
    require_parts,
    require_plain_weights,
)
from nbloader.fit._room import first_that_fits, ram_room
from nbloader.fit._usable import UsableGpu
from nbloader.records import (
    ComponentWeights,
    Kind,
    Method,
    PlacedComponent,
    Placement,
    Quantization,
)

__all__ = [
    "cpu_offload",
    "offload",
    "quantized_offload",
]

PINNED_COPIES = 3
"""Group offload with a stream keeps pinned copies: three times the weights (diffusers)."""


GPU_SHARE = 0.9
"""How much of what is free on a GPU is filled where the rest can wait in memory (as accelerate)."""


def offload(question: Question, method: Method) -> Placement:
    """Only what computes is on the GPU, the rest waits in memory.

    With model offload that is a component, with group and sequential offload a layer; the last
    fetches each only when its turn comes.
    """
    return first_that_fits(
        question, [_offloaded(question, gpu, method) for gpu in _offloading(question)]
    )


def quantized_offload(question: Question) -> Placement:
    """Only the component that computes is on the GPU, the large ones in 4 bits."""
    require_plain_weights(question)
    return first_that_fits(
        question, [_four_bit_offloaded(question, gpu) for gpu in _offloading(question)]
    )


def _offloading(question: Question) -> tuple[UsableGpu, ...]:
    gpus = gpus_of(question)
    if question.selection.kind is not Kind.DIFFUSERS:
        raise Impossible("only pipelines of diffusers offload")
    if not question.machine.has("accelerate"):
        raise Impossible("accelerate is not installed")
    return gpus


def _offloaded(question: Question, gpu: UsableGpu, method: Method) -> Placement:
    question = as_loaded(question, [gpu])
    dtype = gpu_dtype(question, [gpu])
    placed = [put(part, "cpu", dtype, None) for part in question.parts]
    total = total_of(placed)
    if method is Method.MODEL_OFFLOAD:
        there = _one_at_a_time(question, dtype, placed)
    else:
        # The layer that computes and the one that comes next.
        there = max(
            (
                2 * largest_of(weights, dtype) + computing_bytes(question, dtype, component.name)
                for component, weights in question.parts
            ),
            default=0,
        )
    stream = method is Method.GROUP_OFFLOAD and PINNED_COPIES * total <= ram_room(question, method)
    if method is Method.MODEL_OFFLOAD:
        # Weights come back from the GPU into memory of the process's own.
        ram = total
    else:
        ram = PINNED_COPIES * total if stream else cast_of(question, dtype)
    return Placement(
        method=method,
        device=device_of(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=vram_of(question, {gpu: there + CUDA_BYTES}),
        ram_loading=ram,
        ram_after=ram,
        mapped=max(0, total - ram),
        group_stream=stream,
    )


def _one_at_a_time(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Give the peak where each component computes alone on the GPU."""
    return max(
        (part.bytes + turn_of(question, dtype, [part]) for part in placed),
        default=0,
    )


def _four_bit_offloaded(question: Question, gpu: UsableGpu) -> Placement:
    dtype = gpu_dtype(question, [gpu])
    to = Quantization.FOUR_BIT
    placed = [put(part, "cpu", dtype, to) for part in question.parts]
    require_quantizing(question, [gpu], to, placed)
    # Each component is quantized on the GPU, and then moved away.
    loading = max(part.bytes for part in placed if part.quantization)
    loading += max(largest_of(weights, dtype) for _, weights in question.parts)
    using = _one_at_a_time(question, dtype, placed)
    total = total_of(placed)
    return Placement(
        method=Method.FOUR_BIT_MODEL_OFFLOAD,
        device=device_of(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=vram_of(question, {gpu: max(loading, using) + CUDA_BYTES}),
        ram_loading=total,
        ram_after=total,
    )


def cpu_offload(question: Question) -> Placement:
    """The first layers of one model on the GPUs, as many as have room, the others in memory.

    accelerate deals them out (`device_map="auto"`). Those in memory come to the first GPU, matrix
    by matrix, each time that they compute.
    """
    gpus = gpus_of(question)
    if question.selection.kind is Kind.DIFFUSERS:
        raise Impossible("pipelines of diffusers offload whole components or layers")
    require_parts(question)
    require_dealing(question)
    question = as_loaded(question, gpus)
    require_plain_weights(question)
    dtype = gpu_dtype(question, gpus)
    placed = [put(part, "", dtype, None) for part in question.parts]
    total = total_of(placed)
    work = computing_bytes(question, dtype) + CUDA_BYTES
    layer = max((_layer_of(weights, dtype) for _, weights in question.parts), default=0)
    room = {gpu: int(GPU_SHARE * gpu.facts.free) - work for gpu in gpus}
    # The first layer is to be there: what does not fit on a GPU goes to the next device, and all
    # that follow with it. Beside it accelerate leaves room for one that comes from memory.
    room = {gpu: size for gpu, size in room.items() if size >= 2 * layer}
    if not room:
        raise Impossible("no GPU has room for a layer beside what computing takes")
    waiting = _waiting(total, room, layer)
    share = waiting / max(1, total)
    own = int(share * cast_of(question, dtype))
    devices = [*(gpu.device for gpu in room), "cpu"]
    first = next(iter(room))
    return Placement(
        method=Method.CPU_OFFLOAD,
        device=device_of(first),
        dtype=dtype,
        components=tuple(replace(part, device=",".join(devices)) for part in placed),
        vram=vram_of(question, {gpu: min(total, size) + work for gpu, size in room.items()}),
        ram_loading=own + cast_on_the_way(question, dtype, straight=True),
        ram_after=own,
        mapped=max(0, waiting - own),
        # On the CPU, too, accelerate leaves room for a layer.
        max_memory={
            **{gpu.device: size for gpu, size in room.items()},
            "cpu": waiting + layer,
        },
    )


def _waiting(total: int, room: Mapping[UsableGpu, int], layer: int) -> int:
    """Give the most that is left for memory: no layer is cut, so each GPU may lack one."""
    return max(0, total - sum(room.values()) + layer * (1 + len(room)))


def _layer_of(weights: ComponentWeights, dtype: str) -> int:
    """Give the largest that goes to a device as one: a block, or a matrix outside of them."""
    largest = largest_of(weights, dtype)
    if not weights.largest_tensor or not weights.total:
        return largest
    return max(largest, int(largest / weights.largest_tensor * weights.largest_block))
