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
from nbloader.fit._methods import Impossible, Question, place
from nbloader.fit._refusal import faster_hint, refusal, shortage
from nbloader.fit._usable import can_run, driver_runs, gpu_problem, usable_gpus
from nbloader.records import (
    Component,
    ComponentWeights,
    Fit,
    MachineFacts,
    Method,
    Placement,
    Plan,
)

__all__ = ["can_run", "driver_runs", "fit", "gpu_problem"]

_ON_CUDA = frozenset(Method) - {Method.MPS, Method.CPU}
_NEEDS_ALL_GPUS = frozenset({Method.MULTI_GPU, Method.FOUR_BIT_MULTI_GPU})


def fit(
    plan: Plan,
    weights: Sequence[ComponentWeights],
    machine: MachineFacts,
    *,
    device: str = "auto",
    dtype: str = "auto",
    method: Method | None = None,
) -> Fit:
    """Choose where a model goes, and work out what every other way would take.

    Args:
        weights: of the components of `plan` that have any.
        device: a name of torch that the placement has to compute on, or `auto`.
        dtype: a name of torch, or `auto`: bfloat16 on GPUs that compute in it (compute capability
            8.0), else float16, or float32 for families that overflow in float16; float32 on the
            CPU, or bfloat16 where only that has room.
        method: the only one to take; None for the fastest that fits.

    Raises:
        InvalidArgumentError: the device is not there.
    """
    _check_device(device, machine)
    question = _question(plan, weights, machine, device, dtype)
    rows = [_row(question, each, _excluded(each, device, method)) for each in Method]
    fitting = [row for row in rows if row.fits]
    if not fitting:
        problem, hint, nearest = refusal(question, rows, method)
        return Fit(
            chosen=None,
            placements=tuple(rows),
            nearest=nearest,
            workload=question.family.workload,
            problem=problem,
            hint=hint,
        )
    why = "asked for" if method else "the fastest that fits"
    chosen = replace(fitting[0], reason=why)
    slower = f"fits, slower than {chosen.method}"
    told = {row.method: replace(row, reason=slower) for row in fitting[1:]}
    told[chosen.method] = chosen
    return Fit(
        chosen=chosen,
        placements=tuple(told.get(row.method, row) for row in rows),
        workload=question.family.workload,
        hint=faster_hint(question) if chosen.method is Method.CPU and not method else "",
    )


def _question(
    plan: Plan,
    weights: Sequence[ComponentWeights],
    machine: MachineFacts,
    device: str,
    dtype: str,
) -> Question:
    components = {component.name: component for component in plan.components}
    gpus = usable_gpus(machine)
    problems = [found for gpu in machine.gpus if (found := gpu_problem(gpu, machine))]
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        gpus = tuple(gpu for gpu in gpus if gpu.number == number or device == "cuda")
    return Question(
        plan=plan,
        parts=tuple(
            (components.get(part.name, Component(name=part.name, paths=())), part)
            for part in weights
        ),
        family=family_of(plan),
        machine=machine,
        gpus=gpus,
        no_gpu=problems[0] if problems else "no NVIDIA GPU",
        dtype=None if dtype == "auto" else dtype,
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


def _excluded(candidate: Method, device: str, method: Method | None) -> str:
    """Say why a method does not come into question; empty if it does."""
    if method is not None and candidate is not method:
        return f"plan={method} was asked for"
    if device == "auto":
        return ""
    kind, _, index = device.partition(":")
    on = "cuda" if candidate in _ON_CUDA else str(candidate)
    if on != kind or (index and candidate in _NEEDS_ALL_GPUS):
        return f"device={device} was asked for"
    return ""


def _row(question: Question, method: Method, excluded: str) -> Placement:
    """Work out one method, and whether it fits."""
    try:
        row = place(question, method)
    except Impossible as why:
        device = "cuda" if method in _ON_CUDA else str(method)
        dtype = question.dtype or "auto"
        return Placement(
            method=method, device=device, dtype=dtype, fits=False, reason=excluded or str(why)
        )
    if excluded:
        return replace(row, fits=False, reason=excluded)
    short = shortage(question, row)
    return replace(row, fits=False, reason=short) if short else row
