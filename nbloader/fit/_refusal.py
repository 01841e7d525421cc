"""Where nothing fits: what each placement lacks, in words, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbloader.fit._question import Question
from nbloader.fit._room import lacking
from nbloader.fit._rows import excluded, needed, row, there
from nbloader.records import Method, PackageFacts, Placement
from nbloader.text import format_bytes

__all__ = ["Refusal", "faster_hint", "refusal"]

Refusal = tuple[str, str, Placement | None]
"""Why nothing fits, what to do about it, and the placement that lacks the least."""


def refusal(question: Question, rows: Sequence[Placement]) -> Refusal:
    """Say why nothing fits, and what to do about it."""
    asked = [each for each in rows if not excluded(question, each.method)]
    applicable = [each for each in asked if each.components]
    wanted = f"plan={question.method}" if question.method else ""
    if not applicable:
        why = asked[0].reason if asked else f"device={question.device} was asked for"
        problem = f"{wanted} does not work here" if wanted else "nothing works here"
        return f"{problem}: {why}", _without_pins(question) or _smaller(), None
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
    return f"{problem} ({figures}): {needs}", _hint(question, nearest), nearest


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


def _without_pins(question: Question) -> str:
    """Say which method would fit if the call asked for less; empty for none."""
    if question.method is None and question.device == "auto" and question.dtype is None:
        return ""
    free = replace(question, method=None, device="auto", dtype=None, gpus=question.all_gpus)
    fitting = next((each for each in Method if row(free, each).fits), None)
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
    order = list(Method)
    faster = order if chosen is None else order[: order.index(chosen.method)]
    tried: list[list[str]] = []
    for names in _INSTALLS:
        missing = [name for name in names if not question.machine.has(name)]
        if not missing or missing in tried or (names is _KERNELS and not _packed(question)):
            continue
        tried.append(missing)
        installed = {name: PackageFacts(name=name, installed="") for name in missing}
        packages = {**question.machine.packages, **installed}
        machine = replace(question.machine, packages=packages)
        for method in faster:
            found = row(replace(question, machine=machine), method)
            if found.fits and any(found.vram):
                return (
                    f"With {' and '.join(missing)}, {method} fits: run `pip install "
                    f"{' '.join(missing)}`, restart the kernel, and load again."
                )
    return ""


def _packed(question: Question) -> bool:
    """Tell whether the weights are such that transformers unpacks to four times their bytes."""
    return any(weights.quantization == "mxfp4" for _, weights in question.parts)
