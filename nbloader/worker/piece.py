"""What is fetched at once: a range of one file, over one route."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from nbloader.hub_cache import FileHash
from nbloader.records import RepoFile, Route
from nbloader.transfer.policy import Reason
from nbloader.worker.failures import Failure


class RouteLike(Protocol):
    """A way for the bytes of a piece."""

    def prepare(self, piece: Piece) -> tuple[int, int]:
        """Return the range that is better fetched in its place: it may begin and end earlier."""

    def fetch(self, piece: Piece) -> None:
        """Bring a piece. Raises `Failure` where another attempt may do better."""


class Sink(Protocol):
    """Takes the bytes of a piece."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write the next bytes; gives how many of them were not there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A range of a file, to be fetched over one route.

    Attributes:
        start, stop: the first byte and the one after the last.
        margin: how far both may still move towards the beginning of the file; 0 if they are to
            stay.
        limit_s: it counts as stalled after so long without a byte.
    """

    file: RepoFile
    commit_hash: str
    route: Route
    start: int
    stop: int
    margin: int = 0
    limit_s: float

    @property
    def size(self) -> int:
        """Bytes of the whole cut."""
        return self.stop - self.start


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """The fetch of a cut. Its bytes may come once it was told where they go, by `begin`.

    Attributes:
        cut: another one takes its place where its ends move.
        second: whether it goes after the bytes of one that is silent.
        abandoned: whether it is silent and another goes after its bytes; nobody waits for it.
        rival: the other one of the two, as long as neither has been heard of.
        lost: whether the other one was heard of first: its answer is not read.
        received: bytes that came.
        brought: those of them that were not there before.
        counted: those of `brought` that were counted when it was abandoned.
        heard_at: when the last byte came, or the piece began.
        cancelled_at: when it was cancelled; None before.
        cancel: ends the fetch from another thread; None where it ends by itself.
        wins: called when it is heard of before its rival, which ends then.
        take_whole: called when the server sends no parts of files; says whether this piece may go
            on, as the only one, up to the end of the file.
        link_does_better: says whether a speed, in bytes per second, is far below that of others.
    """

    cut: Cut
    clock: Callable[[], float] = time.monotonic
    second: bool = False
    abandoned: bool = field(default=False, init=False)
    rival: Piece | None = field(default=None, init=False)
    lost: bool = field(default=False, init=False)
    received: int = field(default=0, init=False)
    brought: int = field(default=0, init=False)
    counted: int = field(default=0, init=False)
    began_at: float = field(init=False)
    heard_at: float = field(init=False)
    cancelled_at: float | None = field(default=None, init=False)
    cancel: Callable[[], object] | None = field(default=None, init=False)
    wins: Callable[[], object] = field(init=False)
    take_whole: Callable[[], bool] = field(init=False)
    link_does_better: Callable[[float], bool] = field(init=False)
    _sink: Sink | None = field(default=None, init=False)
    _hash: FileHash | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.began_at = self.heard_at = self.clock()

    def move(self, start: int, stop: int) -> None:
        """Move the ends of the cut, and let them stay there."""
        self.cut = replace(self.cut, start=start, stop=stop, margin=0)

    def begin(
        self,
        sink: Sink,
        file_hash: FileHash | None = None,
        *,
        wins: Callable[[], object] = lambda: None,
        take_whole: Callable[[], bool] = lambda: True,
        link_does_better: Callable[[float], bool] = lambda speed: True,  # noqa: ARG005
    ) -> None:
        """Let the bytes come.

        Args:
            file_hash: is offered the bytes while they are at hand.
            wins, take_whole, link_does_better: see the attributes.
        """
        self._sink, self._hash, self.wins = sink, file_hash, wins
        self.take_whole, self.link_does_better = take_whole, link_does_better

    def answered(self) -> None:
        """Note that an answer has begun, or goes on: of two that ask for the same, one is read.

        Raises:
            Failure: the other's.
        """
        if self.rival is not None:
            self.wins()
        if self.lost:
            raise Failure(Reason.CANCELLED)

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes.

        Raises:
            Failure: another piece was heard of first.
            OSError: the disk refuses.
        """
        assert self._sink is not None
        self.answered()
        new = self._sink.write(data)
        if self._hash is not None and new == len(data):
            self._hash.offer(self.cut.start + self.received, data)
        self.received += len(data)
        self.brought += new
        self.heard()

    def heard(self) -> None:
        """Note that the connection lives, even if it brought nothing to write."""
        self.heard_at = self.clock()
