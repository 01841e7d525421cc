"""Which piece of which file comes next, over which route, and what follows a failure.

The state of the files on their way and all decisions about them, without threads and without
effects. `Engine` calls it under one lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from nbloader.errors import IntegrityError, NbloaderError
from nbloader.hub_cache import SMALL_FILE_BYTES, FileHash, FileLock, Partial, Spans
from nbloader.limits import (
    CANCEL_LIMIT_S,
    SILENT_S,
    TICK_S,
    XET_PATIENCE,
    http_piece_limit_s,
    xet_piece_limit_s,
)
from nbloader.records import (
    ASKING_AGAIN,
    FileProgress,
    RepoFile,
    Retry,
    Route,
    Silence,
    TransferPolicy,
)
from nbloader.transfer.policy import Attempts, GiveUp, Reason, decide, retry_record
from nbloader.worker.failures import Failure, not_downloaded
from nbloader.worker.piece import Cut, Piece
from nbloader.worker.tuning import (
    FIRST_HTTP_PIECE_BYTES,
    SMALLEST_HTTP_PIECE_BYTES,
    AnswerTime,
    Concurrency,
    RouteChoice,
    XetPace,
    http_piece_bytes,
)
from nbloader.worker.xet_route import MAX_CHUNK_BYTES

FAR_FASTER = 4

HASH_STEP_BYTES = 16 << 20
"""Hashed in one go, and before what is less."""

HASH_LAG_BYTES = 2 << 20
"""A hash that is further behind catches up: from then on it takes what comes as it comes. What is
just being hashed so is less."""

QUESTIONS_COST_MORE = 200e6
"""Bytes per second of the link above which nobody asks Xet storage where chunks begin: what a piece
takes there is the processor's time, which a question takes, too."""

QUIET_S = 1.0
"""A shorter silence is not told of: between two pieces there is always a pause."""

FIRST_LOOK_S = 0.1
"""So soon after the first bytes the speed of the link is known."""

FAST_LINK = 300e6
"""Bytes per second above which files share the connections: only one thread can hash a file, and
the first bytes of each are hashed as they come, without being read again."""


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One file on its way.

    Attributes:
        pinned: whether failures have chosen its route, not the comparison of speeds.
        whole: whether the server sends no parts of it.
        hosts: those that could not be reached, in their order.
        hashing: whether a thread is at its hash.
        spoilt: whether others have written to its bytes; it comes anew once nothing is in flight.
        not_before: no piece is begun before that time.
        idle_since: since when no piece of it is in flight.
        shown: bytes that were reported.
    """

    file: RepoFile
    lock: FileLock
    partial: Partial
    hash: FileHash
    attempts: Attempts
    pinned: bool = False
    whole: bool = False
    hashing: bool = False
    spoilt: bool = False
    not_before: float = 0.0
    idle_since: float = float("-inf")
    in_flight: list[Piece] = field(default_factory=list)
    shown: int = 0
    hosts: dict[str, None] = field(default_factory=dict)


class Schedule:
    """The files that are on their way.

    Args:
        files: all that are to be fetched.
        routes: the ways that there are.
        chance: gives random numbers from 0 to 1.
        answers: how long answers take to begin, as far as that is known.

    Attributes:
        tasks: in the order in which they began.
    """

    def __init__(
        self,
        files: Iterable[RepoFile],
        *,
        commit_hash: str,
        routes: Iterable[Route],
        policy: TransferPolicy,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        chance: Callable[[], float],
        answers: AnswerTime | None = None,
    ) -> None:
        self.tasks: list[Task] = []
        self._commit_hash = commit_hash
        self._policy = policy
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._concurrency = Concurrency()
        self._answers = answers or AnswerTime()
        self._xet_pace = XetPace(self._answers)
        over_xet = sum(file.size for file in files if _is_large_over_xet(file))
        self._choice = RouteChoice(routes, over_xet, only=policy.route)
        self._finished: Counter[Route] = Counter()
        self._counted: Counter[Route] = Counter()
        self._at_last_adapt = 0
        self._speed = self._best_speed = 0.0
        self._first_look: tuple[float, int] | None = None
        self._told: list[Retry] = []
        self._all_asked = False
        self._asks_at: float | None = None

    @property
    def route(self) -> Route:
        """The route of a file that begins now."""
        return self._choice.route

    @property
    def in_flight(self) -> int:
        """The number of pieces on their way."""
        return sum(len(task.in_flight) for task in self.tasks)

    @property
    def _limit(self) -> int:
        """How many pieces may be in flight."""
        limit = self._concurrency.limit
        if self._choice.route is Route.XET and not self._bytes_are_dear:
            # On a fast link half of a piece's time goes into writing and hashing it.
            return 2 * limit
        return limit

    @property
    def _bytes_are_dear(self) -> bool:
        """Whether to ask where chunks begin, so that no chunk is fetched twice over Xet."""
        return self._xet_pace.bytes_are_dear and self._speed < QUESTIONS_COST_MORE

    def _ways(self, file: RepoFile) -> frozenset[Route]:
        """Return the routes that a file can take.

        A small one costs one request over HTTP, so the other is there only in case of need.
        """
        if file.xet_hash is None:
            return frozenset({Route.HTTP})
        if file.size > SMALL_FILE_BYTES:
            return self._choice.routes
        return self._choice.routes | {Route.HTTP}

    def _first_route(self, file: RepoFile) -> Route:
        """Return the route that a file takes where no failure has chosen one."""
        return self._choice.route if file.size > SMALL_FILE_BYTES else Route.HTTP

    # -- pieces ----------------------------------------------------------------------------

    def next_piece(self) -> tuple[Task, Piece] | None:
        """Cut the next piece, of the first file that has one; None if there is no work.

        Files get no equal shares, unless the link is fast: what comes first is complete first, and
        can be used meanwhile.
        """
        self._all_asked = False
        if self.in_flight >= self._limit:
            return None
        now = self._clock()
        tasks = self.tasks
        if self._speed > FAST_LINK:
            tasks = sorted(tasks, key=lambda task: len(task.in_flight))
        for task in tasks:
            if task.not_before <= now and not (task.whole and task.in_flight):
                cut = self._cut(task)
                if cut is not None:
                    if not task.in_flight:
                        # It could make no progress while nobody served it.
                        waited = now - max(task.idle_since, task.not_before)
                        moved_at = min(now, task.attempts.moved_at + waited)
                        task.attempts = replace(task.attempts, moved_at=moved_at)
                    piece = Piece(cut=cut, clock=self._clock)
                    task.in_flight.append(piece)
                    return task, piece
        self._all_asked = True
        return self._second(now)

    def _second(self, now: float) -> tuple[Task, Piece] | None:
        """Where nothing else is left to do, go after the bytes of a silent piece once more.

        The end of a download would otherwise wait for its slowest connection to be given up.
        """
        for task in self.tasks:
            for piece in task.in_flight if task.not_before <= now else ():
                if piece.second or now - piece.heard_at < self._silent_s(piece):
                    continue
                task.in_flight.remove(piece)
                cut = self._cut(task)
                if cut is None:  # Its last bytes came meanwhile.
                    task.in_flight.append(piece)
                    continue
                second = Piece(cut=cut, clock=self._clock, second=True)
                second.rival = piece
                piece.rival = second
                self._abandon(piece)
                task.in_flight.append(second)
                self._told.append(self._retry(task, ASKING_AGAIN, 0.0, failed=piece.cut.route))
                return task, second
        return None

    def _abandon(self, piece: Piece) -> None:
        piece.abandoned = True
        self._finished[piece.cut.route] += piece.brought - piece.counted
        piece.counted = piece.brought

    def wins(self, task: Task, piece: Piece) -> None:
        """Note that a piece was heard of before the other that asks for the same bytes: it goes
        on, whichever of them it is, and the answer of the other is not read."""
        other = piece.rival
        if other is None:
            return
        self._give_up(other)
        if piece.abandoned:
            task.in_flight.remove(other)
            self._abandon(other)
            task.in_flight.append(piece)
            piece.abandoned = False
            self._finished[piece.cut.route] -= piece.counted
            piece.counted = 0

    def _give_up(self, piece: Piece) -> None:
        """Let a piece end, whose rival goes on or has come to its end."""
        _part(piece)
        piece.lost = True
        # Over Xet it would end all the others, too.
        if piece.cut.route is Route.HTTP and piece.cancel is not None:
            piece.cancel()

    def _silent_s(self, piece: Piece) -> float:
        """Return how long a piece may be silent where nothing else is left to do."""
        silent_s = self._answers.patience_s(SILENT_S)
        cut = piece.cut
        if cut.route is Route.XET:
            expected_s = self._xet_pace.expected_s(cut.size)
            silent_s = max(silent_s, XET_PATIENCE * expected_s) if expected_s else cut.limit_s
        return min(silent_s, cut.limit_s)

    def _cut(self, task: Task) -> Cut | None:
        free = Spans(task.partial.missing())
        for piece in task.in_flight:
            taken = piece.cut
            free.remove(max(0, taken.start - taken.margin), taken.stop)
        gap = next(iter(free), None)
        if gap is None:
            return None
        start, stop = gap
        ways = self._ways(task.file)
        route = task.attempts.route if task.pinned else self._first_route(task.file)
        if route not in ways:
            route = min(ways)
        task.attempts = replace(task.attempts, route=route)
        stall_s, margin = self._policy.stall_timeout_s, 0
        limit_s = http_piece_limit_s(self._answers.patience_s(stall_s))
        if task.whole and route is Route.HTTP:
            stop = task.file.size
        elif route is Route.XET:
            task.whole = False
            size = self._xet_pace.size
            if self._bytes_are_dear:
                margin = MAX_CHUNK_BYTES
            stop = min(stop, start + size)
            # Two questions, to the storage and for the bytes.
            waits_s = 2 * self._answers.patience_s() if self._answers.is_late else 0.0
            limit_s = xet_piece_limit_s(max(stall_s, waits_s), self._xet_pace.expected_s(size))
        else:
            share = self._concurrency.limit
            if self._speed > FAST_LINK:
                share = max(1, share // len(self.tasks))
            late = self._answers.is_late
            size = http_piece_bytes(
                free.total, share - len(task.in_flight) if late else share, late=late
            )
            if late:
                pass
            elif self._choice.probing:
                size = min(size, SMALLEST_HTTP_PIECE_BYTES)
            elif not self._speed:
                size = min(size, FIRST_HTTP_PIECE_BYTES)
            stop = min(stop, start + size)
        return Cut(
            file=task.file,
            commit_hash=self._commit_hash,
            route=route,
            start=start,
            stop=stop,
            margin=margin,
            limit_s=limit_s,
        )

    def take_whole(self, task: Task, piece: Piece) -> bool:
        """Let a piece go on to the end of the file, unless another does so already."""
        if not (piece.cut.stop == task.file.size and len(task.in_flight) == 1):
            if task.whole:
                return False
            task.whole = True
            piece.cut = replace(piece.cut, stop=task.file.size)
        return True

    def succeeded(self, task: Task, piece: Piece) -> None:
        """Note that a piece has come."""
        self._end(task, piece)
        if piece.abandoned:
            return
        now = self._clock()
        if piece.cut.route is Route.XET:
            self._xet_pace.took(piece.cut.size, now - piece.began_at)
        self._choice.succeeded(piece.cut.route)
        task.attempts = replace(task.attempts.moved(now), on_route=0)

    def failed(self, task: Task, piece: Piece, failure: Failure) -> Retry | None:
        """Note that a piece has failed, and decide what follows.

        Returns:
            What is to be told of it, if anything: pieces that were under way together fail
            together, and that is told once.

        Raises:
            DownloadError: the file is given up.
            Failure: so it is, because the server allows no more requests.
        """
        self._end(task, piece)
        if piece.abandoned:
            return None
        if failure.reason is Reason.BLOCKED and failure.host:
            task.hosts[failure.host] = None
        if failure.reason is Reason.CANCELLED and piece.cancelled_at is None:
            return None  # Another stalled, and this ended with it.
        if piece.cancelled_at is not None:
            failure = Failure(Reason.STALLED)
        together = task.attempts.was_under_way(piece.began_at)
        if failure.reason in (Reason.BUSY, Reason.RATE_LIMITED) and not together:
            self._concurrency.refused()
        if task.attempts.route is not piece.cut.route and not together:
            # Since it began, the comparison of speeds has chosen the other.
            task.attempts = replace(task.attempts, route=piece.cut.route, on_route=0)
        return self._follow(
            task, failure, piece.cut.route, brought=piece.brought, began_at=piece.began_at
        )

    def was_wrong(self, task: Task) -> Retry | None:
        """Note that a whole file had the wrong bytes; they are to be removed.

        Raises:
            IntegrityError: for the second time.
        """
        failure = Failure(Reason.WRONG_BYTES)
        route = task.attempts.route
        return self._follow(task, failure, route, brought=0, began_at=self._clock())

    def _end(self, task: Task, piece: Piece) -> None:
        if not piece.abandoned:
            task.in_flight.remove(piece)
            task.idle_since = self._clock()
            if piece.rival is not None:
                self._give_up(piece.rival)
        else:
            _part(piece)
        self._finished[piece.cut.route] += piece.brought - piece.counted

    def _follow(
        self, task: Task, failure: Failure, failed: Route, *, brought: int, began_at: float
    ) -> Retry | None:
        before = task.attempts
        together = before.was_under_way(began_at)
        if not brought and not together:
            self._choice.failed(before.route)
        ways = self._ways(task.file)
        decision = decide(
            failure.reason,
            before,
            brought=brought,
            began_at=began_at,
            now=self._clock(),
            policy=self._policy,
            limit_s=self._policy.quiet_limit_s(task.file.size),
            routes=ways,
            chance=self._chance(),
            retry_after_s=failure.retry_after_s,
        )
        after = decision.attempts
        if after.route not in ways:
            after = replace(after, route=min(ways))
        task.attempts = after
        if isinstance(decision, GiveUp):
            raise self._gave_up(task, failure, timed_out=decision.timed_out)
        task.pinned = task.pinned or after.route is not before.route
        task.not_before = max(task.not_before, self._clock() + decision.wait_s)
        if together and not brought:
            return None
        return self._retry(task, str(failure), decision.wait_s, failed=failed)

    def _retry(self, task: Task, reason: str, wait_s: float, *, failed: Route) -> Retry:
        return retry_record(
            self._policy,
            time=self._wall_clock(),
            path=task.file.path,
            reason=reason,
            wait_s=wait_s,
            attempt=task.attempts.fruitless,
            route=task.attempts.route,
            failed_route=failed,
        )

    def _gave_up(self, task: Task, failure: Failure, *, timed_out: bool) -> NbloaderError | Failure:
        path, attempts = task.file.path, task.attempts
        if failure.reason is Reason.WRONG_BYTES:
            return IntegrityError(
                f"{path} arrived with the wrong bytes twice: its {task.hash.name} should be "
                f"{task.file.etag}, and was {task.hash.hexdigest()}; what came was removed",
                hint="A proxy or a mirror on the way may serve a broken copy. Try again later, "
                "or from another network.",
            )
        if failure.reason is Reason.RATE_LIMITED:
            return failure  # What helps depends on the token, of which nothing is known here.
        tried = attempts.fruitless
        what = f"{tried} {'attempt' if tried == 1 else 'attempts'}"
        if timed_out:
            what = f"no progress for {self._clock() - attempts.moved_at:.0f} s"
        hosts = [*task.hosts, failure.host] if failure.host else [*task.hosts]
        return not_downloaded(path, failure, what, tried, tuple(dict.fromkeys(hosts)))

    # -- looks from time to time -----------------------------------------------------------

    def progress(self) -> list[FileProgress | Retry]:
        """Count what has arrived since the last look; gives what is to be told."""
        now = self._clock()
        events: list[FileProgress | Retry] = [*self._told]
        self._told.clear()
        for task in self.tasks:
            arrived = task.partial.arrived
            if arrived != task.shown:
                if arrived > task.shown:
                    task.attempts = task.attempts.moved(now)
                task.shown = arrived
                events.append(FileProgress(path=task.file.path, completed=arrived))
        arrived_over = Counter(self._finished)
        for task in self.tasks:
            for piece in task.in_flight:
                arrived_over[piece.cut.route] += piece.brought
        for route, count in arrived_over.items():
            self._choice.arrived(route, count - self._counted[route], now)
        self._counted = arrived_over
        self._look_at_speed(now)
        return events

    def _look_at_speed(self, now: float) -> None:
        """Find out soon after the first bytes how fast the link is, for the pieces that begin
        before the first `adapt`."""
        if self._speed or not self.arrived:
            return
        if self._first_look is None:
            self._first_look = now, self.arrived
        began, before = self._first_look
        if now - began >= FIRST_LOOK_S:
            self._speed = (self.arrived - before) / (now - began)

    @property
    def arrived(self) -> int:
        """Bytes that had come at the last look."""
        return self._counted.total()

    def adapt(self, seconds: float) -> None:
        """Let the number of pieces follow the speed, while there is work for all.

        Args:
            seconds: since the last time.
        """
        self._speed = speed = (self.arrived - self._at_last_adapt) / seconds
        self._best_speed = max(self._best_speed, speed)
        self._at_last_adapt = self.arrived
        if self.in_flight >= self._limit:
            self._concurrency.measured(speed)

    def link_does_better(self, speed: float) -> bool:
        """Say whether a piece of this speed, bytes per second, is slow for reasons of its own:
        the others are far faster, or the link was before. On a link that is slow as a whole,
        another connection would be no faster."""
        others = self._speed - speed
        return others > FAR_FASTER * speed or self._best_speed > FAR_FASTER**2 * speed

    def stalled(self) -> Iterator[Piece]:
        """Yield the pieces that have just become too slow; they are to be cancelled."""
        now = self._clock()
        for task in self.tasks:
            for piece in task.in_flight:
                if piece.cancelled_at is None and now - piece.heard_at > piece.cut.limit_s:
                    piece.cancelled_at = now
                    yield piece

    def silence(self) -> Iterator[Silence]:
        """Yield when bytes are asked for again, once in each silence, and where that changes."""
        now = self._clock()
        pieces = [piece for task in self.tasks for piece in task.in_flight]
        if not pieces or any(now - piece.heard_at < QUIET_S for piece in pieces):
            self._asks_at = None
            return
        asks_at, path = min(
            (piece.heard_at + self._patience_s(piece), piece.cut.file.path) for piece in pieces
        )
        before = self._asks_at
        if asks_at > now and (before is None or abs(asks_at - before) >= TICK_S):
            self._asks_at = asks_at
            yield Silence(path=path, asked_again_in_s=round(asks_at - now, 3))

    def _patience_s(self, piece: Piece) -> float:
        """Return how long a piece may be silent before its bytes are asked for again."""
        limit_s = piece.cut.limit_s
        if piece.cut.route is Route.HTTP:
            # Its connection is closed by then.
            limit_s = min(limit_s, self._answers.patience_s(self._policy.stall_timeout_s))
        if self._all_asked and not piece.second:
            limit_s = min(limit_s, self._silent_s(piece))
        return limit_s

    def stuck(self) -> Iterator[Piece]:
        """Yield the pieces that were cancelled and go on nevertheless, each once."""
        now = self._clock()
        for task in self.tasks:
            for piece in task.in_flight:
                cancelled_at = piece.cancelled_at
                if cancelled_at is not None and now - cancelled_at > CANCEL_LIMIT_S:
                    piece.cancelled_at = float("inf")
                    yield piece

    def to_hash(self) -> Task | None:
        """Return a file of which enough has arrived, or all, that is not hashed yet."""
        lagging: Task | None = None
        for task in self.tasks:
            if task.hashing:
                continue
            if task.partial.complete:
                if not task.in_flight:
                    return task
                continue
            if task.spoilt:
                continue
            behind = task.partial.prefix - task.hash.position
            if behind >= HASH_STEP_BYTES:
                return task
            if behind > HASH_LAG_BYTES and lagging is None:
                lagging = task
        return lagging


def _part(piece: Piece) -> None:
    """Let two pieces that ask for the same know no more of each other."""
    if piece.rival is not None:
        piece.rival.rival = None
        piece.rival = None


def _is_large_over_xet(file: RepoFile) -> bool:
    """Say whether a file is worth a comparison of the routes."""
    return file.xet_hash is not None and file.size > SMALL_FILE_BYTES
