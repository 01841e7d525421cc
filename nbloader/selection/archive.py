"""The zip that `torch.save` writes: where its pickle and its storages lie, told by its directory.

The format is PKWARE's APPNOTE (4.3.12 to 4.3.16, and 4.5.3 for more than 4 GB or 65,535 entries).
torch reads it with miniz (`caffe2/serialize/inline_container.cc`), which is lenient: it looks for
the end of the directory anywhere in the last 64 KiB, ignores the case of names, and believes the
directory where a local header says otherwise. What two readers could see differently is refused
here, so that the bytes that are looked at are the bytes that torch will read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns the bytes of a file from an offset up to another, all of them."""

FIRST_READ_BYTES = 16 * 1024
"""From the end of the file: the whole directory of a model with some two hundred tensors."""

MAX_DIRECTORY_BYTES = 8 << 20
"""Room for some 100,000 tensors."""

MAX_PICKLE_BYTES = 16 << 20
"""Room for the description of as many; that of a large model takes some 500 kB."""

_SPARE_BYTES = 192
"""For what aligns the content behind a local header; torch's default fills up to 64 bytes."""

_ALIGNMENT = 64

_MAX_RECORDS = 16
_MAX_RECORD_BYTES = 1024
"""Of what is beside the pickle and the storages: `version`, `byteorder` and the like."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_LOCAL_SIGNATURE = b"PK\3\4"
_IN_64_BITS = 0xFFFFFFFF
_ODD_FLAGS = 0x2061  # encrypted, patched, or with a hidden directory
_FOLDER = 0x10  # among the attributes that come from DOS
_SIZES_BEHIND = 0x0008  # the sizes stand in a descriptor behind the content


class Unclear(Exception):  # noqa: N818 - no fault of the program, but an answer
    """What the file holds is not understood, or could be read in two ways. Its text says why.

    Attributes:
        format: what the file is instead, where that can be told.
    """

    def __init__(self, why: str, *, format: str = "zip") -> None:  # noqa: A002 - what it is
        super().__init__(why)
        self.format = format


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    offset: int
    size: int
    flags: int


@dataclass(frozen=True, slots=True)
class Archive:
    """What is in the zip.

    Attributes:
        content: of `data.pkl`.
        storages: bytes of each storage, by its key.
        root: the folder that holds everything.
        entries: what the directory lists.
        ends: the offset at which each ends at the latest, by its name.
        directory: the offset of the directory.
    """

    content: bytes
    storages: Mapping[str, int]
    root: str
    entries: tuple[_Entry, ...]
    ends: Mapping[str, int]
    directory: int


# Beside what a dictionary of tensors has. The code is compressed.
_SCRIPT = re.compile(r"^[^/]+/(constants\.pkl$|code/)")


def read_archive(size: int, read: Read) -> Archive:
    """Read the directory and the pickle of an archive of torch.

    Args:
        size: of the file.

    Raises:
        Unclear: it is none, or not as torch writes it.
    """
    entries, directory = _entries(size, read)
    root = entries[0].name.partition("/")[0]
    names = {entry.name for entry in entries}
    if len({name.lower() for name in names}) < len(entries):
        raise Unclear("its zip has two files of one name")
    if any(not name.startswith(f"{root}/") for name in names):
        raise Unclear("its zip has files outside the folder that torch reads")
    if any(_SCRIPT.search(name) for name in names):
        raise Unclear("it is a TorchScript archive", format="TorchScript")
    if [name for name in names if name.lower().endswith("/data.pkl")] != [f"{root}/data.pkl"]:
        raise Unclear("its zip has no data.pkl in the one place where it belongs")
    if names.isdisjoint((f"{root}/version", f"{root}/.data/version")):
        raise Unclear("its zip has no version, without which torch does not load it")
    ends = _ends(entries, directory)
    (pickle,) = (entry for entry in entries if entry.name == f"{root}/data.pkl")
    if entries[0].offset and read(0, 4) != _LOCAL_SIGNATURE:
        raise Unclear("it does not begin like a zip")
    content = _content(pickle, ends[pickle.name], read)
    prefix = f"{root}/data/"
    return Archive(
        content,
        {e.name.removeprefix(prefix): e.size for e in entries if e.name.startswith(prefix)},
        root,
        tuple(entries),
        ends,
        directory,
    )


def outline(archive: Archive, size: int, read: Read) -> dict[int, bytes]:
    """Return the parts of an archive, by their offsets, that it takes beside its storages.

    With zeros between them, they are an archive of the same tensors, all of zeros.

    Args:
        size: of the file.

    Raises:
        Unclear: it has more than torch writes.
    """
    storages = f"{archive.root}/data/"
    pickle = f"{archive.root}/data.pkl"
    small = [e for e in archive.entries if e.name != pickle and not e.name.startswith(storages)]
    if len(small) > _MAX_RECORDS or any(entry.size > _MAX_RECORD_BYTES for entry in small):
        raise Unclear("its zip has files that torch does not write")
    contents = {e.name: _content(e, archive.ends[e.name], read) if e.size else b"" for e in small}
    contents[pickle] = archive.content
    parts = {archive.directory: read(archive.directory, size)}
    for entry in archive.entries:
        name = entry.name.encode()
        start = entry.offset + _LOCAL.size + len(name)
        # As torch aligns them, so that they can be mapped; what fills up is not read here.
        gap = -start % _ALIGNMENT
        if start + gap + entry.size > archive.ends[entry.name]:
            gap = 0
        numbers = (45, entry.flags, 0, 0, 0, 0, entry.size, entry.size, len(name), gap)
        sized = (min(each, _IN_64_BITS) for each in numbers)
        content = contents.get(entry.name)
        parts[entry.offset] = _LOCAL.pack(_LOCAL_SIGNATURE, *sized) + name
        if content:
            parts[start + gap] = content
    return parts


def _entries(size: int, read: Read) -> tuple[list[_Entry], int]:
    """Return what the directory lists, in the order of the file, and where the directory begins."""
    first = max(0, size - FIRST_READ_BYTES)
    tail = read(first, size) if size else b""
    found = _end(tail, first, size)
    if found is None:
        raise _no_archive(size, read)
    count, start, end = found
    if end - start > MAX_DIRECTORY_BYTES or not 0 < count * _ENTRY.size <= end - start:
        raise Unclear("the directory of its zip has an impossible size")
    content = tail[max(0, start - first) : end - first]
    if start < first:
        content = read(start, min(end, first)) + content
    entries = []
    position = 0
    for _ in range(count):
        entry, position = _entry(content, position)
        entries.append(entry)
    if position != len(content):
        raise Unclear("the directory of its zip has an impossible size")
    return entries, start


def _end(tail: bytes, first: int, size: int) -> tuple[int, int, int] | None:
    """Return the number of entries, and where the directory begins and ends; None if it is no zip.

    A comment behind it is refused, as torch writes none: in a comment, another end can hide.
    """
    at = len(tail) - _END.size
    if at < 0:
        return None
    signature, disk, disk_2, here, count, length, start, comment = _END.unpack_from(tail, at)
    if signature != b"PK\5\6" or comment:
        return None
    end = size - _END.size
    odd = any((disk, disk_2, count - here))
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size :].startswith(b"PK\6\7"):
        _, disk, start, disks = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        end = first + at - _LOCATOR.size - _END_64.size
        if start != end or end < first or disk or disks != 1:
            raise Unclear("the directory of its zip is not where torch writes it")
        signature, _, _, _, disk, disk_2, here, count, length, start = _END_64.unpack_from(
            tail, end - first
        )
        odd = signature != b"PK\6\6" or any((disk, disk_2, count - here))
    if odd or start + length != end:
        raise Unclear("the directory of its zip is not where torch writes it")
    return count, start, end


def _entry(content: bytes, position: int) -> tuple[_Entry, int]:
    """Read an entry of the directory; gives where the next one begins, too."""
    if position + _ENTRY.size > len(content):
        raise Unclear("the directory of its zip ends too early")
    signature, _, _, flags, method, _, _, _, packed, size, *lengths, disk, _, kind, offset = (
        _ENTRY.unpack_from(content, position)
    )
    name_at = position + _ENTRY.size
    extra_at = name_at + lengths[0]
    end = extra_at + lengths[1] + lengths[2]
    if signature != b"PK\1\2" or end > len(content) or disk:
        raise Unclear("an entry in the directory of its zip cannot be read")
    name = _name(content[name_at:extra_at])
    if _IN_64_BITS in (packed, size, offset):
        extra = content[extra_at : extra_at + lengths[1]]
        size, packed, offset = _in_64_bits(extra, [size, packed, offset])
    if method and _SCRIPT.search(name):
        raise Unclear("it is a TorchScript archive", format="TorchScript")
    if method or packed != size or flags & _ODD_FLAGS:
        raise Unclear("its zip is compressed or encrypted, which torch does not write")
    if name.endswith("/") != bool(kind & _FOLDER) or (size and kind & _FOLDER):
        # miniz reads nothing of a folder, and torch would go on with what is in memory.
        raise Unclear("its zip has a file that is said to be a folder")
    return _Entry(name, offset, size, flags), end


def _name(raw: bytes) -> str:
    """Return a name that cannot mean anything else to another reader."""
    if not raw.isascii() or not (name := raw.decode()).isprintable() or "\\" in name:
        raise Unclear("its zip has a file with an odd name")
    folders = name.removesuffix("/").split("/")
    if "/" not in name or not {"", ".", ".."}.isdisjoint(folders):
        raise Unclear("its zip has a file outside its folder")
    return name


def _in_64_bits(extra: bytes, values: list[int]) -> list[int]:
    """Take the values that did not fit from the extra field, in which they follow one another."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            field = extra[position : position + length]
            wanted = [number for number, value in enumerate(values) if value == _IN_64_BITS]
            if len(field) < 8 * len(wanted):
                break
            for place, number in enumerate(wanted):
                (values[number],) = struct.unpack_from("<Q", field, 8 * place)
            return values
        position += length
    raise Unclear("an entry in the directory of its zip cannot be read")


def _ends(entries: list[_Entry], directory: int) -> dict[str, int]:
    """Return where each entry ends at the latest, once they are seen not to overlap."""
    ordered = sorted(entries, key=lambda entry: entry.offset)
    limits = [entry.offset for entry in ordered[1:]] + [directory]
    for entry, limit in zip(ordered, limits, strict=True):
        if entry.offset + _LOCAL.size + len(entry.name) + entry.size > limit:
            raise Unclear("files in its zip overlap")
    return {entry.name: limit for entry, limit in zip(ordered, limits, strict=True)}


def _content(entry: _Entry, limit: int, read: Read) -> bytes:
    """Read the content of an entry, once its local header is seen to say the same."""
    if entry.size > MAX_PICKLE_BYTES:
        raise Unclear(f"its data.pkl has {entry.size:,} bytes, too many to look through")
    header = _LOCAL.size + len(entry.name)
    found = read(entry.offset, min(limit, entry.offset + header + _SPARE_BYTES + entry.size))
    signature, _, flags, method, _, _, _, packed, size, name, extra = _LOCAL.unpack_from(found)
    sizes = {entry.size, _IN_64_BITS} | ({0} if flags & _SIZES_BEHIND else set())
    if (
        signature != _LOCAL_SIGNATURE
        or flags != entry.flags
        or method
        or not {packed, size} <= sizes
        or name != len(entry.name)
        or found[_LOCAL.size : header] != entry.name.encode()
    ):
        raise Unclear("the two places of its zip that describe data.pkl differ")
    start = entry.offset + header + extra
    end = start + entry.size
    if end > limit:
        raise Unclear("files in its zip overlap")
    if end > entry.offset + len(found):
        return read(start, end)
    return found[header + extra : header + extra + entry.size]


def _no_archive(size: int, read: Read) -> Unclear:
    """Say what else a file is, by its first bytes."""
    start = read(0, min(size, 512)) if size else b""
    if start.startswith(_LOCAL_SIGNATURE):
        return Unclear("its zip does not end like one that torch writes")
    # torch.save before 1.6: the number 0x1950a86a20f9469cfc6c as a pickle, then other pickles.
    if start.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        return Unclear("it is in torch's old format, which has no directory", format="old")
    if start[257:262] == b"ustar":
        return Unclear("it is a tar, torch's oldest format", format="tar")
    return Unclear("it is not in a format that torch writes today", format="unknown")
