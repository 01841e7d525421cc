"""Hashes that are made while bytes arrive, and of whole files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbloader.hub_cache.hashing import KEPT_BYTES, READ_BYTES, FileHash, Room, matches
from nbloader.hub_cache.partial import DiskPartial, MemoryPartial
from nbloader.records import RepoFile

CONTENT = Random(1).randbytes(READ_BYTES + 1)


def large(content: bytes) -> RepoFile:
    etag = hashlib.sha256(content).hexdigest()
    return RepoFile(path="model.safetensors", size=len(content), etag=etag, lfs=True)


def small(content: bytes) -> RepoFile:
    etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return RepoFile(path="config.json", size=len(content), etag=etag)


def test_small_files_are_named_as_git_names_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": 1}')
    said = subprocess.run(
        ["git", "hash-object", tmp_path / "config.json"], capture_output=True, text=True, check=True
    )
    assert small(b'{"a": 1}').etag == said.stdout.strip()


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1])
def test_whole_files_are_right_or_wrong(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:size])
    for file in (large(CONTENT[:size]), small(CONTENT[:size])):
        assert matches(path, file)
        wrong = RepoFile(path=file.path, size=size, etag="0" * len(file.etag), lfs=file.lfs)
        assert not matches(path, wrong)
        longer = RepoFile(path=file.path, size=size + 1, etag=file.etag, lfs=file.lfs)
        assert not matches(path, longer)
        assert not matches(tmp_path, file)
        assert not matches(tmp_path / "none", file)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    order=st.randoms(use_true_random=False),
    limit=st.none() | st.integers(1, 200),
    lfs=st.booleans(),
    offered=st.randoms(use_true_random=False),
)
def test_what_arrives_in_any_order_is_hashed_once_in_order(
    size: int, cuts: list[int], order: Random, limit: int | None, lfs: bool, offered: Random
) -> None:
    content = CONTENT[:size]
    file = large(content) if lfs else small(content)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    parts = list(pairwise(edges))
    order.shuffle(parts)
    partial, hashed, total = MemoryPartial(file), FileHash(file), 0
    for start, stop in parts:
        assert not hashed.matches
        with partial.writer(start) as writer:
            writer.write(content[start:stop])
        if offered.random() < 0.5:
            before = hashed.position
            hashed.offer(start, content[start:stop])
            assert hashed.position == (stop if start == before else before)
            total += hashed.position - before
        while count := hashed.advance(partial, limit):
            assert limit is None or count <= limit
            total += count
        assert hashed.position == total == partial.prefix
    assert (hashed.matches, hashed.hexdigest()) == (True, file.etag)
    assert hashed.name == ("sha256" if lfs else "git sha1")


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 1000), max_size=8),
    order=st.randoms(use_true_random=False),
    space=st.sampled_from([0, 200, 1000]),
    advance=st.randoms(use_true_random=False),
)
def test_what_comes_before_its_turn_is_kept_as_far_as_there_is_room(
    size: int, cuts: list[int], order: Random, space: int, advance: Random
) -> None:
    content = CONTENT[:size]
    file = large(content)
    parts = list(pairwise(sorted({0, size, *(cut for cut in cuts if cut < size)})))
    order.shuffle(parts)
    room = Room(space)
    partial, hashed = MemoryPartial(file), FileHash(file, room)
    for start, stop in parts:
        with partial.writer(start) as writer:
            writer.write(content[start:stop])
        hashed.offer(start, content[start:stop])
        assert space < size or hashed.position == partial.prefix
        if advance.random() < 0.3:
            hashed.advance(partial)
            assert hashed.position == partial.prefix
    hashed.advance(partial)
    assert hashed.matches
    assert room.take(space)  # All of it was given back.


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 1000),
    cuts=st.lists(st.integers(0, 1000), max_size=8),
    order=st.randoms(use_true_random=False),
    offered=st.sets(st.integers(0, 8)),
)
def test_what_was_not_kept_is_read_as_far_as_it_has_come(
    size: int, cuts: list[int], order: Random, offered: set[int]
) -> None:
    """However far ahead others are that were kept: there is a hole before them."""
    content = CONTENT[:size]
    file = large(content)
    parts = list(enumerate(pairwise(sorted({0, size, *(cut for cut in cuts if cut < size)}))))
    order.shuffle(parts)
    partial, hashed = MemoryPartial(file), FileHash(file, Room())
    for number, (start, stop) in parts:
        with partial.writer(start) as writer:
            writer.write(content[start:stop])
        if number in offered:
            hashed.offer(start, content[start:stop])
        hashed.advance(partial)
        assert hashed.position == partial.prefix
    assert hashed.matches


def test_what_comes_in_a_buffer_that_is_filled_anew_is_not_kept() -> None:
    file = large(CONTENT[:20])
    hashed = FileHash(file, Room())
    buffer = bytearray(CONTENT[10:20])
    hashed.offer(10, memoryview(buffer))
    buffer[:] = CONTENT[:10]
    hashed.offer(0, memoryview(buffer))
    assert hashed.position == 10


def test_bytes_that_were_read_again_meanwhile_take_no_room() -> None:
    file = large(CONTENT[:20])
    room = Room(10)
    partial, hashed = MemoryPartial(file), FileHash(file, room)
    with partial.writer(0) as writer:
        writer.write(CONTENT[:20])
    hashed.advance(partial)
    hashed.offer(10, CONTENT[10:20])
    assert room.take(10)
    assert hashed.matches


def test_threads_that_bring_pieces_in_any_order_hash_all_of_them() -> None:
    step = 5000
    file = large(CONTENT)
    room = Room()
    hashed = FileHash(file, room)
    starts = list(range(0, len(CONTENT), step))
    Random(2).shuffle(starts)

    def bring(some: list[int]) -> None:
        for start in some:
            hashed.offer(start, CONTENT[start : start + step])

    threads = [threading.Thread(target=bring, args=(starts[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashed.matches
    assert room.take(KEPT_BYTES)


def test_wrong_bytes_do_not_match(tmp_path: Path) -> None:
    file = large(CONTENT)
    partial = DiskPartial(tmp_path, file, revision="main", commit_hash="c" * 40)
    with partial.writer(0) as writer:
        writer.write(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    hashed = FileHash(file)
    assert hashed.advance(partial) == file.size
    assert (hashed.position, hashed.matches, hashed.hexdigest() == file.etag) == (
        file.size,
        False,
        False,
    )
    partial.close()


def test_the_hash_of_the_beginning_is_not_that_of_the_file(tmp_path: Path) -> None:
    beginning = large(CONTENT[:5])
    claimed = RepoFile(path="model.safetensors", size=10, etag=beginning.etag, lfs=True)
    partial, hashed = MemoryPartial(claimed), FileHash(claimed)
    with partial.writer(0) as writer:
        writer.write(CONTENT[:5])
    assert hashed.advance(partial) == 5
    assert (hashed.hexdigest() == claimed.etag, hashed.matches) == (True, False)
    (tmp_path / "file").write_bytes(CONTENT[:6])
    assert not matches(tmp_path / "file", beginning)


def test_a_file_that_was_cut_short_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    file = large(CONTENT)
    partial = DiskPartial(tmp_path, file, revision="main", commit_hash="c" * 40)
    with partial.writer(0) as writer:
        writer.write(CONTENT)
    os.truncate(partial.path, 10)
    with pytest.raises(OSError, match="shorter than it was"):
        FileHash(file).advance(partial)
    partial.discard()
