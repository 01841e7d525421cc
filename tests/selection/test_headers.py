from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from nbloader.errors import MalformedFileError
from nbloader.records import RepoFile
from nbloader.selection.sizes import Header, header_end, parse_header

DTYPES = ("float32", "float16", "int64", "uint8", "bool")


def file_of(size: int) -> RepoFile:
    return RepoFile(path="model.safetensors", size=size, etag="0" * 64, lfs=True)


def with_header(header: object, tensors: int = 0) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tensors)


def test_a_header_says_how_many_bytes_there_are_of_each_dtype() -> None:
    content = save({"a": np.zeros((3, 5), "float32"), "b": np.zeros(7, "float16")})
    header = parse_header(content, file_of(len(content)))
    assert header == Header(
        tensors=2,
        bytes_by_dtype={"F32": 60, "F16": 14},
        length=len(content) - 74,
        largest_tensor=60,
        blocks={},
    )


def test_blocks_are_named_up_to_the_first_number() -> None:
    names = (
        "0.bias",
        "blocks.0.attn.1.weight",
        "blocks.0.norm",
        "blocks.10.norm",
        "blocks.²",
        "block1.norm",
        "unet.down.3",
        "norm",
    )
    content = save({name: np.zeros(4, "uint8") for name in names})
    header = parse_header(content, file_of(len(content)))
    assert header.blocks == {"0": 4, "blocks.0": 8, "blocks.10": 4, "unet.down.3": 4}


@pytest.mark.parametrize(
    ("tensors", "method"),
    [
        ({"a.weight": "F16", "a.weight.absmax": "F32"}, "bitsandbytes"),
        ({"a.weight": "U8", "a.weight.quant_state.bitsandbytes__nf4": "U8"}, "bitsandbytes"),
        ({"a.weight": "I8", "a.SCB": "F32"}, "bitsandbytes"),
        ({"a.qweight": "I32", "a.qzeros": "I32", "a.scales": "F16", "a.g_idx": "I32"}, "gptq"),
        ({"a.qweight": "I32", "a.qzeros": "I32", "a.scales": "F16"}, "awq"),
        ({"a.weight": "F8_E4M3", "a.weight_scale": "F32"}, "fp8"),
        ({"a.weight": "BF16", "a.qweight": "BF16", "absmax_norm.weight": "F32"}, None),
    ],
)
def test_names_and_dtypes_show_the_quantization(tensors: dict[str, str], method: str) -> None:
    sizes = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4}
    entries: dict[str, object] = {}
    end = 0
    for name, dtype in tensors.items():
        entries[name] = tensor(end, end + sizes[dtype], dtype=dtype, shape=[1])
        end += sizes[dtype]
    content = with_header(entries, end)
    assert parse_header(content, file_of(len(content))).quantization == method


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4)),
        max_size=5,
    )
)
def test_every_file_that_the_library_writes_is_accepted(
    shapes: dict[str, tuple[str, list[int]]],
) -> None:
    content = save({name: np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()})
    file = file_of(len(content))
    header = parse_header(content[: header_end(content[:8], file)], file)
    assert header.tensors == len(shapes)
    assert header_end(content, file) + sum(header.bytes_by_dtype.values()) == len(content)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_bring_more_than_the_named_error(start: bytes, size: int) -> None:
    with contextlib.suppress(MalformedFileError):
        parse_header(start, file_of(size))


@given(st.integers(1, 60))
def test_a_file_that_was_cut_off_is_found(missing: int) -> None:
    content = save({"a": np.zeros(15, "float32")})
    with pytest.raises(MalformedFileError):
        parse_header(content, file_of(len(content) - missing))


def tensor(first: int, last: int, **changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last], **changes}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"short", "is too short to be a safetensors file"),
        (struct.pack("<Q", 2**40) + bytes(90), "does not begin like a safetensors file"),
        (with_header([1]), "has a header that cannot be read"),
        (with_header({"a": 3}), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(0, 4, dtype=3)}, 4), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(0, 4, dtype="<b>")}, 4), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(0, 4, shape=[-4])}, 4), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(0, 4, shape=[5])}, 4), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(4, 0, shape=[4])}, 4), "describes the tensor 'a' wrongly"),
        (with_header({"a": tensor(1, 4)}, 4), "has gaps or overlaps between its tensors"),
        (
            with_header({"a": tensor(0, 4), "b": tensor(3, 6)}, 6),
            "has gaps or overlaps between its tensors",
        ),
        (
            with_header({f"t{n}": tensor(n, n + 1, dtype=f"X{n}") for n in range(65)}, 65),
            "has tensors of 65 dtypes",
        ),
    ],
)
def test_a_broken_header_says_what_is_wrong(content: bytes, what: str) -> None:
    with pytest.raises(MalformedFileError) as caught:
        parse_header(content, file_of(len(content)))
    assert caught.value.message == f"The file 'model.safetensors' of the repository {what}."


def test_a_dtype_of_tomorrow_is_no_error() -> None:
    content = with_header({"a": tensor(0, 4, dtype="F5_NEW", shape=[7])}, 4)
    header = parse_header(content, file_of(len(content)))
    assert (header.tensors, header.bytes_by_dtype) == (1, {"F5_NEW": 4})
