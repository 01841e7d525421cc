"""The marks and the words that every view has: for a status, a placement, a silence, an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nbloader.records import (
    SILENT,
    CheckStatus,
    Fit,
    Method,
    Placement,
    Retry,
    Selection,
    Stage,
)
from nbloader.redaction import short_path
from nbloader.state import Awaited, JobState, Status, Step
from nbloader.text import (
    format_bytes,
    format_duration,
    format_share,
    format_speed,
    middle,
    plain,
)

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

STOPPED = "■"
"""The mark of a job that its user has stopped, which is no failure."""

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

MAX_REASONS = 3

_NAME_LIMIT = 60
_TITLE_LIMIT = 100
_FOLDER_LIMIT = 40
_PATH_LIMIT = 300
_REASON_LIMIT = 120

_SUMMED_UP = frozenset({Method.GPU, Method.MPS, Method.CPU})
"""All is in one place, in one dtype."""

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
    ram = placement.ram_peak + placement.mapped
    parts = [f"VRAM {vram}" if vram else "", f"RAM {format_bytes(ram)}"]
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


def waiting(state: JobState) -> str:
    """Say what is waited for, since when, and what comes next; nothing for a short while."""
    match state.waits_for:
        case Awaited.CELL:
            return "waits for the running cell"
        case Awaited.BYTES:
            silent = f"no bytes for {whole_seconds(state.quiet_s or 0.0)}"
            return ", ".join(filter(None, (silent, next_attempt(state) or _asked_again(state))))
        case None:
            return ""


def next_attempt(state: JobState) -> str:
    """Say when the attempt comes that a retry waits for; nothing where none waits."""
    left = state.next_attempt_in
    return "" if left is None else f"the next attempt in {whole_seconds(left)}"


def _asked_again(state: JobState) -> str:
    left = state.asked_again_in
    return "" if left is None else f"asked again within {whole_seconds(left)}"


def time_left(state: JobState) -> str:
    """Say how long the download will still take; nothing where nobody knows, as in a silence."""
    left = state.time_remaining
    if left is None or not downloads(state) or state.waits_for:
        return ""
    return f"download {format_duration(left)} left"


def ready_in(state: JobState) -> str:
    """Say about when the model will be ready, as far as earlier jobs of this machine tell."""
    left = state.time_to_ready
    if left is None or state.status is not Status.RUNNING or state.waits_for:
        return ""
    return f"ready in about {whole_seconds(left)}"


def downloads(state: JobState) -> bool:
    """Say whether the download is what goes on."""
    return state.stage is Stage.DOWNLOAD and state.status is Status.RUNNING


def doing(state: JobState) -> str:
    """Say what is done after the download."""
    if state.status is not Status.RUNNING or not state.has_begun(Stage.INITIALISE):
        return ""
    if state.importing is None:
        return "importing the libraries"
    return "building" if state.stage is Stage.INITIALISE else "testing"


def about(state: JobState) -> str:
    """Say how much is loaded, where to, and from where."""
    if state.selection is None:
        return ""
    files = counted(len(state.selection.files), "file", "files")
    # A folder is the title already.
    origin = "" if state.selection.folder is not None else _revision(state.selection)
    said = (f"{files}, {format_bytes(state.total)}", where(state), origin)
    return " · ".join(filter(None, said))


def where(state: JobState) -> str:
    """Say where a model goes, or is; nothing for one that is ready if its summary says so."""
    chosen = state.fit.chosen if state.fit and state.selection else None
    if chosen is None or (state.status is Status.READY and chosen.method in _SUMMED_UP):
        return ""
    return placement_words(chosen)


def origin(state: JobState) -> str:
    """Say where the files are from: the revision, or the whole path of a folder."""
    selection = state.selection
    if selection is None:
        return ""
    if selection.folder is not None:
        return plain(short_path(selection.folder), _PATH_LIMIT)
    return f"revision {_revision(selection)}"


def title(state: JobState) -> str:
    """Return the name of what is loaded; the path of a folder is cut in its middle, as what tells
    folders apart stands at the end."""
    name = plain(state.repo_id, _PATH_LIMIT)
    is_folder = state.selection is not None and state.selection.folder is not None
    return middle(name, _FOLDER_LIMIT if is_folder else _TITLE_LIMIT)


def _revision(selection: Selection) -> str:
    commit = plain(selection.commit_hash[:8])
    if selection.revision == selection.commit_hash:
        return commit
    return f"{plain(selection.revision, _NAME_LIMIT)} ({commit})"


def fetched(state: JobState, *, seconds: bool = True, speed: bool = True) -> str:
    """Say what a job has downloaded, how fast, and what was there before it.

    Args:
        seconds, speed: whether the time and the speed are told.
    """
    selection, download = state.selection, state.download
    if selection is None:
        return ""
    parts = []
    if state.fetched:
        took = download.seconds if download and seconds else None
        how = [f" in {format_duration(took)}" if took is not None else ""]
        how += [f", {format_speed(state.average_speed)}"] if speed else []
        parts.append(f"{format_bytes(state.fetched)} downloaded{''.join(how)}")
    if state.cached_bytes:
        where = "from the cache" if selection.folder is None else "there already"
        parts.append(f"{format_bytes(state.cached_bytes)} {where}")
    return " · ".join(parts)


def retried(retries: Sequence[Retry]) -> str:
    """Say in a few words what was asked again; nothing for no retry."""
    silent = sum(retry.reason in SILENT for retry in retries)
    reasons = Counter(
        plain(retry.reason, _REASON_LIMIT) for retry in retries if retry.reason not in SILENT
    )
    failed = len(retries) - silent
    parts = []
    if silent:
        were = "was" if silent == 1 else "were"
        parts.append(f"{counted(silent, 'piece', 'pieces')} fell silent and {were} asked again")
    if failed:
        why = ", ".join(
            reason if count in (1, failed) else f"{reason} ({count})"
            for reason, count in reasons.most_common(MAX_REASONS)
        )
        rest = "" if len(reasons) <= MAX_REASONS else ", and others"
        parts.append(f"{counted(failed, 'attempt', 'attempts')} failed: {why}{rest}")
    return "; ".join(parts)


def whole_seconds(seconds: float) -> str:
    """Write the time of what still lasts: in whole seconds, so that it changes calmly."""
    return f"{int(seconds)} s" if seconds < 60 else format_duration(int(seconds))


def ended(state: JobState) -> str:
    """Say how a job has ended, and after what time; of one that runs, for how long it has."""
    how = "stopped after" if state.ended_by_user else _HOW[state.status]
    return f"{how} {format_duration(state.elapsed)}"


def kept(state: JobState, what: str = "the cell") -> str:
    """Say what remains on the disk of a job that its user has ended; nothing for another one.

    Args:
        what: is to be run again.
    """
    if not state.ended_by_user:
        return ""
    if not state.there:
        return (
            f"nothing had arrived yet; run {what} again to go on"
            if state.download
            else f"the download had not begun; run {what} again to begin it"
        )
    share = format_share(state.there, state.total)
    there = f"all {share}" if state.there >= state.total else share
    return f"{there} are kept; run {what} again to go on"
