"""One download of a repository of the matrix, and what must hold of it however it ends."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

import nbloader
from nbloader.errors import NbloaderError
from nbloader.hub_cache.partial import JOURNAL_EVERY_BYTES
from nbloader.localhub import Fault, LocalHub, RequestClass
from nbloader.records import (
    Event,
    FileDone,
    FileProgress,
    Ready,
    Retry,
    Route,
    Selected,
    Stage,
    StageStarted,
)
from nbloader.state import JobState, Status, apply
from tests.faults.repos import Repo

__all__ = [
    "BODY",
    "BOTH",
    "Run",
    "check_cache",
    "check_kept",
    "check_right",
    "check_stopped",
    "download",
    "workers",
]

BOTH = ("http", "xet")

BODY = {"http": RequestClass.CDN_GET, "xet": RequestClass.XET_XORB}
"""The requests that bring the bytes of large files."""

NOT_JOURNALED = 16 * JOURNAL_EVERY_BYTES
"""What the writers of 16 connections may leave out of the journal."""


@dataclass
class Run:
    """One download.

    Attributes:
        events: with the time at which each came.
        served: bytes of files that the server sent for it.
        ended_at: when the call returned or raised.
    """

    repo: Repo
    events: list[tuple[float, Event]] = field(default_factory=list)
    folder: Path | None = None
    error: BaseException | None = None
    served: int = 0
    ended_at: float = 0.0

    @property
    def retries(self) -> list[Retry]:
        return [event for _, event in self.events if isinstance(event, Retry)]

    @property
    def reasons(self) -> list[str]:
        return [retry.reason for retry in self.retries]

    @property
    def kept(self) -> int:
        """Bytes that it found on the disk."""
        selected = next(event for _, event in self.events if isinstance(event, Selected))
        sizes = {file.path: file.size for file in selected.selection.files}
        return sum(sizes[path] for path in selected.cached) + sum(selected.partial.values())

    @property
    def told(self) -> int:
        """Bytes that have arrived by what was told last of each file."""
        sizes = {path: len(content) for path, content in self.repo.files.items()}
        told: dict[str, int] = {}
        for _, event in self.events:
            if isinstance(event, FileProgress):
                told[event.path] = event.completed
            elif isinstance(event, FileDone):
                told[event.path] = sizes[event.path]
        return sum(told.values())

    @property
    def longest_silence(self) -> float:
        """The longest time, in seconds, in which no bytes came."""
        times = [
            now
            for now, event in self.events
            if isinstance(event, FileProgress | FileDone | Ready)
            or (isinstance(event, StageStarted) and event.stage is Stage.DOWNLOAD)
        ]
        return max(after - before for before, after in pairwise(times))


def download(
    hub: LocalHub,
    repo: Repo,
    cache: Path,
    faults: Sequence[Fault] | None = (),
    *,
    on_event: Callable[[Event], object] = lambda event: None,
    token: str | None = None,
    force: bool = False,
    alone: bool = True,
    endpoint: str | None = None,
    **settings: Any,
) -> Run:
    """Download with these faults; the waits between attempts are short.

    Args:
        faults: None for those that are set already.
        alone: whether no other download runs in this process.
        endpoint: of what stands before the Hub; None for its own.
    """
    run = Run(repo)

    def listen(event: Event) -> None:
        run.events.append((time.monotonic(), event))
        on_event(event)

    if faults is not None:
        hub.set_faults(faults)
    before = hub.counters().file_bytes
    try:
        run.folder = nbloader.download(
            repo.repo_id,
            kind="transformers",
            endpoint=endpoint or hub.endpoint,
            cache_dir=cache,
            token=token,
            force=force,
            view="none",
            on_event=listen,
            settings={"retry_delay_min": 0.05, "retry_delay_max": 0.2, **settings},
        )
    except (NbloaderError, KeyboardInterrupt) as error:
        run.error = error
    run.ended_at = time.monotonic()
    run.served = hub.counters().file_bytes - before
    if alone:
        assert workers() == []
    _check_events(run)
    check_cache(cache)
    return run


def check_right(run: Run) -> None:
    """Check that all is there, right, and nothing else."""
    assert run.error is None, (run.error, run.retries)
    assert run.folder is not None
    found = {path.name: _sha256(path) for path in run.folder.iterdir()}
    assert found == run.repo.hashes
    assert not list(run.folder.parents[1].rglob("*.incomplete"))


def check_stopped(run: Run, kind: type[NbloaderError], *words: str) -> None:
    """Check that it ended with the error that is expected, which says so in these words."""
    assert type(run.error) is kind, (run.error, run.retries)
    for word in words:
        assert word in run.error.message


def check_kept(
    hub: LocalHub, run: Run, cache: Path, *, lost: int = NOT_JOURNALED, **settings: Any
) -> Run:
    """Check that another download, without faults, goes on from what the first has brought.

    Args:
        lost: bytes that may be lost.
    """
    again = download(hub, run.repo, cache, **settings)
    check_right(again)
    assert again.retries == [], again.retries
    assert again.kept >= run.told - lost
    # Over Xet a range ends where a chunk does, and a chunk is sent with a header.
    assert again.served <= 1.01 * (run.repo.total - again.kept) + 16 * (128 << 10)
    return again


def workers() -> list[psutil.Process]:
    """Return the download processes of this process."""
    return [
        child for child in psutil.Process().children() if "nbloader.worker" in _arguments(child)
    ]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def _check_events(run: Run) -> None:
    """Check that the events make one sound story."""
    sizes = {path: len(content) for path, content in run.repo.files.items()}
    state = JobState(repo_id=run.repo.repo_id, started_at=0.0, updated_at=0.0)
    done = []
    for now, event in run.events:
        state = apply(state, event, now)
        match event:
            case FileProgress():
                assert 0 <= event.completed <= sizes[event.path]
            case FileDone():
                done.append(event.path)
            case Retry():
                assert event.reason
                assert event.wait_s >= 0
                assert (event.path is None) or {event.route, event.failed_route} <= set(Route)
    assert sorted(done) == sorted(set(done))
    if run.error is None:
        assert state.status is Status.READY
        assert {**dict.fromkeys(sizes, 0), **state.completed} == sizes
    elif isinstance(run.error, NbloaderError):
        assert state.status is Status.FAILED


def check_cache(cache: Path) -> None:
    """Check that whatever looks complete in the cache is right."""
    for blob in cache.glob("models--*/blobs/*"):
        if not blob.name.endswith(".incomplete"):
            assert blob.name == (_sha256(blob) if len(blob.name) == 64 else _git_sha1(blob))
    for pointer in cache.glob("models--*/snapshots/*/**/*"):
        if not pointer.is_dir():
            repository = cache / pointer.relative_to(cache).parts[0]
            assert pointer.resolve(strict=True).parent == repository / "blobs"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
