"""What is to be placed where, and what a method may require of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbloader.fit._bytes import unpacked
from nbloader.fit._families import Family
from nbloader.fit._usable import UsableGpu
from nbloader.records import Component, ComponentWeights, Kind, MachineFacts, Method, Selection

__all__ = [
    "Impossible",
    "Part",
    "Question",
    "as_loaded",
    "gpu_dtype",
    "gpus_of",
    "require_parts",
    "require_plain_weights",
]


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
    """Give the GPUs that come into question. Raises Impossible where there are none."""
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
    """Tell whether there is a triton that transformers takes for MXFP4: from 3.4 on."""
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
    if question.selection.kind is Kind.DIFFUSERS and any(
        component.library not in _LIBRARIES for component, _ in question.parts
    ):
        raise Impossible("a component is of neither diffusers nor transformers")


_LIBRARIES = frozenset({"diffusers", "transformers"})
