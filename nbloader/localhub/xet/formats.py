"""The binary forms of Xet storage: xorbs and shards.

By https://huggingface.co/docs/xet/xorb and https://huggingface.co/docs/xet/shard. All numbers are
little-endian. Nothing here is trusted: whoever uploads could claim any length.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

from nbloader.localhub.answers import WRONG_BYTE_STRIDE

CHUNK_HEADER = 8
"""Bytes before each chunk of a xorb."""

STORED = 0
"""The scheme of a chunk that is not compressed; the others, 1 and 2, are LZ4 frames."""

_SCHEMES = (STORED, 1, 2)
_CHUNK_VERSION = 0
_MAX_CHUNK = 128 << 10
_MAX_CHUNKS = 8192
_XORB_FOOTER = b"XETBLOB"

_SHARD_TAG = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")
_SHARD_VERSION = 2
_RECORD = 48
_BOOKEND = b"\xff" * 32
_WITH_VERIFICATION = 1 << 31
_WITH_SHA256 = 1 << 30

_LZ4_MAGIC_AND_FLAGS = 7
"""Magic number, two bytes of flags, and the checksum of the header."""

_LONGEST_PREFIX = 1024
"""Bytes of a chunk that hold its first literal: the length before it takes 516 at most."""


class FormatError(ValueError):
    """What was uploaded is not a xorb, or not a shard."""


@dataclass(frozen=True, slots=True)
class XorbIndex:
    """Where the chunks of a xorb are.

    Attributes:
        offsets: of the header of each chunk, bytes; the last is the end of the last chunk.
        raw_offsets: the same for the chunks without headers, decompressed.
        schemes: how each chunk is compressed.
    """

    offsets: tuple[int, ...]
    raw_offsets: tuple[int, ...]
    schemes: bytes


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a file: chunks `start` up to and without `stop` of a xorb, `length` bytes."""

    xorb: str
    length: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as a shard describes it; the hash of its content is there if the client gave it."""

    xet_hash: str
    terms: tuple[Term, ...]
    sha256: str | None


def index_xorb(file: FileIO) -> XorbIndex:
    """Read the headers of all chunks; a footer, which clients may leave out, is not looked at.

    Raises:
        FormatError: it is no xorb, or ends inside a chunk.
    """
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    offsets, raw_offsets, schemes = [0], [0], bytearray()
    while offsets[-1] < size:
        header = os.pread(descriptor, CHUNK_HEADER, offsets[-1])
        if header.startswith(_XORB_FOOTER):
            break
        if len(header) < CHUNK_HEADER or len(schemes) == _MAX_CHUNKS:
            raise FormatError("the xorb ends inside a chunk, or has too many")
        version, scheme = header[0], header[4]
        length = int.from_bytes(header[1:4], "little")
        raw_length = int.from_bytes(header[5:8], "little")
        end = offsets[-1] + CHUNK_HEADER + length
        if (
            version != _CHUNK_VERSION
            or scheme not in _SCHEMES
            or not 0 < raw_length <= _MAX_CHUNK
            or (scheme == STORED and length != raw_length)
            or end > size
        ):
            raise FormatError(f"bad chunk {len(schemes)} in the xorb")
        offsets.append(end)
        raw_offsets.append(raw_offsets[-1] + raw_length)
        schemes.append(scheme)
    if not schemes:
        raise FormatError("the xorb has no chunks")
    return XorbIndex(tuple(offsets), tuple(raw_offsets), bytes(schemes))


def read_shard(shard: bytes) -> list[FileRecord]:
    """Return the files that a shard describes.

    Raises:
        FormatError: it is no shard, or ends before its list of files does.
    """
    if shard[:32] != _SHARD_TAG or len(shard) < _RECORD:
        raise FormatError("no shard")
    if int.from_bytes(shard[32:40], "little") != _SHARD_VERSION:
        raise FormatError("a shard of another version")
    position = _RECORD

    def take() -> bytes:
        nonlocal position
        record = shard[position : position + _RECORD]
        if len(record) < _RECORD:
            raise FormatError("the shard ends in its list of files")
        position += _RECORD
        return record

    files = []
    while (header := take())[:32] != _BOOKEND:
        flags, count = struct.unpack_from("<II", header, 32)
        terms = tuple(_term(take()) for _ in range(count))
        if flags & _WITH_VERIFICATION:
            for _ in range(count):
                take()
        sha256 = _hex(take()) if flags & _WITH_SHA256 else None
        files.append(FileRecord(_hex(header), terms, sha256))
    return files


def _term(record: bytes) -> Term:
    _, length, start, stop = struct.unpack_from("<IIII", record, 32)
    return Term(_hex(record), length, start, stop)


def _hex(record: bytes) -> str:
    """Return the hash at the start of a record as Xet writes it: four numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", record))


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
    """Yield the bytes to invert of the chunk that has its content from `start` to `stop`."""
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
