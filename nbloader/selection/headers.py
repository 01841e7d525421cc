"""The header of a safetensors file: where its tensors lie, and whether that can be right.

The format: eight bytes with the length of the header (little endian), the header as JSON, then the
tensors without gaps. The rules are those of the safetensors library's own reader.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nbloader.quoting import quote
from nbloader.records import RepoFile
from nbloader.selection._repo import malformed

__all__ = ["FIRST_READ_BYTES", "Header", "header_end", "header_of", "parse_header"]

FIRST_READ_BYTES = 16 * 1024
"""Holds the whole header of most files; a second read brings the rest of a longer one."""

MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer headers."""

# Bits of an element, by the format's names.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


_MAX_SIDES = 32
"""More dimensions than any tensor has; bounds the work on a hostile shape."""

_DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,19}")
_MAX_DTYPES = 64
"""Three times as many as the format has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a header says. All sizes are bytes.

    Attributes:
        tensors: how many there are.
        bytes_by_dtype: size of all tensors of a dtype, by the format's name of it.
        length: of the header itself, the eight bytes before it included.
        largest_tensor: size of the largest; 0 if there is none.
        blocks: size of all tensors of a block; a block is what has the same name up to its first
            number, such as `transformer_blocks.12`.
        quantization: the method that the names and dtypes show, such as `gptq`; None if none.
    """

    tensors: int
    bytes_by_dtype: Mapping[str, int]
    length: int
    largest_tensor: int
    blocks: Mapping[str, int]
    quantization: str | None = None


def header_end(start: bytes, file: RepoFile) -> int:
    """Give the offset at which the header ends, from the first eight bytes of the file.

    Raises:
        MalformedFileError: the length cannot be right.
    """
    if len(start) < 8 or file.size < 8:
        raise malformed(file.path, "is too short to be a safetensors file")
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_HEADER_BYTES or 8 + length > file.size:
        raise malformed(file.path, "does not begin like a safetensors file")
    return 8 + int(length)


def parse_header(start: bytes, file: RepoFile) -> Header:
    """Read a header and check it against the size of the file.

    Args:
        start: the file up to `header_end`, or more of it.

    Raises:
        MalformedFileError: the header is no JSON, or its offsets do not cover the file.
    """
    end = header_end(start, file)
    try:
        entries = json.loads(start[8:end])
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        raise malformed(file.path, "has a header that cannot be read")
    entries.pop("__metadata__", None)
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        span = _span(entry)
        if span is None:
            raise malformed(file.path, f"describes the tensor {quote(name)} wrongly")
        spans.append(span)
    dtypes = len({entry["dtype"] for entry in entries.values()})
    if dtypes > _MAX_DTYPES:
        raise malformed(file.path, f"has tensors of {dtypes} dtypes")
    position = 0
    for first, last in sorted(spans):
        if first != position:
            raise malformed(file.path, "has gaps or overlaps between its tensors")
        position = last
    if end + position != file.size:
        raise malformed(file.path, f"should have {end + position} bytes, but has {file.size}")
    return header_of(
        (
            (name, entry["dtype"], last - first)
            for (name, entry), (first, last) in zip(entries.items(), spans, strict=True)
        ),
        end,
    )


def header_of(tensors: Iterable[tuple[str, str, int]], length: int) -> Header:
    """Sum up the tensors of a file, each given as its name, its dtype and its bytes."""
    names: list[str] = []
    sizes: dict[str, int] = {}
    blocks: dict[str, int] = {}
    largest = 0
    for name, dtype, size in tensors:
        names.append(name)
        largest = max(largest, size)
        sizes[dtype] = sizes.get(dtype, 0) + size
        if block := _block(name):
            blocks[block] = blocks.get(block, 0) + size
    return Header(
        tensors=len(names),
        bytes_by_dtype=sizes,
        length=length,
        largest_tensor=largest,
        blocks=blocks,
        quantization=_quantization(names, sizes),
    )


def _block(name: str) -> str | None:
    """Give the name of a tensor up to the first number in it; None if it has none."""
    parts = name.split(".")
    for count, part in enumerate(parts, 1):
        if part.isascii() and part.isdigit():
            return ".".join(parts[:count])
    return None


def _quantization(names: Iterable[str], dtypes: Iterable[str]) -> str | None:
    """Tell by what the libraries that quantize add to a model.

    bitsandbytes: `<weight>.absmax`, `<weight>.quant_state.bitsandbytes__nf4` (4-bit) and `SCB`
    (8-bit). GPTQ and AWQ: `qweight` with `qzeros`, and GPTQ also `g_idx`.
    """
    ends: set[str] = set()
    for name in names:
        ends.add(name.rpartition(".")[2])
        if ".quant_state.bitsandbytes__" in name:
            return "bitsandbytes"
    if not ends.isdisjoint(("absmax", "SCB")):
        return "bitsandbytes"
    if {"qweight", "qzeros"} <= ends:
        return "gptq" if "g_idx" in ends else "awq"
    return "fp8" if any(dtype.startswith("F8_") for dtype in dtypes) else None


def _span(entry: object) -> tuple[int, int] | None:
    """Give the offsets of a tensor if dtype, shape and offsets agree."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(first), int(last)]}:
            pass
        case _:
            return None
    if not 0 <= first <= last or not all(type(side) is int and side >= 0 for side in shape):
        return None
    if not _DTYPE.fullmatch(dtype):
        return None
    # A dtype of tomorrow has a size that is not known here, but an order that still is.
    if dtype in _BITS and _BITS[dtype] * math.prod(shape[:_MAX_SIDES]) != 8 * (last - first):
        return None
    return first, last
