"""The table of placements: every machine with every model.

    python -m tests.fit.table

writes `placements.md` anew. It is read by people, so a change of it is to be argued with.
"""

from __future__ import annotations

from pathlib import Path

from nbloader.fit import fit
from nbloader.records import Fit, MachineFacts, Method
from tests.fit.machines import MACHINES, MIB
from tests.fit.models import MODELS

__all__ = ["PATH", "table"]

PATH = Path(__file__).parent / "placements.md"

_HEAD = """\
# Where models go

What `nbloader.fit.fit` chooses for each machine and model. Written by `python -m tests.fit.table`,
and compared with what it gives now by `tests/fit/test_table.py`.

VRAM is the peak on each GPU against what is free there; RAM is the peak of the process's own memory
while the model is loaded, and what stays of it; weights that are read in place from the disk's
cache stand behind a plus. All in GB (1,000,000,000 bytes). Where the fastest way, all on one GPU,
was not taken, the last column says why.
"""


def table() -> str:
    """The whole file."""
    parts = [_HEAD]
    for name, machine in MACHINES.items():
        parts.append(f"\n## {name}\n\n{_describe(machine)}\n\n")
        parts.append("| model | method | dtype | VRAM | RAM | why |\n|---|---|---|---|---|---|\n")
        parts.extend(
            f"| {model.name} | {_row(fit(model.plan, model.weights, machine), machine)} |\n"
            for model in MODELS
        )
    return "".join(parts)


def _describe(machine: MachineFacts) -> str:
    gpus = "; ".join(
        f"{gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
        f"{gpu.free // MIB:,} of {gpu.total // MIB:,} MiB free"
        for gpu in machine.gpus
    )
    memory = f"RAM {_gb(machine.memory.available)} of {_gb(machine.memory.total)} GB available"
    mps = "GPU of Apple's" if machine.mps else ""
    return ". ".join(part for part in (gpus or mps or "No GPU", memory) if part) + "."


def _row(found: Fit, machine: MachineFacts) -> str:
    chosen = found.chosen
    if chosen is None:
        return f"**none** | | | | {found.problem}"
    vram = " + ".join(
        f"{_gb(peak)} of {_gb(gpu.free)}"
        for peak, gpu in zip(chosen.vram, machine.gpus, strict=False)
        if peak
    )
    ram = f"{_gb(chosen.ram_loading)}, then {_gb(chosen.ram_after)}"
    if chosen.mapped:
        ram += f" + {_gb(chosen.mapped)}"
    first = found.placements[0]
    why = "" if chosen.method is Method.GPU else first.reason
    return f"{chosen.method} | {chosen.dtype} | {vram} | {ram} | {why}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def main() -> None:
    """Write the file anew."""
    PATH.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
