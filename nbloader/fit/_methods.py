"""What each method takes: a placement for each, whether it fits or not. Pure arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from nbloader.fit._bytes import (
    bits,
    bytes_as,
    cast_bytes,
    main_dtype,
    parameters,
    quantizable,
    quantized_bytes,
    unpacked,
)
from nbloader.fit._families import Family, activation_bytes
from nbloader.fit._usable import UsableGpu
from nbloader.records import (
    Component,
    ComponentWeights,
    Kind,
    MachineFacts,
    Method,
    PlacedComponent,
    Placement,
    Plan,
    Quantization,
)

__all__ = ["Impossible", "Question", "lacking", "place", "ram_needed", "ram_room"]

CUDA_BYTES = 600_000_000
"""What a process takes on a GPU beside tensors: the context and the libraries' work space.

300 to 500 MB are common (the context grows with the kernels that are loaded); the rest is for the
gaps between tensors.
"""

IMPORTS_BYTES = 500_000_000
"""What importing torch and a library takes of memory: 460 MB of the process's own (torch 2.13)."""

CUDA_HOST_BYTES = 500_000_000
"""What CUDA takes of the machine's memory once a GPU is used. A convention, not a measurement."""

PINNED_COPIES = 3
"""Group offload with a stream keeps pinned copies: three times the weights (diffusers)."""

MPS_SHARE = 0.7
"""How much of a Mac's memory its GPU may hold: Metal recommends two thirds to three quarters."""

_MOST_PER_WEIGHT: Mapping[Kind, int] = MappingProxyType(
    {Kind.DIFFUSERS: 2, Kind.SENTENCE_TRANSFORMERS: 10, Kind.TRANSFORMERS: 10}
)
"""Computing takes no more bytes than so many times the weights: 0.8 times in the pipeline with the
most (Stable Diffusion 1.5), 9 times in the smallest embedding model of the tables (MiniLM)."""

_MIN_CAPABILITY: Mapping[Quantization, tuple[int, int]] = MappingProxyType(
    # bitsandbytes: NF4 from Pascal on; LLM.int8 needs the integer tensor cores of Turing.
    {Quantization.FOUR_BIT: (6, 0), Quantization.EIGHT_BIT: (7, 5)}
)


class Impossible(Exception):  # noqa: N818 - the answer to a question, not a fault
    """A method is none for this model or machine; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be placed where.

    Attributes:
        gpus: those that torch can compute on and that were asked for.
        all_gpus: those that it can compute on.
        no_gpu: why there are none.
        device, dtype, method: what was asked for; `auto` and None for the best.
    """

    plan: Plan
    parts: tuple[tuple[Component, ComponentWeights], ...]
    family: Family
    machine: MachineFacts
    gpus: tuple[UsableGpu, ...]
    all_gpus: tuple[UsableGpu, ...]
    no_gpu: str
    device: str
    dtype: str | None
    method: Method | None


def place(question: Question, method: Method) -> Placement:
    """Give the placement of a method; where it can be had in several ways, the first that fits.

    Whether it fits, and the reason, are left for the caller to settle: see `lacking`.

    Raises:
        Impossible: the method does not apply.
    """
    return _METHODS[method](question)


# -- number formats --------------------------------------------------------------------------------


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


def _mps_dtype(question: Question) -> str:
    return question.dtype or ("float16" if question.family.fp16 else "float32")


# -- on GPUs ---------------------------------------------------------------------------------------


def _gpu(question: Question) -> Placement:
    return _first(question, [_on_one_gpu(question, gpu, None) for gpu in _gpus(question)])


def _on_one_gpu(question: Question, gpu: UsableGpu, to: Quantization | None) -> Placement:
    question = _as_loaded(question, [gpu])
    dtype = gpu_dtype(question, [gpu])
    placed = [_placed(part, gpu.device, dtype, to) for part in question.parts]
    if to is not None:
        _require_quantizing(question, [gpu], to, placed)
    return Placement(
        method=_ONE_GPU[to],
        device=_device(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=_vram(question, {gpu: _sum(placed) + _work(question, dtype, to)}),
        ram_loading=_cast_on_the_way(question, dtype, straight=to is not None),
    )


_ONE_GPU: Mapping[Quantization | None, Method] = MappingProxyType(
    {
        None: Method.GPU,
        Quantization.FOUR_BIT: Method.FOUR_BIT,
        Quantization.EIGHT_BIT: Method.EIGHT_BIT,
    }
)


def _multi_gpu(question: Question) -> Placement:
    return _spread(question, None, Method.MULTI_GPU)


def _spread(question: Question, to: Quantization | None, method: Method) -> Placement:
    gpus = _gpus(question)
    if len(gpus) < 2:
        raise Impossible("needs two GPUs")
    _require_parts(question)
    if question.plan.kind is Kind.SENTENCE_TRANSFORMERS and not _spreads_embeddings(question):
        raise Impossible("needs sentence-transformers 6.2")
    question = _as_loaded(question, gpus)
    dtype = gpu_dtype(question, gpus)
    parts = [(part, _placed(part, "", dtype, to)) for part in question.parts]
    if question.plan.kind is Kind.DIFFUSERS:
        loads, placed = _whole_components(parts, gpus)
    else:
        loads, placed = _layers(parts, gpus)
    if to is not None:
        _require_quantizing(question, gpus, to, placed)
    return Placement(
        method=method,
        device=_device(gpus[0]),
        dtype=dtype,
        components=tuple(placed),
        vram=_vram(
            question,
            {
                gpu: loads[gpu] + _work_on(question, gpu, placed, dtype, to)
                for gpu in gpus
                if loads[gpu]
            },
        ),
        ram_loading=_cast_on_the_way(question, dtype, straight=True),
    )


def _work_on(
    question: Question,
    gpu: UsableGpu,
    placed: Sequence[PlacedComponent],
    dtype: str,
    to: Quantization | None,
) -> int:
    """Give what a GPU needs beside weights for the components that are on it."""
    there = [part.name for part in placed if gpu.device in part.device.split(",")]
    computing = max((_computing(question, dtype, name) for name in there), default=0)
    unpacking = _unpacking(question, dtype) if to is not None else 0
    return computing + CUDA_BYTES + unpacking


_Part = tuple[Component, ComponentWeights]


def _whole_components(
    parts: Sequence[tuple[_Part, PlacedComponent]], gpus: Sequence[UsableGpu]
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
    parts: Sequence[tuple[_Part, PlacedComponent]], gpus: Sequence[UsableGpu]
) -> tuple[dict[UsableGpu, int], list[PlacedComponent]]:
    """Spread the layers of one model evenly; no layer is cut, so each GPU may get one more."""
    total = sum(placed.bytes for _, placed in parts)
    slack = max((weights.largest_block for (_, weights), _ in parts), default=0)
    loads = dict.fromkeys(gpus, total // len(gpus) + slack)
    names = ",".join(gpu.device for gpu in gpus)
    return loads, [replace(placed, device=names) for _, placed in parts]


def _quantized(question: Question, to: Quantization) -> Placement:
    _require_plain_weights(question)
    return _first(question, [_on_one_gpu(question, gpu, to) for gpu in _gpus(question)])


def _four_bit_multi_gpu(question: Question) -> Placement:
    _require_plain_weights(question)
    return _spread(question, Quantization.FOUR_BIT, Method.FOUR_BIT_MULTI_GPU)


def _require_plain_weights(question: Question) -> None:
    if any(part.quantization for _, part in question.parts):
        raise Impossible("the weights are quantized already")


def _require_parts(question: Question) -> None:
    """Require that components can be loaded one by one."""
    if not question.machine.has("accelerate"):
        raise Impossible("accelerate is not installed")
    if question.plan.custom_code:
        raise Impossible("the repository brings code of its own")
    if question.plan.kind is Kind.DIFFUSERS and any(
        component.library not in _LIBRARIES for component, _ in question.parts
    ):
        raise Impossible("a component is of neither diffusers nor transformers")


_LIBRARIES = frozenset({"diffusers", "transformers"})


def _spreads_embeddings(question: Question) -> bool:
    """Tell whether the installed sentence-transformers can spread a model: from 6.2 on."""
    found = question.machine.packages.get("sentence_transformers")
    parts = re.match(r"(\d+)\.(\d+)", (found.installed if found else None) or "")
    return parts is None or (int(parts[1]), int(parts[2])) >= (6, 2)


def _as_loaded(question: Question, gpus: Sequence[UsableGpu]) -> Question:
    """Unpack weights in formats that the GPUs, or the CPU, do not compute in.

    The libraries turn them into plain numbers while they load.
    """
    capability = min((gpu.facts.capability for gpu in gpus), default=None)
    kernels = question.machine.has("kernels") and question.machine.has("triton")
    parts = tuple(
        (component, unpacked(weights, component, capability, kernels=kernels))
        for component, weights in question.parts
    )
    return replace(question, parts=parts)


def _require_quantizing(
    question: Question,
    gpus: Sequence[UsableGpu],
    to: Quantization,
    placed: Sequence[PlacedComponent],
) -> None:
    if not any(part.quantization for part in placed):
        raise Impossible("no component is large and made of linear layers")
    if not question.machine.has("bitsandbytes"):
        raise Impossible("bitsandbytes is not installed")
    _require_parts(question)
    needed = _MIN_CAPABILITY[to]
    if any(gpu.facts.capability < needed for gpu in gpus):
        raise Impossible(f"bitsandbytes needs compute capability {needed[0]}.{needed[1]}")


# -- with offload ----------------------------------------------------------------------------------


def _offload(question: Question, method: Method) -> Placement:
    """Only what computes is on the GPU, the rest waits in memory.

    With model offload that is a component, with group and sequential offload a layer; the last
    fetches each only when its turn comes.
    """
    return _first(question, [_offloaded(question, gpu, method) for gpu in _offloading(question)])


def _offloading(question: Question) -> tuple[UsableGpu, ...]:
    gpus = _gpus(question)
    if question.plan.kind is not Kind.DIFFUSERS:
        raise Impossible("only pipelines of diffusers offload")
    if not question.machine.has("accelerate"):
        raise Impossible("accelerate is not installed")
    return gpus


def _offloaded(question: Question, gpu: UsableGpu, method: Method) -> Placement:
    question = _as_loaded(question, [gpu])
    dtype = gpu_dtype(question, [gpu])
    placed = [_placed(part, "cpu", dtype, None) for part in question.parts]
    total = _sum(placed)
    if method is Method.MODEL_OFFLOAD:
        there = _one_at_a_time(question, dtype, placed)
    else:
        # The layer that computes and the one that comes next.
        layers = (_largest(weights, dtype) for _, weights in question.parts)
        there = 2 * max(layers, default=0) + _computing(question, dtype)
    stream = method is Method.GROUP_OFFLOAD and PINNED_COPIES * total <= ram_room(question, method)
    if method is Method.MODEL_OFFLOAD:
        # Weights come back from the GPU into memory of the process's own.
        ram = total
    else:
        ram = PINNED_COPIES * total if stream else _cast(question, dtype)
    return Placement(
        method=method,
        device=_device(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=_vram(question, {gpu: there + CUDA_BYTES}),
        ram_loading=ram,
        ram_after=ram,
        mapped=max(0, total - ram),
        group_stream=stream,
    )


def _one_at_a_time(question: Question, dtype: str, placed: Sequence[PlacedComponent]) -> int:
    """Give the peak where each component computes alone on the GPU."""
    return max(
        (part.bytes + _computing(question, dtype, part.name) for part in placed),
        default=0,
    )


def _largest(part: ComponentWeights, dtype: str, *, in_blocks: bool = False) -> int:
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


def _four_bit_model_offload(question: Question) -> Placement:
    _require_plain_weights(question)
    return _first(question, [_four_bit_offloaded(question, gpu) for gpu in _offloading(question)])


def _four_bit_offloaded(question: Question, gpu: UsableGpu) -> Placement:
    dtype = gpu_dtype(question, [gpu])
    to = Quantization.FOUR_BIT
    placed = [_placed(part, "cpu", dtype, to) for part in question.parts]
    _require_quantizing(question, [gpu], to, placed)
    # Each component is quantized on the GPU, and then moved away.
    loading = max(part.bytes for part in placed if part.quantization)
    loading += max(_largest(weights, dtype) for _, weights in question.parts)
    using = _one_at_a_time(question, dtype, placed)
    total = _sum(placed)
    return Placement(
        method=Method.FOUR_BIT_MODEL_OFFLOAD,
        device=_device(gpu),
        dtype=dtype,
        components=tuple(placed),
        vram=_vram(question, {gpu: max(loading, using) + CUDA_BYTES}),
        ram_loading=total,
        ram_after=total,
    )


# -- without an NVIDIA GPU -------------------------------------------------------------------------


def _mps(question: Question) -> Placement:
    if not question.machine.mps:
        raise Impossible("no GPU of Apple's")
    question = _as_loaded(question, [])
    dtype = _mps_dtype(question)
    placed = [_placed(part, "mps", dtype, None) for part in question.parts]
    # GPU and CPU share one memory. Tensors move one by one, so no second copy of the whole arises.
    total = _sum(placed)
    return Placement(
        method=Method.MPS,
        device="mps",
        dtype=dtype,
        components=tuple(placed),
        ram_loading=total,
        ram_after=total + _computing(question, dtype),
    )


def _cpu(question: Question) -> Placement:
    question = _as_loaded(question, [])
    formats = [question.dtype] if question.dtype else ["float32"]
    stored = {main_dtype(weights) for _, weights in question.parts}
    if question.dtype is None and stored & {"bfloat16", "float16"}:
        # Half the memory, and on most processors slower; it comes second.
        formats.append("bfloat16")
    return _first(question, [_on_cpu(question, dtype) for dtype in formats])


def _on_cpu(question: Question, dtype: str) -> Placement:
    placed = [_placed(part, "cpu", dtype, None) for part in question.parts]
    cast = _cast(question, dtype)
    return Placement(
        method=Method.CPU,
        device="cpu",
        dtype=dtype,
        components=tuple(placed),
        ram_loading=cast,
        ram_after=cast + _computing(question, dtype),
        mapped=max(0, _sum(placed) - cast),
    )


# -- what all have in common -----------------------------------------------------------------------


def _gpus(question: Question) -> tuple[UsableGpu, ...]:
    if not question.gpus:
        raise Impossible(question.no_gpu)
    return question.gpus


def _device(gpu: UsableGpu) -> str:
    return "cuda" if gpu.number == 0 else gpu.device


def _placed(part: _Part, device: str, dtype: str, to: Quantization | None) -> PlacedComponent:
    component, weights = part
    if to is not None and quantizable(weights, component):
        size = quantized_bytes(weights, component, to, dtype)
    else:
        to, size = None, bytes_as(weights, component, dtype)
    return PlacedComponent(
        name=component.name, device=device, dtype=dtype, bytes=size, quantization=to
    )


def _sum(placed: Sequence[PlacedComponent]) -> int:
    return sum(part.bytes for part in placed)


def _computing(question: Question, dtype: str, component: str | None = None) -> int:
    """Give what computing takes beside the weights.

    The families' figures are for models of their published sizes. A small one of the same form, as
    tests and tutorials use, takes less.
    """
    count = sum(parameters(weights) for _, weights in question.parts)
    most = _MOST_PER_WEIGHT[question.plan.kind] * count * bits(dtype) // 8
    known = activation_bytes(question.family, dtype, component)
    return min(known, most) if count else known


def _work(question: Question, dtype: str, to: Quantization | None) -> int:
    """Give what a GPU needs beside weights."""
    work = _computing(question, dtype) + CUDA_BYTES
    return work + (_unpacking(question, dtype) if to is not None else 0)


def _unpacking(question: Question, dtype: str) -> int:
    """Give what a quantized layer takes that is unpacked for its turn.

    The largest tensor of a language model is its embedding, which is not quantized; the layers are
    in its blocks.
    """
    return max(
        (_largest(weights, dtype, in_blocks=True) for _, weights in question.parts), default=0
    )


def _vram(question: Question, loads: Mapping[UsableGpu, int]) -> tuple[int, ...]:
    by_number = {gpu.number: size for gpu, size in loads.items()}
    return tuple(by_number.get(number, 0) for number in range(len(question.machine.gpus)))


def _cast(question: Question, dtype: str) -> int:
    """Give the bytes that are made anew in memory, not mapped from the files."""
    return sum(cast_bytes(weights, component, dtype) for component, weights in question.parts)


def _cast_on_the_way(question: Question, dtype: str, *, straight: bool) -> int:
    """Give the memory for casts on the way to a GPU.

    Args:
        straight: whether accelerate brings each tensor there by itself; pipelines of diffusers are
            always brought so. Otherwise the model is built in memory, and then moved.
    """
    cast = _cast(question, dtype)
    straight = straight or question.plan.kind is Kind.DIFFUSERS
    if not straight or not question.machine.has("accelerate"):
        return cast
    return min(cast, max((_largest(weights, dtype) for _, weights in question.parts), default=0))


def ram_room(question: Question, method: Method) -> int:
    """Give the memory that is there for a model: without what the libraries will take."""
    memory = question.machine.memory
    if method is Method.MPS:
        return max(0, min(memory.available, int(memory.total * MPS_SHARE)) - IMPORTS_BYTES)
    taken = IMPORTS_BYTES + (CUDA_HOST_BYTES if question.gpus else 0)
    return max(0, memory.available - taken)


def ram_needed(placement: Placement) -> int:
    """Give the memory that a placement needs at its peak.

    For computing out of memory the mapped weights have to fit, too: otherwise they are read from
    the disk again for each step.
    """
    return max(placement.ram_loading, placement.ram_after) + placement.mapped


def lacking(question: Question, placement: Placement) -> dict[str, int]:
    """Give what a placement lacks, in bytes, by where: `cuda:0`, `RAM`; negative if there is more.

    What is not used at all is left out.
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


def _first(question: Question, placements: Sequence[Placement]) -> Placement:
    """Give the first that fits, or that lacks the least."""

    def shortage(placement: Placement) -> int:
        return max(0, 0, *lacking(question, placement).values())

    return min(placements, key=shortage)


_METHODS: Mapping[Method, Callable[[Question], Placement]] = MappingProxyType(
    {
        Method.GPU: _gpu,
        Method.MULTI_GPU: _multi_gpu,
        Method.FOUR_BIT: partial(_quantized, to=Quantization.FOUR_BIT),
        Method.FOUR_BIT_MULTI_GPU: _four_bit_multi_gpu,
        Method.EIGHT_BIT: partial(_quantized, to=Quantization.EIGHT_BIT),
        Method.MODEL_OFFLOAD: partial(_offload, method=Method.MODEL_OFFLOAD),
        Method.FOUR_BIT_MODEL_OFFLOAD: _four_bit_model_offload,
        Method.GROUP_OFFLOAD: partial(_offload, method=Method.GROUP_OFFLOAD),
        Method.SEQUENTIAL_OFFLOAD: partial(_offload, method=Method.SEQUENTIAL_OFFLOAD),
        Method.MPS: _mps,
        Method.CPU: _cpu,
    }
)
