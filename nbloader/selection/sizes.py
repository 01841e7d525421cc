"""What the tensors of each component take, from as few headers as tell it.

Pure, like the selection: a caller asks `header_reads` which headers to read, reads them, asks again
until there are none, and then calls `component_weights`.

Of a sharded model one header is read. It shows the dtype; the bytes of all shards stand in their
index (`metadata.total_size`), and are believed if what the files hold beyond them can be their
headers. All headers are read only where the dtypes mix, or where the index cannot be right.

Pickled files that were looked through count by what they describe; a caller hands that in with the
headers. Of others only their size is known.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nbloader.hub_names import folder_and_name, join
from nbloader.records import Component, ComponentWeights, Selection
from nbloader.selection.headers import Header

__all__ = ["component_weights", "header_reads"]

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
        value = json.loads(content.decode()) if content is not None else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    """A number of bytes; some indexes write it with a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None
