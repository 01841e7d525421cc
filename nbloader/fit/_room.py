"""How much memory there is for a placement, and how much of it is missing."""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.fit._question import Question
from nbloader.records import Method, Placement

__all__ = [
    "first_that_fits",
    "lacking",
    "ram_needed",
    "ram_room",
]

IMPORTS_BYTES = 500_000_000
"""What importing torch and a library takes of memory: 460 MB of the process's own (torch 2.13)."""

CUDA_HOST_BYTES = 500_000_000
"""What CUDA takes of the machine's memory once a GPU is used. A convention, not a measurement."""

MPS_SHARE = 0.7
"""How much of a Mac's memory its GPU may hold: Metal recommends two thirds to three quarters."""


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


def first_that_fits(question: Question, placements: Sequence[Placement]) -> Placement:
    """Give the first that fits, or that lacks the least."""

    def shortage(placement: Placement) -> int:
        return max(0, 0, *lacking(question, placement).values())

    return min(placements, key=shortage)
