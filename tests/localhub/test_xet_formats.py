"""Xorbs, shards, and what a range of a file takes, by hand-made bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbloader.localhub.access import Scope, check_grant, grant
from nbloader.localhub.xet.formats import (
    FileRecord,
    FormatError,
    Term,
    XorbIndex,
    damage,
    index_xorb,
    read_shard,
)
from nbloader.localhub.xet.store import Layout, answer_v1, answer_v2, reconstruct

_TAG = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")
_HEADER = _TAG + struct.pack("<QQ", 2, 0)
_BOOKEND = b"\xff" * 32 + bytes(16)
_XORB = "0" * 16 + "1" * 16 + "2" * 16 + "f" * 16


def _chunk(raw: bytes, *, scheme: int = 0, raw_length: int | None = None) -> bytes:
    raw_length = len(raw) if raw_length is None else raw_length
    length = len(raw).to_bytes(3, "little")
    return b"\0" + length + bytes([scheme]) + raw_length.to_bytes(3, "little") + raw


def _index(tmp_path: Path, content: bytes) -> XorbIndex:
    path = tmp_path / "xorb"
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        return index_xorb(file)


def _hash(hex_digits: str) -> bytes:
    """A hash as records hold it: four numbers of 64 bits, the lowest byte first."""
    return b"".join(bytes.fromhex(hex_digits[at : at + 16])[::-1] for at in range(0, 64, 16))


def _file(xet_hash: str, flags: int, terms: Sequence[Term], *, sha256: str | None = None) -> bytes:
    records = [_hash(xet_hash) + struct.pack("<II8x", flags, len(terms))]
    for term in terms:
        numbers = struct.pack("<IIII", 0, term.length, term.start, term.stop)
        records.append(_hash(term.xorb) + numbers)
    if flags & 1 << 31:
        records.append(bytes(48 * len(terms)))
    if sha256 is not None:
        records.append(_hash(sha256) + bytes(16))
    return b"".join(records)


@pytest.mark.parametrize("end", [b"", b"XETBLOB and a footer"])
def test_the_chunks_of_a_xorb_are_found(tmp_path: Path, end: bytes) -> None:
    content = _chunk(b"abc") + _chunk(b"packed", scheme=1, raw_length=100) + _chunk(b"z") + end
    assert _index(tmp_path, content) == XorbIndex((0, 11, 25, 34), (0, 3, 103, 104), b"\0\1\0")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"XETBLOB only",
        _chunk(b"abc")[:-1],
        _chunk(b"abc") + b"\0\1",
        b"\1" + _chunk(b"abc")[1:],
        _chunk(b"abc", scheme=3),
        _chunk(b"abc", raw_length=4),
        _chunk(b"abc", scheme=1, raw_length=0),
        _chunk(b"abc", scheme=1, raw_length=(128 << 10) + 1),
        _chunk(b"a") * 8193,
    ],
    ids=lambda bad: f"{bad[:20]!r} of {len(bad)}",
)
def test_what_is_no_xorb_is_refused(tmp_path: Path, bad: bytes) -> None:
    with pytest.raises(FormatError):
        _index(tmp_path, bad)


def test_the_files_of_a_shard_are_read() -> None:
    terms = (Term(_XORB, 70_000, 3, 5), Term("a" * 64, 9, 0, 1))
    shard = (
        _HEADER
        + _file("1" * 64, 0, terms)
        + _file("2" * 64, 1 << 31, terms)
        + _file("3" * 64, 1 << 31 | 1 << 30, terms[:1], sha256=_XORB)
        + _file("0" * 64, 1 << 30, (), sha256="b" * 64)
        + _BOOKEND
        + b"what comes next does not matter"
    )
    assert read_shard(shard) == [
        FileRecord("1" * 64, terms, None),
        FileRecord("2" * 64, terms, None),
        FileRecord("3" * 64, terms[:1], _XORB),
        FileRecord("0" * 64, (), "b" * 64),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        _HEADER[:40],
        b"x" * 48 + _BOOKEND,
        _TAG + struct.pack("<QQ", 3, 0) + _BOOKEND,
        _HEADER,
        _HEADER + _BOOKEND[:47],
        _HEADER + _file("1" * 64, 0, [Term(_XORB, 1, 0, 1)]),
        _HEADER + _hash("1" * 64) + struct.pack("<II8x", 0, 2**32 - 1) + _BOOKEND,
        _HEADER + _file("1" * 64, 1 << 31, [Term(_XORB, 1, 0, 1)])[:-1],
    ],
)
def test_what_is_no_shard_is_refused(bad: bytes) -> None:
    with pytest.raises(FormatError):
        read_shard(bad)


_TEN_CHUNKS = XorbIndex(tuple(range(0, 1001, 100)), tuple(range(0, 921, 92)), bytes(10))


@pytest.mark.parametrize(
    "term",
    [
        Term("x", 0, 3, 3),
        Term("x", 92, 4, 3),
        Term("x", 184, 9, 11),
        Term("x", 91, 0, 1),
    ],
)
def test_terms_have_to_fit_their_xorbs(term: Term) -> None:
    with pytest.raises(FormatError):
        Layout.of(FileRecord("f", (term,), None), lambda xorb: _TEN_CHUNKS)


def test_the_two_versions_of_the_answer_name_the_same_bytes() -> None:
    terms = (Term("x", 184, 2, 4), Term("x", 92, 8, 9), Term("x", 92, 4, 5))
    layout = Layout.of(FileRecord("f", terms, None), lambda xorb: _TEN_CHUNKS)
    parts = reconstruct(layout, 100, 300)
    common = {
        "offset_into_first_range": 8,
        "terms": [
            {"hash": "x", "unpacked_length": 92, "range": {"start": 3, "end": 4}},
            {"hash": "x", "unpacked_length": 92, "range": {"start": 8, "end": 9}},
            {"hash": "x", "unpacked_length": 92, "range": {"start": 4, "end": 5}},
        ],
    }
    assert answer_v2(layout, parts, "url of {}".format) == common | {
        "xorbs": {
            "x": [
                {
                    "url": "url of x",
                    "ranges": [
                        {"chunks": {"start": 3, "end": 5}, "bytes": {"start": 300, "end": 499}},
                        {"chunks": {"start": 8, "end": 9}, "bytes": {"start": 800, "end": 899}},
                    ],
                }
            ]
        }
    }
    assert answer_v1(layout, parts, "url of {}".format) == common | {
        "fetch_info": {
            "x": [
                {
                    "range": {"start": 3, "end": 5},
                    "url": "url of x",
                    "url_range": {"start": 300, "end": 499},
                },
                {
                    "range": {"start": 8, "end": 9},
                    "url": "url of x",
                    "url_range": {"start": 800, "end": 899},
                },
            ]
        }
    }


def test_a_file_of_no_bytes_takes_nothing() -> None:
    layout = Layout.of(FileRecord("f", (), None), lambda xorb: _TEN_CHUNKS)
    parts = reconstruct(layout, 0, 0)
    assert (layout.size, parts.skip, parts.terms, parts.ranges) == (0, 0, (), {})


@st.composite
def _files(draw: st.DrawFn) -> tuple[dict[str, list[bytes]], list[tuple[str, int, int]]]:
    """Xorbs as lists of chunks, and a file as ranges of them."""
    names = ["x", "y", "z"][: draw(st.integers(1, 3))]
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=8)
    random = Random(0)
    xorbs = {name: [random.randbytes(size) for size in draw(sizes)] for name in names}
    terms = []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(names))
        start = draw(st.integers(0, len(xorbs[name]) - 1))
        terms.append((name, start, draw(st.integers(start + 1, len(xorbs[name])))))
    return xorbs, terms


def _index_of(chunks: list[bytes]) -> XorbIndex:
    return XorbIndex(
        tuple(accumulate((len(chunk) + 8 for chunk in chunks), initial=0)),
        tuple(accumulate((len(chunk) for chunk in chunks), initial=0)),
        bytes(len(chunks)),
    )


@given(_files(), st.data())
def test_a_reconstruction_gives_its_range_and_nothing_in_vain(
    made: tuple[dict[str, list[bytes]], list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    xorbs, ranges = made
    pieces = [b"".join(xorbs[name][start:stop]) for name, start, stop in ranges]
    content = b"".join(pieces)
    terms = tuple(
        Term(name, len(piece), first, last)
        for (name, first, last), piece in zip(ranges, pieces, strict=True)
    )
    layout = Layout.of(FileRecord("f", terms, None), lambda name: _index_of(xorbs[name]))
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start + 1, len(content)))
    parts = reconstruct(layout, start, stop)

    chunks = [chunk for term in parts.terms for chunk in xorbs[term.xorb][term.start : term.stop]]
    joined = b"".join(chunks)
    assert layout.size == len(content)
    assert joined[parts.skip : parts.skip + stop - start] == content[start:stop]
    assert parts.skip < len(chunks[0])
    assert len(joined) - parts.skip - (stop - start) < len(chunks[-1])
    for term in parts.terms:
        inside = xorbs[term.xorb][term.start : term.stop]
        assert term.length == sum(map(len, inside))
        assert any(a <= term.start and term.stop <= b for a, b in parts.ranges[term.xorb])
    for name, fetched in parts.ranges.items():
        assert all(a < b for a, b in fetched)
        assert all(before[1] < after[0] for before, after in pairwise(fetched))
        named = {
            n for term in parts.terms if term.xorb == name for n in range(term.start, term.stop)
        }
        assert {number for a, b in fetched for number in range(a, b)} == named


@given(st.data())
def test_damage_is_the_same_for_the_whole_and_for_a_part(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    random = Random(1)
    sizes = data.draw(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
    content = b"".join(_chunk(random.randbytes(size)) for size in sizes)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    with path.open("rb", buffering=0) as file:
        index = index_xorb(file)
        wrong = damage(file, index, content, 0)
        part = damage(file, index, content[start:stop], start)
    assert part == wrong[start:stop]
    changed = [at for at, (a, b) in enumerate(zip(content, wrong, strict=True)) if a != b]
    assert changed == [
        at for offset, end in pairwise(index.offsets) for at in range(offset + 8, end, 1024)
    ]


def test_a_token_allows_what_it_was_made_for() -> None:
    read = grant(b"key", Scope.READ, "org/name", 100)
    write = grant(b"key", Scope.WRITE, "org/name", 100)
    assert check_grant(b"key", read, Scope.READ, 99.9) == "org/name"
    assert check_grant(b"key", write, Scope.READ, 99.9) == "org/name"
    assert check_grant(b"key", write, Scope.WRITE, 99.9) == "org/name"
    refused = [
        check_grant(b"key", read, Scope.READ, 100),
        check_grant(b"key", read, Scope.WRITE, 0),
        check_grant(b"other", read, Scope.READ, 0),
        check_grant(b"key", read.replace("org/name", "org/other"), Scope.READ, 0),
        check_grant(b"key", read.replace(":100:", ":200:"), Scope.READ, 0),
        check_grant(b"key", read.replace(":read:", ":write:"), Scope.WRITE, 0),
        check_grant(b"key", None, Scope.READ, 0),
        check_grant(b"key", "", Scope.READ, 0),
        check_grant(b"key", "xet:read:org/name:x:ü", Scope.READ, 0),
    ]
    assert refused == [None] * len(refused)
