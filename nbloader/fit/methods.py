"""What each method takes: a placement for each, whether it fits or not. Pure arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from nbloader.fit.gpus import UsableGpu
from nbloader.fit.question import (
    CUDA_BYTES,
    Impossible,
    Part,
    Question,
    as_loaded,
    cast_of,
    cast_on_the_way,
    computing_bytes,
    device_of,
    first_that_fits,
    gpu_dtype,
    gpus_of,
    largest_of,
    put,
    ram_room,
    require_parts,
    require_plain_weights,
    total_of,
    turn_of,
    vram_of,
    work_bytes,
)
from nbloader.fit.weights import main_dtype
from nbloader.records import (
    ComponentWeights,
    Kind,
    Method,
    PlacedComponent,
    Placement,
    Quantization,
)

# -- all weights on GPUs: on one, on several, quantized --------------------------------------------

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
        if sum(1 for size in loads.values() if size) < 2:
            raise Impossible("it has no second component for another GPU")
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
    """Return what a GPU needs beside weights for the components that are on it."""
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


# -- weights in memory that come to the GPU while it computes --------------------------------------

PINNED_SHARE = 2
"""What weights take in pinned memory: torch makes each tensor as large as the next power of two.
They are read into it; those that are cast are copied there, and take their own bytes before that.
Measured at the peak for 22.5 GB that were copied: 48 GB, with the mapped files."""


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
    pinned = PINNED_SHARE * total + cast_of(question, dtype)
    stream = method is Method.GROUP_OFFLOAD and pinned <= ram_room(question, method)
    if method is Method.MODEL_OFFLOAD:
        # Weights come back from the GPU into memory of the process's own.
        ram = total
    else:
        ram = pinned if stream else cast_of(question, dtype)
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
    """Return the peak where each component computes alone on the GPU."""
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
    """Return the most that is left for memory: no layer is cut, so each GPU may lack one."""
    return max(0, total - sum(room.values()) + layer * (1 + len(room)))


def _layer_of(weights: ComponentWeights, dtype: str) -> int:
    """Return the largest that goes to a device as one: a block, or a matrix outside of them."""
    largest = largest_of(weights, dtype)
    if not weights.largest_tensor or not weights.total:
        return largest
    return max(largest, int(largest / weights.largest_tensor * weights.largest_block))


# -- the CPU, Apple's GPU, and the table of all methods --------------------------------------------

_CPU_SHARE, _CPU_BYTES = 1.2, 200_000_000
"""What computing takes on a CPU: so many times what it takes on a GPU, and so much more for what
its kernels keep. Measured in bfloat16 and float32 (torch 2.13): 0.76 and 1.04 GB for a decode to
512 x 512, 0.29 and 0.54 for 32 texts by MiniLM."""


def place(question: Question, method: Method) -> Placement:
    """Return the placement of a method; where it can be had in several ways, the first that fits.

    Whether it fits, and the reason, are left for the caller to settle: see `lacking`.

    Raises:
        Impossible: the method does not apply.
    """
    return _METHODS[method](question)


def _mps(question: Question) -> Placement:
    if not question.machine.mps:
        raise Impossible("no GPU of Apple's")
    question = as_loaded(question, [])
    dtype = _mps_dtype(question)
    placed = [put(part, "mps", dtype, None) for part in question.parts]
    # GPU and CPU share one memory. Tensors move one by one, so no second copy of the whole arises.
    total = total_of(placed)
    return Placement(
        method=Method.MPS,
        device="mps",
        dtype=dtype,
        components=tuple(placed),
        ram_loading=total,
        ram_after=total + computing_bytes(question, dtype),
    )


def _mps_dtype(question: Question) -> str:
    return question.dtype or ("float16" if question.family.fp16 else "float32")


def _cpu(question: Question) -> Placement:
    question = as_loaded(question, [])
    formats = [question.dtype] if question.dtype else ["float32"]
    stored = {main_dtype(weights) for _, weights in question.parts}
    if question.dtype is None and stored & {"bfloat16", "float16"}:
        # Half the memory, and on most processors slower; it comes second.
        formats.append("bfloat16")
    return first_that_fits(question, [_on_cpu(question, dtype) for dtype in formats])


def _on_cpu(question: Question, dtype: str) -> Placement:
    placed = [put(part, "cpu", dtype, None) for part in question.parts]
    cast = cast_of(question, dtype)
    return Placement(
        method=Method.CPU,
        device="cpu",
        dtype=dtype,
        components=tuple(placed),
        ram_loading=cast,
        ram_after=cast + int(_CPU_SHARE * computing_bytes(question, dtype)) + _CPU_BYTES,
        mapped=max(0, total_of(placed) - cast),
    )


_METHODS: Mapping[Method, Callable[[Question], Placement]] = MappingProxyType(
    {
        Method.GPU: on_one,
        Method.MULTI_GPU: on_several,
        Method.FOUR_BIT: partial(quantized, to=Quantization.FOUR_BIT),
        Method.FOUR_BIT_MULTI_GPU: quantized_on_several,
        Method.EIGHT_BIT: partial(quantized, to=Quantization.EIGHT_BIT),
        Method.MODEL_OFFLOAD: partial(offload, method=Method.MODEL_OFFLOAD),
        Method.FOUR_BIT_MODEL_OFFLOAD: quantized_offload,
        Method.GROUP_OFFLOAD: partial(offload, method=Method.GROUP_OFFLOAD),
        Method.SEQUENTIAL_OFFLOAD: partial(offload, method=Method.SEQUENTIAL_OFFLOAD),
        Method.CPU_OFFLOAD: cpu_offload,
        Method.MPS: _mps,
        Method.CPU: _cpu,
    }
)
