"""GGUF files written by hand, byte for byte as the format says, and wrong ones at will."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbloader.records import RepoFile
from nbloader.selection.gguf import TYPES

NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}
FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9


@dataclass(frozen=True)
class Typed:
    """A value with the format's number of its type; a list has the type of what is in it."""

    type: int
    value: object


def text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(raw)) + raw


def value_of(value: object) -> bytes:
    """An entry's type and value."""
    if isinstance(value, Typed):
        if isinstance(value.value, list):
            content = [bare(value.type, each) for each in value.value]
            return struct.pack("<IIQ", LIST, value.type, len(content)) + b"".join(content)
        return struct.pack("<I", value.type) + bare(value.type, value.value)
    match value:
        case str():
            return value_of(Typed(TEXT, value))
        case bool():
            return value_of(Typed(7, value))
        case int():
            return value_of(Typed(4, value))
        case float():
            return value_of(Typed(6, value))
        case list():
            return value_of(Typed(TEXT, value))
    raise TypeError(value)


def bare(kind: int, value: object) -> bytes:
    if kind == TEXT:
        assert isinstance(value, str)
        return text(value)
    return struct.pack(f"<{FORMS[kind]}", value)


def entry(key: str, value: object) -> bytes:
    return text(key) + value_of(value)


def described(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    sides = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + sides + struct.pack("<IQ", kind, offset)


def size_of(shape: Sequence[int], type_name: str) -> int:
    _, numbers, size = TYPES[NUMBERS[type_name]]
    return math.prod(shape) // numbers * size


def opening(tensors: int, entries: int, *, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, entries)


def gguf_file(
    metadata: Mapping[str, object],
    tensors: Mapping[str, tuple[str, Sequence[int], bytes | None]] | None = None,
    *,
    alignment: int = 32,
    version: int = 3,
) -> bytes:
    """A whole file. Each tensor is its type, its shape in the order of torch, and its bytes."""
    tensors = tensors or {}
    described_, content = b"", b""
    for name, (type_name, shape, data) in tensors.items():
        described_ += described(name, shape, NUMBERS[type_name], len(content))
        data = bytes(size_of(shape, type_name)) if data is None else data
        content += data + bytes(-len(data) % alignment)
    head = opening(len(tensors), len(metadata), version=version)
    head += b"".join(entry(key, value) for key, value in metadata.items()) + described_
    return head + bytes(-len(head) % alignment) + content


def file_of(content: bytes, path: str = "model.gguf") -> RepoFile:
    return RepoFile(path=path, size=len(content), etag="0" * 64, lfs=True)
