"""The binary forms of Xet storage: xorbs and shards.

By https://huggingface.co/docs/xet/xorb and https://huggingface.co/docs/xet/shard. All numbers are
little-endian. Nothing here is trusted: whoever uploads could claim any length.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import FileIO

__all__ = [
    "CHUNK_HEADER",
    "STORED",
    "FileRecord",
    "FormatError",
    "Term",
    "XorbIndex",
    "index_xorb",
    "read_shard",
]

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
