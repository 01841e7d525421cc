"""What a placement lacks, in words, and what would help where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbloader.fit._methods import (
    Impossible,
    Question,
    lacking,
    place,
    ram_needed,
    ram_room,
)
from nbloader.records import Method, PackageFacts, Placement
from nbloader.units import format_bytes

__all__ = ["faster_hint", "refusal", "shortage"]


def shortage(question: Question, row: Placement) -> str:
    """Say what a placement needs and how much of it is there; empty if it fits."""
    short = {where for where, size in lacking(question, row).items() if size > 0}
    parts = [
        f"{_needed(row, where)}, {_there(question, row, where)}"
        for where in sorted(short, reverse=True)
    ]
    return "needs " + "; ".join(parts) if parts else ""


def refusal(
    question: Question, rows: Sequence[Placement], method: Method | None
) -> tuple[str, str, Placement | None]:
    """Say why nothing fits, what to do about it, and which placement lacks the least."""
    applicable = [row for row in rows if row.components and "was asked for" not in row.reason]
    if not applicable:
        told = next((row.reason for row in rows if row.method is method), question.no_gpu)
        what = f"plan={method}" if method else "nothing"
        return (
            f"{what} works here: {told}" if not method else f"{what} does not work here: {told}",
            ("Leave `plan=` and `device=` out for what does."),
            None,
        )
    lacks = {row.method: lacking(question, row) for row in applicable}
    nearest = min(applicable, key=lambda row: max(lacks[row.method].values()))
    there = "; ".join(
        dict.fromkeys(
            _there(question, row, where)
            for row in applicable
            for where, size in sorted(lacks[row.method].items(), reverse=True)
            if size > 0
        )
    )
    needs = "; ".join(
        f"{row.method} needs "
        + " and ".join(
            _needed(row, where)
            for where, size in sorted(lacks[row.method].items(), reverse=True)
            if size > 0
        )
        for row in applicable
    )
    what = f"plan={method} does not fit here" if method else "the model does not fit here"
    return f"{what} ({there}): {needs}", _hint(question, nearest, method), nearest


def _needed(row: Placement, where: str) -> str:
    if where == "RAM":
        return f"{format_bytes(ram_needed(row))} of RAM"
    return f"{format_bytes(row.vram[_number(where)])} of VRAM"


def _there(question: Question, row: Placement, where: str) -> str:
    if where == "RAM":
        return f"{format_bytes(ram_room(question, row.method))} of RAM available"
    gpu = question.machine.gpus[_number(where)]
    return f"{format_bytes(gpu.free)} free on {gpu.name}"


def _number(where: str) -> int:
    return int(where.partition(":")[2])


def _hint(question: Question, nearest: Placement, method: Method | None) -> str:
    if method is not None:
        return "Leave `plan=` out: the fastest that fits is then chosen, if there is one."
    if not question.gpus and question.machine.gpus:
        return f"The GPU cannot be used: {question.no_gpu}."
    if helped := faster_hint(question):
        return helped
    lack = lacking(question, nearest)
    where = max(lack, key=lambda place: lack[place])
    return (
        f"The least is missing for {nearest.method}: {format_bytes(lack[where])} more of "
        f"{'RAM' if where == 'RAM' else 'VRAM'}. Choose a larger machine or GPU, close what else "
        "uses it, or load a smaller model."
    )


def faster_hint(question: Question) -> str:
    """Say which method on a GPU would fit if what it needs were installed; empty for none."""
    helped = _with_bitsandbytes(question)
    if helped is None or helped is Method.CPU:
        return ""
    return (
        f"With bitsandbytes, {helped} fits: run `%pip install bitsandbytes accelerate`, restart "
        "the kernel, and load again."
    )


def _with_bitsandbytes(question: Question) -> Method | None:
    """Give the method that would fit if what quantizes were installed."""
    machine = question.machine
    names = ("bitsandbytes", "accelerate")
    if all(machine.has(name) for name in names):
        return None
    installed = {name: PackageFacts(name=name, installed="") for name in names}
    question = replace(
        question, machine=replace(machine, packages={**machine.packages, **installed})
    )
    for method in Method:
        try:
            row = place(question, method)
        except Impossible:
            continue
        if not shortage(question, row):
            return method
    return None
