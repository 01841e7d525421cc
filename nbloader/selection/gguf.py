"""The header of a GGUF file: what the file holds, told by its first bytes.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a signature, a
version, the numbers of tensors and of entries, the entries (among them the architecture and the
vocabulary), a description of each tensor, and behind a gap that aligns them the tensors. Nothing
says how long the header is, so a caller reads a little, asks `gguf_bytes_needed` how far to read,
and so on until it asks for no more; then `parse_gguf` tells what is in it.

The readers are those of diffusers, transformers and the package `gguf`. What two of them could see
differently is refused here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from nbloader.errors import UnsupportedRepoError
from nbloader.records import RepoFile
from nbloader.selection.repo import malformed
from nbloader.text import quote

FIRST_GGUF_BYTES = 64 * 1024
"""Holds the header of a model that makes pictures; that of a language model has its vocabulary."""

MAX_GGUF_HEADER_BYTES = 100_000_000
"""A vocabulary of 260,000 tokens with its merges takes some ten million."""

_GROWTH = 4
"""How many times as much is read with each round."""

_MAX_ENTRIES = 10_000
_MAX_TENSORS = 100_000
_MAX_ITEMS = 4_000_000
"""Texts in all lists together; the largest vocabularies have not a fourth of it."""

_MAX_KEY_BYTES = 65_535
"""By the format."""

_MAX_NAME_BYTES = 1024
_MAX_TEXT_BYTES = 4096
"""Longer texts (templates, licences) are passed over."""

_MAX_SIDES = 8
"""The format allows four; video models have had five."""

_MAX_ALIGNMENT = 1 << 16

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)

_MAX_TYPES = 64
"""Twice as many as the format has."""

_VERSIONS = (2, 3)
"""Those that diffusers and transformers read."""

# The blocks of each type, as `GGML_QUANT_SIZES` of the package `gguf` (0.19) has them: name,
# numbers in a block, bytes of a block. A test compares them.
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

_STRING, _ARRAY = 8, 9

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Values of a fixed width, by the format's number of their type."""

_U32, _U64 = _SCALARS[4], _SCALARS[10]
_COUNTS = struct.Struct("<IQQ")
_PLACE = struct.Struct("<IQ")

Value: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of the file.

    Attributes:
        shape: in the order of torch, the side that lies together last; in numbers, not in bytes.
        type: the format's name of what it is made of, such as `Q4_K`.
        size: bytes.
        offset: from the end of the header.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    size: int
    offset: int

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a header says.

    Attributes:
        version: of the format.
        architecture: what the file says that the model is, such as `llama` or `flux`.
        tensors: in the order of the file.
        length: of the header, the gap behind it included; bytes.
        metadata: the entries that hold one number or a short text, by their keys; of a list, how
            long it is.
    """

    version: int
    architecture: str
    tensors: tuple[GgufTensor, ...]
    length: int
    metadata: Mapping[str, Value]

    @property
    def name(self) -> str:
        """What the file calls the model; empty if it does not."""
        value = self.metadata.get("general.name")
        return value if isinstance(value, str) else ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by its name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """Size of all tensors of a type, by the format's name of it."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
        return sizes


NUMBERS = frozenset(name for name, numbers, _ in TYPES.values() if numbers == 1)
"""Types that are no blocks."""


def gguf_bytes_needed(start: bytes, file: RepoFile) -> int | None:
    """Return up to which offset the file has to be read; None once the header is whole.

    Args:
        start: the first bytes of the file, perhaps none.

    Raises:
        MalformedFileError: it is no GGUF, or says something impossible.
        UnsupportedRepoError: it is of a version that no library reads.
    """
    try:
        _parsed(start, file)
    except _TooShort as short:
        wanted = max(short.end, FIRST_GGUF_BYTES, _GROWTH * len(start))
        return min(wanted, file.size, MAX_GGUF_HEADER_BYTES)
    return None


def parse_gguf(start: bytes, file: RepoFile) -> GgufHeader:
    """Read a header and check it against the size of the file.

    Args:
        start: the file up to where `gguf_bytes_needed` asks for no more, or more of it.

    Raises:
        MalformedFileError, UnsupportedRepoError: as `gguf_bytes_needed` does.
        ValueError: `gguf_bytes_needed` still asks for more.
    """
    try:
        return _parsed(start, file)
    except _TooShort as short:
        raise ValueError(f"{file.path} is read up to {len(start)}, not to {short.end}") from None


class _TooShort(Exception):  # noqa: N818 - no fault of the file: more of it has to be read
    """The header goes on; `end` is the offset up to which is known that it does."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end


@dataclass(slots=True)
class _Reader:
    """Reads one thing after the other."""

    content: bytes
    file: RepoFile
    position: int = 0
    items: int = field(default=0)

    def wrong(self, what: str) -> NoReturn:
        raise malformed(self.file.path, what)

    def need(self, count: int) -> None:
        end = self.position + count
        if end > self.file.size:
            self.wrong("ends within its own header")
        if end > MAX_GGUF_HEADER_BYTES:
            self.wrong("has too long a header")
        if end > len(self.content):
            raise _TooShort(end)

    def number(self, form: struct.Struct) -> int:
        return int(self.value(form))

    def value(self, form: struct.Struct) -> int | float | bool:
        self.need(form.size)
        (found,) = form.unpack_from(self.content, self.position)
        self.position += form.size
        assert isinstance(found, (int, float))
        return found

    def text(self, most: int, what: str) -> str:
        """Read a text that names something."""
        length = self.number(_U64)
        if length > most:
            self.wrong(f"has {what} of {length} bytes")
        self.need(length)
        raw = self.content[self.position : self.position + length]
        self.position += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.wrong(f"has {what} that is not UTF-8")

    def long_text(self) -> str | None:
        """Read a text; None for one that is too long to be of use here."""
        length = self.number(_U64)
        self.need(length)
        raw = self.content[self.position : self.position + length]
        self.position += length
        return raw.decode("utf-8", "replace") if length <= _MAX_TEXT_BYTES else None

    def pass_texts(self, count: int) -> None:
        """Pass over a list of texts."""
        self.items += count
        if self.items > _MAX_ITEMS:
            self.wrong("has too many texts in its lists")
        self.need(_U64.size * count)
        for _ in range(count):
            length = self.number(_U64)
            self.need(length)
            self.position += length


def _parsed(start: bytes, file: RepoFile) -> GgufHeader:
    reader = _Reader(start, file)
    version, tensors, entries = _opening(reader)
    metadata = _metadata(reader, entries)
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        reader.wrong("does not say of which architecture it is (general.architecture)")
    alignment = _alignment(reader, metadata)
    described = [_description(reader) for _ in range(tensors)]
    length = -(-reader.position // alignment) * alignment
    found = tuple(_tensors(reader, described, length, alignment))
    return GgufHeader(
        version=version,
        architecture=architecture,
        tensors=found,
        length=length,
        metadata=metadata,
    )


def _opening(reader: _Reader) -> tuple[int, int, int]:
    """Read the version and the two counts."""
    if reader.file.size < 4 + _COUNTS.size or not b"GGUF".startswith(reader.content[:4]):
        reader.wrong("does not begin like a GGUF file")
    reader.need(4 + _COUNTS.size)
    if reader.content[:4] != b"GGUF":
        reader.wrong("does not begin like a GGUF file")
    version, tensors, entries = _COUNTS.unpack_from(reader.content, 4)
    reader.position = 4 + _COUNTS.size
    if version & 0xFFFF == 0:
        raise _unreadable(reader.file, "in the order of bytes of other machines (big-endian)")
    if version not in _VERSIONS:
        raise _unreadable(reader.file, f"of version {version} of the format")
    if tensors > _MAX_TENSORS or entries > _MAX_ENTRIES:
        reader.wrong(f"says that it has {tensors} tensors and {entries} entries")
    return version, tensors, entries


def _unreadable(file: RepoFile, what: str) -> UnsupportedRepoError:
    return UnsupportedRepoError(
        f"The file {quote(file.path_in_repo)} is a GGUF {what}, which diffusers and transformers "
        "cannot read.",
        hint="Look for a newer file of the same model: they read versions 2 and 3.",
    )


def _metadata(reader: _Reader, entries: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    keys: set[str] = set()
    for _ in range(entries):
        key = reader.text(_MAX_KEY_BYTES, "a key")
        if key in keys:
            reader.wrong(f"has the entry {quote(key)} twice")
        keys.add(key)
        kind = reader.number(_U32)
        value: Value | None
        if kind == _STRING:
            value = reader.long_text()
        elif kind == _ARRAY:
            value = _list(reader, key)
        elif (form := _SCALARS.get(kind)) is not None:
            value = reader.value(form)
        else:
            reader.wrong(f"has the entry {quote(key)}, which is of no type of the format")
        if value is not None:
            metadata[key] = value
    return metadata


def _list(reader: _Reader, key: str) -> int:
    """Pass over a list, and say how long it is."""
    kind = reader.number(_U32)
    count = reader.number(_U64)
    if kind == _STRING:
        reader.pass_texts(count)
    elif (form := _SCALARS.get(kind)) is not None:
        reader.need(form.size * count)
        reader.position += form.size * count
    else:
        # Lists of lists are in the format, but in no file, and transformers refuses them.
        reader.wrong(f"has the entry {quote(key)}, a list of no type that is read")
    return count


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if (
        type(alignment) is not int
        or not 0 < alignment <= _MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        reader.wrong("has an alignment (general.alignment) that is no power of two")
    return alignment


_Described: TypeAlias = tuple[str, tuple[int, ...], int, int]
"""Name, sides in the order of torch, number of the type, and offset."""


def _description(reader: _Reader) -> _Described:
    name = reader.text(_MAX_NAME_BYTES, "the name of a tensor")
    count = reader.number(_U32)
    if count > _MAX_SIDES:
        reader.wrong(f"describes the tensor {quote(name)} with {count} dimensions")
    sides = [reader.number(_U64) for _ in range(count)]
    reader.need(_PLACE.size)
    kind, offset = _PLACE.unpack_from(reader.content, reader.position)
    reader.position += _PLACE.size
    return name, tuple(reversed(sides)), kind, offset


def _tensors(
    reader: _Reader, described: list[_Described], length: int, alignment: int
) -> list[GgufTensor]:
    """Give each tensor its size, once all are seen to lie in the file and not in each other.

    Of a type of tomorrow the size is what lies before the next tensor.
    """
    room = reader.file.size - length
    if len({kind for *_, kind, _ in described}) > _MAX_TYPES:
        reader.wrong("has tensors of too many types")
    ends = _ends(described, max(0, room))
    taken: set[int] = set()
    found: list[GgufTensor] = []
    names: set[str] = set()
    for (name, shape, kind, offset), end in zip(described, ends, strict=True):
        if name in names:
            reader.wrong(f"has the tensor {quote(name)} twice")
        names.add(name)
        type_, numbers, size_of_block = TYPES.get(kind, (f"GGML_{kind}", 0, 0))
        if numbers:
            if (shape[-1] if shape else 1) % numbers:
                reader.wrong(f"describes the tensor {quote(name)} wrongly")
            size = math.prod(shape) // numbers * size_of_block
        else:
            size = end - offset
        if offset % alignment or size < 0:
            reader.wrong(f"describes the tensor {quote(name)} wrongly")
        if offset + size > room:
            reader.wrong(
                f"should have at least {length + offset + size} bytes, but has {reader.file.size}"
            )
        if size and (offset + size > end or offset in taken):
            reader.wrong("has overlaps between its tensors")
        if size:
            taken.add(offset)
        found.append(GgufTensor(name, shape, type_, size, offset))
    return found


def _ends(described: list[_Described], room: int) -> list[int]:
    """Return for each tensor where the next one begins, in the order that they are described in."""
    starts = sorted({offset for *_, offset in described})
    following = dict(zip(starts, [*starts[1:], room], strict=False))
    return [following[offset] for *_, offset in described]
