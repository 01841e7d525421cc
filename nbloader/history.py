"""The last jobs, kept on the disk for `doctor`: what was tried, what was retried, how it ended.

They also tell how long the next one will take.

One file of JSON lines, the oldest job first, in the Hub's own folder beside its cache. It is
replaced in one step, under a lock that other processes honour. What is written has passed a
`Redactor`; what is read may have been written by anybody, and is dropped where it is not a job.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader._version import __version__
from nbloader.limits import WAIT_STEP_S
from nbloader.machine import home_of_environment
from nbloader.records import Retry
from nbloader.redaction import Redactor
from nbloader.small_files import open_regular
from nbloader.state import JobState, PastJob, Status
from nbloader.text import plain

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "MAX_JOBS",
    "History",
    "JobEntry",
    "RetryEntry",
    "entry_of",
    "past_of",
    "recall",
    "remember",
]

MAX_JOBS = 20
MAX_RETRIES = 50
"""Of one job; the last ones stay."""

MAX_LINE_BYTES = 1 << 16
"""More than an entry takes: 50 retries of some 600 bytes, and the rest."""

MOST_SECONDS = 86_400.0
"""No import and no build takes longer than a day: a line that says so is not believed."""

LOCK_WAIT_S = 1.0
"""Another process holds the lock for the time of one small write."""

DISTRIBUTIONS = (
    "huggingface_hub",
    "hf-xet",
    "torch",
    "diffusers",
    "transformers",
    "sentence-transformers",
    "accelerate",
    "safetensors",
)
"""The libraries whose versions are kept with a job, by their names on the package index."""

_MAX_STAGES = 20
_MAX_NOTICES = 50
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEntry:
    """An attempt that failed and was followed by another.

    Attributes:
        time: when, in UTC, as ISO 8601 writes it.
        path: the file inside the repository; None for a call that is about no file.
        wait_s: seconds until the next attempt.
        route: the way that the next attempt took; None if it was about no file.
    """

    time: str
    path: str | None
    reason: str
    wait_s: float
    route: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """A job that has ended.

    Attributes:
        commit_hash, kind: None if it did not come as far as a selection.
        started: when, in UTC, as ISO 8601 writes it.
        seconds: from its start to its end.
        status: `ready` or `failed`.
        reference: of the error, empty where it was ready.
        fetched, total: bytes downloaded by this job, and of all files of its selection.
        stages: their names, and how many seconds each took.
        retries: the last ones, at most `MAX_RETRIES`.
        retry_count: how many there were.
        notices: the references of what the user was told.
        versions: of nbloader and of the libraries that are installed, by their names.
        device, plan: where the model went and how, by torch's name and that of a
            `records.Method`; empty where nothing was loaded.
        import_s, build_s: of `state.PastJob`; None if not known.
    """

    repo_id: str
    commit_hash: str | None
    kind: str | None
    started: str
    seconds: float
    status: str
    reference: str
    fetched: int
    total: int
    stages: tuple[tuple[str, float], ...]
    retries: tuple[RetryEntry, ...]
    retry_count: int
    notices: tuple[str, ...]
    versions: Mapping[str, str]
    device: str = ""
    plan: str = ""
    import_s: float | None = None
    build_s: float | None = None


def entry_of(
    state: JobState, *, now: float, versions: Mapping[str, str], redact: Redactor
) -> JobEntry:
    """Return what is kept of a job that has ended. Pure.

    Args:
        now: when it ended, seconds since the epoch; the clock of `state` is another one.
        versions: of the installed libraries.
        redact: what every text from elsewhere passes through.
    """

    def clean(text: str, limit: int = 300) -> str:
        return plain(redact(text), limit)

    def retry(event: Retry) -> RetryEntry:
        return RetryEntry(
            time=_utc(event.time),
            path=None if event.path is None else clean(event.path),
            reason=clean(event.reason),
            wait_s=_seconds(event.wait_s),
            route=None if event.route is None else str(event.route),
        )

    selection, failure, outline = state.selection, state.failure, state.outline
    return JobEntry(
        repo_id=clean(state.repo_id, 100),
        commit_hash=clean(selection.commit_hash, 60) if selection else None,
        kind=str(selection.kind) if selection else None,
        started=_utc(now - state.elapsed),
        seconds=_seconds(state.elapsed),
        status=str(state.status),
        reference=clean(failure.reference, 60) if failure else "",
        fetched=max(0, state.fetched),
        total=state.total,
        stages=tuple(
            (str(each.stage), _seconds(each.seconds or 0.0)) for each in state.stages[-_MAX_STAGES:]
        ),
        retries=tuple(map(retry, state.retries[-MAX_RETRIES:])),
        retry_count=len(state.retries),
        notices=tuple(
            clean(each.reference, 60) for each in (*state.remarks, *state.notices)[-_MAX_NOTICES:]
        ),
        versions=dict(versions),
        device=clean(outline.device, 60) if outline else "",
        plan=clean(outline.plan, 60) if outline else "",
        import_s=_known_seconds(outline.import_s) if outline else None,
        build_s=_known_seconds(outline.build_s) if outline else None,
    )


def past_of(entries: Iterable[JobEntry]) -> tuple[PastJob, ...]:
    """Return what jobs that were ready tell about others, in their order. Pure."""
    return tuple(
        PastJob(
            repo_id=entry.repo_id,
            kind=entry.kind or "",
            device=entry.device,
            plan=entry.plan,
            total=entry.total,
            fetched=entry.fetched > 0,
            import_s=_believed(entry.import_s),
            build_s=_believed(entry.build_s),
        )
        for entry in entries
        if entry.status == Status.READY
    )


def _believed(seconds: float | None) -> float | None:
    """Return a time that an import or a build can have taken; None for another one."""
    return seconds if seconds is not None and 0 <= seconds <= MOST_SECONDS else None


def _utc(seconds: float) -> str:
    """Write a time since the epoch; empty for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


def _known_seconds(value: float | None) -> float | None:
    return None if value is None else _seconds(value)


def _seconds(value: float) -> float:
    """Round a duration; one that no job can have taken is none."""
    return round(value, 3) if math.isfinite(value) and 0 <= value < 1e9 else 0.0


def remember(state: JobState) -> None:
    """Keep a job that has ended, in the Hub's own folder. Never fails, and waits for nobody long.

    A job that still runs is not kept.
    """
    if state.status is Status.RUNNING:
        return
    # A job must not fail because its history cannot be kept, whatever the reason is.
    with contextlib.suppress(Exception):
        entry = entry_of(state, now=time.time(), versions=_installed(), redact=Redactor.here())
        History.of_environment(os.environ).add(entry)


def recall() -> tuple[PastJob, ...]:
    """Return what the jobs in the Hub's own folder tell about others. Never fails."""
    with contextlib.suppress(Exception):
        return past_of(History.of_environment(os.environ).entries())
    return ()


def _installed() -> dict[str, str]:
    found = {"nbloader": __version__}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name.replace("-", "_")] = importlib.metadata.version(name)
    return found


@dataclass(frozen=True, slots=True)
class History:
    """The jobs that are kept in a folder.

    Attributes:
        folder: below the Hub's own; made when the first job is added.
    """

    folder: Path

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> History:
        """Return that of the Hub's folder, which is found by the Hub library's own rules."""
        return cls(home_of_environment(environ) / "nbloader")

    @property
    def path(self) -> Path:
        """The file of the jobs; it may not exist yet."""
        return self.folder / "jobs.jsonl"

    def add(self, entry: JobEntry) -> None:
        """Add a job, and drop the oldest beyond `MAX_JOBS`.

        Raises:
            OSError: it cannot be written, or another process holds the lock for too long.
        """
        # Imported here: together they take 20 ms, which only the end of a job needs.
        from nbloader.hub_cache.filesystem import try_lock
        from nbloader.hub_cache.folders import open_folder, write_whole

        home, until = self.folder.parent, time.monotonic() + LOCK_WAIT_S
        while (lock := try_lock(self.folder / "jobs.lock", flock=True, below=home)) is None:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds it", str(self.path))
            time.sleep(WAIT_STEP_S)
        with lock, open_folder(self.folder, below=home) as folder:
            lines = [_line(kept) for kept in (*self.entries(), entry)[-MAX_JOBS:]]
            write_whole(folder, self.path.name, "".join(lines).encode("utf-8"))

    def entries(self) -> tuple[JobEntry, ...]:
        """Return the jobs, the oldest first; what cannot be read is left out."""
        found = (_parse(line) for line in _tail(self.path).splitlines())
        return tuple(entry for entry in found if entry is not None)[-MAX_JOBS:]


def _line(entry: JobEntry) -> str:
    return json.dumps({"format": _FORMAT, **asdict(entry)}) + "\n"


def _tail(path: Path) -> bytes:
    """Read the end of a file: as much as the jobs can take. Only what is a file is opened."""
    try:
        with os.fdopen(open_regular(path, follow=False), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_JOBS * MAX_LINE_BYTES))
            return file.read(MAX_JOBS * MAX_LINE_BYTES)
    except OSError:
        return b""


# -- reading what anybody may have written ---------------------------------------------------------

_MOST = 1 << 62
"""No count of bytes and no time is larger."""


@functools.cache
def _adapter() -> TypeAdapter[JobEntry]:
    from pydantic import TypeAdapter

    return TypeAdapter(JobEntry)


def _parse(line: bytes) -> JobEntry | None:
    """Return the job of a line; None if it is none, or is not as `entry_of` makes them."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            return None
        return _adapter().validate_python(values) if _is_bounded(values) else None
    except (ValueError, RecursionError):
        return None


def _is_bounded(value: object, depth: int = 4) -> bool:
    """Say whether plain values have the size of those that are written here."""
    if isinstance(value, str):
        return len(value) <= 300 and plain(value) == value
    if isinstance(value, int | float):
        return 0 <= value < _MOST  # Neither is NaN.
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return (
            depth > 0 and len(value) <= 100 and all(_is_bounded(each, depth - 1) for each in value)
        )
    return value is None
