"""One transfer as a state machine: what was heard goes in, what is to be done comes out. Pure.

The supervisor owns the process, the clock and the waits, and steps it:

    a report, or the death of the worker  ->  publish, approve, send, finish, fail
    a tick, while nothing comes           ->  kill one that says nothing, start the next, fail

It remembers what is known of the transfer apart from any one worker, so that one that follows
another goes on, and says nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from nbloader.errors import (
    RUN_AGAIN,
    DownloadError,
    NbloaderError,
    ProtocolError,
    WorkerDiedError,
    error_from_parts,
)
from nbloader.limits import quiet_limit_s, silence_limit_s
from nbloader.records import (
    Event,
    FileDone,
    FileProgress,
    Notice,
    Retry,
    Route,
    Selected,
    Silence,
    StageStarted,
)
from nbloader.transfer.policy import Attempts, GiveUp, Reason, decide, retry_record
from nbloader.transfer.protocol import (
    PROTOCOL_VERSION,
    Alive,
    Command,
    Fetch,
    Finished,
    Hello,
    Report,
    Sketch,
    Start,
    Stopped,
    Stuck,
    Tried,
)

MAX_WORDS = 200


# -- what goes in ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a step may know of the world.

    Attributes:
        now: seconds of a clock that never goes back.
        wall: seconds since 1970.
        chance: a random number from 0 to 1.
    """

    now: float
    wall: float
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The process of the worker ended."""

    error: WorkerDiedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed, and no report came.

    Attributes:
        waited_s: how long one was waited for. Waits are added up, so that a pause of this process
            is not taken for one of the worker.
    """

    waited_s: float


Input: TypeAlias = Report | Died | Tick


# -- what comes out --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    """Start a process, and send it this."""

    start: Start


@dataclass(frozen=True, slots=True, kw_only=True)
class KillWorker:
    """End the process, if it still runs. Ticks alone go in until the next one is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send the worker a command."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Say that something happened."""

    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Ask whether the selection is to be fetched; one that is not ends the transfer here."""

    selected: Selected


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """All is done, and this is the folder. Nothing follows."""

    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """The transfer ends with this error. Nothing follows."""

    error: NbloaderError


Output: TypeAlias = StartWorker | KillWorker | Send | Publish | Approve | Finish | Fail


# -- the machine -----------------------------------------------------------------------------------


class TransferMachine:
    """A transfer from the first question to the complete snapshot folder.

    Args:
        order: what to do with the selection.
        now: when it begins, in seconds of the clock of `Moment`.
    """

    def __init__(self, start: Start, order: Fetch | Sketch, *, now: float) -> None:
        self._start = start
        self._order = order
        self._ended = False
        # The worker: when the next one starts, None while one runs; when it was started; how long
        # it has been silent, None until it has spoken; the bytes that it brought.
        self._due_at: float | None = now
        self._began_at = now
        self._silent_s: float | None = None
        self._brought = 0
        # The transfer: what was approved; what is told and stays; how far each file is; what was
        # tried; how the workers have fared.
        self._selected: Selected | None = None
        self._complete: set[FileDone | Notice] = set()
        self._completed: dict[str, int] = {}
        self._tried: dict[str, Tried] = {}
        self._attempts = Attempts(route=Route.XET, moved_at=now)
        # When there was the last sign of work; the longest that one of the files may be without.
        self._worked_at = now
        self._file_limit_s = start.policy.timeout_s

    def step(self, heard: Input, at: Moment) -> tuple[Output, ...]:
        """Note what was heard, and say what is to be done, in this order."""
        outputs: list[Output] = []
        if not self._ended:
            for output in self._step(heard, at):
                outputs.append(output)
                if isinstance(output, Finish | Fail):
                    self._ended = True
                    break
        return tuple(outputs)

    def _step(self, heard: Input, at: Moment) -> Iterator[Output]:
        if isinstance(heard, Tick):
            return self._on_tick(heard, at)
        if self._due_at is not None:
            return iter(())  # There is no worker that could have said it.
        if isinstance(heard, Died):
            return self._on_end(heard.error, at)
        self._silent_s = 0.0
        self._note_work(heard, at)
        return self._on_report(heard, at)

    def _on_tick(self, tick: Tick, at: Moment) -> Iterator[Output]:
        yield from self._on_quiet(at)
        if self._due_at is not None:
            if at.now >= self._due_at:
                yield from self._next_worker(at)
        elif self._silent_s is not None:
            self._silent_s += tick.waited_s
            if self._silent_s > silence_limit_s(self._start.policy.stall_timeout_s):
                yield from self._on_end(None, at)

    def _on_report(self, report: Report, at: Moment) -> Iterator[Output]:
        match report:
            case Hello(version=version):
                if version != PROTOCOL_VERSION:
                    yield Fail(error=_other_version())
            case Selected() if self._selected is None:
                self._selected = report
                yield Publish(event=report)
                yield Approve(selected=report)
                yield Send(command=self._order)
            case Selected():
                yield from self._news(_there_already(report))
                yield Send(command=self._order)
            case StageStarted() if self._selected is not None:
                pass  # The stages of a worker that follows another are not news.
            case Finished(folder=folder):
                yield Finish(folder=Path(folder))
            case Alive():
                yield from self._on_quiet(at)
            case Stuck():
                yield from self._on_end(report, at)
            case Stopped():
                yield Fail(error=error_from_parts(report.reference, report.message, report.hint))
            case _:
                yield from self._news([report])

    # -- the workers ---------------------------------------------------------------------------

    def _next_worker(self, at: Moment) -> Iterator[Output]:
        self._due_at, self._began_at, self._silent_s, self._brought = None, at.now, None, 0
        policy = self._start.policy
        if self._attempts.route is Route.HTTP and policy.route is None:
            # It is the native code of the other that takes a process down.
            policy = replace(policy, route=Route.HTTP)
        start = replace(self._start, policy=policy, tried=tuple(self._tried.values()))
        if (selected := self._selected) is not None:
            refused = selected.hub is not None and selected.hub.token_refused
            start = replace(
                start,
                token=False if refused else start.token,
                commit_hash=selected.selection.commit_hash,
                companions=selected.selection.companions,
            )
        yield StartWorker(start=start)

    def _on_end(self, end: WorkerDiedError | Stuck | None, at: Moment) -> Iterator[Output]:
        """Say what follows the end of a worker.

        Args:
            end: how it died; the fetch that it cannot end; None if it says nothing any more.
        """
        reason, path, route, failed_route = Reason.WORKER_STUCK, None, None, None
        if isinstance(end, Stuck):
            path, failed_route = end.path, end.route
            route = self._other_route(end)
            self._attempts = replace(self._attempts, route=failed_route)
        elif end is not None:
            reason = Reason.WORKER_DIED
            if not end.by_signal and self._selected is None:
                yield Fail(error=end)  # It cannot even begin here.
                return
        decision = decide(
            reason,
            self._attempts,
            brought=self._brought,
            began_at=self._began_at,
            now=at.now,
            policy=self._start.policy,
            limit_s=float("inf"),
            routes=frozenset(Route),
            chance=at.chance,
        )
        self._attempts = decision.attempts
        if isinstance(decision, GiveUp):
            died = end if isinstance(end, WorkerDiedError) else None
            yield Fail(error=died or _hung(decision.attempts.fruitless))
            return
        retry = retry_record(
            self._start.policy,
            time=at.wall,
            path=path,
            reason=_last_words(end) if isinstance(end, WorkerDiedError) else str(reason),
            wait_s=decision.wait_s,
            attempt=decision.attempts.fruitless,
            route=route,
            failed_route=failed_route,
        )
        yield KillWorker()
        yield Publish(event=retry)
        self._due_at = at.now + retry.wait_s
        if not retry.wait_s:
            yield from self._next_worker(at)

    def _other_route(self, stuck: Stuck) -> Route:
        """Note that a file has to take the other route."""
        other = Route.HTTP if stuck.route is Route.XET else Route.XET
        other = self._start.policy.route or other
        tried = self._tried.get(stuck.path) or Tried(path=stuck.path, route=other)
        self._tried[stuck.path] = replace(tried, route=other)
        return other

    # -- what is known of the files ------------------------------------------------------------

    def _news(self, events: Iterable[Event]) -> Iterator[Output]:
        """Note what a worker says; a second one says again what is complete."""
        for event in events:
            if isinstance(event, FileDone | Notice):
                if event in self._complete:
                    continue
                self._complete.add(event)
            elif isinstance(event, FileProgress):
                if FileDone(path=event.path) in self._complete:
                    continue  # The worker counted it before another of its threads was done.
                self._note_progress(event)
            elif isinstance(event, Retry):
                self._note_retry(event)
            yield Publish(event=event)

    def _note_progress(self, event: FileProgress) -> None:
        left = self._selected.partial.get(event.path, 0) if self._selected else 0
        before = self._completed.get(event.path, left)
        self._brought += max(0, event.completed - before)
        tried = self._tried.get(event.path)
        if tried is not None and event.completed > before:
            self._tried[event.path] = replace(tried, fruitless=0)
        self._completed[event.path] = event.completed

    def _note_retry(self, event: Retry) -> None:
        if event.path is None or event.route is None:
            return
        before = self._tried.get(event.path)
        wrong = before.wrong if before else 0
        self._tried[event.path] = Tried(
            path=event.path,
            route=event.route,
            fruitless=event.attempt,
            wrong=wrong + (event.reason == Reason.WRONG_BYTES),
        )

    # -- the last resort: no sign of work, from whatever worker --------------------------------

    def _note_work(self, report: Report, at: Moment) -> None:
        if isinstance(report, Silence) or (isinstance(report, Alive) and not report.busy):
            return
        # A wait before the next attempt is silent.
        wait_s = report.wait_s if isinstance(report, Retry) else 0.0
        self._worked_at = max(self._worked_at, at.now + wait_s)
        if isinstance(report, Selected):
            sizes = (file.size for file in report.selection.files)
            limits = map(self._start.policy.quiet_limit_s, sizes)
            self._file_limit_s = max(limits, default=self._file_limit_s)

    def _on_quiet(self, at: Moment) -> Iterator[Output]:
        quiet_s = at.now - self._worked_at
        if quiet_s > quiet_limit_s(self._file_limit_s):
            yield Fail(
                error=DownloadError(
                    f"nothing has arrived for {quiet_s:.0f} s; the transfer was ended",
                    hint=RUN_AGAIN,
                )
            )


def _there_already(selected: Selected) -> Iterator[FileDone | FileProgress]:
    """Say what is on the disk by the events that a view knows."""
    for path in selected.cached:
        yield FileDone(path=path)
    for path, completed in selected.partial.items():
        yield FileProgress(path=path, completed=completed)


def _other_version() -> ProtocolError:
    return ProtocolError(
        "the worker is of another version of nbloader",
        hint="Restart the kernel: nbloader was upgraded under it.",
    )


def _hung(times: int) -> WorkerDiedError:
    return WorkerDiedError(
        f"the download process hung {times} times in a row",
        hint="Run the line again: what has arrived is kept. If it hangs again, pass "
        'settings={"route": "http"}.',
    )


def _last_words(error: WorkerDiedError) -> str:
    """Say in one line how a worker ended, and what it wrote last."""
    how, _, tail = error.message.partition("\n")
    last = tail.rpartition("\n")[2].strip()
    return f"{how} {last[:MAX_WORDS]}" if last else how
