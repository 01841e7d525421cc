"""How many pieces at once, how large, and over which route first: all of it measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from nbloader.records import Route

MIB = 1 << 20

HTTP_PIECE_BYTES = 64 * MIB
SMALLEST_HTTP_PIECE_BYTES = 8 * MIB
FIRST_HTTP_PIECE_BYTES = 16 * MIB
"""Until the speed of the link is known. Those that begin on a fast link are all of the first file,
of which but one is hashed as it comes."""


def http_piece_bytes(rest: int, connections: int, *, late: bool = False) -> int:
    """Return the size of the next range over HTTP: smaller towards the end, so that all
    connections have work until then.

    Args:
        rest: bytes of the file that nobody fetches yet.
        connections: how many of them are for this file.
        late: whether answers begin late; then each connection asks once for its whole share.
    """
    if late:
        return max(HTTP_PIECE_BYTES, -(-rest // max(1, connections)))
    share = rest // (2 * max(1, connections))
    return max(SMALLEST_HTTP_PIECE_BYTES, min(HTTP_PIECE_BYTES, share))


class AnswerTime:
    """How long it takes from a request to the first byte of its answer: a property of the link.

    Where a proxy looks through everything before it passes it on, or the way leads over a
    satellite, all answers begin late, by up to twenty seconds, and no connection has stalled.
    """

    LATE_S = 4.0
    PATIENCE = 2.5

    def __init__(self) -> None:
        self._seconds = 0.0

    def took(self, seconds: float) -> None:
        """Take the time of one answer. What is late counts at once; what is not, only when it
        comes again."""
        self._seconds = max(seconds, (self._seconds + seconds) / 2)

    @property
    def is_late(self) -> bool:
        """Whether to ask for less often, and for more at a time."""
        return self._seconds >= self.LATE_S

    def patience_s(self, least: float = 0.0) -> float:
        """Return how long an answer may take to begin, `least` seconds in any case."""
        return max(least, self.PATIENCE * self._seconds)


def most_pieces(sizes: Iterable[int]) -> int:
    """Return how many pieces of these files can ever be in flight."""
    return min(Concurrency.HIGHEST, sum(1 + size // XetPace.SMALLEST for size in sizes))


class Concurrency:
    """The number of pieces in flight, found by climbing: on as long as it helps, then back.

    It never goes below where it began but for a server that asks for that: on most links more
    connections do no harm, and one that is missed costs its share of the speed.

    Attributes:
        limit: how many there may be now.
    """

    START = 4
    HIGHEST = 16
    STEP = 2
    GAIN = 1.12
    """A step has to bring so much to be kept. Where connections are what is short, it brings at
    least 14 %; less is noise."""
    PERIOD_S = 1.0
    LONGEST_REST = 15

    def __init__(self) -> None:
        self.limit = self.START
        self._before: float | None = None
        self._rest = 0
        self._resting = 0

    def measured(self, bytes_per_s: float) -> None:
        """Take the speed of one period in which there was work for all connections."""
        if self._rest:
            self._rest -= 1
        elif self._before is not None and bytes_per_s < self._before * self.GAIN:
            # No gain: back, and the next try after a rest that grows.
            self.limit = max(self.START, self.limit - self.STEP)
            self._resting = min(2 * self._resting + 1, self.LONGEST_REST)
            self._rest, self._before = self._resting, None
        elif self.limit < self.HIGHEST:
            self._before = bytes_per_s
            self.limit = min(self.HIGHEST, self.limit + self.STEP)

    def refused(self) -> None:
        """Note that the server asked for fewer requests."""
        self.limit = max(1, self.limit // 2)
        self._before, self._rest = None, self.LONGEST_REST


class XetPace:
    """The size of pieces over Xet, which are delivered only when they are whole.

    A kill loses about half of what is in flight, and what takes long looks like a stall; so a
    piece takes about `TARGET_S`.
    """

    SMALLEST = 1 * MIB
    LARGEST = 4 * MIB
    TARGET_S = 0.3
    DEAR_S = 0.1
    """A piece that takes longer is on a link where bytes count more than questions."""

    LATE_SMALLEST = 16 * MIB
    LATE_LARGEST = 64 * MIB
    """Where answers begin late: a piece takes two of them, and a kill may cost more."""

    def __init__(self, answers: AnswerTime | None = None) -> None:
        self._bytes_per_s: float | None = None
        self._answers = answers or AnswerTime()

    @property
    def size(self) -> int:
        """Bytes of the next piece."""
        if self._answers.is_late:
            much = int(self._answers.patience_s() * (self._bytes_per_s or 0)) // MIB * MIB
            return max(self.LATE_SMALLEST, min(self.LATE_LARGEST, much))
        whole = int(self.TARGET_S * (self._bytes_per_s or 0)) // MIB * MIB
        return max(self.SMALLEST, min(self.LARGEST, whole))

    @property
    def bytes_are_dear(self) -> bool:
        """Whether to ask where chunks begin, so that no chunk is fetched twice.

        The question costs a round trip and 3 ms of CPU, the chunk 2 % of a large piece.
        """
        if self._answers.is_late:
            return False
        return self._bytes_per_s is None or self.size > self.DEAR_S * self._bytes_per_s

    def took(self, size: int, seconds: float) -> None:
        """Take the time of one piece."""
        speed = size / max(seconds, 1e-3)
        before = self._bytes_per_s
        self._bytes_per_s = speed if before is None else 0.7 * before + 0.3 * speed

    def expected_s(self, size: int) -> float:
        """Return the time that a piece of `size` bytes should take; 0 if nothing is known."""
        return size / self._bytes_per_s if self._bytes_per_s else 0.0


class RouteChoice:
    """Which route is tried first: each is measured on a part of the first bytes.

    Args:
        routes: those that there are.
        total: bytes that could take either; little is fetched over HTTP, without a comparison.
        only: the only one to take, where it is there.
    """

    PROBE_BYTES = 32 * MIB
    """For each route, so that the first 64 MiB decide."""

    HEAD_START = 1.1

    GIVEN_UP_AFTER = 2

    def __init__(self, routes: Iterable[Route], total: int, *, only: Route | None = None) -> None:
        there = set(routes)
        self._left = [route for route in (Route.HTTP, Route.XET) if route in there]
        if only in there:
            self._left = [only]
        both = len(self._left) > 1 and total >= len(self._left) * self.PROBE_BYTES
        self._probing = list(self._left) if both else []
        self._first: dict[Route, float] = {}
        self._bytes: dict[Route, int] = dict.fromkeys(self._left, 0)
        self._speed: dict[Route, float] = {}
        self._failures: dict[Route, int] = dict.fromkeys(self._left, 0)

    @property
    def routes(self) -> frozenset[Route]:
        """The routes that have not been given up."""
        return frozenset(self._left)

    @property
    def route(self) -> Route:
        """The route of the next piece."""
        if self._probing:
            return self._probing[0]
        # HTTP hands over bytes as they come, so the other has to be clearly faster.
        ahead = {Route.HTTP: self.HEAD_START}
        return max(self._left, key=lambda r: self._speed.get(r, 0.0) * ahead.get(r, 1.0))

    @property
    def probing(self) -> bool:
        """Whether the comparison goes on; pieces are small meanwhile, so that one route's do not
        run into the time of the other."""
        return bool(self._probing)

    def arrived(self, route: Route, count: int, now: float) -> None:
        """Take bytes that came over a route."""
        if count <= 0 or route not in self._probing[:1]:
            return
        began = self._first.setdefault(route, now)
        if now > began:
            # What had come before the first look was on its way for an unknown time.
            self._bytes[route] += count
            self._speed[route] = self._bytes[route] / (now - began)
        if self._bytes[route] >= self.PROBE_BYTES:
            self._probing.remove(route)

    def succeeded(self, route: Route) -> None:
        """Note that a piece came."""
        self._failures[route] = 0

    def failed(self, route: Route) -> None:
        """Note that an attempt brought nothing; a route that never works is given up."""
        self._failures[route] = self._failures.get(route, 0) + 1
        if self._failures[route] < self.GIVEN_UP_AFTER:
            return
        if route in self._probing:
            self._probing.remove(route)
        # HTTP stays: some files have no other way.
        if route is Route.XET and len(self._left) > 1:
            self._left.remove(route)
            self._probing = []
