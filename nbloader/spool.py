"""Lines of a job that wait for a cell to be written in."""

from __future__ import annotations

import io
from collections import deque
from typing import TextIO

__all__ = ["Spool"]


class Spool(io.StringIO):
    """Text that one thread writes, and that another one passes on.

    What a thread prints in a notebook goes to whichever cell runs at that moment, and to none if
    there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._texts: deque[str] = deque()

    def write(self, text: str) -> int:
        """Keep the text."""
        self._texts.append(text)
        return len(text)

    def pass_on(self, stream: TextIO) -> None:
        """Write to another stream what has been kept."""
        while self._texts:
            stream.write(self._texts.popleft())
        stream.flush()
