"""The marks and the words that every view has for a status, a placement, a silence and an end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nbloader.records import CheckStatus, Fit, Method, Placement, Stage
from nbloader.state import Awaited, JobState, Status, Step
from nbloader.text import format_bytes, format_duration, plain

ICONS: Mapping[Status | CheckStatus, str] = MappingProxyType(
    {
        Status.RUNNING: "●",
        Status.READY: "✓",
        Status.FAILED: "✗",
        CheckStatus.PASSED: "✓",
        CheckStatus.WARNING: "⚠\ufe0e",  # the selector keeps it from being drawn as an emoji
        CheckStatus.FAILED: "✗",
        CheckStatus.SKIPPED: "–",
    }
)
"""The marks that stand for a status in every view."""

PLACEMENT_WORDS: Mapping[Method, str] = MappingProxyType(
    {
        Method.GPU: "all on {device} in {dtype}",
        Method.MULTI_GPU: "spread over {devices} in {dtype}",
        Method.FOUR_BIT: "4-bit on {device}",
        Method.FOUR_BIT_MULTI_GPU: "4-bit, spread over {devices}",
        Method.EIGHT_BIT: "8-bit on {device}",
        Method.MODEL_OFFLOAD: "one component on the GPU at a time, the others in memory",
        Method.FOUR_BIT_MODEL_OFFLOAD: "4-bit, one component on the GPU at a time",
        Method.GROUP_OFFLOAD: "a few layers on the GPU at a time, the others in memory",
        Method.SEQUENTIAL_OFFLOAD: "one layer on the GPU at a time, the others in memory",
        Method.CPU_OFFLOAD: "as many layers as fit on {device}, the others in memory",
        Method.MPS: "all on the GPU of this Mac in {dtype}",
        Method.CPU: "all on the CPU in {dtype}",
    }
)
"""What each method does, for people who do not know its name."""

_HOW = {Status.RUNNING: "running for", Status.READY: "ready in", Status.FAILED: "failed after"}
_STOPPED = frozenset({Step.DOWNLOADING, Step.VERIFYING, Step.LOADING})


def counted(count: int, one: str, many: str) -> str:
    """Say how many there are of something."""
    return f"{count} {one if count == 1 else many}"


def placement_words(placement: Placement) -> str:
    """Say where the model goes."""
    devices = sorted({part.device for part in placement.components})
    return PLACEMENT_WORDS[placement.method].format(
        device=plain(placement.device, 20),
        dtype=plain(placement.dtype, 20),
        devices=plain(" and ".join(devices), 60) or "several GPUs",
    )


def placement_figures(placement: Placement) -> str:
    """Say what a placement takes: VRAM on each GPU, and the larger of the two peaks of memory."""
    vram = " + ".join(format_bytes(needed) for needed in placement.vram if needed)
    ram = max(placement.ram_loading, placement.ram_after)
    parts = [f"VRAM {vram}" if vram else "", f"RAM {format_bytes(ram + placement.mapped)}"]
    return " · ".join(filter(None, parts))


def placement_label(placement: Placement) -> str:
    """Say both in one line."""
    return f"{placement_words(placement)} · {placement_figures(placement)}"


def plans(fit: Fit | None) -> tuple[tuple[str, str], ...]:
    """Return the plans that fit: their labels, and their `records.Method` values."""
    fitting = [row for row in fit.placements if row.fits] if fit else []
    return tuple((placement_label(row), str(row.method)) for row in fitting)


def step_words(step: Step, status: Status) -> str:
    """Say how far a file or a component is; in a job that has failed nothing moves any more."""
    return "stopped" if status is Status.FAILED and step in _STOPPED else str(step)


def quiet(state: JobState) -> str:
    """Say what is waited for: bytes, with the whole seconds since the last, or the end of a cell;
    nothing for a short while.
    """
    match state.waits_for:
        case Awaited.CELL:
            return "waits for the running cell"
        case Awaited.BYTES:
            return f"no bytes for {whole_seconds(state.quiet_s or 0.0)}"
        case None:
            return ""


def time_left(state: JobState) -> str:
    """Say how long the download will still take; nothing where nobody knows, as in a silence."""
    left = state.time_remaining
    downloads = state.stage is Stage.DOWNLOAD and state.status is Status.RUNNING
    if left is None or not downloads or state.waits_for:
        return ""
    return f"{format_duration(left)} left"


def whole_seconds(seconds: float) -> str:
    """Write the time of what still lasts: in whole seconds, so that it changes calmly."""
    return f"{int(seconds)} s" if seconds < 60 else format_duration(int(seconds))


def ended(state: JobState) -> str:
    """Say how a job has ended, and after what time; of one that runs, for how long it has."""
    how = "stopped after" if state.ended_by_user else _HOW[state.status]
    return f"{how} {format_duration(state.elapsed)}"


def kept(state: JobState) -> str:
    """Say what remains on the disk of a job that its user has ended; nothing for another one."""
    if not state.is_resumable:
        return ""
    there = min(state.there, state.total)
    what = f"{format_bytes(there)} of {format_bytes(state.total)} are kept"
    return f"{what}; run the cell again to go on"
