"""The choice of a method, and in words why not another; where nothing fits, what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbloader.errors import InvalidArgumentError
from nbloader.fit.families import family_of
from nbloader.fit.gpus import gpu_problem, usable_gpus
from nbloader.fit.methods import place
from nbloader.fit.question import Impossible, Question, lacking, ram_needed, ram_room
from nbloader.records import (
    Component,
    ComponentWeights,
    Fit,
    MachineFacts,
    Method,
    PackageFacts,
    Placement,
    Selection,
)
from nbloader.text import format_bytes
from nbloader.wording import GET_GPU

_SLOW = frozenset({Method.CPU_OFFLOAD, Method.CPU})


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
        method: the only one to take; None for the fastest that fits. The others are worked out all
            the same: whoever asked for one that does not fit can choose among them.

    Raises:
        InvalidArgumentError: the device is not there.
    """
    _check_device(device, machine)
    question = _question(selection, weights, machine, device, dtype, method)
    rows = _rows(question)
    found = Fit(
        chosen=None,
        placements=tuple(rows),
        workload=question.family.workload,
        gpus=tuple((gpu.name, gpu.free) for gpu in machine.gpus),
        memory=machine.memory.available if machine.memory.total else 0,
    )
    allowed = [each for each in rows if each.fits and _is_asked(question, each.method)]
    if not allowed:
        problem, hint, nearest = refusal(question, rows)
        told = {each.method: replace(each, reason="fits") for each in rows if each.fits}
        found = replace(found, nearest=nearest, problem=problem, hint=hint)
    else:
        chosen = replace(allowed[0], reason="asked for" if method else "the fastest that fits")
        told = {
            each.method: replace(each, reason=_beside(chosen, each)) for each in rows if each.fits
        }
        told[chosen.method] = chosen
        hint = faster_hint(question, chosen) if chosen.method in _SLOW else ""
        found = replace(found, chosen=chosen, caution=_caution(question, chosen), hint=hint)
    return replace(found, placements=tuple(told.get(each.method, each) for each in rows))


def next_method(found: Fit, failed: Placement) -> Method | None:
    """Name the fastest of the slower methods that fits and takes less of a GPU; None for none.

    Args:
        failed: a placement that ran out of memory of a GPU, whatever was reckoned.
    """
    most = max(failed.vram, default=0)
    for each in found.placements:
        if each.rank > failed.rank and each.fits and max(each.vram, default=0) < most:
            return each.method
    return None


def _beside(chosen: Placement, other: Placement) -> str:
    """Say of one that fits why it was not chosen."""
    return "fits, slower" if other.rank > chosen.rank else "fits, faster"


def _rows(question: Question) -> list[Placement]:
    """Work out all methods, from the fastest to the slowest."""
    return sorted((row(question, each) for each in Method), key=lambda each: each.rank)


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
    added = {one.component for one in selection.adapters}
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
            if part.name not in added
        ),
        adapters=tuple(part for part in weights if part.name in added),
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
        hint=" ".join(
            filter(
                None, ("Leave `device=` out for the best one.", GET_GPU.get(machine.place.place))
            )
        ),
    )


# -- one row of the table: a method, whether it fits, and why not ----------------------------------

_ON_CUDA = frozenset(Method) - {Method.MPS, Method.CPU}
_NEEDS_ALL_GPUS = frozenset({Method.MULTI_GPU, Method.FOUR_BIT_MULTI_GPU})


def row(question: Question, method: Method) -> Placement:
    """Work out one method, and whether it fits."""
    why_not = excluded(question, method)
    try:
        found = place(question, method)
    except Impossible as why:
        device = "cuda" if method in _ON_CUDA else str(method)
        return Placement(
            method=method,
            device=device,
            dtype=question.dtype or "auto",
            fits=False,
            reason=why_not or str(why),
        )
    why_not = why_not or _shortage(question, found)
    return replace(found, fits=False, reason=why_not) if why_not else found


def _is_asked(question: Question, method: Method) -> bool:
    """Say whether a method may be taken, whether or not it fits."""
    return question.method is None or method is question.method


def excluded(question: Question, method: Method) -> str:
    """Say why a method does not come into question; empty if it does."""
    if question.device == "auto":
        return ""
    kind, _, index = question.device.partition(":")
    on = "cuda" if method in _ON_CUDA else str(method)
    if on != kind or (index and method in _NEEDS_ALL_GPUS):
        return f"device={question.device} was asked for"
    return ""


def _shortage(question: Question, placement: Placement) -> str:
    """Say what a placement needs and how much of it is there; empty if it fits."""
    parts = [
        f"{needed(placement, where)}, {there(question, placement, where)}"
        for where, size in sorted(lacking(question, placement).items(), reverse=True)
        if size > 0
    ]
    return "needs " + "; ".join(parts) if parts else ""


def needed(placement: Placement, where: str) -> str:
    """Write what a placement needs: of `RAM`, or of a GPU by its name for torch."""
    if where == "RAM":
        return f"{format_bytes(ram_needed(placement))} of RAM"
    return f"{format_bytes(placement.vram[_number(where)])} of VRAM"


def there(question: Question, placement: Placement, where: str) -> str:
    """Write what is there for a placement."""
    if where == "RAM":
        return f"{format_bytes(ram_room(question, placement.method))} of RAM available"
    gpu = question.machine.gpus[_number(where)]
    return f"{format_bytes(gpu.free)} free on {gpu.name}"


def _number(where: str) -> int:
    return int(where.partition(":")[2])


# -- where nothing fits: what each placement lacks, and what would help ----------------------------

Refusal = tuple[str, str, Placement | None]
"""Why nothing fits, what to do about it, and the placement that lacks the least."""


def refusal(question: Question, rows: Sequence[Placement]) -> Refusal:
    """Say why nothing fits, and what to do about it."""
    asked = [
        each
        for each in rows
        if _is_asked(question, each.method) and not excluded(question, each.method)
    ]
    applicable = [each for each in asked if each.components]
    wanted = f"plan={question.method}" if question.method else ""
    if not applicable:
        why = asked[0].reason if asked else f"device={question.device} was asked for"
        problem = f"{wanted} does not work here" if wanted else "nothing works here"
        return f"{problem}: {why}", _other_plan(rows) or _without_pins(question) or _smaller(), None
    lacks = {each.method: lacking(question, each) for each in applicable}
    nearest = min(applicable, key=lambda each: max(lacks[each.method].values(), default=0))
    short = [
        (
            each,
            [where for where, size in sorted(lacks[each.method].items(), reverse=True) if size > 0],
        )
        for each in applicable
    ]
    figures = "; ".join(
        dict.fromkeys(there(question, each, where) for each, places in short for where in places)
    )
    needs = "; ".join(
        f"{each.method} needs " + " and ".join(needed(each, where) for where in places)
        for each, places in short
    )
    problem = f"{wanted} does not fit here" if wanted else "the model does not fit here"
    hint = _other_plan(rows) or _hint(question, nearest)
    return f"{problem} ({figures}): {needs}", hint, nearest


def _hint(question: Question, nearest: Placement) -> str:
    if not question.gpus and question.machine.gpus:
        return f"The GPU cannot be used: {question.no_gpu}."
    if helped := _without_pins(question) or faster_hint(question):
        return helped
    lack = lacking(question, nearest)
    where = max(lack, key=lambda place: lack[place])
    kind = "RAM" if where == "RAM" else "VRAM"
    return (
        f"The least is missing for {nearest.method}: {format_bytes(lack[where])} more of {kind}. "
        + _smaller()
    )


def _smaller() -> str:
    return "Choose a larger machine or GPU, close what else uses it, or load a smaller model."


def _other_plan(rows: Sequence[Placement]) -> str:
    """Name the fastest method that fits in the place of the one that was asked for."""
    fitting = next((each.method for each in rows if each.fits), None)
    return f'Pass plan="{fitting}", which fits, or leave plan= out.' if fitting else ""


def _without_pins(question: Question) -> str:
    """Say which method would fit if the call asked for less; empty for none."""
    if question.method is None and question.device == "auto" and question.dtype is None:
        return ""
    free = replace(question, method=None, device="auto", dtype=None, gpus=question.all_gpus)
    fitting = next((each.method for each in _rows(free) if each.fits), None)
    pins = [
        *(["plan="] if question.method else []),
        *(["device="] if question.device != "auto" else []),
        *(["dtype="] if question.dtype else []),
    ]
    return f"Leave {' and '.join(pins)} out: {fitting} fits." if fitting else ""


_KERNELS = ("kernels", "triton")
"""What transformers needs to compute in MXFP4 (`quantizer_mxfp4.py`, 5.0 to 5.23)."""

_INSTALLS = (_KERNELS, ("accelerate",), ("bitsandbytes",), ("accelerate", "bitsandbytes"))
"""Packages that open ways onto a GPU; first those that leave the weights as they are."""


def faster_hint(question: Question, chosen: Placement | None = None) -> str:
    """Say which method on a GPU would fit if what it needs were installed; empty for none.

    Args:
        chosen: what fits as it is; only what is faster helps.
    """
    tried: list[list[str]] = []
    for names in _INSTALLS:
        missing = [name for name in names if not question.machine.has(name)]
        if not missing or missing in tried or (names is _KERNELS and not _packed(question)):
            continue
        tried.append(missing)
        installed = {name: PackageFacts(name=name, installed="") for name in missing}
        packages = {**question.machine.packages, **installed}
        machine = replace(question.machine, packages=packages)
        for found in _rows(replace(question, machine=machine)):
            faster = chosen is None or found.rank < chosen.rank
            helps = faster and _is_asked(question, found.method)
            if helps and found.fits and any(found.vram):
                return (
                    f"With {' and '.join(missing)}, {found.method} fits: run `pip install "
                    f"{' '.join(missing)}`, restart the kernel, and load again."
                )
    return ""


def _packed(question: Question) -> bool:
    """Say whether the weights are such that transformers unpacks to four times their bytes."""
    return any(weights.quantization == "mxfp4" for _, weights in question.parts)
