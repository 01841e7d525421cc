"""One row of the table: a method, whether it comes into question and fits, and why not."""

from __future__ import annotations

from dataclasses import replace

from nbloader.fit._methods import place
from nbloader.fit._question import Impossible, Question
from nbloader.fit._room import lacking, ram_needed, ram_room
from nbloader.records import Method, Placement
from nbloader.text import format_bytes

__all__ = ["excluded", "needed", "row", "there"]

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


def excluded(question: Question, method: Method) -> str:
    """Say why a method does not come into question; empty if it does."""
    if question.method is not None and method is not question.method:
        return f"plan={question.method} was asked for"
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
