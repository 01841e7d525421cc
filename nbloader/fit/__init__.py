"""How a model gets onto this machine: number format, devices, quantization, offload. Pure.

Every method (`Method`) gives a placement with its peaks of memory, worked out from the stored
weights of each component; the first that the machine has room for is chosen. The order is that of
speed: all on one GPU, spread over several, 4-bit, 8-bit, then what moves weights while it computes,
then the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbloader.errors import InvalidArgumentError
from nbloader.fit._families import family_of
from nbloader.fit._question import Question
from nbloader.fit._refusal import faster_hint, refusal
from nbloader.fit._rows import row
from nbloader.fit._usable import gpu_problem, usable_gpus
from nbloader.records import (
    Component,
    ComponentWeights,
    Fit,
    MachineFacts,
    Method,
    Placement,
    Selection,
)

__all__ = ["fit", "gpu_problem", "next_method"]


def fit(
    selection: Selection,
    weights: Sequence[ComponentWeights],
    machine: MachineFacts,
    *,
    device: str = "auto",
    dtype: str = "auto",
    method: Method | None = None,
) -> Fit:
    """Choose where a model goes, and work out what every other way would take.

    Args:
        weights: of the components of `selection` that have any.
        device: a name of torch that the placement has to compute on, or `auto`.
        dtype: a name of torch, or `auto`: bfloat16 on GPUs that compute in it (compute capability
            8.0), else float16, or float32 for families that overflow in float16; float32 on the
            CPU, or bfloat16 where only that has room.
        method: the only one to take; None for the fastest that fits.

    Raises:
        InvalidArgumentError: the device is not there.
    """
    _check_device(device, machine)
    question = _question(selection, weights, machine, device, dtype, method)
    rows = [row(question, each) for each in Method]
    workload = question.family.workload
    fitting = [each for each in rows if each.fits]
    if not fitting:
        problem, hint, nearest = refusal(question, rows)
        return Fit(
            chosen=None,
            placements=tuple(rows),
            nearest=nearest,
            workload=workload,
            problem=problem,
            hint=hint,
        )
    chosen = replace(fitting[0], reason="asked for" if method else "the fastest that fits")
    slower = f"fits, slower than {chosen.method}"
    told = {each.method: replace(each, reason=slower) for each in fitting[1:]}
    told[chosen.method] = chosen
    return Fit(
        chosen=chosen,
        placements=tuple(told.get(each.method, each) for each in rows),
        workload=workload,
        caution=_caution(question, chosen),
        hint=faster_hint(question, chosen) if chosen.method in _SLOW else "",
    )


_SLOW = frozenset({Method.CPU_OFFLOAD, Method.CPU})


def next_method(found: Fit, failed: Placement) -> Method | None:
    """Name the fastest of the slower methods that fits and takes less of a GPU; None for none.

    Args:
        failed: a placement that ran out of memory of a GPU, whatever was reckoned.
    """
    order = list(Method)
    most = max(failed.vram, default=0)
    for each in found.placements:
        slower = order.index(each.method) > order.index(failed.method)
        if slower and each.fits and max(each.vram, default=0) < most:
            return each.method
    return None


def _caution(question: Question, chosen: Placement) -> str:
    """Say why a number format that was asked for may not do well here; empty for nothing."""
    if chosen.dtype == "float16" and not question.family.fp16:
        return question.family.fp16_reason
    emulated = [
        gpu.facts.name
        for gpu in question.gpus
        if not gpu.bfloat16
        and chosen.dtype == "bfloat16"
        and any(chosen.vram[gpu.number : gpu.number + 1])
    ]
    return f"{emulated[0]} has bfloat16 by emulation only, which is slow" if emulated else ""


def _question(
    selection: Selection,
    weights: Sequence[ComponentWeights],
    machine: MachineFacts,
    device: str,
    dtype: str,
    method: Method | None,
) -> Question:
    components = {component.name: component for component in selection.components}
    gpus = all_gpus = usable_gpus(machine)
    problems = [found for gpu in machine.gpus if (found := gpu_problem(gpu, machine))]
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        gpus = tuple(gpu for gpu in gpus if gpu.number == number or device == "cuda")
    return Question(
        selection=selection,
        parts=tuple(
            (components.get(part.name, Component(name=part.name, paths=())), part)
            for part in weights
        ),
        family=family_of(selection),
        machine=machine,
        gpus=gpus,
        no_gpu=problems[0] if problems else "no NVIDIA GPU",
        all_gpus=all_gpus,
        device=device,
        dtype=None if dtype == "auto" else dtype,
        method=method,
    )


def _check_device(device: str, machine: MachineFacts) -> None:
    kind, _, index = device.partition(":")
    present = {"auto": 1, "cpu": 1, "mps": int(machine.mps), "cuda": len(machine.gpus)}.get(kind, 0)
    if int(index or 0) < present:
        return
    names = [f"cuda:{number}" for number in range(len(machine.gpus))]
    there = ", ".join([*names, *(["mps"] if machine.mps else []), "cpu"])
    raise InvalidArgumentError(
        f"device={device!r} is not there: this machine has {there}",
        hint="Leave `device=` out for the best one. On Colab and Kaggle, choose a GPU in the "
        "notebook's settings first.",
    )
