"""Pickled weights, looked through before they are fetched: do they hold tensors alone?

A file of `torch.save` is a zip with a pickle, `data.pkl`, that describes the tensors. Its directory
and that pickle are a few kilobytes; they are read, and the pickle is followed without running it.
What is seen is what will be loaded: the parts come from the commit of the selection, and the whole
file enters the cache only once its hash is that of the listing of the same commit.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from nbloader.records import PickleFacts, RepoFile, Selection
from nbloader.selection.archive import Archive, Read, Unclear, outline, read_archive
from nbloader.selection.sizes import Header, header_of
from nbloader.selection.unpickler import ALLOWED, TAKEN, Refused, Tensor, value_of
from nbloader.text import plain

_NOT_PICKLED = (".safetensors", ".sft", ".gguf")

_MAX_NAMES = 5
_NAME_CHARACTERS = 80

MAX_NAMED_OPCODES = 200_000
"""How far to look for names to tell, once it is clear that the file is not vouched for."""

NOT_FOLLOWED = frozenset(
    {
        *(f"__builtin__.{name}" for name in ("bytearray", "complex", "set")),
        *(f"builtins.{name}" for name in ("bytearray", "complex", "set")),
        *(
            f"torch._utils._rebuild_{name}"
            for name in (
                "device_tensor_from_numpy",
                "meta_tensor_no_storage",
                "nested_tensor",
                "qtensor",
                "sparse_tensor",
                "wrapper_subclass",
            )
        ),
        *(f"torch.{name}Storage" for name in ("QInt32", "QInt8", "QUInt8")),
        *(f"torch.per_{name}_affine" for name in ("channel", "tensor")),
        "collections.Counter",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch.complex32",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.uint16",
        "torch.uint32",
        "torch.uint64",
    }
)
"""What torch's unpickler may take, too: a file that names it may load there."""


@dataclass(frozen=True, slots=True)
class LookedThrough:
    """What came of it.

    Attributes:
        header: what the tensors take, if the file holds a dictionary of them by name.
    """

    facts: PickleFacts
    header: Header | None = None


def pickled(selection: Selection) -> list[str]:
    """Return the files of weights that are pickled, in the order of the selection."""
    return [
        path
        for component in selection.components
        for path in component.weights
        if not path.endswith(_NOT_PICKLED) and not _is_graph(path, component.weights)
    ]


def _is_graph(path: str, weights: Collection[str]) -> bool:
    """Say whether a file is one of another backend than torch; `.bin` is so beside its `.xml`."""
    if path.endswith(".bin"):
        return f"{path.removesuffix('.bin')}.xml" in weights
    return path.endswith(".xml") or re.search(r"\.onnx(?:[._]data[^/]*)?\Z", path) is not None


def look_through(file: RepoFile, read: Read) -> LookedThrough:
    """Find out what a file of pickled weights would make, without running any of it.

    Args:
        read: gives bytes of the file.
    """
    count = 0

    def counting(first: int, last: int) -> bytes:
        nonlocal count
        count += last - first
        content = read(first, last)
        if len(content) != last - first:
            raise Unclear("it is not as long as it should be")
        return content

    archive: Archive | None = None
    refused: tuple[str, ...] = ()
    problem, format_ = "", "zip"
    header: Header | None = None
    try:
        archive = read_archive(file.size, counting)
        header = _header(value_of(archive.content, archive.storages), len(archive.content))
    except Refused as found:
        refused = (found.name,)
    except Unclear as found:
        problem, format_ = str(found), found.format
    if archive is not None and (refused or problem):
        others = {name for name in globals_of(archive.content) if name not in ALLOWED}
        refused = (*refused, *sorted(others.difference(refused)))[:_MAX_NAMES]
        if any(
            opcode.code.encode("latin-1") not in TAKEN for opcode, *_ in _genops(archive.content)
        ):
            format_ = "opcodes"
    return LookedThrough(
        PickleFacts(
            path=file.path,
            tensors_only=not (refused or problem),
            format=format_,
            refused=tuple(plain(name, _NAME_CHARACTERS) for name in refused),
            problem=problem,
            bytes_read=count,
        ),
        header,
    )


def sketched(file: RepoFile, read: Read) -> dict[int, bytes] | None:
    """Return the parts of a file of pickled weights that it takes beside its tensors, by offset.

    With zeros between them, they are a file of the same tensors, all of zeros. None for a file that
    cannot be vouched for.

    Args:
        read: gives bytes of the file.
    """
    try:
        archive = read_archive(file.size, read)
        value_of(archive.content, archive.storages)
        return outline(archive, file.size, read)
    except (Refused, Unclear):
        return None


def torch_refuses(found: PickleFacts, safe_globals: Collection[str] = ()) -> bool:
    """Say whether torch's restricted unpickler is sure to refuse a file.

    Args:
        safe_globals: names that were added to what it allows.
    """
    if found.format in ("tar", "TorchScript", "opcodes"):
        return True
    return any(name not in NOT_FOLLOWED and name not in safe_globals for name in found.refused)


def _header(value: object, length: int) -> Header | None:
    """Sum up the tensors of a state dict, or of one of state dicts; None if the value is none."""
    tensors = _tensors(value)
    if not tensors and isinstance(value, dict):
        # So are IP-Adapters, and textual inversions of other programs.
        tensors = {
            f"{part}.{name}": tensor
            for part, inner in value.items()
            if isinstance(part, str)
            for name, tensor in _tensors(inner).items()
        }
    if not tensors:
        return None
    # Tensors that are tied are one tensor under several names.
    once = {(item.storage, item.start, item.shape): name for name, item in tensors.items()}
    return header_of(
        (
            (name, tensors[name].dtype, tensors[name].size, tensors[name].shape)
            for name in once.values()
        ),
        length,
    )


def _tensors(value: object) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        return {}
    return {
        name: item for name, item in value.items() if isinstance(name, str) and type(item) is Tensor
    }


# -- what a pickle names ---------------------------------------------------------------------------


def globals_of(content: bytes) -> Iterator[str]:
    """Yield the names that a pickle of any protocol refers to, as far as it can be followed.

    Only to name what was refused: nothing is believed to be safe because it is not among them.
    """
    memo: dict[object, object] = {}
    stack: list[object] = []
    mark = object()
    for number, (opcode, argument, _) in enumerate(_genops(content)):
        if number > MAX_NAMED_OPCODES:
            return
        before, after = opcode.stack_before, opcode.stack_after
        made: object = argument if opcode.name.endswith(("UNICODE", "STRING")) else None
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            module, name = stack[-2:] if len(stack) > 1 else (None, None)
            if isinstance(module, str) and isinstance(name, str):
                yield f"{module}.{name}"
        elif opcode.name.startswith("EXT"):
            yield f"the copyreg extension {argument}"
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            made = memo.get(int(argument))
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1] if stack else None
            continue
        elif opcode.name == "DUP":
            made = stack[-1] if stack else None
        if pickletools.markobject in before:
            while stack and stack.pop() is not mark:
                pass
            before = before[: before.index(pickletools.markobject)]
        del stack[len(stack) - min(len(before), len(stack)) :]
        stack.extend(mark if kind is pickletools.markobject else made for kind in after)


def _genops(content: bytes) -> Iterator[tuple[Any, Any, Any]]:
    """The opcodes up to the first that cannot be read."""
    try:
        yield from pickletools.genops(content)
    except Exception:  # Whatever it is, the bytes are to blame.
        return
