"""The engine with routes of memory, for what no socket can be made to do at will."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from nbloader.errors import DownloadError, IntegrityError
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.partial import open_partial
from nbloader.records import FileProgress, Notice, RepoFile, Retry, Route, Silence, TransferPolicy
from nbloader.transfer.policy import Reason
from nbloader.transfer.protocol import Tried
from nbloader.worker.engine import Engine
from nbloader.worker.failures import Failure
from nbloader.worker.piece import Piece

MIB = 1 << 20
COMMIT = "c" * 40
CONTENT = Random(3).randbytes(24 * MIB + 1)
WRONG = bytes(byte ^ 0xFF for byte in CONTENT)
FILE = RepoFile(
    path="a.bin",
    size=len(CONTENT),
    etag=hashlib.sha256(CONTENT).hexdigest(),
    lfs=True,
    xet_hash="x" * 64,
)


class MemoryRoute:
    """A route whose bytes are in memory.

    Args:
        fetch: brings a piece; the right bytes at once, by default.
        moves: how far back a piece begins, as over Xet.
    """

    def __init__(self, fetch: Callable[[Piece], None] | None = None, *, moves: int = 0) -> None:
        self._fetch = fetch or right
        self._moves = moves
        self.fetched: list[tuple[int, int]] = []

    def prepare(self, piece: Piece) -> tuple[int, int]:
        return max(0, piece.cut.start - self._moves), piece.cut.stop

    def fetch(self, piece: Piece) -> None:
        self.fetched.append((piece.cut.start, piece.cut.stop))
        self._fetch(piece)


def right(piece: Piece) -> None:
    bring(piece, CONTENT)


def bring(piece: Piece, content: bytes) -> None:
    for start in range(piece.cut.start, piece.cut.stop, MIB):
        piece.write(content[start : min(start + MIB, piece.cut.stop)])


class Run:
    """One fetch of `FILE`, and what was told of it."""

    def __init__(self, cache: Path, **routes: MemoryRoute) -> None:
        self.told: list[FileProgress | Silence | Retry | Notice] = []
        self.done: list[RepoFile] = []
        self.stuck: list[tuple[str, Route]] = []
        self.error: Exception | None = None
        self.cache = RepoCache(cache / "models--org--name")
        self._routes = {Route(name): route for name, route in routes.items()}

    def __call__(self, *, tried: tuple[Tried, ...] = (), **policy: object) -> Run:
        engine = Engine(
            [FILE],
            cache=self.cache,
            revision="main",
            commit_hash=COMMIT,
            routes=self._routes,
            policy=TransferPolicy(
                retry_delay_min_s=0.01,
                retry_delay_max_s=0.02,
                **policy,  # type: ignore[arg-type]
            ),
            publish=self.told.append,
            done=self.done.append,
            stuck=lambda path, route: self.stuck.append((path, route)),
            tried=tried,
        )
        try:
            engine.fetch()
        except Exception as error:
            self.error = error
        return self

    @property
    def retries(self) -> list[tuple[str, int, Route | None]]:
        return [(e.reason, e.attempt, e.route) for e in self.told if isinstance(e, Retry)]

    def check_right(self) -> None:
        assert self.error is None
        assert self.done == [FILE]
        assert (self.cache.pointer(COMMIT, FILE.path)).read_bytes() == CONTENT


def test_a_file_comes_in_pieces(tmp_path: Path) -> None:
    route = MemoryRoute()
    run = Run(tmp_path, http=route)()
    run.check_right()
    assert sorted(route.fetched) == [
        (0, 8 * MIB),
        (8 * MIB, 16 * MIB),
        (16 * MIB, 24 * MIB),
        (24 * MIB, 24 * MIB + 1),
    ]


def test_pieces_over_xet_may_begin_earlier_and_the_file_is_right(tmp_path: Path) -> None:
    route = MemoryRoute(moves=1000)
    run = Run(tmp_path, xet=route)(route=Route.XET)
    run.check_right()
    assert run.retries == []


def test_wrong_bytes_over_right_ones_are_noticed_when_a_server_sends_all(tmp_path: Path) -> None:
    """One piece gets the whole file; the others write their part over it later."""
    whole = threading.Event()
    others = threading.Semaphore(0)
    first_round = [True]

    def fetch(piece: Piece) -> None:
        if not first_round[0]:
            right(piece)
        elif piece.cut.start == 0:
            for _ in range(2):
                others.acquire()
            assert piece.take_whole()
            bring(piece, CONTENT)
            first_round[0] = False
            whole.set()
        else:
            others.release()
            whole.wait()
            bring(piece, WRONG)

    Run(tmp_path, http=MemoryRoute(fetch))().check_right()


def test_wrong_bytes_over_right_ones_are_noticed_where_a_piece_begins_earlier(
    tmp_path: Path,
) -> None:
    """What a piece brings again, before its own part, is wrong."""
    before = threading.Condition()
    there: set[int] = {0}

    def fetch(piece: Piece) -> None:
        own = min(piece.cut.start + 1000, piece.cut.stop) if piece.cut.start else 0
        with before:
            before.wait_for(lambda: own in there)
        piece.write(WRONG[piece.cut.start : own])
        piece.write(CONTENT[own : piece.cut.stop])
        with before:
            there.add(piece.cut.stop)
            before.notify_all()

    run = Run(tmp_path, xet=MemoryRoute(fetch, moves=1000))(route=Route.XET)
    if run.error is None:
        run.check_right()
    else:
        assert isinstance(run.error, IntegrityError)
        assert not run.cache.blob(FILE).exists()


@pytest.mark.parametrize("policy_route", Route)
def test_wrong_bytes_twice_are_an_error(tmp_path: Path, policy_route: Route) -> None:
    wrong = MemoryRoute(lambda piece: bring(piece, WRONG))
    run = Run(tmp_path, **{policy_route: wrong})(route=policy_route)
    assert isinstance(run.error, IntegrityError)
    assert FILE.etag in run.error.message
    assert hashlib.sha256(WRONG).hexdigest() in run.error.message
    assert run.retries == [("wrong bytes", 1, policy_route)]
    assert not run.cache.blob(FILE).exists()


def test_a_file_goes_on_over_the_route_that_an_earlier_worker_found(tmp_path: Path) -> None:
    http, xet = MemoryRoute(), MemoryRoute()
    run = Run(tmp_path, http=http, xet=xet)(tried=(Tried(path="a.bin", route=Route.XET),))
    run.check_right()
    assert http.fetched == []


def test_what_an_earlier_worker_tried_in_vain_is_counted(tmp_path: Path) -> None:
    def fail(piece: Piece) -> None:
        raise Failure(Reason.BUSY)

    tried = (Tried(path="a.bin", route=Route.HTTP, fruitless=3),)
    run = Run(tmp_path, http=MemoryRoute(fail))(tried=tried)
    assert isinstance(run.error, DownloadError)
    assert run.retries == [("the server is busy", 4, Route.HTTP)]


def test_what_has_come_is_on_the_disk_after_an_error(tmp_path: Path) -> None:
    def fail(piece: Piece) -> None:
        piece.write(CONTENT[piece.cut.start : piece.cut.start + 100])
        raise OSError(28, "No space left on device")

    run = Run(tmp_path, http=MemoryRoute(fail))()
    assert isinstance(run.error, OSError)
    left = open_partial(run.cache.blobs, FILE, revision="main", commit_hash=COMMIT)
    content = bytearray(100)
    assert left.arrived >= 100
    assert left.readinto(0, content) == 100
    assert left.missing()[0][0] == 100
    assert content == CONTENT[:100]
    left.close()


def test_a_fetch_ends_after_its_last_file_was_told_of(tmp_path: Path) -> None:
    """What follows a fetch may be the end of the process."""
    looks: list[float] = []
    late: list[bool] = []
    ended = threading.Event()

    def clock() -> float:
        looks.append(time.monotonic())
        return looks[-1]

    def done(file: RepoFile) -> None:
        """Take as long as the engine takes to look around a few times, or to end."""
        enough = len(looks) + 5
        while len(looks) < enough and not ended.is_set():
            ended.wait(0.001)
        late.append(ended.is_set())

    engine = Engine(
        [FILE],
        cache=RepoCache(tmp_path / "models--org--name"),
        revision="main",
        commit_hash=COMMIT,
        routes={Route.HTTP: MemoryRoute()},
        policy=TransferPolicy(),
        publish=lambda event: None,
        done=done,
        stuck=lambda path, route: None,
        clock=clock,
    )
    engine.fetch()
    ended.set()
    assert late == [False]


def test_errors_of_a_program_are_not_swallowed(tmp_path: Path) -> None:
    def fail(piece: Piece) -> None:
        raise ZeroDivisionError

    assert isinstance(Run(tmp_path, http=MemoryRoute(fail))().error, ZeroDivisionError)
