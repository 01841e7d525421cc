"""What the tensors of each component take, from as few headers of safetensors as tell it.

The format: eight bytes with the length of the header (little endian), the header as JSON, then the
tensors without gaps. The rules are those of the safetensors library's own reader.

Pure, like the selection: a caller asks `header_reads` which headers to read, reads them, asks again
until there are none, and then calls `component_weights`.

Of a sharded model one header is read. It shows the dtype; the bytes of all shards stand in their
index (`metadata.total_size`), and are believed if what the files hold beyond them can be their
headers. All headers are read only where the dtypes mix, or where the index cannot be right.

Pickled files that were looked through count by what they describe; a caller hands that in with the
headers. Of others only their size is known.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from nbloader.bounds import MAX_HEADER_BYTES, json_value
from nbloader.hub_names import folder_and_name, join
from nbloader.records import Component, ComponentWeights, RepoFile, Selection
from nbloader.selection.repo import malformed
from nbloader.text import quote

# -- one header ------------------------------------------------------------------------------------

FIRST_READ_BYTES = 16 * 1024
"""Holds the whole header of most files; a second read brings the rest of a longer one."""

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
        shapes: sides of each tensor, by its name.
    """

    tensors: int
    bytes_by_dtype: Mapping[str, int]
    length: int
    largest_tensor: int
    blocks: Mapping[str, int]
    quantization: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)


def header_end(start: bytes, file: RepoFile) -> int:
    """Return the offset at which the header ends, from the first eight bytes of the file.

    Raises:
        MalformedFileError: the length cannot be right.
    """
    if len(start) < 8 or file.size < 8:
        raise malformed(file.path, "is too short to be a safetensors file")
    (length,) = struct.unpack_from("<Q", start)
    if length > MAX_HEADER_BYTES or 8 + length > file.size:
        raise malformed(file.path, "does not begin like a safetensors file")
    return 8 + int(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in a file.

    Attributes:
        dtype: by the format's name.
        shape: its sides.
        first, last: the bytes that it has, counted from the begin of the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def parse_header(start: bytes, file: RepoFile) -> Header:
    """Read a header and check it against the size of the file.

    Args:
        start: the file up to `header_end`, or more of it.

    Raises:
        MalformedFileError: the header is no JSON, or its offsets do not cover the file.
    """
    return header_of(
        (
            (tensor.name, tensor.dtype, tensor.last - tensor.first, tensor.shape)
            for tensor in stored_tensors(start, file)
        ),
        header_end(start, file),
    )


def stored_tensors(start: bytes, file: RepoFile) -> tuple[StoredTensor, ...]:
    """Return the tensors of a file, in the order of its header. Takes and raises as above."""
    end = header_end(start, file)
    try:
        entries = json_value(start[8:end])
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
    return tuple(
        StoredTensor(
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            first=end + first,
            last=end + last,
        )
        for (name, entry), (first, last) in zip(entries.items(), spans, strict=True)
    )


def header_of(tensors: Iterable[tuple[str, str, int, tuple[int, ...]]], length: int) -> Header:
    """Sum up the tensors of a file, each given as its name, its dtype, its bytes and its sides."""
    names: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    blocks: dict[str, int] = {}
    largest = 0
    for name, dtype, size, shape in tensors:
        names.append(name)
        shapes[name] = shape
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
        shapes=shapes,
    )


def _block(name: str) -> str | None:
    """Return the name of a tensor up to the first number in it; None if it has none."""
    parts = name.split(".")
    for count, part in enumerate(parts, 1):
        if part.isascii() and part.isdigit():
            return ".".join(parts[:count])
    return None


def _quantization(names: Iterable[str], dtypes: Iterable[str]) -> str | None:
    """Return the method of a quantization, told by what the libraries add to a model.

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
    """Return the offsets of a tensor if dtype, shape and offsets agree."""
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


# -- the weights of a component --------------------------------------------------------------------

MIXED_SHARE = 0.01
"""Of the bytes in a header: with more than that of a second dtype, the other shards may be of
either. Below it are buffers and norms, whose share is the same everywhere."""

_SPARE_BYTES = 1024
"""For what stands in a header beside its tensors: free text, spaces that fill it up."""

# How a configuration names the dtypes of torch, and the format's names of them.
_DTYPES = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_METHOD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")

Headers = Mapping[str, Header | None]


def header_reads(
    selection: Selection, known: Mapping[str, bytes], headers: Headers
) -> tuple[str, ...]:
    """The safetensors files whose headers to read next, sorted; empty when enough is known.

    Args:
        known: content of the files that were read for the selection, by path.
        headers: those that were read so far, by path; None for one that could not be read.
    """
    sizes = {file.path: file.size for file in selection.files}
    return tuple(
        sorted(
            path
            for component in selection.components
            for weights in _groups(component, known)
            for path in _reads(weights, headers, sizes)
        )
    )


def component_weights(
    selection: Selection, known: Mapping[str, bytes], headers: Headers
) -> tuple[ComponentWeights, ...]:
    """The weights of every component that has any, in the order of the selection.

    Args:
        known, headers: those of `header_reads`.

    Raises:
        ValueError: `header_reads` still asks for a header.
    """
    if missing := header_reads(selection, known, headers):
        raise ValueError(f"not read yet: {', '.join(missing)}")
    sizes = {file.path: file.size for file in selection.files}
    return tuple(
        _component(component, known, headers, sizes)
        for component in selection.components
        if component.weights
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Files that hold the tensors of one model: a single one, or the shards of an index.

    Attributes:
        paths: sorted.
        folder: where its configuration is.
        total: bytes of all tensors, as the index says; None if it does not.
        tensors: how many are in each shard, as the index says.
    """

    paths: tuple[str, ...]
    folder: str
    total: int | None = None
    tensors: Mapping[str, int] = field(default_factory=dict)

    @property
    def example(self) -> str:
        """The shard whose header is read: the first that has about as many tensors as any.

        It has the embeddings, and whole blocks; where shards are small, the very first may have
        but one large tensor.
        """
        fullest = max(self.tensors.values(), default=0)
        return next(path for path in self.paths if 2 * self.tensors.get(path, 0) >= fullest)


def _groups(component: Component, known: Mapping[str, bytes]) -> Iterator[_Group]:
    left = set(component.weights)
    for path in component.paths:
        folder, name = folder_and_name(path)
        if ".index." not in name or not name.endswith(".json"):
            continue
        index = _object(known.get(path))
        weight_map, metadata = index.get("weight_map"), index.get("metadata")
        if not isinstance(weight_map, dict):
            continue
        names = Counter(name for name in weight_map.values() if isinstance(name, str))
        tensors = {
            shard: count for name, count in names.items() if (shard := join(folder, name)) in left
        }
        if tensors:
            left -= tensors.keys()
            yield _Group(
                paths=tuple(sorted(tensors)),
                folder=folder,
                total=_count(metadata.get("total_size")) if isinstance(metadata, dict) else None,
                tensors=tensors,
            )
    for path in sorted(left):
        yield _Group(paths=(path,), folder=folder_and_name(path)[0])


def _reads(group: _Group, headers: Headers, sizes: Mapping[str, int]) -> Iterator[str]:
    if not group.example.endswith(".safetensors"):
        return
    if group.example not in headers:
        yield group.example
        return
    header = headers[group.example]
    if header is not None and _others(group, header, sizes) is None:
        yield from (
            path for path in group.paths if path not in headers and path.endswith(".safetensors")
        )


def _others(group: _Group, header: Header, sizes: Mapping[str, int]) -> tuple[int, bool] | None:
    """Bytes of the tensors in all shards but the one with `header`, and whether that is exact.

    None where only their own headers tell.
    """
    files = [path for path in group.paths if path != group.example]
    if not files:
        return 0, True
    stored = sum(header.bytes_by_dtype.values())
    main = max(header.bytes_by_dtype.values(), default=0)
    if header.tensors != group.tensors[group.example] or stored - main > MIXED_SHARE * stored:
        return None
    size = sum(sizes[path] for path in files)
    by_tensor = header.length / header.tensors
    expected = round(by_tensor * sum(group.tensors[path] for path in files))
    if group.total is None:
        return max(0, size - expected), False
    bytes_left = group.total - stored
    spare = _SPARE_BYTES * len(files)
    if not 0 <= bytes_left <= size or not (
        expected // 2 - spare <= size - bytes_left <= 2 * expected + spare
    ):
        return None
    return bytes_left, True


def _component(
    component: Component, known: Mapping[str, bytes], headers: Headers, sizes: Mapping[str, int]
) -> ComponentWeights:
    found = [
        _weights(group, component, known, headers, sizes) for group in _groups(component, known)
    ]
    total: Counter[str] = Counter()
    for weights in found:
        total.update(weights.bytes_by_dtype)
    return ComponentWeights(
        name=component.name,
        bytes_by_dtype=dict(total),
        largest_tensor=max(weights.largest_tensor for weights in found),
        largest_block=max(weights.largest_block for weights in found),
        quantization=next((w.quantization for w in found if w.quantization), None),
        counted=all(weights.counted for weights in found),
    )


def _weights(
    group: _Group,
    component: Component,
    known: Mapping[str, bytes],
    headers: Headers,
    sizes: Mapping[str, int],
) -> ComponentWeights:
    """The weights of one model."""
    path = join(group.folder, "config.json")
    config = _object(known.get(path)) if path in component.paths else {}
    by_dtype: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    read = {path: header for path in group.paths if (header := headers.get(path))}
    for header in read.values():
        by_dtype.update(header.bytes_by_dtype)
        blocks.update(header.blocks)
    counted = True
    if len(read) < len(group.paths):
        example = read.get(group.example)
        others = _others(group, example, sizes) if example else None
        if others is None:
            others = sum(sizes[path] for path in group.paths if path not in read), False
        size, counted = others
        main = max(by_dtype, key=by_dtype.__getitem__, default=_dtype(config))
        by_dtype[main] += size
    return ComponentWeights(
        name=component.name,
        bytes_by_dtype=by_dtype,
        largest_tensor=max((header.largest_tensor for header in read.values()), default=0),
        largest_block=max(blocks.values(), default=0),
        quantization=_method(config)
        or next((h.quantization for h in read.values() if h.quantization), None),
        counted=counted,
    )


def _dtype(config: Mapping[str, object]) -> str:
    """The dtype of weights whose files do not say it, by the format's name."""
    for key in ("dtype", "torch_dtype"):
        name = config.get(key)
        if isinstance(name, str) and (dtype := _DTYPES.get(name.removeprefix("torch."))):
            return dtype
    return "F32"


def _method(config: Mapping[str, object]) -> str | None:
    """The method that the weights are quantized with, as the configuration names it."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return None
    method = quantization.get("quant_method")
    if isinstance(method, str) and _METHOD.fullmatch(method.lower()):
        return method.lower()
    # The oldest configurations of bitsandbytes name no method.
    old = quantization.get("load_in_4bit") is True or quantization.get("load_in_8bit") is True
    return "bitsandbytes" if old else None


def _object(content: bytes | None) -> Mapping[str, object]:
    """The JSON object in a small file; an empty one where there is none."""
    try:
        value = json_value(content) if content is not None else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    """A number of bytes; some indexes write it with a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None
