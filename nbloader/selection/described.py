"""What the tensors of a file of weights are, told by a small part of it.

A selector that has to know asks for the file like for a small one (`described`). What is read
then is not the file, but this: a description that is made where the file can be read by ranges, and
that stands among what is known as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from nbloader.bounds import json_value
from nbloader.errors import UnsupportedRepoError
from nbloader.records import ComponentWeights, RepoFile, Selection
from nbloader.selection.archive import Unclear, read_archive
from nbloader.selection.gguf import NUMBERS, GgufHeader, gguf_bytes_needed, parse_gguf
from nbloader.selection.repo import Repo
from nbloader.selection.sizes import FIRST_READ_BYTES, Header, header_end, header_of, parse_header
from nbloader.selection.unpickler import Refused, Tensor, value_of
from nbloader.text import plain, quote

SAFETENSORS, GGUF, PICKLE = "safetensors", "gguf", "pickle"

_FORMATS: Mapping[str, str] = {
    ".safetensors": SAFETENSORS,
    ".sft": SAFETENSORS,
    ".gguf": GGUF,
    ".ckpt": PICKLE,
    ".pt": PICKLE,
    ".pth": PICKLE,
    ".bin": PICKLE,
}

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns the bytes of a file from an offset up to another, all of them."""


@dataclass(frozen=True, slots=True)
class DescribedTensor:
    """A tensor of the file.

    Attributes:
        dtype: by the name of its format.
        shape: in numbers, also where these are packed.
        size: bytes, as it is in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a file of weights is made of.

    Attributes:
        format: of the file: `safetensors`, `gguf` or `pickle`.
        tensors: by name.
        length: bytes that describe them.
        metadata: the short entries of a GGUF.
    """

    format: str
    tensors: Mapping[str, DescribedTensor]
    length: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by its name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def header(self, names: Iterable[str] | None = None) -> Header:
        """Sum up the tensors, or those of some names."""
        chosen = self.tensors if names is None else names
        found = [(name, self.tensors[name]) for name in chosen]
        header = header_of(((name, t.dtype, t.size, t.shape) for name, t in found), self.length)
        packed = self.format == GGUF and any(tensor.dtype not in NUMBERS for _, tensor in found)
        return replace(header, quantization=GGUF) if packed else header


def format_of(path: str) -> str | None:
    """Return the format of a file of weights by its name; None for a file of another kind."""
    dot = path.rfind(".")
    return _FORMATS.get(path[dot:].lower()) if dot >= 0 else None


def described(repo: Repo, path: str) -> Described | None:
    """Return what the tensors of a file of a repository are; None, and a note, if not known yet."""
    content = repo.family.known.get(path)
    if content is None:
        repo.family.missing.add(path)
        return None
    return read_description(content)


def describe(file: RepoFile, read: Read) -> bytes:
    """Read what describes the tensors of a file of weights, and write it down.

    Args:
        read: gives bytes of the file.

    Raises:
        MalformedFileError: the file is not what its name says.
        UnsupportedRepoError: it is of a version that nothing reads, or a pickle that holds more
            than a dictionary of tensors.
    """
    match format_of(file.path):
        case "safetensors":
            found = _of_safetensors(file, read)
        case "gguf":
            found = _of_gguf(parse_gguf(read_gguf(file, read), file))
        case _:
            found = _of_pickle(file, read)
    tensors = {name: [each.dtype, each.shape, each.size] for name, each in found.tensors.items()}
    written = {
        "format": found.format,
        "tensors": tensors,
        "length": found.length,
        "metadata": dict(found.metadata),
    }
    return json.dumps(written).encode()


def read_description(content: bytes) -> Described:
    """Read what `describe` has written."""
    written = json.loads(content)
    return Described(
        format=written["format"],
        tensors={
            name: DescribedTensor(dtype, tuple(shape), size)
            for name, (dtype, shape, size) in written["tensors"].items()
        },
        length=written["length"],
        metadata=written["metadata"],
    )


def read_gguf(file: RepoFile, read: Read) -> bytes:
    """Read a GGUF up to the end of its header.

    Raises:
        MalformedFileError, UnsupportedRepoError: as `gguf_bytes_needed` does.
    """
    start = b""
    while (end := gguf_bytes_needed(start, file)) is not None:
        start += read(len(start), end)
    return start


def _of_gguf(header: GgufHeader) -> Described:
    return Described(
        format=GGUF,
        tensors={
            each.name: DescribedTensor(each.type, each.shape, each.size) for each in header.tensors
        },
        length=header.length,
        metadata=header.metadata,
    )


def _of_safetensors(file: RepoFile, read: Read) -> Described:
    start = read(0, min(FIRST_READ_BYTES, file.size))
    end = header_end(start, file)
    if end > len(start):
        start += read(len(start), end)
    parse_header(start, file)
    entries = json_value(start[8:end])
    entries.pop("__metadata__", None)
    return Described(
        format=SAFETENSORS,
        tensors={
            name: DescribedTensor(
                entry["dtype"],
                tuple(entry["shape"]),
                entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in entries.items()
        },
        length=end,
    )


def _of_pickle(file: RepoFile, read: Read) -> Described:
    """Look through pickled weights, as deep as diffusers does: for what is under `state_dict`."""
    try:
        archive = read_archive(file.size, read)
        value = value_of(archive.content, archive.storages)
    except Refused as found:
        raise _untold(file, f"it names {quote(plain(found.name, 80))}") from None
    except Unclear as found:
        raise _untold(file, str(found)) from None
    while isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    tensors = (
        {name: item for name, item in value.items() if isinstance(name, str) and _is_tensor(item)}
        if isinstance(value, dict)
        else {}
    )
    if not tensors:
        raise _untold(file, "it holds no dictionary of tensors")
    return Described(
        format=PICKLE,
        tensors={
            name: DescribedTensor(item.dtype, tuple(item.shape), item.size)
            for name, item in tensors.items()
        },
        length=len(archive.content),
    )


def _is_tensor(value: object) -> bool:
    return type(value) is Tensor


def _untold(file: RepoFile, why: str) -> UnsupportedRepoError:
    return UnsupportedRepoError(
        f"What {quote(file.path_in_repo)} holds cannot be told without running it: {why}.",
        hint="Look for the same weights as a .safetensors file, whose header tells it.",
    )


# -- what is described already ---------------------------------------------------------------------


def described_headers(selection: Selection, known: Mapping[str, bytes]) -> dict[str, Header]:
    """Return the headers of the files of weights that were described for the selection, by path."""
    return {
        path: read_description(known[path]).header()
        for component in selection.components
        for path in component.weights
        if path in known
    }


def with_taken(
    selection: Selection, known: Mapping[str, bytes], found: Sequence[ComponentWeights]
) -> tuple[ComponentWeights, ...]:
    """Deal out the tensors of a checkpoint to the components that are taken from it.

    Args:
        known: content of the files that were read for the selection, by path.
        found: the weights of all components whose files hold any.
    """
    weights = {part.name: part for part in found}
    for component in selection.components:
        if component.checkpoint not in known:
            continue
        whole = read_description(known[component.checkpoint])
        dequantized = whole.format == GGUF and component.library == "transformers"
        names = [name for name in whole.tensors if name.startswith(component.tensors)]
        header = (_unpacked(whole) if dequantized else whole).header(names)
        if names:
            weights[component.name] = ComponentWeights(
                name=component.name,
                bytes_by_dtype=header.bytes_by_dtype,
                largest_tensor=header.largest_tensor,
                largest_block=max(header.blocks.values(), default=0),
                quantization=header.quantization,
            )
    return tuple(
        weights[component.name] for component in selection.components if component.name in weights
    )


def _unpacked(found: Described) -> Described:
    """The tensors as they are once all are made into numbers, as transformers makes them."""
    return replace(
        found,
        format=SAFETENSORS,
        tensors={
            name: tensor
            if tensor.dtype in NUMBERS
            else DescribedTensor("F32", tensor.shape, 4 * math.prod(tensor.shape))
            for name, tensor in found.tensors.items()
        },
    )
