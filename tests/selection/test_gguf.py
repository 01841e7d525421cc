"""The header of a GGUF is read by a few ranges, and believed only where it fits the file."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.errors import MalformedFileError, NbloaderError, UnsupportedRepoError
from nbloader.records import RepoFile
from nbloader.selection.gguf import (
    FIRST_GGUF_BYTES,
    MAX_GGUF_HEADER_BYTES,
    TYPES,
    GgufHeader,
    GgufTensor,
    gguf_bytes_needed,
    parse_gguf,
)
from tests.gguf_files import (
    LIST,
    Typed,
    described,
    entry,
    file_of,
    gguf_file,
    opening,
    size_of,
    text,
)

ARCHITECTURE = entry("general.architecture", "llama")


def read(content: bytes, file: RepoFile | None = None) -> tuple[GgufHeader, list[int]]:
    """Read a header by ranges, as over a network; gives how far each of them went, too."""
    file = file or file_of(content)
    start, ends = b"", []
    while (end := gguf_bytes_needed(start, file)) is not None:
        assert end > len(start)
        ends.append(end)
        start = content[:end]
    return parse_gguf(start, file), ends


def test_a_header_says_what_is_in_the_file() -> None:
    metadata = {
        "general.architecture": "flux",
        "general.name": "a name",
        "flux.block_count": 2,
        "flux.epsilon": 0.5,
        "flux.flag": True,
        "tokenizer.ggml.tokens": ["a", "bc", ""],
        "tokenizer.ggml.scores": Typed(6, [0.5, 1.0]),
        "long": "x" * 5000,
    }
    tensors = {
        "blocks.0.weight": ("Q4_K", (3, 512), None),
        "blocks.0.bias": ("F32", (3,), None),
        "blocks.1.weight": ("BF16", (2, 5), None),
        "scalar": ("F32", (), None),
    }
    content = gguf_file(metadata, tensors)
    header, ends = read(content)
    assert header == GgufHeader(
        version=3,
        architecture="flux",
        tensors=(
            GgufTensor("blocks.0.weight", (3, 512), "Q4_K", 864, 0),
            GgufTensor("blocks.0.bias", (3,), "F32", 12, 864),
            GgufTensor("blocks.1.weight", (2, 5), "BF16", 20, 896),
            GgufTensor("scalar", (), "F32", 4, 928),
        ),
        length=len(content) - 960,
        metadata={
            "general.architecture": "flux",
            "general.name": "a name",
            "flux.block_count": 2,
            "flux.epsilon": 0.5,
            "flux.flag": True,
            "tokenizer.ggml.tokens": 3,
            "tokenizer.ggml.scores": 2,
        },
    )
    assert ends == [len(content)]
    assert header.name == "a name"
    assert header.bytes_by_type == {"Q4_K": 864, "F32": 16, "BF16": 20}


def test_a_long_vocabulary_takes_a_few_reads() -> None:
    tokens = [f"token {number}" for number in range(100_000)]
    content = gguf_file(
        {"general.architecture": "llama", "tokenizer.ggml.tokens": tokens},
        {"w": ("F32", (1000, 1000), None)},
    )
    header, ends = read(content)
    assert header.metadata["tokenizer.ggml.tokens"] == 100_000
    assert ends[0] == FIRST_GGUF_BYTES
    assert len(ends) <= 4
    assert ends[-1] < len(content)


@given(
    st.dictionaries(
        st.text("abc.01", min_size=1, max_size=8),
        st.tuples(
            st.sampled_from(sorted(name for name, *_ in TYPES.values())),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        max_size=5,
    ),
    st.sampled_from([8, 32, 64]),
    st.sampled_from([2, 3]),
)
def test_what_the_format_allows_is_accepted(
    shapes: dict[str, tuple[str, list[int]]], alignment: int, version: int
) -> None:
    numbers = {name: count for name, count, _ in TYPES.values()}
    tensors = {
        name: (kind, (*shape, 2 * numbers[kind]), None) for name, (kind, shape) in shapes.items()
    }
    metadata = {"general.architecture": "a", "general.alignment": alignment}
    content = gguf_file(metadata, tensors, alignment=alignment, version=version)
    header, _ = read(content)
    assert [(each.name, each.type, each.shape, each.size) for each in header.tensors] == [
        (name, kind, shape, size_of(shape, kind)) for name, (kind, shape, _) in tensors.items()
    ]


@given(st.binary(max_size=300), st.integers(0, 400))
def test_no_bytes_bring_more_than_the_named_error(start: bytes, size: int) -> None:
    for content in (start, b"GGUF" + start, opening(1, 1) + start, opening(0, 1) + start):
        with contextlib.suppress(NbloaderError, ValueError):
            gguf_bytes_needed(content, RepoFile(path="m.gguf", size=size, etag="0" * 64))
            parse_gguf(content, RepoFile(path="m.gguf", size=size, etag="0" * 64))


@given(st.data())
def test_a_changed_byte_brings_no_more_than_the_named_error(data: st.DataObject) -> None:
    content = bytearray(gguf_file(
        {"general.architecture": "llama", "tokens": ["a", "b"], "n": Typed(4, [1, 2])},
        {"w": ("Q8_0", (2, 32), None), "b": ("F32", (3,), None)},
    ))  # fmt: skip
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedFileError, UnsupportedRepoError):
        header, _ = read(bytes(content))
        assert header.length + sum(header.bytes_by_type.values()) <= len(content)


@given(st.integers(1, 200))
def test_a_file_that_was_cut_off_is_found(missing: int) -> None:
    content = gguf_file({"general.architecture": "llama"}, {"w": ("F32", (8,), None)})
    with pytest.raises(MalformedFileError):
        read(content[:-missing])


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"GGUF", "does not begin like a GGUF file"),
        (opening(0, 0, magic=b"GGML"), "does not begin like a GGUF file"),
        (opening(HUGE, 0), f"says that it has {HUGE} tensors and 0 entries"),
        (opening(0, HUGE), f"says that it has 0 tensors and {HUGE} entries"),
        (opening(0, 0), "does not say of which architecture it is (general.architecture)"),
        (
            opening(0, 1) + entry("general.architecture", "<b>"),
            "does not say of which architecture it is (general.architecture)",
        ),
        (opening(0, 1) + struct.pack("<Q", HUGE), f"has a key of {HUGE} bytes"),
        (opening(0, 1) + text(b"\xff"), "has a key that is not UTF-8"),
        (
            opening(0, 1) + text("k") + struct.pack("<IQ", 8, HUGE),
            "ends within its own header",
        ),
        (
            opening(0, 1) + text("k") + struct.pack("<I", 99),
            "has the entry 'k', which is of no type of the format",
        ),
        (
            opening(0, 1) + text("k") + struct.pack("<IIQ", LIST, LIST, 1),
            "has the entry 'k', a list of no type that is read",
        ),
        (
            opening(0, 1) + text("k") + struct.pack("<IIQ", LIST, 0, HUGE),
            "ends within its own header",
        ),
        (
            opening(0, 1) + text("k") + struct.pack("<IIQ", LIST, 8, HUGE),
            "has too many texts in its lists",
        ),
        (opening(0, 2) + 2 * entry("k", 1), "has the entry 'k' twice"),
        (
            opening(0, 2) + ARCHITECTURE + entry("general.alignment", 24),
            "has an alignment (general.alignment) that is no power of two",
        ),
        (
            opening(0, 2) + ARCHITECTURE + entry("general.alignment", 0),
            "has an alignment (general.alignment) that is no power of two",
        ),
        (
            opening(1, 1) + ARCHITECTURE + struct.pack("<Q", 5000) + bytes(6000),
            "has the name of a tensor of 5000 bytes",
        ),
        (
            opening(1, 1) + ARCHITECTURE + text("w") + struct.pack("<I", 9) + bytes(100),
            "describes the tensor 'w' with 9 dimensions",
        ),
        (
            opening(1, 1) + ARCHITECTURE + described("w", (33,), 8, 0) + bytes(100),
            "describes the tensor 'w' wrongly",
        ),
        (
            opening(1, 1) + ARCHITECTURE + described("w", (1,), 0, 7) + bytes(100),
            "describes the tensor 'w' wrongly",
        ),
        (
            opening(2, 1) + ARCHITECTURE + 2 * described("w", (1,), 0, 0) + bytes(100),
            "has the tensor 'w' twice",
        ),
        (
            opening(2, 1)
            + ARCHITECTURE
            + described("v", (1,), 0, 0)
            + described("w", (1,), 0, 0)
            + bytes(100),
            "has overlaps between its tensors",
        ),
        (
            opening(2, 1)
            + ARCHITECTURE
            + described("v", (9,), 0, 0)
            + described("w", (1,), 0, 32)
            + bytes(100),
            "has overlaps between its tensors",
        ),
        (
            opening(65, 1)
            + ARCHITECTURE
            + b"".join(described(f"{n}", (0,), 900 + n, 0) for n in range(65))
            + bytes(100),
            "has tensors of too many types",
        ),
    ],
)
def test_a_broken_header_says_what_is_wrong(content: bytes, what: str) -> None:
    with pytest.raises(MalformedFileError) as caught:
        read(content)
    assert caught.value.message == f"The file 'model.gguf' of the repository {what}."


def test_a_tensor_beyond_the_end_is_named_with_the_size_that_is_missing() -> None:
    content = opening(1, 1) + ARCHITECTURE + described("w", (HUGE,), 0, 0)
    content += bytes(-len(content) % 32)
    with pytest.raises(MalformedFileError, match="should have at least"):
        read(content)


def test_no_header_is_read_for_ever() -> None:
    file = RepoFile(path="m.gguf", size=1 << 40, etag="0" * 64)
    start = opening(0, 1) + text("k") + struct.pack("<IIQ", LIST, 0, MAX_GGUF_HEADER_BYTES)
    with pytest.raises(MalformedFileError, match="has too long a header"):
        gguf_bytes_needed(start, file)


@pytest.mark.parametrize(
    ("version", "what"),
    [
        (1, "of version 1 of the format"),
        (4, "of version 4 of the format"),
        (3 << 24, "in the order of bytes of other machines (big-endian)"),
    ],
)
def test_a_version_that_no_library_reads_is_named(version: int, what: str) -> None:
    with pytest.raises(UnsupportedRepoError) as caught:
        read(opening(0, 0, version=version))
    assert caught.value.message == (
        f"The file 'model.gguf' is a GGUF {what}, which diffusers and transformers cannot read."
    )


def test_a_type_of_tomorrow_is_no_error() -> None:
    head = opening(2, 1) + ARCHITECTURE
    head += described("a", (7, 100), 77, 0) + described("b", (3,), 0, 64)
    content = head + bytes(-len(head) % 32) + bytes(76)
    header, _ = read(content)
    assert [(each.type, each.size) for each in header.tensors] == [("GGML_77", 64), ("F32", 12)]


def test_asking_too_early_is_an_error_of_the_caller() -> None:
    content = gguf_file({"general.architecture": "llama"})
    with pytest.raises(ValueError, match=r"model\.gguf is read up to 10, not to"):
        parse_gguf(content[:10], file_of(content))


# -- against the package that defines the format ---------------------------------------------------


def test_the_types_are_those_of_the_package() -> None:
    gguf = pytest.importorskip("gguf")
    theirs = {
        int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert theirs == TYPES


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a name")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b"])
    writer.add_array("numbers", [1, 2, 3])
    rows = np.arange(4 * 256, dtype="float32").reshape(4, 256)
    for kind in ("Q4_0", "Q8_0", "F16", "BF16"):
        type_ = gguf.GGMLQuantizationType[kind]
        data = rows.astype("float16") if kind == "F16" else gguf.quants.quantize(rows, type_)
        writer.add_tensor(f"blk.0.{kind}", data, raw_dtype=None if kind == "F16" else type_)
    writer.add_tensor("norm", rows[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = path.read_bytes()
    header, _ = read(content)
    theirs = gguf.GGUFReader(path)
    assert header.length == theirs.data_offset
    assert [
        (each.name, each.type, each.shape, each.size, header.length + each.offset)
        for each in header.tensors
    ] == [
        (
            each.name,
            each.tensor_type.name,
            tuple(int(side) for side in reversed(each.shape)),
            int(each.n_bytes),
            int(each.data_offset),
        )
        for each in theirs.tensors
    ]
    assert header.name == "a name"
    assert header.metadata["llama.block_count"] == 3
    assert (header.metadata["tokenizer.ggml.tokens"], header.metadata["numbers"]) == (2, 3)


def test_what_is_written_by_hand_is_read_by_the_package(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_file(
            {"general.architecture": "llama", "tokens": ["a", "b"]},
            {"w": ("Q4_K", (2, 256), None), "b": ("F32", (3,), None)},
        )
    )
    found = {each.name: each.tensor_type.name for each in gguf.GGUFReader(path).tensors}
    assert found == {"w": "Q4_K", "b": "F32"}
