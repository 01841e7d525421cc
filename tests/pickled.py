"""Files of pickled weights: as torch writes them, and as somebody would who means harm."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "CANARY",
    "HARM",
    "archive",
    "as_global",
    "op_text",
    "saved",
    "storage_pickle",
    "tensor_pickle",
]

CANARY = "ran"
"""A folder that every harmful pickle here would make in the working folder."""


def op_text(text: str) -> bytes:
    """The opcode that pushes a text (BINUNICODE)."""
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _short(text: str) -> bytes:
    """The same in protocol 4 (SHORT_BINUNICODE)."""
    raw = text.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def as_global(name: str) -> bytes:
    """The opcode that pushes what a dotted name refers to (GLOBAL)."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def archive(
    pickle: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    root: str = "archive",
    others: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """A zip like that of `torch.save`, around any pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as made:
        made.writestr(f"{root}/data.pkl", pickle)
        made.writestr(f"{root}/version", b"3\n")
        for key, storage in (storages or {}).items():
            made.writestr(f"{root}/data/{key}", storage)
        for name, extra in (others or {}).items():
            made.writestr(name, extra)
    return content.getvalue()


def saved(make: Callable[[], object], **options: Any) -> bytes:
    """What `torch.save` writes of a value."""
    import torch

    content = io.BytesIO()
    torch.save(make(), content, **options)
    return content.getvalue()


def storage_pickle(
    *,
    kind: bytes = op_text("storage"),
    type_: bytes = as_global("torch.FloatStorage"),
    key: bytes = op_text("0"),
    location: bytes = op_text("cpu"),
    count: bytes = b"K\4",
) -> bytes:
    """The opcodes that ask for a storage of four float32 elements, whose parts can be replaced."""
    return b"(" + kind + type_ + key + location + count + b"tQ"


def tensor_pickle(
    *,
    storage: bytes | None = None,
    start: bytes = b"K\0",
    shape: bytes = b"K\2K\2\x86",
    stride: bytes = b"K\2K\1\x86",
    gradient: bytes = b"\x89",
    hooks: bytes = b"ccollections\nOrderedDict\n)R",
    more: bytes = b"",
    function: str = "torch._utils._rebuild_tensor_v2",
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A pickle of `{"w": tensor}` with four float32 elements, whose parts can be replaced.

    Args:
        before, after: what is done before the dictionary is made, and with it on the stack.
    """
    if storage is None:
        storage = storage_pickle()
    arguments = storage + start + shape + stride + gradient + hooks + more
    call = as_global(function) + b"(" + arguments + b"tR"
    return b"\x80\2" + before + b"}" + op_text("w") + call + b"s" + after + b"."


_MKDIR = "posix.mkdir"
_ARGUMENT = op_text(CANARY) + b"\x85"
_NESTED = b"\x80\2" + as_global(_MKDIR) + _ARGUMENT + b"R."

HARM: Mapping[str, tuple[bytes, str]] = {
    "GLOBAL": (b"\x80\2" + as_global(_MKDIR) + _ARGUMENT + b"R.", _MKDIR),
    "a call before the tensors": (
        tensor_pickle(before=as_global(_MKDIR) + _ARGUMENT + b"R0"),
        _MKDIR,
    ),
    "STACK_GLOBAL": (
        b"\x80\4" + _short("posix") + _short("mkdir") + b"\x93" + _short(CANARY) + b"\x85R.",
        _MKDIR,
    ),
    "STACK_GLOBAL with names from the memo": (
        b"\x80\4"
        + (_short("mkdir") + b"\x94" + _short("posix") + b"\x94" + b"00")
        + (b"h\1h\0\x93" + _short(CANARY) + b"\x85R."),
        _MKDIR,
    ),
    "STACK_GLOBAL with names by number": (
        b"\x80\2"
        + (op_text("mkdir") + b"q\7" + op_text("posix") + b"r\0\1\0\0" + b"00")
        + (b"j\0\1\0\0h\7\x93" + _ARGUMENT + b"R."),
        _MKDIR,
    ),
    "STACK_GLOBAL with names of the oldest kind": (
        b"S'posix'\np3\n0S'mkdir'\np4\n0g3\ng4\n\x93S'ran'\n\x85R.",
        _MKDIR,
    ),
    "a change of protocol": (
        b"\x80\2\x80\4" + _short("posix") + _short("mkdir") + b"\x93" + _ARGUMENT + b"R.",
        _MKDIR,
    ),
    "INST": (b"(S'ran'\niposix\nmkdir\n.", _MKDIR),
    "INST in protocol 2": (b"\x80\2(" + op_text(CANARY) + b"iposix\nmkdir\n.", _MKDIR),
    "OBJ": (b"\x80\2(" + as_global(_MKDIR) + op_text(CANARY) + b"o.", _MKDIR),
    "DUP": (b"\x80\2" + as_global(_MKDIR) + b"2" + _ARGUMENT + b"R.", _MKDIR),
    "eval": (
        b"\x80\2"
        + as_global("__builtin__.eval")
        + op_text("__import__('os').mkdir('ran')")
        + b"\x85R.",
        "__builtin__.eval",
    ),
    "a chain of getattr": (
        b"\x80\2"
        + as_global("__builtin__.getattr")
        + (as_global("__builtin__.__import__") + op_text("os") + b"\x85R" + op_text("mkdir"))
        + (b"\x86R" + _ARGUMENT + b"R."),
        "__builtin__.getattr",
    ),
    "a pickle in a pickle": (
        b"\x80\2"
        + as_global("_pickle.loads")
        + (as_global("_codecs.encode") + op_text(_NESTED.decode("latin1")) + op_text("latin1"))
        + b"\x86R\x85R.",
        "_pickle.loads",
    ),
    "NEWOBJ": (
        b"\x80\2"
        + as_global("collections.OrderedDict")
        + b")\x81"
        + as_global(_MKDIR)
        + (_ARGUMENT + b"R0."),
        _MKDIR,
    ),
    "a name with dots": (
        b"\x80\4" + _short("shutil") + _short("os.mkdir") + b"\x93" + _short(CANARY) + b"\x85R.",
        "shutil.os.mkdir",
    ),
    "the state of an object": (
        b"\x80\2"
        + as_global("collections.OrderedDict")
        + b")R}"
        + op_text("_metadata")
        + (as_global(_MKDIR) + _ARGUMENT + b"Rsb."),
        _MKDIR,
    ),
}
"""Pickles that make `CANARY` if they are run, each with the name that betrays it."""
