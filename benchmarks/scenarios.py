"""What the peers have to do: a repository, what goes wrong on the way, and who takes part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers import PEERS, Peer, Route
from benchmarks.repos import MB, ModelRepo
from nbloader.localhub import Cut, Fault, RequestClass

__all__ = ["CONTENT", "Scenario", "scenarios"]

CONTENT = {
    Route.HTTP: RequestClass.CDN_GET,
    Route.XET: RequestClass.XET_XORB,
}
"""The requests for the content of large files."""

ONE_STREAM = "one stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One line of measurements.

    Attributes:
        key: short name, for the command line.
        title: what the table says.
        tls: the Hub speaks TLS.
        timed: the speed counts, so it is repeated; otherwise the bytes that were served count.
        one_stream: the speed of a single stream is measured too.
        kill: the download is killed when half of the bytes are served, and run again.
        bytes_per_second: cap on each connection.
        total_bytes_per_second: cap on all connections together.
        drop_after: each answer is cut off after this many bytes.
        stall: one answer goes silent in its midst, for ever.
    """

    key: str
    title: str
    repo: ModelRepo
    tls: bool = False
    timed: bool = False
    one_stream: bool = False
    kill: bool = False
    bytes_per_second: float | None = None
    total_bytes_per_second: float | None = None
    drop_after: int | None = None
    stall: bool = False

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Who takes part."""
        return tuple(
            peer
            for peer in PEERS.values()
            if (self.one_stream or peer.name != ONE_STREAM) and (self.timed or peer.resumes)
        )

    def faults(self, peer: Peer) -> list[Fault]:
        """Return what goes wrong for a peer, on either way that it may take."""
        return [fault for route in CONTENT for fault in self._faults(peer, route)]

    def stalled_after(self, route: Route) -> int:
        """Return the bytes that an answer has when it goes silent.

        Few enough for the smallest piece that a peer asks for: aria2 cuts 120 MB into eight, and
        over Xet a piece may have a megabyte.
        """
        return 8 * MB if route is Route.HTTP else MB // 2

    def _faults(self, peer: Peer, route: Route) -> Iterator[Fault]:
        content = CONTENT[route]
        if self.bytes_per_second or self.total_bytes_per_second:
            yield Fault(
                content,
                bytes_per_second=self.bytes_per_second,
                total_bytes_per_second=self.total_bytes_per_second,
            )
        if self.drop_after:
            yield Fault(content, cut=Cut.DROP, after_bytes=self.drop_after)
        if self.stall:
            # The read of a header is an answer too, but ends before it could go silent.
            headers = self.repo.shards if peer.header_reads and route is Route.HTTP else 0
            after = self.stalled_after(route)
            yield Fault(content, cut=Cut.STALL, after_bytes=after, skip=headers, times=1)


def scenarios(*, large: int, medium: int, small: int) -> tuple[Scenario, ...]:
    """Return all scenarios.

    Args:
        large: bytes of the repository whose download is timed, in five files.
        medium, small: bytes of those of one file each that are fetched under faults.
    """
    in_five = ModelRepo(size=large, shards=5)
    in_one, in_small = ModelRepo(size=medium), ModelRepo(size=small)
    medium_title, small_title = f"{medium // MB} MB at 100 MB/s", f"{small // MB} MB at 20 MB/s"
    slow = 20.0 * MB
    return (
        Scenario(
            key="plain", title=f"{large // MB} MB in 5 files, no faults", repo=in_five, timed=True
        ),
        Scenario(
            key="tls",
            title=f"{large // MB} MB in 5 files over TLS, no faults",
            repo=in_five,
            tls=True,
            timed=True,
        ),
        Scenario(
            key="capped",
            title=f"{large // MB} MB in 5 files, 50 MB/s for each connection",
            repo=in_five,
            timed=True,
            one_stream=True,
            bytes_per_second=50.0 * MB,
        ),
        Scenario(
            key="kill",
            title=f"killed at 50 % and run again, {medium_title}",
            repo=in_one,
            kill=True,
            total_bytes_per_second=100.0 * MB,
        ),
        Scenario(
            key="kill-small",
            title=f"killed at 50 % and run again, {small_title}",
            repo=in_small,
            kill=True,
            total_bytes_per_second=slow,
        ),
        Scenario(
            key="drops",
            title=f"every answer cut off after 9 MB, {small_title}",
            repo=in_small,
            total_bytes_per_second=slow,
            drop_after=9 * MB,
        ),
        Scenario(
            key="stall",
            title=f"one answer goes silent, {small_title}",
            repo=in_small,
            total_bytes_per_second=slow,
            stall=True,
        ),
    )
