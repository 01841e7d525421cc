"""Wrong bytes in a xorb that leave its chunks readable, so that only a hash shows them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from io import FileIO

from nbloader.localhub.faults import WRONG_BYTE_STRIDE
from nbloader.localhub.xet.formats import CHUNK_HEADER, STORED, XorbIndex

__all__ = ["damage"]

_LZ4_MAGIC_AND_FLAGS = 7
"""Magic number, two bytes of flags, and the checksum of the header."""

_LONGEST_PREFIX = 1024
"""Bytes of a chunk that hold its first literal: the length before it takes 516 at most."""


def damage(file: FileIO, index: XorbIndex, data: bytes, offset: int) -> bytes:
    """Return `data`, which stands at `offset` of the xorb, with some bytes inverted.

    Of a chunk that is stored as it is, every KiB has a wrong byte. Of an LZ4 chunk, the first
    literal is wrong, and so is what the chunk copies from it: another byte could make the chunk
    unreadable. Headers and lengths stay right.
    """
    wrong = bytearray(data)
    end = offset + len(data)
    number = max(0, bisect_right(index.offsets, offset) - 1)
    while number < len(index.schemes) and index.offsets[number] < end:
        start, stop = index.offsets[number] + CHUNK_HEADER, index.offsets[number + 1]
        for position in _positions(file, index.schemes[number], start, stop):
            if offset <= position < end:
                wrong[position - offset] ^= 0xFF
        number += 1
    return bytes(wrong)


def _positions(file: FileIO, scheme: int, start: int, stop: int) -> Iterator[int]:
    """Give the bytes to invert of the chunk that has its content from `start` to `stop`."""
    if scheme == STORED:
        yield from range(start, stop, WRONG_BYTE_STRIDE)
        return
    literal = _first_literal(os.pread(file.fileno(), _LONGEST_PREFIX, start))
    if literal is not None and start + literal < stop:
        yield start + literal


def _first_literal(frame: bytes) -> int | None:
    """Return where the first byte that is no control stands in an LZ4 frame.

    https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md. None for a
    frame with checksums of its content, in which nothing can be changed unnoticed.
    """
    if len(frame) < _LZ4_MAGIC_AND_FLAGS:
        return None
    flags = frame[4]
    if flags & 0b1_0100:  # checksums of the blocks, or of the content
        return None
    position = _LZ4_MAGIC_AND_FLAGS + (8 if flags & 0b1000 else 0) + (4 if flags & 1 else 0)
    block_size = int.from_bytes(frame[position : position + 4], "little")
    position += 4
    if block_size >> 31:  # this block is not compressed
        return position
    literals = frame[position] >> 4 if position < len(frame) else 0
    position += 1
    if literals == 15:
        while position < len(frame) and frame[position] == 0xFF:
            position += 1
        position += 1
    return position if literals else None
