"""Pickled weights are looked through by a few kilobytes of them, and never run."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbloader.records import PickleFacts, RepoFile
from nbloader.selection.archive import Unclear, read_archive
from nbloader.selection.pickles import (
    NOT_FOLLOWED,
    LookedThrough,
    look_through,
    sketched,
    torch_refuses,
)
from nbloader.selection.sizes import Header
from nbloader.selection.unpickler import ALLOWED, DTYPES, STORAGES
from tests.pickled import (
    CANARY,
    HARM,
    archive,
    as_global,
    op_text,
    saved,
    storage_pickle,
    tensor_pickle,
)

FOUR = {"0": bytes(16)}
FEW_BYTES = 20_000
GOOD = PickleFacts(path="pytorch_model.bin", tensors_only=True)


def look(content: bytes) -> LookedThrough:
    """Look through a file, and hold what is true of every one."""
    read: list[tuple[int, int]] = []

    def part(first: int, last: int) -> bytes:
        assert 0 <= first < last <= len(content)
        read.append((first, last))
        return content[first:last]

    file = RepoFile(path="pytorch_model.bin", size=len(content), etag="0" * 40)
    found = look_through(file, part)
    assert found.facts.bytes_read == sum(last - first for first, last in read)
    assert found.facts.tensors_only != bool(found.facts.refused or found.facts.problem)
    return found


def loaded(content: bytes) -> Any:
    """What torch makes of a file with its restricted unpickler."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


# --- what is vouched for --------------------------------------------------------------------------


def tied() -> dict[str, torch.Tensor]:
    weight = torch.ones(4, 2)
    return {"a": weight, "b": weight, "c": weight[1:], "d": weight.t()}


def module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def marked(name: str = "_is_hf_initialized", value: object = True) -> dict[str, object]:
    parameter = torch.nn.Parameter(torch.ones(2))
    setattr(parameter, name, value)
    return {"w": parameter}


ALL_DTYPES = sorted(
    {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
    & {getattr(torch, name.removeprefix("torch.")) for name in DTYPES},
    key=str,
)

VOUCHED: dict[str, Callable[[], bytes]] = {
    **{
        f"dtype {dtype}": lambda dtype=dtype: saved(  # type: ignore[misc]
            lambda: {"w": torch.zeros(3, 2, dtype=dtype)}
        )
        for dtype in ALL_DTYPES
    },
    "a state dict with its metadata": lambda: saved(lambda: module().state_dict()),
    "parameters": lambda: saved(lambda: dict(module().named_parameters())),
    "tensors with a gradient": lambda: saved(lambda: {"w": torch.ones(2, requires_grad=True)}),
    "frozen parameters": lambda: saved(
        lambda: {"w": torch.nn.Parameter(torch.ones(2), requires_grad=False)}
    ),
    "tied tensors and views": lambda: saved(tied),
    "parameters that transformers has loaded": lambda: saved(marked),
    "no elements": lambda: saved(lambda: {"w": torch.ones(0, 4), "x": torch.ones(())}),
    "plain values beside them": lambda: saved(
        lambda: {
            "state_dict": OrderedDict(w=torch.ones(2)),
            "epoch": 3,
            "steps": 2**40,
            "loss": 0.25,
            "size": torch.Size([2, 3]),
            "device": torch.device("cpu"),
            "gpu": torch.device("cuda", 1),
            "dtype": torch.bfloat16,
            "raw": b"\x80\2cposix\nmkdir\n.",
            "list": [None, True, (1, 2, 3, 4), "text", -1, 70_000],
            3: {"nested": {}},
        }
    ),
    "one tensor alone": lambda: saved(lambda: torch.ones(2)),
    "protocol 3": lambda: saved(lambda: module().state_dict(), pickle_protocol=3),
    "packed by another program": lambda: archive(tensor_pickle(), FOUR),
    "another name in the zip": lambda: archive(tensor_pickle(), FOUR, root="pytorch_model-00001"),
    "the oldest function": lambda: archive(
        tensor_pickle(gradient=b"", hooks=b"", function="torch._utils._rebuild_tensor"), FOUR
    ),
    "a list that holds itself": lambda: archive(b"\x80\2]q\0h\0a.", {}),
    "a pickle behind the tensors": lambda: shuffled(),
}


def shuffled() -> bytes:
    """An archive whose pickle is the last of its files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("m/version", b"3\n")
        made.writestr("m/data/0", bytes(16))
        made.writestr("m/data.pkl", tensor_pickle())
    return content.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3")  # torch's, of protocol 3
@pytest.mark.parametrize("name", VOUCHED)
def test_what_torch_writes_of_tensors_is_vouched_for(name: str) -> None:
    content = VOUCHED[name]()
    found = look(content).facts
    assert found == replace(GOOD, bytes_read=found.bytes_read)
    assert found.bytes_read <= FEW_BYTES
    loaded(content)


def test_what_is_allowed_is_a_part_of_what_torch_allows() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    theirs = _get_allowed_globals()
    assert theirs.keys() >= ALLOWED
    assert not ALLOWED & NOT_FOLLOWED
    assert theirs.keys() >= {name.replace("__builtin__", "builtins") for name in NOT_FOLLOWED}
    for name, (_, size) in DTYPES.items():
        assert theirs[name].itemsize == size
    for name, (dtype, size) in STORAGES.items():
        if name != "torch.storage.UntypedStorage":
            assert DTYPES[str(theirs[name].dtype)] == (dtype, size)


def test_the_tensors_are_counted_as_they_are_stored() -> None:
    content = saved(
        lambda: {
            "embed.weight": torch.zeros(10, 4),
            "layers.0.weight": torch.zeros(3, 4, dtype=torch.bfloat16),
            "layers.0.bias": torch.nn.Parameter(torch.zeros(3)),
            "layers.1.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn),
            "step": 7,
        }
    )
    header = look(content).header
    assert header == Header(
        tensors=4,
        bytes_by_dtype={"F32": 172, "BF16": 24, "F8_E4M3": 16},
        length=header.length if header else 0,
        largest_tensor=160,
        blocks={"layers.0": 36, "layers.1": 16},
        quantization="fp8",
    )


def test_what_is_tied_counts_once() -> None:
    header = look(saved(tied)).header
    assert header is not None
    assert (header.tensors, header.bytes_by_dtype) == (3, {"F32": 32 + 24 + 32})


# --- what would run something ---------------------------------------------------------------------


@pytest.mark.parametrize("name", HARM)
def test_a_pickle_that_does_harm_is_named_and_never_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harm, betrayed = HARM[name]
    found = look(archive(harm, FOUR)).facts
    assert not found.tensors_only
    assert found.format in ("zip", "opcodes")
    assert betrayed in found.refused
    assert found.bytes_read <= FEW_BYTES
    assert not Path(CANARY).exists()
    with pytest.raises(Exception, match=r".+"):
        loaded(archive(harm, FOUR))
    assert not Path(CANARY).exists()
    # And it would have: otherwise none of this shows anything.
    with contextlib.suppress(Exception):
        pickle.loads(harm)
    assert Path(CANARY).exists()


# --- what is not understood -----------------------------------------------------------------------

EMPTY = b"ccollections\nOrderedDict\n)R"
TENSOR = tensor_pickle()
BROKEN = "its data.pkl is broken"
ODD = "its data.pkl describes a tensor in an odd way"
STORAGE = "its data.pkl asks for something that is not a storage"
ABSENT = "its data.pkl names a storage that is not there, or of another size"
OPCODE = "its data.pkl has an opcode that torch does not load"
END = "its data.pkl does not end where it should"
ITEMS = "its data.pkl sets items of something that is not a dictionary"
CALL = "its data.pkl calls something that makes no tensor"

UNCLEAR: dict[str, tuple[bytes, str]] = {
    # the stream
    "nothing": (b"", BROKEN),
    "no protocol": (b"}.", "its data.pkl is of a protocol that torch does not load"),
    "no end": (TENSOR[:-1], BROKEN),
    "an opcode after the end": (TENSOR + b".", END),
    "a second pickle after the end": (TENSOR + TENSOR, END),
    "two values at the end": (b"\x80\2}}.", END),
    "a mark at the end": (b"\x80\2(}.", END),
    "an empty stack": (b"\x80\2.", END),
    "a mark that is not there": (b"\x80\2t.", BROKEN),
    "a tuple of what is not there": (b"\x80\2K\1\x86.", BROKEN),
    "a memo that is not there": (b"\x80\2h\7.", BROKEN),
    "a text of four gigabytes": (b"\x80\2X\xff\xff\xff\xffabc.", BROKEN),
    "bytes of 2**63": (b"\x80\2\x8e" + b"\xff" * 7 + b"\x7f" + b".", OPCODE),
    "no UTF-8": (b"\x80\2X\1\0\0\0\xff.", BROKEN),
    "an opcode that is none": (b"\x80\2\xff.", OPCODE),
    "protocol 4": (pickle.dumps({}, 4), "its data.pkl is of a protocol that torch does not load"),
    "a frame in protocol 2": (b"\x80\2\x95" + bytes(8) + b"}.", OPCODE),
    "a second protocol": (b"\x80\2\x80\2}.", OPCODE),
    "too many opcodes": (b"\x80\2" + b"N" * 2_000_001 + b".", "its data.pkl is too long"),
    # calls
    "a call of a class of storages": (
        b"\x80\2" + as_global("torch.FloatStorage") + b"K\4\x85R.",
        CALL,
    ),
    "a call of a dtype": (b"\x80\2" + as_global("torch.float32") + b")R.", CALL),
    "a call of a tuple": (b"\x80\2))R.", CALL),
    "a call with a list": (b"\x80\2" + as_global("torch.Size") + b"]R.", CALL),
    "a dictionary with arguments": (
        b"\x80\2" + as_global("collections.OrderedDict") + b"]\x85R.",
        "its data.pkl calls collections.OrderedDict with more or less than torch writes",
    ),
    "another encoding": (
        b"\x80\2" + as_global("_codecs.encode") + op_text("x") + op_text("rot13") + b"\x86R.",
        "its data.pkl encodes text in an odd way",
    ),
    "a device that is none": (
        b"\x80\2" + as_global("torch.device") + op_text("lpt1") + b"\x85R.",
        "its data.pkl names an odd device",
    ),
    "an object without its constructor": (
        b"\x80\2" + as_global("torch.Size") + b")\x81.",
        OPCODE,
    ),
    # state
    "the state of a dictionary": (b"\x80\2}}b.", "its data.pkl sets the state of something"),
    "the state of a tensor": (
        TENSOR[:-2] + b"}bs.",
        "its data.pkl sets the state of something that is not a dictionary",
    ),
    "another attribute": (
        b"\x80\2" + EMPTY + b"}" + op_text("__class__") + b"Nsb.",
        "its data.pkl sets attributes that torch does not write",
    ),
    # items
    "items of a list": (b"\x80\2]K\1K\2s.", ITEMS),
    "an odd number of items": (b"\x80\2}(K\1u.", ITEMS),
    "a tuple as a key": (b"\x80\2})Ns.", "its data.pkl has a dictionary with odd keys"),
    "appended to a tuple": (b"\x80\2)Na.", "its data.pkl appends to something that is not a list"),
    # storages
    "an id that is a text": (b"\x80\2" + op_text("storage") + b"Q.", STORAGE),
    "an id that is a list": (
        b"\x80\2](" + storage_pickle()[1:-2] + b"eQ.",
        STORAGE,
    ),
    "an id that is a number": (b"\x80\2K\1Q.", STORAGE),
    "an id of another kind": (
        tensor_pickle(storage=storage_pickle(kind=op_text("module"))),
        STORAGE,
    ),
    "a storage of a class that is none": (
        tensor_pickle(storage=storage_pickle(type_=as_global("torch.Size"))),
        STORAGE,
    ),
    "a storage without its number": (
        tensor_pickle(storage=storage_pickle(count=b"")),
        STORAGE,
    ),
    "a storage of true elements": (tensor_pickle(storage=storage_pickle(count=b"\x88")), ABSENT),
    "a storage that is not there": (
        tensor_pickle(storage=storage_pickle(key=op_text("1"))),
        ABSENT,
    ),
    "a storage outside": (
        tensor_pickle(storage=storage_pickle(key=op_text("../version"))),
        ABSENT,
    ),
    "a storage that is larger than it is": (
        tensor_pickle(storage=storage_pickle(count=b"K\5")),
        ABSENT,
    ),
    "a storage of less than nothing": (
        tensor_pickle(storage=storage_pickle(count=b"J\xff\xff\xff\xff")),
        ABSENT,
    ),
    "a storage in two ways": (
        tensor_pickle(
            after=op_text("x")
            + storage_pickle(type_=as_global("torch.DoubleStorage"), count=b"K\2")
            + b"s"
        ),
        "its data.pkl describes a storage in two ways",
    ),
    # tensors
    "a tensor of no storage": (tensor_pickle(storage=b"N"), ODD),
    "a tensor outside its storage": (tensor_pickle(start=b"K\1"), ODD),
    "a tensor before its storage": (tensor_pickle(start=b"J\xff\xff\xff\xff"), ODD),
    "steps that lead outside": (tensor_pickle(stride=b"K\3K\1\x86"), ODD),
    "steps back": (tensor_pickle(stride=b"J\xff\xff\xff\xffK\1\x86"), ODD),
    "more steps than sides": (tensor_pickle(stride=b"K\1\x85"), ODD),
    "sides that are no numbers": (tensor_pickle(shape=b"\x88\x88\x86"), ODD),
    "sides in a list": (tensor_pickle(shape=b"](K\2K\2e"), ODD),
    "a thousand sides": (
        tensor_pickle(shape=b"(" + b"K\1" * 1000 + b"t", stride=b"(" + b"K\1" * 1000 + b"t"),
        ODD,
    ),
    "a gradient that is a number": (tensor_pickle(gradient=b"K\1"), ODD),
    "a gradient of whole numbers": (
        tensor_pickle(
            storage=storage_pickle(type_=as_global("torch.IntStorage")), gradient=b"\x88"
        ),
        ODD,
    ),
    "hooks": (tensor_pickle(hooks=EMPTY + b"K\1" + as_global("torch.Size") + b"s"), ODD),
    "hooks that come later": (
        tensor_pickle(
            before=EMPTY + b"q\1",
            hooks=b"h\1",
            after=op_text("x") + b"h\1K\1" + as_global("torch.Size") + b"ss",
        ),
        ITEMS,
    ),
    "hooks in a plain dictionary": (tensor_pickle(hooks=b"}"), ODD),
    "hooks that are set as a state": (
        b"\x80\2" + EMPTY + b"q\1" + TENSOR[3:].replace(EMPTY, b"h\1", 1),
        ITEMS,
    ),
    "the description of a tensor is too long": (
        tensor_pickle(more=b"NN"),
        "its data.pkl calls torch._utils._rebuild_tensor_v2 with more or less than torch writes",
    ),
    "a parameter of no tensor": (
        b"\x80\2" + as_global("torch._utils._rebuild_parameter") + b"N\x89" + EMPTY + b"\x87R.",
        ODD,
    ),
    "a dtype for a storage that has one": (
        tensor_pickle(
            function="torch._utils._rebuild_tensor_v3", more=as_global("torch.float8_e5m2")
        ),
        ODD,
    ),
}


FOREIGN = {"protocol 4", "a frame in protocol 2"}
"""Those with opcodes that torch does not know. One that nobody knows ends the look."""


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_that_torch_refuses_are_known(protocol: int) -> None:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, content, pickle_protocol=protocol)
    found = look(content.getvalue()).facts
    content.seek(0)
    refused = torch_refuses(replace(found, refused=()))
    assert refused is not found.tensors_only
    with pytest.raises(pickle.UnpicklingError) if refused else contextlib.nullcontext():
        torch.load(content, weights_only=True)


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_understood_is_not_vouched_for(name: str) -> None:
    content, problem = UNCLEAR[name]
    format_ = "opcodes" if name in FOREIGN else "zip"
    found = look(archive(content, FOUR)).facts
    assert (found.tensors_only, found.format, found.refused) == (False, format_, ())
    assert problem in found.problem
    assert found.bytes_read <= FEW_BYTES + len(content)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (module, "torch.nn.modules.container.Sequential"),
        (lambda: {"a": np.float32(1)}, "numpy._core.multiarray.scalar"),
        (lambda: {"a": np.ones(2)}, "numpy._core.multiarray._reconstruct"),
        (lambda: {"a": {1}}, "__builtin__.set"),
        (lambda: {"a": Path("x")}, "pathlib.PosixPath"),
        (lambda: torch.ones(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (lambda: {"a": torch.load}, "torch.serialization.load"),
    ],
)
def test_other_values_are_named(make: Callable[[], object], name: str) -> None:
    found = look(saved(make)).facts
    assert found.tensors_only is False
    assert found.refused[0] == name


@pytest.mark.parametrize(
    ("name", "value"), [("_is_hf_initialized", [1]), ("_is_hf_initialized", 1.5), ("another", True)]
)
def test_other_marks_on_parameters_are_not_understood(name: str, value: object) -> None:
    found = look(saved(lambda: marked(name, value))).facts
    assert found.problem == "its data.pkl sets attributes that torch does not write"


def test_extensions_of_copyreg_are_named() -> None:
    assert look(archive(b"\x80\2\x82\7.")).facts.refused == ("the copyreg extension 7",)


def test_names_are_bounded_and_few() -> None:
    many = b"".join(as_global(f"evil.\x1b[31m{number}" + "x" * 5000) for number in range(100))
    found = look(archive(b"\x80\2" + many + b".")).facts
    assert len(found.refused) == 5
    assert all(len(name) <= 80 and name.isprintable() for name in found.refused)


# --- the zip --------------------------------------------------------------------------------------


def scripted() -> bytes:
    """A module as torch saves it with its code, which is compressed."""

    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made: Any = torch.jit.trace(Doubling(), torch.ones(1))  # type: ignore[no-untyped-call]
        torch.jit.save(made, buffer)
    return buffer.getvalue()


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Put other bytes at an offset behind the first signature of its kind."""
    at = content.index(signature) + offset
    return content[:at] + value + content[at + len(value) :]


PACKED = archive(tensor_pickle(), FOUR)
REAL = saved(lambda: {"w": torch.ones(2, 2)})
LOCAL, ENTRY, END_64, LOCATOR, LAST = b"PK\3\4", b"PK\1\2", b"PK\6\6", b"PK\6\7", b"PK\5\6"
EVIL = archive(HARM["GLOBAL"][0])
NAME = "its zip has a file with an odd name"
WHERE = "the directory of its zip is not where torch writes it"
DIFFER = "the two places of its zip that describe data.pkl differ"


def doubled() -> bytes:
    """An archive with two files of one name, the harmless one last."""
    content = archive(HARM["GLOBAL"][0], {}, others={"archive/dato.pkl": tensor_pickle()})
    return content.replace(b"dato.pkl", b"data.pkl")


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        made.addfile(tarfile.TarInfo("pickle"))
    return content.getvalue()


OTHERS: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "unknown", "it is not in a format that torch writes today"),
    "a text": (b"version https://git-lfs", "unknown", "it is not in a format that torch writes"),
    "zeros": (bytes(100_000), "unknown", "it is not in a format that torch writes today"),
    "the old format": (
        saved(lambda: {"w": torch.ones(2)}, _use_new_zipfile_serialization=False),
        "old",
        "it is in torch's old format",
    ),
    "a tar": (tar(), "tar", "it is a tar"),
    "something else": (b"PK\6\6" * 50, "unknown", "it is not in a format that torch writes today"),
    "no folder": (archive(b"", root=""), "zip", "its zip has a file outside its folder"),
    "no version": (
        PACKED.replace(b"version", b"Version"),
        "zip",
        "its zip has no version, without which torch does not load it",
    ),
    "no pickle": (
        PACKED.replace(b"data.pkl", b"dato.pkl"),
        "zip",
        "its zip has no data.pkl in the one place where it belongs",
    ),
    "compressed": (
        archive(tensor_pickle(), FOUR, compression=zipfile.ZIP_DEFLATED),
        "zip",
        "its zip is compressed or encrypted",
    ),
    "a file that is a folder": (
        patched(PACKED, ENTRY, 38, b"\x10"),
        "zip",
        "its zip has a file that is said to be a folder",
    ),
    "encrypted": (patched(PACKED, ENTRY, 8, b"\1\0"), "zip", "its zip is compressed or encrypted"),
    "two pickles": (doubled(), "zip", "its zip has two files of one name"),
    "two pickles that torch takes for one": (
        archive(tensor_pickle(), FOUR, others={"archive/DATA.PKL": HARM["GLOBAL"][0]}),
        "zip",
        "its zip has two files of one name",
    ),
    "a pickle in another folder": (
        archive(tensor_pickle(), FOUR, others={"other/data.pkl": b""}),
        "zip",
        "its zip has files outside the folder that torch reads",
    ),
    "a pickle further down": (
        archive(tensor_pickle(), FOUR, others={"archive/more/data.pkl": b""}),
        "zip",
        "its zip has no data.pkl in the one place where it belongs",
    ),
    "a name that escapes": (
        archive(tensor_pickle(), FOUR, others={"archive/../../x": b""}),
        "zip",
        "its zip has a file outside its folder",
    ),
    "an absolute name": (
        archive(tensor_pickle(), FOUR, others={"/etc/passwd": b""}),
        "zip",
        "its zip has a file outside its folder",
    ),
    "a name that ends early": (
        PACKED.replace(b"version", b"versi\0n"),
        "zip",
        NAME,
    ),
    "a name with a backslash": (PACKED.replace(b"version", b"ver\\ion"), "zip", NAME),
    "another name in front of the content": (
        patched(PACKED, b"data.pkl", 0, b"dato.pkl"),
        "zip",
        DIFFER,
    ),
    "a longer name in front of the content": (patched(PACKED, LOCAL, 26, b"\x13"), "zip", DIFFER),
    "another size in front of the content": (patched(PACKED, LOCAL, 22, b"\1"), "zip", DIFFER),
    "another method in front of the content": (patched(PACKED, LOCAL, 8, b"\x08"), "zip", DIFFER),
    "other flags in front of the content": (patched(PACKED, LOCAL, 6, b"\1"), "zip", DIFFER),
    "no signature in front of the content": (patched(PACKED, LOCAL, 0, b"PK\3\5"), "zip", DIFFER),
    "a gap in front of the content": (
        patched(PACKED, LOCAL, 28, b"\xff\xff"),
        "zip",
        "files in its zip overlap",
    ),
    "a pickle that reaches into the next file": (
        patched(patched(PACKED, ENTRY, 20, b"\xff\0"), ENTRY, 24, b"\xff\0"),
        "zip",
        "files in its zip overlap",
    ),
    "a file in the place of another": (
        PACKED[: (at := PACKED.rindex(ENTRY))] + patched(PACKED[at:], ENTRY, 42, bytes(4)),
        "zip",
        "files in its zip overlap",
    ),
    "a pickle beyond the end": (
        patched(PACKED, ENTRY, 42, b"\0\0\0\x7f"),
        "zip",
        "files in its zip overlap",
    ),
    "something in front": (b"#!/bin/sh\n" + PACKED, "zip", WHERE),
    "something behind": (PACKED + b"x", "zip", "its zip does not end like one that torch writes"),
    "an end in a comment": (
        patched(PACKED, LAST, 20, struct.pack("<H", len(EVIL))) + EVIL,
        "zip",
        # What torch would read is the zip in the comment, and that is not where it says.
        WHERE,
    ),
    "a comment": (
        patched(PACKED, LAST, 20, b"\2\0") + b"hi",
        "zip",
        "its zip does not end like one that torch writes",
    ),
    "a directory elsewhere": (patched(PACKED, LAST, 16, bytes(4)), "zip", WHERE),
    "more files than are listed": (patched(PACKED, LAST, 8, b"\2\0\2\0"), "zip", "impossible size"),
    "fewer files than are said": (
        patched(PACKED, LAST, 8, b"\4\0\4\0"),
        "zip",
        "the directory of its zip has an impossible size",
    ),
    "a million files": (patched(PACKED, LAST, 8, b"\xff\xff\xff\xff"), "zip", "impossible size"),
    "no files": (
        patched(PACKED, LAST, 8, bytes(4)),
        "zip",
        "the directory of its zip has an impossible size",
    ),
    "a second disk": (patched(PACKED, LAST, 4, b"\1\0"), "zip", WHERE),
    "an entry of a second disk": (patched(PACKED, ENTRY, 34, b"\1\0"), "zip", "cannot be read"),
    "an entry that is none": (patched(PACKED, ENTRY, 0, b"PK\1\3"), "zip", "cannot be read"),
    "an entry in 64 bits without them": (
        patched(PACKED, ENTRY, 42, b"\xff\xff\xff\xff"),
        "zip",
        "cannot be read",
    ),
    "another end in 64 bits": (patched(REAL, END_64, 48, bytes(4)), "zip", WHERE),
    "no end in 64 bits": (patched(REAL, END_64, 0, b"PK\6\5"), "zip", WHERE),
    "an end in 64 bits elsewhere": (patched(REAL, LOCATOR, 8, bytes(4)), "zip", WHERE),
    "TorchScript": (
        archive(tensor_pickle(), FOUR, others={"archive/constants.pkl": b"\x80\2)."}),
        "TorchScript",
        "it is a TorchScript archive",
    ),
    "TorchScript as torch writes it": (
        scripted(),
        "TorchScript",
        "it is a TorchScript archive",
    ),
    "code of TorchScript": (
        archive(tensor_pickle(), FOUR, others={"archive/code/__torch__.py": b""}),
        "TorchScript",
        "it is a TorchScript archive",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_archive_of_torch_is_not_vouched_for(name: str) -> None:
    content, kind, problem = OTHERS[name]
    found = look(content).facts
    assert (found.tensors_only, found.format) == (False, kind)
    assert problem in found.problem
    assert found.bytes_read <= FEW_BYTES


# --- large files ----------------------------------------------------------------------------------


def large(count: int, size: int) -> tuple[int, Callable[[int, int], bytes]]:
    """An archive with so many storages of so many bytes: its size, and what reads it.

    Nobody has to hold it: the storages are zeros.
    """
    items = b"".join(
        op_text(f"layers.{number}.weight")
        + as_global("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage_pickle(key=op_text(str(number)), count=b"\x8a\x08" + struct.pack("<q", size // 4))
        + (b"K\0\x8a\x08" + struct.pack("<q", size // 4) + b"\x85K\1\x85\x89")
        + EMPTY
        + b"tR"
        for number in range(count)
    )
    content = b"\x80\2}(" + items + b"u."
    contents = {"m/data.pkl": content, "m/version": b"3\n"}
    files = {name: len(content) for name, content in contents.items()}
    files |= {f"m/data/{number}": size for number in range(count)}
    parts: list[tuple[int, bytes]] = []
    entries = []
    offset = 0
    for name, length in files.items():
        raw = name.encode()
        head = struct.pack("<4s5H3L2H", LOCAL, 45, 8, 0, 0, 0, 0, 0, 0, len(raw), 0) + raw
        parts.append((offset, head + contents.get(name, b"")))
        extra = struct.pack("<2H3Q", 1, 24, length, length, offset)
        entry = struct.pack(
            "<4s6H3L5H2L", ENTRY, 45, 45, 8, 0, 0, 0, 0, *(2**32 - 1,) * 2, len(raw), len(extra),
            0, 0, 0, 0, 2**32 - 1,
        )  # fmt: skip
        entries.append(entry + raw + extra)
        offset += len(head) + length
    directory = b"".join(entries)
    end = offset + len(directory)
    some = min(len(files), 2**16 - 1)
    tail = directory + struct.pack(
        "<4sQ2H2L4Q", END_64, 44, 45, 45, 0, 0, len(files), len(files), len(directory), offset
    )
    tail += struct.pack("<4sLQL", LOCATOR, 0, end, 1)
    tail += struct.pack("<4s4H2LH", LAST, 0, 0, some, some, *(2**32 - 1,) * 2, 0)
    parts.append((offset, tail))
    total = offset + len(tail)

    def read(first: int, last: int) -> bytes:
        found = bytearray(last - first)
        for start, part in parts:
            low, high = max(first, start), min(last, start + len(part))
            if low < high:
                found[low - first : high - first] = part[low - start : high - start]
        return bytes(found)

    return total, read


@pytest.mark.parametrize(
    ("count", "size", "bytes_read"),
    [
        (2, 3 * 2**30, FEW_BYTES),  # more than 4 GB, and storages behind the first 4 GB
        (7, 2**40, FEW_BYTES),
        (70_000, 4, 24_000_000),  # more entries than a plain zip can have
    ],
)
def test_a_large_file_is_looked_through_by_few_of_its_bytes(
    count: int, size: int, bytes_read: int
) -> None:
    total, read = large(count, size)
    file = RepoFile(path="pytorch_model.bin", size=total, etag="0" * 40)
    found = look_through(file, read)
    assert found.facts == replace(GOOD, bytes_read=found.facts.bytes_read)
    assert found.facts.bytes_read <= bytes_read
    assert found.header is not None
    assert (found.header.tensors, sum(found.header.bytes_by_dtype.values())) == (
        count,
        count * size,
    )


def test_torch_loads_a_large_file_of_this_form() -> None:
    total, read = large(3, 64)
    assert {name: tuple(tensor.shape) for name, tensor in loaded(read(0, total)).items()} == {
        f"layers.{number}.weight": (16,) for number in range(3)
    }


def test_a_pickle_that_is_too_large_is_not_read() -> None:
    content = archive(b"\x80\2" + b"N" * (17 << 20) + b".")
    found = look(content).facts
    assert "too many to look through" in found.problem
    assert found.bytes_read <= FEW_BYTES


def test_a_file_that_is_cut_short_while_it_is_read_is_not_vouched_for() -> None:
    file = RepoFile(path="pytorch_model.bin", size=len(REAL), etag="0" * 40)
    found = look_through(file, lambda first, last: REAL[first:last][:-1])
    assert found.facts.problem == "it is not as long as it should be"


@pytest.mark.parametrize("name", VOUCHED)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3")
def test_a_sketch_holds_the_same_tensors_without_what_is_in_them(name: str) -> None:
    content = VOUCHED[name]()
    file = RepoFile(path="pytorch_model.bin", size=len(content), etag="0" * 40)
    parts = sketched(file, lambda first, last: content[first:last])
    assert parts is not None
    hollow = bytearray(len(content))
    for offset, part in parts.items():
        hollow[offset : offset + len(part)] = part
    assert look(bytes(hollow)).header == look(content).header
    loaded(bytes(hollow))


def test_there_is_no_sketch_of_what_cannot_be_vouched_for() -> None:
    for content in (EVIL, OTHERS["the old format"][0], archive(UNCLEAR["no end"][0])):
        file = RepoFile(path="pytorch_model.bin", size=len(content), etag="0" * 40)
        assert sketched(file, lambda first, last, content=content: content[first:last]) is None  # type: ignore[misc]


# --- what holds of every file ---------------------------------------------------------------------

SEEDS = [
    saved(lambda: module().state_dict()),
    saved(lambda: dict(module().named_parameters())),
    saved(lambda: {"w": torch.zeros(2, 3, dtype=torch.float8_e5m2), "x": [1, (2.5, None)]}),
    saved(tied),
    PACKED,
]


def mutated(content: bytes, seed: int) -> bytes:
    """Change a few bytes, or copy, move or leave out a few."""
    dice = random.Random(seed)
    made = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at, other = dice.randrange(len(made)), dice.randrange(len(made))
        length = dice.choice((1, 1, 2, 3, 8, 30))
        match dice.randrange(4):
            case 0:
                made[at] = dice.choice((made[at] ^ 1 << dice.randrange(8), dice.randrange(256)))
            case 1:
                made[at:at] = made[other : other + length]
            case 2:
                del made[at : at + length]
            case _:
                made[at : at + length] = made[other : other + length]
        made = made or bytearray(1)
    return bytes(made)


@settings(max_examples=1500)
@given(st.sampled_from(SEEDS), st.integers(0, 2**64))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol 3")
def test_what_is_vouched_for_loads_whatever_was_changed_in_the_pickle(
    content: bytes, seed: int
) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as made:
        names = made.namelist()
        root = names[0].partition("/")[0]
        prefix = f"{root}/data/"
        storages = {n.removeprefix(prefix): made.read(n) for n in names if n.startswith(prefix)}
        changed = mutated(made.read(f"{root}/data.pkl"), seed)
    packed = archive(changed, storages)
    if look(packed).facts.tensors_only:
        loaded(packed)


@settings(max_examples=1500)
@given(st.sampled_from(SEEDS), st.integers(0, 2**64))
def test_what_is_looked_at_is_what_torch_reads_whatever_was_changed_in_the_zip(
    content: bytes, seed: int
) -> None:
    changed = mutated(content, seed)
    try:
        seen = read_archive(len(changed), lambda first, last: changed[first:last]).content
        torchs = torch._C.PyTorchFileReader(io.BytesIO(changed)).get_record("data.pkl")
    except (Unclear, RuntimeError, ValueError):
        return
    assert seen == torchs
