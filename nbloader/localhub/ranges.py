"""The Range and If-Range headers, by RFC 9110 sections 13.1.5 and 14."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ByteRange", "UnsatisfiableRangeError", "select_range"]

_SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


class UnsatisfiableRangeError(ValueError):
    """The range lies past the end; the answer is 416."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to and without `stop`; `partial` if the answer is a 206."""

    start: int
    stop: int
    partial: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


def select_range(size: int, etag: str, range_: str | None, if_range: str | None) -> ByteRange:
    """Return the bytes to send of a file with `size` bytes and the (quoted) `etag`.

    A header that is malformed or names several ranges is ignored, and so is one whose If-Range
    names another version.

    Raises:
        UnsatisfiableRangeError: no byte of the file is in the range.
    """
    whole = ByteRange(0, size)
    if range_ is None or (if_range is not None and if_range != etag):
        return whole
    match = _SINGLE_RANGE.fullmatch(range_.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return whole
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return whole
    if start >= size:
        raise UnsatisfiableRangeError(f"{range_} of {size} bytes")
    return ByteRange(start, stop, partial=True)
