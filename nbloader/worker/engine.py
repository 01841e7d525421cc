"""Brings files into the cache: several at once, several pieces of each.

One thread runs `Engine.fetch` and keeps the books; threads of its own fetch pieces, and others hash
what has arrived. What comes next is decided by `Schedule`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nbloader.errors import DiskFullError, IntegrityError
from nbloader.hub_cache import (
    FileHash,
    FileLock,
    HeldError,
    Partial,
    PassingFiles,
    RepoCache,
    Room,
    SpoiltError,
    bytes_on_disk,
)
from nbloader.limits import TICK_S
from nbloader.records import (
    SPARE_DISK_BYTES,
    FileProgress,
    Notice,
    RepoFile,
    Retry,
    Route,
    Silence,
    TransferPolicy,
)
from nbloader.text import format_bytes
from nbloader.transfer.policy import Attempts
from nbloader.transfer.protocol import Tried
from nbloader.worker.failures import Failure
from nbloader.worker.holders import Holders
from nbloader.worker.piece import Piece, RouteLike
from nbloader.worker.schedule import HASH_STEP_BYTES, Schedule, Task
from nbloader.worker.tuning import AnswerTime, Concurrency, most_pieces

LOCK_EVERY_S = 0.5
DISK_EVERY_S = 5.0

MOST_PASSING = 2
"""Files that go once they are read, on their way at a time: they are read in their order, and what
comes before its turn waits in memory."""

HASH_THREADS = min(4, os.cpu_count() or 1)


class Engine:
    """Fetches files of one commit.

    Args:
        files: in about the order in which they are wanted.
        routes: the ways that there are.
        publish: told of progress, silences, retries and waits, from any thread.
        done: told of each file that is in the cache, from any thread.
        stuck: told the path of a file whose fetch hangs and cannot be ended from inside this
            process, and the route that it was on.
        tried: what an earlier worker learned.
        passing: paths of files that go again once they are loaded. They begin only where there is
            room for them.
        passed: those of them that are there already.
        notes: where those are noted.
        answers: how long answers take to begin, as far as that is known.

    Attributes:
        failed_path: the file that an error was about.
    """

    def __init__(
        self,
        files: Sequence[RepoFile],
        *,
        cache: RepoCache,
        revision: str,
        commit_hash: str,
        routes: Mapping[Route, RouteLike],
        policy: TransferPolicy,
        publish: Callable[[FileProgress | Silence | Retry | Notice], object],
        done: Callable[[RepoFile], object],
        stuck: Callable[[str, Route], object],
        tried: Sequence[Tried] = (),
        passing: frozenset[str] = frozenset(),
        passed: Sequence[RepoFile] = (),
        notes: PassingFiles | None = None,
        answers: AnswerTime | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.failed_path: str | None = None
        self._queue = list(files)
        self._cache = cache
        self._revision = revision
        self._commit_hash = commit_hash
        self._routes = routes
        self._policy = policy
        self.publish = publish
        self._done = done
        self._stuck = stuck
        self._tried = {one.path: one for one in tried}
        self._passing = passing if notes is not None else frozenset()
        self._notes = notes
        self._passed = list(passed)
        self._waits_for_room = 0
        self._holders = Holders(policy, clock, publish)
        self._clock = clock
        # Two conditions of one lock, which is held for every use of what follows.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._to_hash = threading.Condition(lock)
        self._schedule = Schedule(
            files,
            commit_hash=commit_hash,
            routes=routes,
            policy=policy,
            clock=clock,
            wall_clock=wall_clock,
            chance=chance,
            answers=answers,
        )
        # Looked for once: to list the folder for each of thousands of files takes minutes.
        self._orphans = cache.orphan_etags()
        self._room = Room()
        self._error: BaseException | None = None
        self._open = True
        self._hashed = 0

    @property
    def moved(self) -> int:
        """A number that grows while bytes arrive, or are hashed, or room is waited for."""
        return self._schedule.arrived + self._hashed + self._waits_for_room

    def fetch(self) -> None:
        """Bring the files into the cache, verified.

        Raises:
            DownloadError: a file could not be had, or another process holds it and hangs; what has
                come of the others is kept.
            Failure: so it is, because the server allows no more requests.
            IntegrityError: a file had the wrong bytes twice.
            DiskFullError: what is missing does not fit on the disk.
            HfHubHTTPError: the Hub refuses for good.
            OSError: the cache cannot be written.
        """
        pieces = most_pieces(file.size for file in self._queue)
        targets = [self._fetch_pieces] * pieces + [self._hash] * HASH_THREADS
        for target in targets:
            threading.Thread(target=target, name=target.__name__, daemon=True).start()
        try:
            self._keep_books()
        finally:
            with self._changed:
                self._open = False
                self._wake_all()
                tasks = tuple(self._schedule.tasks)
            for task in tasks:
                with contextlib.suppress(OSError):  # What was journaled before stays.
                    task.partial.close()

    def _keep_books(self) -> None:
        disk_at = adapted_at = self._clock()
        admit_at = float("-inf")
        while True:
            now = self._clock()
            if now >= admit_at:
                admit_at = now + (LOCK_EVERY_S if self._admit() else 0)
            with self._changed:
                if self._error is not None:
                    raise self._error
                if not self._queue and not self._schedule.tasks:
                    return
                # Waits before an attempt end by the clock, of which nobody is told.
                self._wake_all()
                self._changed.wait(TICK_S)
                now = self._clock()
                progress = self._schedule.progress()
                if now - adapted_at >= Concurrency.PERIOD_S:
                    self._schedule.adapt(now - adapted_at)
                    adapted_at = now
                stalled = list(self._schedule.stalled())
                stuck = list(self._schedule.stuck())
                silence = self._schedule.silence()
            for event in [*progress, *silence]:
                self.publish(event)
            for piece in stalled:
                if piece.cancel is not None:
                    piece.cancel()
            for piece in stuck:
                self._stuck(piece.cut.file.path, piece.cut.route)
            if self._policy.check_disk_space and now - disk_at >= DISK_EVERY_S:
                self._check_disk()
                disk_at = now

    # -- files -----------------------------------------------------------------------------

    def _admit(self) -> bool:
        """Begin with further files; tells whether others hold one that is waited for."""
        held: dict[RepoFile, Path] = {}
        waits = False
        for file in tuple(self._queue):
            loading = sum(not task.partial.complete for task in self._schedule.tasks)
            if loading >= self._policy.max_workers:
                break
            if file.path in self._passing:
                passing = sum(task.file.path in self._passing for task in self._schedule.tasks)
                if passing >= MOST_PASSING:
                    continue
                if not self._has_room(file):
                    waits = True
                    continue
            lock = self._cache.try_lock(file)
            if lock is None:
                held[file] = self._cache.held_lock(file)
                continue
            try:
                task = self._begin(file, lock)
            except HeldError as error:
                lock.release()
                held[file] = error.path
                continue
            except BaseException:
                lock.release()
                raise
            self._holders.free(file)
            with self._changed:
                self._queue.remove(file)
                if task is not None:
                    self._schedule.tasks.append(task)
                self._changed.notify_all()
            if task is None:
                lock.release()
                self._arrived(file)
        if held:
            sizes = self._cache.partial_sizes()
            for file, place in held.items():
                self._holders.held(file, place, sizes)
        return waits or bool(held)

    def _arrived(self, file: RepoFile) -> None:
        if file.path in self._passing:
            self._passed.append(file)
        self._done(file)

    def _has_room(self, file: RepoFile) -> bool:
        """Say whether a file has room beside what is on its way, and what is to stay.

        Raises:
            DiskFullError: it has none, and nobody is going to make any.
        """
        with self._changed:
            coming = sum(task.file.size - task.shown for task in self._schedule.tasks)
            alone = not self._schedule.tasks
            queued = [other for other in self._queue if other.path not in self._passing]
        coming += sum(self._lacks(other) for other in queued)
        needed = self._lacks(file) + coming + SPARE_DISK_BYTES
        free = self._cache.free_bytes()
        if needed <= free:
            return True
        self._waits_for_room += 1
        if alone and file is self._queue[0] and not self._is_to_go():
            raise self._full(needed, free, passing=True)
        return False

    def _is_to_go(self) -> bool:
        """Say whether files are there that go once they are loaded."""
        notes = self._notes
        return notes is not None and any(
            notes.has(self._commit_hash, one) for one in tuple(self._passed)
        )

    def _lacks(self, file: RepoFile) -> int:
        """Return the bytes that a file which has not begun will still take of the disk."""
        return file.size - bytes_on_disk(self._cache.blobs, file)

    def _begin(self, file: RepoFile, lock: FileLock) -> Task | None:
        """Open the partial of a file; None if another process has brought the file meanwhile.

        It then stays, though that one may have meant to remove it.
        """
        if self._cache.has_bytes(self._commit_hash, file):
            named = self._cache.has_pointer(self._commit_hash, file)
            # Without its name it is from a process that was killed.
            if self._notes is not None and (named or file.path not in self._passing):
                self._notes.keep(file)
            self._cache.link(self._commit_hash, file)
            return None
        if self._cache.adopt(self._commit_hash, file, self._count_hashed):
            return None
        if file.etag in self._orphans:
            self._cache.remove_orphans(file)
        partial = self._open_partial(file)
        attempts = Attempts(route=self._schedule.route, moved_at=self._clock())
        tried = self._tried.pop(file.path, None)
        if tried is not None:
            attempts = replace(
                attempts, route=tried.route, fruitless=tried.fruitless, wrong=tried.wrong
            )
        return Task(
            file=file,
            lock=lock,
            partial=partial,
            hash=FileHash(file, self._room),
            attempts=attempts,
            pinned=tried is not None,
            shown=partial.arrived,
        )

    def _count_hashed(self, count: int) -> None:
        self._hashed += count

    def _open_partial(self, file: RepoFile) -> Partial:
        return self._cache.open_partial(
            file, revision=self._revision, commit_hash=self._commit_hash
        )

    def _check_disk(self) -> None:
        """Stop early where the rest does not fit: a full disk takes more down than this."""
        with self._changed:
            missing = sum(task.file.size - task.shown for task in self._schedule.tasks)
            queued = [file for file in self._queue if file.path not in self._passing]
        missing += sum(map(self._lacks, queued))
        free = self._cache.free_bytes()
        if free < missing:
            raise self._full(missing, free)

    def _full(self, missing: int, free: int, *, passing: bool = False) -> DiskFullError:
        """Make the error.

        Args:
            passing: whether files that are not kept are among what is missing.
        """
        what = "have to have room at a time" if passing else "are still to come"
        kept = "what has arrived is kept"
        if self._passing:
            kept += ", but for what was loaded already"
        return DiskFullError(
            f"{format_bytes(missing)} {what}, and the disk of the cache has only "
            f"{format_bytes(free)} left",
            hint=f"Free some space there and run the line again: {kept}. Or "
            f"pass a folder on another disk as `{self._cache.argument}=`.",
        )

    # -- threads ---------------------------------------------------------------------------

    def _fetch_pieces(self) -> None:
        """Fetch one piece after another."""
        while True:
            with self._changed:
                while not self._open or (found := self._schedule.next_piece()) is None:
                    if not self._open:
                        return
                    self._changed.wait()
            task, piece = found
            try:
                retry = self._fetch(task, piece)
            except BaseException as error:
                if piece.abandoned:
                    continue  # The file may be complete and closed by now.
                self._stop(task, error)
                return
            # The other threads see it at the next tick: to wake all for each piece costs more.
            if retry is not None:
                self.publish(retry)

    def _fetch(self, task: Task, piece: Piece) -> Retry | None:
        """Fetch a piece; gives what is to be told if it failed and another attempt follows."""
        try:
            self._fetch_over(task, piece)
        except Failure as failure:
            with self._changed:
                return self._schedule.failed(task, piece, failure)
        with self._changed:
            self._schedule.succeeded(task, piece)
            self._to_hash.notify()
        return None

    def _fetch_over(self, task: Task, piece: Piece) -> None:
        route = self._routes[piece.cut.route]
        start, stop = route.prepare(piece)
        with self._changed:
            piece.move(start, stop)
        with task.partial.writer(start) as writer:
            piece.begin(
                writer,
                task.hash,
                wins=functools.partial(self._wins, task, piece),
                take_whole=functools.partial(self._take_whole, task, piece),
                link_does_better=self._link_does_better,
            )
            route.fetch(piece)

    def _wins(self, task: Task, piece: Piece) -> None:
        with self._changed:
            self._schedule.wins(task, piece)

    def _take_whole(self, task: Task, piece: Piece) -> bool:
        with self._changed:
            return self._schedule.take_whole(task, piece)

    def _link_does_better(self, speed: float) -> bool:
        with self._changed:
            return self._schedule.link_does_better(speed)

    def _hash(self) -> None:
        """Hash what has arrived, and settle the files that are whole."""
        while True:
            with self._changed:
                while not self._open or (task := self._schedule.to_hash()) is None:
                    if not self._open:
                        return
                    self._to_hash.wait()
                task.hashing = True
            try:
                # Until it has caught up: then it can take what comes as it comes.
                while count := task.hash.advance(task.partial, HASH_STEP_BYTES):
                    self._hashed += count
                with self._changed:
                    settled = task.hash.position == task.file.size and not task.in_flight
            except SpoiltError:
                with self._changed:
                    task.spoilt = True
                    settled = task.partial.complete and not task.in_flight
            except BaseException as error:
                self._stop(task, error)
                return
            try:
                if settled:
                    self._settle(task)
            except BaseException as error:
                self._stop(task, error)
                return
            with self._changed:
                task.hashing = False
                self._changed.notify_all()

    def _settle(self, task: Task) -> None:
        """Let a whole file into the cache if its hash is right."""
        if not task.spoilt and task.hash.matches and self._published(task):
            task.lock.release()
            self._arrived(task.file)
            with self._changed:  # Only now: with the last of them `fetch` ends.
                self._schedule.tasks.remove(task)
            return
        with self._changed:  # Nobody may begin with a piece of what is removed.
            task.partial.discard()
            try:
                retry = self._schedule.was_wrong(task)
            except IntegrityError as error:
                self._stop(task, error)
                return
            try:
                task.partial = self._open_partial(task.file)
            except HeldError:  # It comes once that other process is done with it, or from it.
                self._schedule.tasks.remove(task)
                self._queue.insert(0, task.file)
                task.lock.release()
            task.hash, task.spoilt = FileHash(task.file, self._room), False
            task.shown = 0
        self.publish(FileProgress(path=task.file.path, completed=0))
        if retry is not None:
            self.publish(retry)

    def _published(self, task: Task) -> bool:
        """Put a file that is right in its place; False if others have written to it."""
        try:
            self._publish(task)
        except SpoiltError:
            return False
        return True

    def _publish(self, task: Task) -> None:
        """Put a file that is right in its place; first noted, if it goes again."""
        file, notes, commit = task.file, self._notes, self._commit_hash
        notes = notes if file.path in self._passing else None
        if notes is not None and task.partial.path is not None:
            notes.note(file, task.partial.path)
        self._cache.publish(task.partial, commit, file)
        # What was held in memory is written only now; and some file systems change the time of a
        # file when it is closed.
        if notes is not None and not notes.has(commit, file):
            notes.note(file, self._cache.pointer(commit, file.path_in_repo))

    def _stop(self, task: Task, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error, self.failed_path = error, task.file.path
            self._open = False
            self._wake_all()

    def _wake_all(self) -> None:
        self._changed.notify_all()
        self._to_hash.notify_all()
