"""Bytes over HTTP ranges."""

from __future__ import annotations

import time
from collections.abc import Callable

from nbloader.transfer.policy import DRIP_SPEED, Reason
from nbloader.worker.failures import Failure
from nbloader.worker.links import Links, host_of, part_of
from nbloader.worker.network import network_failures
from nbloader.worker.piece import Piece
from nbloader.worker.wire import Canceller


class HttpRoute:
    """Fetches pieces of files over HTTP.

    Args:
        stall_timeout_s, min_speed: a connection that is slower than `min_speed`, bytes per second,
            over so many seconds is given up if the link does better elsewhere. One that brings
            nothing at all ends by the timeout of `links`.
    """

    def __init__(
        self,
        links: Links,
        *,
        stall_timeout_s: float,
        min_speed: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._links = links
        self._window_s = stall_timeout_s
        self._min_speed = min_speed
        self._clock = clock

    def prepare(self, piece: Piece) -> tuple[int, int]:
        """Return the range as it is: HTTP has any."""
        return piece.cut.start, piece.cut.stop

    def fetch(self, piece: Piece) -> None:
        """Bring the bytes of a piece, writing them as they come.

        Raises:
            Failure: it ended early; what came is written.
            HfHubHTTPError: the Hub refuses for good.
            OSError: the disk refuses.
        """
        try:
            with network_failures(self._links.place_of(piece.cut.file)):
                self._fetch(piece)
        except Failure as failure:
            failure.host = failure.host or host_of(self._links.place_of(piece.cut.file))
            raise

    def _fetch(self, piece: Piece) -> None:
        piece.cancel = canceller = Canceller()
        while self._fetch_part(piece, canceller):
            pass

    def _fetch_part(self, piece: Piece, canceller: Canceller) -> bool:
        """Bring what one answer has of a piece; tells whether the rest is to be asked for.

        A server may send less than it was asked for (RFC 9110, 15.3.7).
        """
        cut, done = piece.cut, piece.received
        with self._links.open(
            cut.commit_hash,
            cut.file,
            cut.start + done,
            cut.stop,
            asking=piece.heard,
            canceller=canceller,
        ) as (answer, first):
            piece.answered()
            part = part_of(answer, cut.file.size)
            if part is None and not piece.take_whole():
                raise Failure(Reason.CANCELLED)  # Another goes on to the end of the file.
            skip = piece.cut.start + done - first
            left = piece.cut.size - done  # It may be more by now.
            window_began, in_window = self._clock(), 0
            for chunk in answer.chunks():
                if not left:
                    break  # More than was asked for.
                if skip:
                    skipped = min(skip, len(chunk))
                    skip -= skipped
                    piece.heard()
                    if skipped == len(chunk):
                        continue
                    chunk = chunk[skipped:]
                    window_began = self._clock()
                if len(chunk) > left:
                    chunk = chunk[:left]
                piece.write(chunk)
                left -= len(chunk)
                in_window += len(chunk)
                now = self._clock()
                if now - window_began >= self._window_s:
                    speed = in_window / (now - window_began)
                    if speed < DRIP_SPEED:
                        raise Failure(Reason.STALLED)
                    if speed < self._min_speed and piece.link_does_better(speed):
                        raise Failure(Reason.TOO_SLOW)
                    window_began, in_window = now, 0
        if not left:
            return False
        here = piece.cut.start + piece.received
        if part is not None and part[1] == here > cut.start + done:
            return True
        raise Failure(Reason.CAME_SHORT)
