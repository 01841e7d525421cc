"""What each method takes: a placement for each, whether it fits or not. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from nbloader.fit._bytes import main_dtype
from nbloader.fit._needs import cast_of, computing_bytes, put, total_of
from nbloader.fit._offload import cpu_offload, offload, quantized_offload
from nbloader.fit._on_gpus import on_one, on_several, quantized, quantized_on_several
from nbloader.fit._question import Impossible, Question, as_loaded
from nbloader.fit._room import first_that_fits
from nbloader.records import Method, Placement, Quantization

__all__ = [
    "place",
]


_CPU_SHARE, _CPU_BYTES = 1.2, 200_000_000
"""What computing takes on a CPU: so many times what it takes on a GPU, and so much more for what
its kernels keep. Measured in bfloat16 and float32 (torch 2.13): 0.76 and 1.04 GB for a decode to
512 x 512, 0.29 and 0.54 for 32 texts by MiniLM."""


def place(question: Question, method: Method) -> Placement:
    """Give the placement of a method; where it can be had in several ways, the first that fits.

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
