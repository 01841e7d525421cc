"""What is fetched at once: a range of one file, over one route."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from nbloader.hub_cache import FileHash, Writer
from nbloader.records import RepoFile, Route


class RouteLike(Protocol):
    """A way for the bytes of a piece."""

    def prepare(self, piece: Piece) -> tuple[int, int]:
        """Give the range that is better fetched in its place: it may begin and end earlier."""

    def fetch(self, piece: Piece) -> None:
        """Bring a piece. Raises `Failure` where another attempt may do better."""


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """A range of a file on its way.

    Attributes:
        start, stop: the first byte and the one after the last.
        margin: how far `start` and `stop` may still move towards the beginning of the file; 0 if
            they are to stay.
        limit_s: it counts as stalled after so long without a byte.
        take_whole: called when the server sends no parts of files; tells whether this piece may
            go on, as the only one, up to the end of the file.
        hash: is offered the bytes while they are at hand.
        link_does_better: tells whether a speed, in bytes per second, is far below that of others.
        cancel: ends a fetch from another thread; None where it ends by itself.
        second: whether it goes after the bytes of one that is silent.
        counted: those of `brought` that were counted when it was abandoned.
        abandoned: whether it is silent and another goes after its bytes; nobody waits for it.
        received: bytes that came.
        brought: those of them that were not there before.
        heard_at: when the last byte came, or the piece began.
    """

    file: RepoFile
    commit_hash: str
    route: Route
    start: int
    stop: int
    margin: int = 0
    limit_s: float
    take_whole: Callable[[], bool] = lambda: True
    link_does_better: Callable[[float], bool] = lambda speed: True  # noqa: ARG005
    clock: Callable[[], float] = time.monotonic
    sink: Writer | None = None
    hash: FileHash | None = None
    cancel: Callable[[], object] | None = None
    cancelled_at: float | None = None
    second: bool = False
    abandoned: bool = False
    counted: int = 0
    received: int = 0
    brought: int = 0
    began_at: float = field(init=False)
    heard_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.began_at = self.heard_at = self.clock()

    @property
    def size(self) -> int:
        """Bytes of the whole piece."""
        return self.stop - self.start

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes. Raises OSError if the disk refuses."""
        assert self.sink is not None
        new = self.sink.write(data)
        if self.hash is not None and new == len(data):
            self.hash.offer(self.start + self.received, data)
        self.received += len(data)
        self.brought += new
        self.heard_at = self.clock()

    def heard(self) -> None:
        """Note that the connection lives, although it brought nothing to write."""
        self.heard_at = self.clock()
