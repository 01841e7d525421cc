"""Brings files into the cache: several at once, several pieces of each, over the best route.

One thread runs `Engine.fetch` and keeps the books; threads of its own fetch pieces, and others hash
what has arrived. All decisions are those of `policy` and `pace`.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nbloader.errors import RUN_AGAIN, DiskFullError, DownloadError, IntegrityError
from nbloader.records import FileProgress, RepoFile, Retry, Route, TransferPolicy
from nbloader.transfer.cache import RepoCache
from nbloader.transfer.failure import Failure
from nbloader.transfer.hashing import FileHash
from nbloader.transfer.links import CONNECT_TIMEOUT_S
from nbloader.transfer.locks import FileLock
from nbloader.transfer.pace import (
    Concurrency,
    RouteChoice,
    XetPace,
    http_piece_bytes,
    most_pieces,
)
from nbloader.transfer.partial import SMALL_FILE_BYTES, Partial, bytes_on_disk, open_partial
from nbloader.transfer.piece import Piece, RouteLike
from nbloader.transfer.policy import GiveUp, Progress, Reason, decide
from nbloader.transfer.protocol import Tried
from nbloader.transfer.spans import Spans
from nbloader.transfer.xet_chunks import MAX_CHUNK_BYTES
from nbloader.units import format_bytes

__all__ = ["Engine"]

TICK_S = 0.1
LOCK_EVERY_S = 0.5
DISK_EVERY_S = 5.0

CANCEL_LIMIT_S = 2.0
"""A piece that is still there so long after it was cancelled hangs, and its process with it."""

SPARE_S = 1.0
"""hf_xet notices a silent connection by itself; it is given so long beyond the limit."""

HTTP_PATIENCE = 2

XET_PATIENCE = 4
"""A piece over Xet stalls after so many times the time it should take: it comes all at once."""

HASH_STEP_BYTES = 16 << 20
HASH_THREADS = min(4, os.cpu_count() or 1)


@dataclass(slots=True, kw_only=True, eq=False)
class _Task:
    """One file on its way.

    Attributes:
        pinned: whether failures have chosen its route, not the comparison of speeds.
        whole: whether the server sends no parts of it.
        shown: bytes that were reported.
    """

    file: RepoFile
    lock: FileLock
    partial: Partial
    hash: FileHash
    progress: Progress
    pinned: bool = False
    whole: bool = False
    hashing: bool = False
    not_before: float = 0.0
    in_flight: list[Piece] = field(default_factory=list)
    shown: int = 0


class Engine:
    """Fetches files of one commit.

    Args:
        routes: the ways that there are.
        publish: told of progress and retries, from any thread.
        stuck: told the path of a file whose fetch hangs and cannot be ended from inside this
            process, and the route that it was on.
        tried: what an earlier worker learned.

    Attributes:
        failed_path: the file that an error was about.
    """

    def __init__(
        self,
        *,
        cache: RepoCache,
        revision: str,
        commit_hash: str,
        routes: Mapping[Route, RouteLike],
        policy: TransferPolicy,
        publish: Callable[[FileProgress | Retry], object],
        stuck: Callable[[str, Route], object],
        tried: Sequence[Tried] = (),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._revision = revision
        self._commit_hash = commit_hash
        self._routes = routes
        self._policy = policy
        self._publish = publish
        self._stuck = stuck
        self._tried = {one.path: one for one in tried}
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._changed = threading.Condition()
        self._concurrency = Concurrency()
        self._xet_pace = XetPace()
        self._choice = RouteChoice(routes, 0)
        self.failed_path: str | None = None
        self._queue: deque[RepoFile] = deque()
        self._tasks: list[_Task] = []
        self._error: BaseException | None = None
        self._open = False
        self._done: Callable[[RepoFile], object] = lambda file: None  # noqa: ARG005
        self._moved = 0
        self._finished: Counter[Route] = Counter()
        self._counted: Counter[Route] = Counter()
        self._at_last_adapt = 0

    @property
    def moved(self) -> int:
        """A number that grows while bytes arrive, or are hashed."""
        return self._moved

    def fetch(self, files: Sequence[RepoFile], done: Callable[[RepoFile], object]) -> None:
        """Bring files into the cache, verified, in about this order.

        Args:
            done: told of each file that is in the cache, from any thread.

        Raises:
            DownloadError: a file could not be had; the others so far are kept.
            IntegrityError: a file had the wrong bytes twice.
            DiskFullError: what is missing does not fit on the disk.
            HfHubHTTPError: the Hub refuses for good.
            OSError: the cache cannot be written.
        """
        self._queue = deque(files)
        over_xet = sum(file.size for file in files if self._ways(file) - {Route.HTTP})
        self._choice = RouteChoice(self._routes, over_xet, only=self._policy.route)
        self._done = done
        self._open = True
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name, count in (
                (self._fetch_pieces, "fetch", most_pieces(file.size for file in files)),
                (self._hash, "hash", HASH_THREADS),
            )
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            self._keep_books()
        finally:
            with self._changed:
                self._open = False
                self._changed.notify_all()
            for task in self._tasks:
                with contextlib.suppress(OSError):  # What was journaled before stays.
                    task.partial.close()

    # -- the books -------------------------------------------------------------------------

    def _keep_books(self) -> None:
        disk_at = speed_at = self._clock()
        lock_at = float("-inf")
        while True:
            now = self._clock()
            if now >= lock_at:
                lock_at = now + (LOCK_EVERY_S if self._admit() else 0)
            with self._changed:
                if self._error is not None:
                    raise self._error
                if not self._queue and not self._tasks:
                    return
                self._changed.notify_all()
                self._changed.wait(TICK_S)
                now = self._clock()
                progress = self._note_progress(now)
                if now - speed_at >= Concurrency.PERIOD_S:
                    self._adapt(now - speed_at)
                    speed_at = now
            for event in progress:
                self._publish(event)
            self._watch(now)
            if self._policy.check_disk_space and now - disk_at >= DISK_EVERY_S:
                self._check_disk()
                disk_at = now

    def _admit(self) -> bool:
        """Begin with further files; tells whether others hold one that is waited for."""
        held = False
        for file in tuple(self._queue):
            loading = sum(not task.partial.complete for task in self._tasks)
            if loading >= self._policy.max_workers:
                break
            lock = self._cache.try_lock(file)
            if lock is None:
                held = True
                continue
            try:
                task = self._begin(file, lock)
            except BaseException:
                lock.release()
                raise
            with self._changed:
                self._queue.remove(file)
                if task is not None:
                    self._tasks.append(task)
                self._changed.notify_all()
            if task is None:
                lock.release()
                self._done(file)
        return held

    def _begin(self, file: RepoFile, lock: FileLock) -> _Task | None:
        """Open the partial of a file; None if another process has brought the file meanwhile."""
        if self._cache.has_bytes(self._commit_hash, file):
            self._cache.link(self._commit_hash, file)
            return None
        self._cache.remove_orphans(file)
        partial = self._open_partial(file)
        tried = self._tried.pop(file.path, None)
        progress = Progress(route=self._choice.route, moved_at=self._clock())
        if tried is not None and tried.route in self._routes:
            progress = replace(progress, route=tried.route, fruitless=tried.fruitless)
        return _Task(
            file=file,
            lock=lock,
            partial=partial,
            hash=FileHash(file),
            progress=progress,
            pinned=tried is not None,
            shown=partial.arrived,
        )

    def _open_partial(self, file: RepoFile) -> Partial:
        return open_partial(
            self._cache.blobs, file, revision=self._revision, commit_hash=self._commit_hash
        )

    def _note_progress(self, now: float) -> list[FileProgress]:
        """Count what has arrived since the last look."""
        events = []
        for task in self._tasks:
            arrived = task.partial.arrived
            if arrived == task.shown:
                continue
            if arrived > task.shown:
                task.progress = task.progress.moved(now)
            task.shown = arrived
            events.append(FileProgress(path=task.file.path, completed=arrived))
        for route, count in self._arrived().items():
            self._choice.arrived(route, count - self._counted[route], now)
            self._moved += count - self._counted[route]
            self._counted[route] = count
        return events

    def _arrived(self) -> Counter[Route]:
        """Count the bytes that came over each route."""
        arrived = Counter(self._finished)
        for task in self._tasks:
            for piece in task.in_flight:
                arrived[piece.route] += piece.brought
        return arrived

    def _adapt(self, seconds: float) -> None:
        """Let the number of pieces follow the speed, while there is work for all."""
        arrived = self._counted.total()
        speed = (arrived - self._at_last_adapt) / seconds
        self._at_last_adapt = arrived
        if sum(len(task.in_flight) for task in self._tasks) >= self._concurrency.limit:
            self._concurrency.measured(speed)

    def _watch(self, now: float) -> None:
        """Cancel pieces that stall, and report those that cannot be cancelled."""
        for task in tuple(self._tasks):
            for piece in tuple(task.in_flight):
                if piece.cancelled_at is not None:
                    if now - piece.cancelled_at > CANCEL_LIMIT_S:
                        piece.cancelled_at = now  # Told once; it ends with this process.
                        self._stuck(piece.file.path, piece.route)
                elif now - piece.heard_at > piece.limit_s:
                    piece.cancelled_at = now
                    if piece.cancel is not None:
                        piece.cancel()

    def _check_disk(self) -> None:
        """Stop early where the rest does not fit: a full disk takes more down than this."""
        with self._changed:
            missing = sum(task.file.size - task.shown for task in self._tasks)
            queued = tuple(self._queue)
        missing += sum(file.size - bytes_on_disk(self._cache.blobs, file) for file in queued)
        free = self._cache.free_bytes()
        if free < missing:
            raise DiskFullError(
                f"{format_bytes(missing)} are still to come, and the disk of the cache has only "
                f"{format_bytes(free)} left",
                hint="Free some space there and run the line again: what has arrived is kept. Or "
                "pass a folder on another disk as `cache_dir=`.",
            )

    # -- pieces ----------------------------------------------------------------------------

    def _fetch_pieces(self) -> None:
        """Fetch one piece after another."""
        while True:
            with self._changed:
                while (found := self._next_piece()) is None:
                    if not self._open:
                        return
                    self._changed.wait()
            task, piece = found
            route = self._routes[piece.route]
            try:
                start, stop = route.prepare(piece)
                with self._changed:
                    piece.start, piece.stop, piece.margin = start, stop, 0
                with task.partial.writer(piece.start) as writer:
                    piece.sink = writer
                    route.fetch(piece)
            except Failure as failure:
                self._failed(task, piece, failure)
            except BaseException as error:
                self._stop(task, error)
                return
            else:
                self._succeeded(task, piece)

    def _stop(self, task: _Task, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error, self.failed_path = error, task.file.path
            self._open = False
            self._changed.notify_all()

    def _next_piece(self) -> tuple[_Task, Piece] | None:
        """Cut the next piece, of the file with the fewest in flight; None if there is no work."""
        in_flight = sum(len(task.in_flight) for task in self._tasks)
        if not self._open or in_flight >= self._concurrency.limit:
            return None
        now = self._clock()
        for task in sorted(self._tasks, key=lambda task: len(task.in_flight)):
            if task.not_before <= now and not (task.whole and task.in_flight):
                piece = self._cut(task)
                if piece is not None:
                    task.in_flight.append(piece)
                    return task, piece
        return None

    def _cut(self, task: _Task) -> Piece | None:
        free = Spans(task.partial.missing())
        for piece in task.in_flight:
            free.remove(max(0, piece.start - piece.margin), piece.stop)
        gap = next(iter(free), None)
        if gap is None:
            return None
        start, stop = gap
        ways = self._ways(task.file)
        route = task.progress.route if task.pinned else self._choice.route
        if route not in ways:
            route = min(ways)
        task.progress = replace(task.progress, route=route)
        # Over HTTP each wait has a timeout of its own; this is for one that does not act.
        limit_s, margin = HTTP_PATIENCE * self._policy.stall_timeout_s + CONNECT_TIMEOUT_S, 0
        if task.whole:
            stop = task.file.size
        elif route is Route.XET:
            size, margin = self._xet_pace.size, MAX_CHUNK_BYTES
            stop = min(stop, start + size)
            expected_s = XET_PATIENCE * self._xet_pace.expected_s(size)
            limit_s = max(self._policy.stall_timeout_s, expected_s) + SPARE_S
        else:
            share = max(1, self._concurrency.limit // len(self._tasks))
            stop = min(stop, start + http_piece_bytes(free.total, share))
        return Piece(
            file=task.file,
            commit_hash=self._commit_hash,
            route=route,
            start=start,
            stop=stop,
            margin=margin,
            limit_s=limit_s,
            take_whole=lambda piece: self._take_whole(task, piece),
            clock=self._clock,
        )

    def _ways(self, file: RepoFile) -> frozenset[Route]:
        """Give the routes that a file can take: a small one costs one request over HTTP."""
        if file.xet_hash is None or file.size <= SMALL_FILE_BYTES:
            return frozenset({Route.HTTP})
        return self._choice.routes

    def _take_whole(self, task: _Task, piece: Piece) -> bool:
        """Let a piece go on to the end of the file, unless another does so already."""
        with self._changed:
            if piece.stop == task.file.size and len(task.in_flight) == 1:
                return True
            if task.whole:
                return False
            task.whole = True
            piece.stop = task.file.size
            return True

    def _end(self, task: _Task, piece: Piece) -> None:
        task.in_flight.remove(piece)
        self._finished[piece.route] += piece.brought
        self._changed.notify_all()

    def _succeeded(self, task: _Task, piece: Piece) -> None:
        with self._changed:
            self._end(task, piece)
            now = self._clock()
            if piece.route is Route.XET:
                self._xet_pace.took(piece.size, now - piece.began_at)
            self._choice.succeeded(piece.route)
            task.progress = replace(task.progress.moved(now), on_route=0)

    def _failed(self, task: _Task, piece: Piece, failure: Failure) -> None:
        """Let the policy say what follows."""
        if piece.cancelled_at is not None:
            failure = Failure(Reason.STALLED)
        with self._changed:
            self._end(task, piece)
            if failure.reason in (Reason.BUSY, Reason.RATE_LIMITED):
                self._concurrency.refused()
            self._follow(task, failure, brought=piece.brought, began_at=piece.began_at)

    def _follow(self, task: _Task, failure: Failure, *, brought: int, began_at: float) -> bool:
        """Make another attempt at a file (True), or give it up."""
        path = task.file.path
        before = task.progress
        decision = decide(
            failure.reason,
            before,
            brought=brought,
            began_at=began_at,
            now=self._clock(),
            policy=self._policy,
            limit_s=self._policy.quiet_limit_s(task.file.size),
            routes=self._ways(task.file),
            chance=self._chance(),
            retry_after_s=failure.retry_after_s,
        )
        together = began_at < before.failed_at
        if not (brought or together or failure.reason is Reason.CANCELLED):
            self._choice.failed(before.route)
        after = decision.progress
        if after.route not in self._ways(task.file):
            after = replace(after, route=min(self._ways(task.file)))
        task.progress = after
        if isinstance(decision, GiveUp):
            self._error = self._error or self._gave_up(task, failure, decision)
            self._changed.notify_all()
            return False
        task.pinned = task.pinned or after.route is not before.route
        task.not_before = max(task.not_before, self._clock() + decision.wait_s)
        if failure.reason is Reason.CANCELLED:
            return True
        if brought or not together:
            # Those that were under way together fail together, and are told once.
            self._publish(
                Retry(
                    time=self._wall_clock(),
                    path=path,
                    reason=str(failure),
                    wait_s=round(decision.wait_s, 3),
                    attempt=after.fruitless,
                    max_attempts=self._policy.max_retries,
                    route=after.route,
                )
            )
        return True

    def _gave_up(self, task: _Task, failure: Failure, decision: GiveUp) -> Exception:
        path = task.file.path
        if failure.reason is Reason.WRONG_BYTES:
            return IntegrityError(
                f"{path} arrived with the wrong bytes twice: its {task.hash.name} should be "
                f"{task.file.etag}, and was {task.hash.hexdigest()}; what came was removed",
                hint="A proxy or a mirror on the way may serve a broken copy. Try again later, "
                "or from another network.",
            )
        tried = decision.progress.fruitless
        what = f"{tried} {'attempt' if tried == 1 else 'attempts'}"
        if decision.timed_out:
            what = f"no progress for {self._clock() - decision.progress.moved_at:.0f} s"
        return DownloadError(
            f"{path} could not be downloaded ({failure}; {what})",
            hint=f"{RUN_AGAIN} On a bad link, set NBLOADER_MAX_RETRIES=10.",
        )

    # -- hashes ----------------------------------------------------------------------------

    def _hash(self) -> None:
        """Hash what has arrived, one file at a time, and settle those that are whole."""
        while True:
            with self._changed:
                while (task := self._to_hash()) is None:
                    if not self._open:
                        return
                    self._changed.wait()
                task.hashing = True
            try:
                self._moved += task.hash.advance(task.partial, HASH_STEP_BYTES)
                if task.hash.position == task.file.size:
                    self._settle(task)
            except BaseException as error:
                self._stop(task, error)
                return
            with self._changed:
                task.hashing = False
                self._changed.notify_all()

    def _to_hash(self) -> _Task | None:
        for task in self._tasks:
            if task.hashing:
                continue
            if task.partial.complete:
                if not task.in_flight:
                    return task
            elif task.partial.prefix - task.hash.position >= HASH_STEP_BYTES:
                return task
        return None

    def _settle(self, task: _Task) -> None:
        """Let a whole file into the cache if its hash is right."""
        if not task.hash.matches:
            with self._changed:  # Nobody may begin with a piece of what is removed.
                task.partial.discard()
                failure = Failure(Reason.WRONG_BYTES)
                if not self._follow(task, failure, brought=0, began_at=self._clock()):
                    return
                task.partial, task.hash, task.shown = (
                    self._open_partial(task.file),
                    FileHash(task.file),
                    0,
                )
            self._publish(FileProgress(path=task.file.path, completed=0))
            return
        self._cache.publish(task.partial, self._commit_hash, task.file)
        task.lock.release()
        with self._changed:
            self._tasks.remove(task)
            self._changed.notify_all()
        self._done(task.file)
