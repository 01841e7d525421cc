"""Events folded into one state, from which every view is drawn."""

from __future__ import annotations

from nbloader.state.estimate import SPEED_WINDOW_S, Pace
from nbloader.state.fold import MAX_HISTORY, STALL_S, advance, apply, progress, recall
from nbloader.state.forecast import Expected, PastJob
from nbloader.state.job_state import (
    Awaited,
    ComponentState,
    FileState,
    JobState,
    Span,
    StageState,
    Status,
    Step,
)

__all__ = [
    "MAX_HISTORY",
    "SPEED_WINDOW_S",
    "STALL_S",
    "Awaited",
    "ComponentState",
    "Expected",
    "FileState",
    "JobState",
    "Pace",
    "PastJob",
    "Span",
    "StageState",
    "Status",
    "Step",
    "advance",
    "apply",
    "progress",
    "recall",
]
