"""One download by one peer: started, watched, perhaps killed, and its bytes checked."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

import nbloader
from benchmarks.peers import Peer, Route, command, environment
from benchmarks.repos import hashes, warm
from benchmarks.scenarios import CONTENT, Scenario
from nbloader.localhub import LocalHub, RequestClass

__all__ = ["Outcome", "Record", "compile_package", "cpu_seconds", "run", "skipped"]

_POLL_S = 0.01
_MEMORY_EVERY_S = 0.1
_START_LIMIT_S = 60.0
_MOST_OF_OTHER_ROUTE = 0.05
_WORKER = "nbloader.worker"
_ELSEWHERE = frozenset(
    {
        RequestClass.CDN_HEAD,
        RequestClass.CDN_GET,
        RequestClass.XET_RECONSTRUCTION,
        RequestClass.XET_XORB,
        RequestClass.XET_OTHER,
    }
)
"""Requests to other hosts than the Hub's own."""


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    TOO_SLOW = "too slow"
    WRONG_BYTES = "wrong bytes"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was measured in one run. All of it is seen from the outside.

    Attributes:
        reason: why it failed or was skipped, or what else has to be known.
        bytes_needed: size of all files.
        bytes_served: bytes of content that the Hub sent, of all starts of a run with a kill.
        bytes_by_class: bytes that the local Hub sent, by its class of request.
        hub_requests: requests to the Hub's own host, the redirects that it follows there included.
        seconds: from the first request at the Hub to the end of the call, so that what a tool
            imports in a process of its own counts for none of them.
        call_seconds: the whole call. Of a run with a kill both are those of the second start.
        peak_memory_bytes: `VmHWM` of the process that downloads, the highest of all starts.
        cpu_seconds: user and system time of that process during the call, of all starts.
    """

    scenario: str
    peer: str
    repeat: int
    outcome: Outcome
    reason: str = ""
    bytes_needed: int = 0
    bytes_served: int = 0
    bytes_by_class: Mapping[str, int] | None = None
    hub_requests: int = 0
    seconds: float | None = None
    call_seconds: float | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compile_package() -> None:
    """Compile nbloader. Whatever installs a package does so, but not for one whose folder it only
    points to, and each start would be measured with what that costs."""
    compileall.compile_dir(str(Path(nbloader.__file__).parent), quiet=1)


def skipped(scenario: Scenario, peer: Peer, reason: str) -> Record:
    """Make the record of a peer that cannot be measured here."""
    return Record(
        scenario=scenario.key, peer=peer.name, repeat=0, outcome=Outcome.SKIPPED, reason=reason
    )


def run(
    hub: LocalHub,
    scenario: Scenario,
    peer: Peer,
    *,
    repeat: int,
    source: Path,
    expected: Mapping[str, str | None],
    scratch: Path,
    limit_s: float,
) -> Record:
    """Let a peer download a repository into an empty cache, and measure it.

    Args:
        source: the root of the Hub, which is read first: nobody waits for the disk.
        expected: sha256 of every file of the repository.
        scratch: an existing folder; the cache is made in it, and removed.
        limit_s: seconds after which each start is ended.
    """
    home = scratch / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    warm(source)
    os.sync()  # what an earlier run left to be written must not slow this one
    hub.set_faults(scenario.faults(peer))
    hub.reset_counters()
    needed = sum((source / "models" / scenario.repo.repo_id / n).stat().st_size for n in expected)
    try:
        kill_at = needed // 2 if scenario.kill else None
        starts = [_watch(hub, scenario, peer, home, limit_s=limit_s, kill_at=kill_at)]
        if starts[0].killed:
            starts.append(_watch(hub, scenario, peer, home, limit_s=limit_s, kill_at=None))
        outcome, reason = _judge(hub, scenario, peer, starts, expected, needed)
        counters = hub.counters()
    finally:
        hub.clear_faults()
        shutil.rmtree(home, ignore_errors=True)
    return Record(
        scenario=scenario.key,
        peer=peer.name,
        repeat=repeat,
        outcome=outcome,
        reason=reason,
        bytes_needed=needed,
        bytes_served=counters.file_bytes,
        bytes_by_class={str(name): part.body_bytes for name, part in counters.by_class.items()},
        hub_requests=sum(
            part.requests for name, part in counters.by_class.items() if name not in _ELSEWHERE
        ),
        seconds=starts[-1].seconds,
        call_seconds=starts[-1].call_seconds,
        peak_memory_bytes=max(start.peak_memory_bytes for start in starts) or None,
        cpu_seconds=sum(start.cpu_seconds for start in starts) or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What became of one process; the fields are those of `Record`."""

    outcome: Outcome
    reason: str
    killed: bool
    folder: Path
    seconds: float | None
    call_seconds: float | None
    peak_memory_bytes: int
    cpu_seconds: float


def _judge(
    hub: LocalHub,
    scenario: Scenario,
    peer: Peer,
    starts: Sequence[_Start],
    expected: Mapping[str, str | None],
    needed: int,
) -> tuple[Outcome, str]:
    """Say how a run ended, with the reason or a remark."""
    last = starts[-1]
    if last.outcome is not Outcome.DONE:
        return last.outcome, last.reason
    found = hashes(last.folder, tuple(expected))
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong:
        return Outcome.WRONG_BYTES, ", ".join(wrong)
    if scenario.kill and len(starts) == 1:
        return Outcome.DONE, "it ended before it could be killed"
    if scenario.stall and not _has_stalled(hub, scenario):
        return Outcome.DONE, "no answer went silent"
    if peer.route is not Route.AUTO:
        traffic = hub.counters()
        others = (content for route, content in CONTENT.items() if route is not peer.route)
        share = sum(traffic.of(content).body_bytes for content in others) / needed
        if share > _MOST_OF_OTHER_ROUTE:
            return Outcome.DONE, f"{share:.0%} came over the other route"
    return Outcome.DONE, ""


def _watch(
    hub: LocalHub,
    scenario: Scenario,
    peer: Peer,
    home: Path,
    *,
    limit_s: float,
    kill_at: int | None,
) -> _Start:
    """Start a peer and wait for its end, or until the Hub has served `kill_at` bytes."""
    answers, complaints = home / "answers", home / "complaints"
    before = hub.counters().total.requests
    with answers.open("wb") as out, complaints.open("wb") as errors:
        process = subprocess.Popen(
            command(peer, scenario.repo, hub.endpoint, home, authority=hub.authority),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            env=environment(peer, hub.endpoint, home, os.environ, authority=hub.authority),
            cwd=home,
            start_new_session=True,
        )
    usage = _Usage(process.pid, in_worker=peer.tool == "nbloader")
    first: float | None = None
    killed = False
    try:
        called = _go(process, answers) if peer.speaks else time.monotonic()
        usage.begin(whole=not peer.speaks)
        while called is not None and process.poll() is None:
            now = time.monotonic()
            if now > called + limit_s:
                break
            if first is None and hub.counters().total.requests > before:
                first = now
            if kill_at is not None and hub.counters().file_bytes >= kill_at:
                killed = True
                break
            usage.look(now)
            time.sleep(_POLL_S)
        ended = time.monotonic()
        status = process.poll()
    finally:
        _kill(process)
    answer = _last_answer(answers) if peer.speaks else {}
    ended = answer.get("ended_at", ended)
    if status == 0:
        outcome, reason = Outcome.DONE, ""
    elif status is None and not killed:
        outcome, reason = Outcome.TOO_SLOW, f"ended after {limit_s:.0f} s"
    else:
        outcome = Outcome.FAILED
        reason = answer.get("error") or _tail(complaints) or f"exit status {status}"
    return _Start(
        outcome=outcome,
        reason=" ".join(reason.split())[:300],
        killed=killed,
        folder=Path(answer.get("folder", home / "files")),
        seconds=None if first is None else ended - first,
        call_seconds=None if called is None else ended - called,
        peak_memory_bytes=usage.peak_bytes,
        cpu_seconds=usage.cpu_s,
    )


def _go(process: subprocess.Popen[bytes], answers: Path) -> float | None:
    """Wait until a Python tool is imported and say go; return the time, or None if it ended."""
    assert process.stdin is not None
    limit = time.monotonic() + _START_LIMIT_S
    while not answers.read_bytes().endswith(b"\n"):
        if process.poll() is not None or time.monotonic() > limit:
            return None
        time.sleep(_POLL_S)
    called = time.monotonic()
    try:
        process.stdin.write(b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it could not import the tool, and has said so
        process.wait()
        return None
    return called


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, with SIGKILL, and wait for their end."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    # The children first: one that saw its parent end could still put things in order.
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    psutil.wait_procs(family, timeout=10)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


class _Usage:
    """What the process takes that downloads: nbloader's worker, or the tool itself.

    Attributes:
        peak_bytes: its peak memory.
        cpu_s: user and system time, seconds. The last look misses what comes after it: less than
            the time between two looks.
    """

    def __init__(self, pid: int, *, in_worker: bool) -> None:
        self._tool = pid
        self._pid = None if in_worker else pid
        self._next = 0.0
        self._before = 0.0
        self._ended = 0.0
        self._now = 0.0
        self.peak_bytes = 0

    @property
    def cpu_s(self) -> float:
        return self._ended + self._now - self._before

    def begin(self, *, whole: bool) -> None:
        """Count from now on; all of the process's life if `whole`."""
        if self._pid is not None and not whole:
            self._before = cpu_seconds(self._pid) or 0.0

    def look(self, now: float) -> None:
        """Read the kernel's high-water mark, and its clock of the process."""
        # To search for the worker each time would take from it some of the time that it is given. A
        # tool that is known is looked at each time: one that ends soon has its peak at the end.
        if self._pid is None:
            if now < self._next:
                return
            self._next = now + _MEMORY_EVERY_S
            self._pid = self._worker()
        if self._pid is not None:
            peak, spent = _high_water_mark(self._pid), cpu_seconds(self._pid)
            self.peak_bytes = max(self.peak_bytes, peak or 0)
            self._now = max(self._now, spent or 0.0)
            if peak is None:
                self._ended, self._now = self._ended + self._now, 0.0
                self._pid = self._worker()  # it has ended, and another may follow

    def _worker(self) -> int | None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._tool).children():
                if _WORKER in child.cmdline():
                    return child.pid
        return None


def cpu_seconds(pid: int) -> float | None:
    """Return user and system time of a process; None of one that has ended."""
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return None


def _high_water_mark(pid: int) -> int | None:
    """Read `VmHWM` of a process, in bytes; None of one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _has_stalled(hub: LocalHub, scenario: Scenario) -> bool:
    return any(
        request.request_class is content and request.body_bytes == scenario.stalled_after(route)
        for route, content in CONTENT.items()
        for request in hub.requests()
    )


def _last_answer(answers: Path) -> dict[str, Any]:
    lines = answers.read_text().splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return answer


def _tail(complaints: Path) -> str:
    lines = complaints.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")
