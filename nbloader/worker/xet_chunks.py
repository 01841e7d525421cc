"""Where the chunks of a file in Xet storage begin. Only the worker imports this.

Xet storage sends whole chunks (64 KiB in the mean, 128 KiB at most). Two neighbouring ranges that
are cut inside a chunk both fetch it: 2 % more bytes with ranges of 4 MiB, 9 % with 1 MiB (measured
on random bytes). So ranges are cut where a chunk begins, which costs a small question each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from huggingface_hub import get_session

from nbloader.limits import XET_CHUNKS_TIMEOUT_S

__all__ = ["MAX_CHUNK_BYTES", "ChunkStarts"]

MAX_CHUNK_BYTES = 128 << 10

FAILURES = 3
"""After so many in a row nothing is asked any more: it only saves bytes."""


def ask_storage(url: str, token: str, offset: int, timeout_s: float) -> Any:
    """Ask for what the byte at `offset` is made of. Raises whatever the client raises."""
    response = get_session().get(
        url,
        headers={"Authorization": f"Bearer {token}", "Range": f"bytes={offset}-{offset}"},
        timeout=timeout_s,
        follow_redirects=False,
    )
    response.raise_for_status()
    return response.json()


class ChunkStarts:
    """Finds the beginning of the chunk that holds a byte; asks once for each.

    Args:
        timeout_s: of a question.
    """

    def __init__(
        self,
        timeout_s: float = XET_CHUNKS_TIMEOUT_S,
        ask: Callable[[str, str, int, float], Any] = ask_storage,
    ) -> None:
        self._timeout_s = min(XET_CHUNKS_TIMEOUT_S, timeout_s)
        self._ask = ask
        self._known: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()
        self._failures = 0

    def before(self, cas_url: str, token: str, xet_hash: str, offset: int, size: int) -> int:
        """Give the first byte of the chunk that holds the byte at `offset`.

        Args:
            size: of the file. Its end is the end of a chunk.

        Returns:
            `offset` itself where the storage cannot tell.
        """
        if offset in (0, size):
            return offset
        with self._lock:
            known = self._known.get((xet_hash, offset))
            if known is not None or self._failures >= FAILURES:
                return offset if known is None else known
        try:
            url = f"{cas_url}/v2/reconstructions/{xet_hash}"
            answer = self._ask(url, token, offset, self._timeout_s)
            skipped = answer["offset_into_first_range"]
            told = type(skipped) is int and 0 <= skipped <= min(offset, MAX_CHUNK_BYTES)
        except Exception:
            told = False
        with self._lock:
            if not told:
                self._failures += 1
                return offset
            self._failures = 0
            # What two threads ask at once has one answer.
            start: int = offset - skipped
            self._known[xet_hash, offset] = start
            self._known[xet_hash, start] = start
            return start
