"""The notebook and the kernel that a load runs in: turns between cells, interrupts, error cards."""

from __future__ import annotations

from nbloader.notebook.background import IMPORTING, Background, BackgroundError, import_modules
from nbloader.notebook.error_cards import render_error
from nbloader.notebook.frames import clear_frames
from nbloader.notebook.interrupts import interrupts_held
from nbloader.notebook.kernel import KAGGLE_RUN_TYPE, Kernel, batch_told_by, running_kernel, shell
from nbloader.notebook.turns import NoTurnError, Turn, Turns

__all__ = [
    "IMPORTING",
    "KAGGLE_RUN_TYPE",
    "Background",
    "BackgroundError",
    "Kernel",
    "NoTurnError",
    "Turn",
    "Turns",
    "batch_told_by",
    "clear_frames",
    "import_modules",
    "interrupts_held",
    "render_error",
    "running_kernel",
    "shell",
]
