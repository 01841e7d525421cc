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
was not taken, the last column says why, and what is hinted at; where nothing fits, the row shows
what lacks the least.
"""


def table() -> str:
    """The whole file."""
    parts = [_HEAD]
    for name, machine in MACHINES.items():
        parts.append(f"\n## {name}\n\n{_describe(machine)}\n\n")
        parts.append("| model | method | dtype | VRAM | RAM | why |\n|---|---|---|---|---|---|\n")
        parts.extend(
            f"| {model.name} | {_row(fit(model.selection, model.weights, machine), machine)} |\n"
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
    row = found.chosen or found.nearest
    if row is None:
        return f"**none** | | | | {found.problem}"
    method = str(row.method) if found.chosen else f"**none**, nearest {row.method}"
    vram = " + ".join(
        f"{_gb(peak)} of {_gb(gpu.free)}"
        for peak, gpu in zip(row.vram, machine.gpus, strict=False)
        if peak
    )
    ram = f"{_gb(row.ram_loading)}, then {_gb(row.ram_after)}"
    if row.mapped:
        ram += f" + {_gb(row.mapped)}"
    refused = row.reason if found.chosen is None else found.placements[0].reason
    why = "" if found.chosen and row.method is Method.GPU else refused
    return f"{method} | {row.dtype} | {vram} | {ram} | {' '.join(filter(None, (why, found.hint)))}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def main() -> None:
    """Write the file anew."""
    PATH.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
