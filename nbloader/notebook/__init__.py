"""The notebook and the kernel that a load runs in: turns between cells, interrupts, error cards."""

from __future__ import annotations

from nbloader.notebook.background import IMPORTING, Background, import_modules
from nbloader.notebook.error_cards import clear_frames, render_error
from nbloader.notebook.kernel import KAGGLE_RUN_TYPE, Kernel, batch_told_by, running_kernel
from nbloader.notebook.stops import Stop
from nbloader.notebook.turns import NoTurnError, Turn, Turns, interrupts_held, running_loop

__all__ = [
    "IMPORTING",
    "KAGGLE_RUN_TYPE",
    "Background",
    "Kernel",
    "NoTurnError",
    "Stop",
    "Turn",
    "Turns",
    "batch_told_by",
    "clear_frames",
    "import_modules",
    "interrupts_held",
    "render_error",
    "running_kernel",
    "running_loop",
]
