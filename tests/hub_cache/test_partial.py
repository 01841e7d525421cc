"""The bytes of one file that have arrived: what is there after a kill, what is not believed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbloader.hub_cache.claims import HeldError, part_paths
from nbloader.hub_cache.folders import open_folder
from nbloader.hub_cache.journal import MAX_SPANS, Journal, JournalHeader, read_header, read_journal
from nbloader.hub_cache.partial import (
    JOURNAL_EVERY_BYTES,
    SMALL_FILE_BYTES,
    WRITE_BYTES,
    DiskPartial,
    MemoryPartial,
    Partial,
    SpoiltError,
    Writer,
    open_partial,
)
from nbloader.hub_cache.ranges import Span, Spans
from nbloader.records import RepoFile

ETAG = "ab" * 32
COMMIT = "c" * 40
SIZE = 5 * JOURNAL_EVERY_BYTES + 1
CONTENT = Random(0).randbytes(SIZE)
FILE = RepoFile(path="vae/model.safetensors", size=SIZE, etag=ETAG, lfs=True)
RECORD_BYTES = 20


def reopen(blobs: Path, file: RepoFile = FILE, revision: str = "main") -> DiskPartial:
    return DiskPartial(blobs, file, revision=revision, commit_hash=COMMIT)


def data_and_journal(blobs: Path) -> tuple[Path, Path]:
    return blobs / f"{ETAG}.nbloader.incomplete", blobs / f"{ETAG}.nbloader-journal.incomplete"


def kill(partial: DiskPartial) -> None:
    """Leave on the disk what a kill of the process would leave."""
    partial._end(journal=False)


def spans(partial: Partial) -> list[Span]:
    return Spans(partial.missing()).missing(partial.size)


def records(journal: bytes) -> list[Span]:
    """Read the whole records behind the first line, whatever their checksums."""
    content = journal.partition(b"\n")[2]
    return [
        struct.unpack_from("<QQ", content, at)
        for at in range(0, len(content) - RECORD_BYTES + 1, RECORD_BYTES)
    ]


def read(partial: Partial, span: Span) -> bytes:
    buffer = bytearray(span[1] - span[0])
    assert partial.readinto(span[0], buffer) == len(buffer)
    return bytes(buffer)


def fill(partial: Partial, content: bytes = CONTENT) -> None:
    for start, stop in partial.missing():
        with partial.writer(start) as writer:
            writer.write(content[start:stop])


# -- any order of writes and kills ------------------------------------------------------------

OPEN = st.tuples(st.just("open"), st.integers(0, SIZE))
WRITE = st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 2 * JOURNAL_EVERY_BYTES))
CLOSE = st.tuples(st.just("close"), st.integers(0, 7))
KILL = st.tuples(st.just("kill"))
CUT = st.tuples(st.just("cut"), st.floats(0, 1), st.binary(max_size=3 * RECORD_BYTES))
RESTART = st.tuples(st.just("restart"))


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(OPEN | WRITE | WRITE | CLOSE | KILL | CUT | RESTART, max_size=40))
@example(steps=[("open", 0), ("write", 0, 300_000), ("cut", 0.99, b"\0" * 20), ("kill",)])
def test_any_order_of_writes_and_kills_ends_in_the_file(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blobs = Path(folder) / "blobs"
        partial, writers = reopen(blobs), list[Writer]()
        for step in steps:
            match step:
                case "open", int(start):
                    writers.append(partial.writer(start))
                case "write", int(number), int(length) if writers:
                    writer = writers[number % len(writers)]
                    writer.write(CONTENT[writer.position : writer.position + length])
                case "close", int(number) if writers:
                    writers.pop(number % len(writers)).close()
                case ("restart",):
                    before = spans(partial)
                    partial.close()
                    partial, writers = reopen(blobs), []
                    assert spans(partial) == before
                case ("kill",):
                    arrived = partial.arrived
                    kill(partial)
                    noted = records(data_and_journal(blobs)[1].read_bytes())
                    partial = reopen(blobs)
                    assert spans(partial) == list(Spans(noted))
                    assert partial.arrived >= arrived - len(writers) * JOURNAL_EVERY_BYTES
                    writers = []
                case "cut", float(where), bytes(garbage):
                    kill(partial)
                    journal = data_and_journal(blobs)[1]
                    whole = journal.read_bytes()
                    left = whole[: round(where * len(whole))]
                    journal.write_bytes(left + garbage)
                    partial, writers = reopen(blobs), []
                    assert spans(partial) == list(Spans(records(left)))
            assert partial.arrived == sum(stop - start for start, stop in spans(partial))
            assert all(read(partial, span) == CONTENT[slice(*span)] for span in spans(partial))
        fill(partial)
        partial.move_to(blobs / ETAG)
        assert {path.name: path.read_bytes() for path in blobs.iterdir()} == {ETAG: CONTENT}


WRITES = rf"""
import os, sys, threading
from pathlib import Path
from random import Random
from nbloader.records import RepoFile
from nbloader.hub_cache.partial import DiskPartial

content = Random(0).randbytes({SIZE})
file = RepoFile(path="model.safetensors", size={SIZE}, etag={ETAG!r}, lfs=True)
partial = DiskPartial(Path(sys.argv[1]), file, revision="main", commit_hash={COMMIT!r})

def write(number):
    with partial.writer(number * {SIZE} // 2) as writer:
        while writer.position < (number + 1) * {SIZE} // 2 - 100:
            writer.write(content[writer.position:writer.position + 100])
            os.write(1, b'%d %d\n' % (number, writer.position))

for number in range(2):
    threading.Thread(target=write, args=(number,)).start()
"""


def test_a_killed_process_loses_what_its_writers_had_not_journaled(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITES, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as told:
        lines = [next(told) for _ in range(8_000)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in told if line.endswith(b"\n")]
    positions = {int(number): int(at) for number, at in map(bytes.split, lines)}
    told_bytes = sum(at - number * SIZE // 2 for number, at in positions.items())
    assert (process.returncode, 800_000 <= told_bytes < SIZE) == (-signal.SIGKILL, True)
    partial = reopen(tmp_path)
    assert partial.arrived >= told_bytes - 2 * JOURNAL_EVERY_BYTES
    assert all(read(partial, span) == CONTENT[slice(*span)] for span in spans(partial))
    fill(partial)
    assert read(partial, (0, SIZE)) == CONTENT
    partial.close()


def test_several_threads_write_while_one_reads(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    parts = [(number * SIZE // 4, (number + 1) * SIZE // 4) for number in range(4)]

    def write(start: int, stop: int) -> None:
        with partial.writer(start) as writer:
            while writer.position < stop:
                writer.write(CONTENT[writer.position : min(writer.position + 1000, stop)])

    threads = [threading.Thread(target=write, args=part) for part in parts]
    for thread in threads:
        thread.start()
    done = 0
    while done < SIZE:
        if (prefix := partial.prefix) > done:
            assert read(partial, (done, prefix)) == CONTENT[done:prefix]
            done = prefix
    for thread in threads:
        thread.join()
    assert (partial.complete, partial.arrived, partial.missing()) == (True, SIZE, [])
    kill(partial)
    partial = reopen(tmp_path)
    assert partial.complete
    partial.discard()
    assert list(tmp_path.iterdir()) == []


# -- what is never believed -------------------------------------------------------------------


def half(blobs: Path) -> Path:
    """Leave a partial of which the first half is there, and give its journal."""
    partial = reopen(blobs)
    with partial.writer(0) as writer:
        writer.write(CONTENT[: SIZE // 2])
    partial.close()
    reopen(blobs).close()  # Its journal has one record now.
    return data_and_journal(blobs)[1]


def flip(journal: Path, at: int) -> None:
    content = bytearray(journal.read_bytes())
    content[at] ^= 1
    journal.write_bytes(content)


def test_a_half_is_there_when_all_is_well(tmp_path: Path) -> None:
    half(tmp_path)
    partial = reopen(tmp_path, revision="v2")
    assert (spans(partial), partial.prefix, partial.complete) == (
        [(0, SIZE // 2)],
        SIZE // 2,
        False,
    )
    assert (partial.size, partial.path) == (SIZE, data_and_journal(tmp_path)[0])
    partial.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda blobs, journal: journal.unlink(), id="no journal"),
        pytest.param(lambda blobs, journal: data_and_journal(blobs)[0].unlink(), id="no data"),
        pytest.param(lambda blobs, journal: flip(journal, 0), id="header's checksum"),
        pytest.param(lambda blobs, journal: flip(journal, 40), id="header"),
        pytest.param(lambda blobs, journal: flip(journal, -RECORD_BYTES), id="only record"),
        pytest.param(lambda blobs, journal: flip(journal, -1), id="record's checksum"),
        pytest.param(lambda blobs, journal: journal.write_bytes(b""), id="empty journal"),
        pytest.param(lambda blobs, journal: os.truncate(data_and_journal(blobs)[0], 9), id="short"),
        pytest.param(
            lambda blobs, journal: os.truncate(data_and_journal(blobs)[0], SIZE + 1), id="long"
        ),
    ],
)
def test_what_may_be_wrong_is_fetched_again(
    tmp_path: Path, spoil: Callable[[Path, Path], object]
) -> None:
    spoil(tmp_path, half(tmp_path))
    partial = reopen(tmp_path)
    assert (spans(partial), data_and_journal(tmp_path)[0].stat().st_size) == ([], 0)
    partial.close()


def test_a_journal_of_another_size_is_discarded_with_its_data(tmp_path: Path) -> None:
    half(tmp_path)
    grown = RepoFile(path=FILE.path, size=SIZE + 1, etag=ETAG, lfs=True)
    partial = reopen(tmp_path, grown)
    assert (spans(partial), data_and_journal(tmp_path)[0].stat().st_size) == ([], 0)
    partial.close()


def test_records_of_another_journal_are_not_believed(tmp_path: Path) -> None:
    record = half(tmp_path / "one").read_bytes()[-RECORD_BYTES:]
    reopen(tmp_path / "two", revision="v2").close()
    data, journal = data_and_journal(tmp_path / "two")
    data.write_bytes(CONTENT)
    with journal.open("ab") as file:
        file.write(record)
    partial = reopen(tmp_path / "two")
    assert spans(partial) == []
    partial.close()


def test_a_link_in_the_place_of_the_data_is_not_written_through(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    with partial.writer(0) as writer:
        writer.write(CONTENT[:2])  # Less than the size of a link.
    partial.close()
    data = data_and_journal(tmp_path)[0]
    elsewhere = tmp_path / "elsewhere"
    data.replace(elsewhere)
    data.symlink_to(elsewhere)
    partial = reopen(tmp_path)
    assert spans(partial) == []
    fill(partial, bytes(SIZE))
    partial.close()
    assert elsewhere.read_bytes() == CONTENT[:2]


def write_header(journal: Path, text: bytes) -> None:
    """Write a journal with any header, whose checksum is right."""
    journal.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"format": 1}',
        b'{"format": 2, "etag": "a", "size": 1, "path": "b", "revision": "c", "commit_hash": "d"}',
        b'{"format": 1, "etag": "a", "size": 1, "path": 2, "revision": "c", "commit_hash": "d"}',
        b'{"format": 1, "etag": "a", "size": "1", "path": "b", "revision": "c", "commit_hash": ""}',
        b'{"format": 1, "etag": "a", "size": 1, "path": "b", "revision": "c"}',
        b"[" * 5000,
    ],
)
def test_a_header_of_another_format_is_none(tmp_path: Path, text: bytes) -> None:
    journal = tmp_path / "journal"
    write_header(journal, text)
    assert (read_header(journal), read_journal(journal)) == (None, None)
    write_header(
        journal,
        b'{"format": 1, "etag": "a", "size": 1, "path": "b", "revision": "c", "commit_hash": "d"}',
    )
    header = JournalHeader(etag="a", size=1, path="b", revision="c", commit_hash="d")
    assert (read_header(journal), read_journal(journal)) == (header, (header, []))
    flip(journal, -4)
    assert (read_header(journal), read_journal(journal)) == (None, None)


def test_a_range_that_ends_before_it_begins_ends_the_journal(tmp_path: Path) -> None:
    header = JournalHeader(etag=ETAG, size=SIZE, path="x", revision="main", commit_hash=COMMIT)
    path = tmp_path / "journal"
    with open_folder(tmp_path) as folder:
        Journal(folder, path.name, header, [(0, 5), (9, 9), (10, 20)]).close()
    assert read_journal(path) == (header, [(0, 5)])


def test_a_partial_under_another_name_is_not_believed(tmp_path: Path) -> None:
    half(tmp_path)
    other = RepoFile(path=FILE.path, size=SIZE, etag="cd" * 32, lfs=True)
    for path in data_and_journal(tmp_path):
        path.replace(path.with_name(path.name.replace(ETAG, other.etag)))
    partial = reopen(tmp_path, other)
    assert spans(partial) == []
    partial.close()


@pytest.mark.parametrize("size", [SIZE, 1 << 40])
def test_a_journal_of_too_many_ranges_is_not_believed(tmp_path: Path, size: int) -> None:
    """To count them, and the gaps between them, would take minutes."""
    file = RepoFile(path=FILE.path, size=size, etag=ETAG, lfs=True)
    reopen(tmp_path, file).close()
    data, journal = data_and_journal(tmp_path)
    os.truncate(data, size)
    header, _ = read_journal(journal) or (None, None)
    assert header is not None
    for count, kept in ((MAX_SPANS, MAX_SPANS), (MAX_SPANS + 1, 0), (2_000_000, 0)):
        many = [(2 * number, 2 * number + 1) for number in range(count)]
        with open_folder(tmp_path) as folder:
            Journal(folder, journal.name, header, many).close()
        partial = reopen(tmp_path, file)
        assert partial.arrived == kept
        partial.close()
        data.touch()
        os.truncate(data, size)


def test_a_partial_with_a_second_link_is_not_written_to(tmp_path: Path) -> None:
    half(tmp_path)
    precious = tmp_path / "precious"
    precious.hardlink_to(data_and_journal(tmp_path)[0])
    before = precious.read_bytes()
    partial = reopen(tmp_path)
    assert spans(partial) == []
    fill(partial, bytes(SIZE))
    partial.close()
    assert precious.read_bytes() == before


@pytest.mark.parametrize("what", ["fifo", "folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, what: str) -> None:
    half(tmp_path)
    for path in data_and_journal(tmp_path):
        path.unlink()
        if what == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    if what == "folder":
        data_and_journal(tmp_path)[1].rmdir()
    partial = reopen(tmp_path)
    fill(partial)
    partial.move_to(tmp_path / ETAG)
    assert (tmp_path / ETAG).read_bytes() == CONTENT
    assert data_and_journal(tmp_path)[0].is_dir() == (what == "folder")


# -- two at once, and a folder that is swept ---------------------------------------------------

REAL = RepoFile(
    path="model.safetensors", size=SIZE, etag=hashlib.sha256(CONTENT).hexdigest(), lfs=True
)


def parts(blobs: Path) -> tuple[Path, Path]:
    return part_paths(blobs, REAL.etag)


def test_who_comes_second_is_told_that_the_partial_is_held(tmp_path: Path) -> None:
    first = reopen(tmp_path, REAL)
    with pytest.raises(HeldError) as caught:
        reopen(tmp_path, REAL)
    assert caught.value.path == parts(tmp_path)[0]
    first.close()
    reopen(tmp_path, REAL).close()


@pytest.mark.parametrize("written", [0, SIZE // 2])
def test_two_whose_locks_do_not_see_each_other_both_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    # As where locks hold on one machine only, and each process is on another.
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)
    first = reopen(tmp_path, REAL)
    with first.writer(0) as writer:
        writer.write(CONTENT[:written])
    second = reopen(tmp_path, REAL)
    assert second.arrived == written
    fill(first)
    first.move_to(tmp_path / REAL.etag)
    assert (tmp_path / REAL.etag).read_bytes() == CONTENT
    published = (tmp_path / REAL.etag).stat().st_ino
    fill(second)
    second.move_to(tmp_path / REAL.etag)
    assert (tmp_path / REAL.etag).read_bytes() == CONTENT
    assert (tmp_path / REAL.etag).stat().st_ino != published
    assert [path.name for path in tmp_path.iterdir()] == [REAL.etag]


def test_what_another_has_written_into_ours_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *args: None)
    first = reopen(tmp_path, REAL)
    with first.writer(0) as writer:
        writer.write(CONTENT[:1000])
    second = reopen(tmp_path, REAL)
    fill(first)
    os.pwrite(second._fd, b"wrong", 2000)
    with pytest.raises(SpoiltError):
        first.move_to(tmp_path / REAL.etag)
    assert not (tmp_path / REAL.etag).exists()
    second.close()


@pytest.mark.parametrize("at", [SIZE // 2, SIZE - 1, SIZE])
def test_a_partial_that_was_cut_short_is_not_published(tmp_path: Path, at: int) -> None:
    """What comes after the hole would hide it, and the hash is of what had come."""
    partial = reopen(tmp_path, REAL)
    with partial.writer(0) as writer:
        writer.write(CONTENT[:at])
    os.truncate(parts(tmp_path)[0], 1000)
    fill(partial)
    with pytest.raises(SpoiltError):
        partial.move_to(tmp_path / REAL.etag)
    partial.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["data", "journal", "both", "folder", "data replaced"])
def test_what_is_swept_under_a_download_is_taken_from_the_descriptor(
    tmp_path: Path, gone: str
) -> None:
    blobs = tmp_path / "blobs"
    partial = reopen(blobs, REAL)
    with partial.writer(0) as writer:
        writer.write(CONTENT[: SIZE // 2])
    data, journal = parts(blobs)
    match gone:
        case "data":
            data.unlink()
        case "journal":
            journal.unlink()
        case "both":
            data.unlink()
            journal.unlink()
        case "folder":
            shutil.rmtree(blobs)
        case _:
            data.unlink()
            data.write_bytes(b"another")
    fill(partial)
    partial.move_to(blobs / REAL.etag)
    assert (blobs / REAL.etag).read_bytes() == CONTENT
    left = {path.name for path in blobs.iterdir()}
    assert left == {REAL.etag, *([data.name] if gone == "data replaced" else [])}


def test_what_another_has_put_there_is_not_removed(tmp_path: Path) -> None:
    partial = reopen(tmp_path, REAL)
    data, journal = parts(tmp_path)
    data.unlink()
    data.write_bytes(b"another")
    partial.discard()
    assert data.read_bytes() == b"another"
    assert not journal.exists()


# -- failures and ends ------------------------------------------------------------------------


@contextmanager
def disk_full_beyond(size: int) -> Iterator[None]:
    """Let the system refuse all bytes of a file beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_before_the_disk_was_full_stays(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    limit = JOURNAL_EVERY_BYTES + 1000
    with disk_full_beyond(limit), partial.writer(0) as writer:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            writer.write(CONTENT)
        assert (writer.position, spans(partial)) == (limit, [(0, limit)])
    kill(partial)
    partial = reopen(tmp_path)
    assert spans(partial) == [(0, limit)]
    fill(partial)
    partial.move_to(tmp_path / ETAG)
    assert (tmp_path / ETAG).read_bytes() == CONTENT


@contextmanager
def full_disk_under(partial: DiskPartial) -> Iterator[None]:
    """Let every write to the journal fail as on a full disk."""
    descriptor = partial._journal._fd
    kept, full = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    try:
        yield
    finally:
        if partial._journal._fd >= 0:
            os.dup2(kept, descriptor)
        os.close(kept)
        os.close(full)


def test_a_journal_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    far = WRITE_BYTES + 1000
    first, second = partial.writer(0), partial.writer(far)
    second.write(CONTENT[far : far + 10])
    with full_disk_under(partial):
        with pytest.raises(OSError, match="No space left"):
            first.write(CONTENT[: WRITE_BYTES + 10])
        assert spans(partial) == [
            (0, WRITE_BYTES),
            (far, far + 10),
        ]
        with pytest.raises(OSError, match="No space left"):
            first.write(CONTENT[WRITE_BYTES:][:1])
        with pytest.raises(OSError, match="No space left"):
            first.close()
        assert first.position == WRITE_BYTES
    first.write(CONTENT[WRITE_BYTES:][:10])
    before = spans(partial)
    partial.close()
    partial = reopen(tmp_path)
    assert spans(partial) == before
    partial.close()


def test_a_whole_file_needs_no_journal(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    partial.writer(0).write(CONTENT)
    with full_disk_under(partial):
        partial.move_to(tmp_path / ETAG)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {ETAG: CONTENT}


def test_a_full_disk_when_a_partial_is_opened_costs_nothing(tmp_path: Path) -> None:
    half(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with disk_full_beyond(100), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        reopen(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_journal_that_fails_at_the_end_still_closes_all(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    writers = [partial.writer(at) for at in (0, 100)]
    for writer in writers:
        writer.write(CONTENT[writer.position :][:10])
    with full_disk_under(partial), pytest.raises(OSError, match="No space left"):
        partial.close()
    for writer in writers:
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"x")


def test_a_closed_partial_takes_and_gives_nothing(tmp_path: Path) -> None:
    small = RepoFile(path="config.json", size=100, etag="1" * 40)
    for partial in (reopen(tmp_path), MemoryPartial(small)):
        writer = partial.writer(0)
        writer.write(CONTENT[:10])
        partial.close()
        partial.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"x")
        with pytest.raises(ValueError, match="closed"):
            partial.writer(0)
        with pytest.raises(ValueError, match="closed"):
            partial.readinto(0, bytearray(1))


def test_both_kinds_of_partial_do_the_same(tmp_path: Path) -> None:
    content = CONTENT[:1000]
    file = RepoFile(path="config.json", size=1000, etag="1" * 40)
    target = tmp_path / file.etag
    for partial in (reopen(tmp_path, file), MemoryPartial(file)):
        with partial.writer(600) as writer:
            writer.write(memoryview(content)[600:700])
            writer.write(b"")
            assert partial._writers == {writer}
        assert partial._writers == set()
        assert (partial.missing(), partial.arrived, partial.prefix, partial.complete) == (
            [(0, 600), (700, 1000)],
            100,
            0,
            False,
        )
        with pytest.raises(ValueError, match="100 of 1000 bytes"):
            partial.move_to(target)
        with partial.writer(990) as writer, pytest.raises(ValueError, match="more than the 1000"):
            writer.write(bytes(11))
        for outside in (-1, 1001):
            with pytest.raises(ValueError, match="outside"):
                partial.writer(outside)
        fill(partial, content)
        buffer = bytearray(50)
        assert (partial.readinto(980, buffer), bytes(buffer[:20])) == (20, content[980:])
        partial.move_to(target)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {file.etag: content}
        plain = tmp_path / "plain"
        plain.touch()
        assert target.stat().st_mode == plain.stat().st_mode
        plain.unlink()
        target.unlink()


def test_an_empty_file_is_complete_at_once(tmp_path: Path) -> None:
    file = RepoFile(path="empty", size=0, etag="1" * 40)
    for partial in (reopen(tmp_path, file), MemoryPartial(file)):
        assert (partial.complete, partial.missing(), partial.prefix) == (True, [], 0)
        partial.move_to(tmp_path / file.etag)
        assert [path.name for path in tmp_path.iterdir()] == [file.etag]
        (tmp_path / file.etag).unlink()


def test_a_file_that_cannot_be_put_in_its_place_stays(tmp_path: Path) -> None:
    (tmp_path / ETAG / "in the way").mkdir(parents=True)
    partial = reopen(tmp_path)
    fill(partial)
    with pytest.raises(OSError, match=r"irectory"):
        partial.move_to(tmp_path / ETAG)
    partial = reopen(tmp_path)
    assert partial.complete
    partial.discard()
    small = MemoryPartial(RepoFile(path="empty", size=0, etag="1" * 40))
    with pytest.raises(OSError, match=r"irectory"):
        small.move_to(tmp_path / ETAG)
    assert [path.name for path in tmp_path.iterdir()] == [ETAG]


def test_small_files_stay_in_memory(tmp_path: Path) -> None:
    kinds = []
    for size in (0, SMALL_FILE_BYTES, SMALL_FILE_BYTES + 1):
        file = RepoFile(path="model.safetensors", size=size, etag=ETAG, lfs=True)
        partial = open_partial(tmp_path / str(size), file, revision="main", commit_hash=COMMIT)
        kinds.append(type(partial))
        partial.discard()
    assert kinds == [MemoryPartial, MemoryPartial, DiskPartial]


def test_bytes_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    """What was hashed is what stays, whoever writes the same range later."""
    partial = reopen(tmp_path)
    middle = CONTENT[1000:2000]
    assert partial.writer(1000).write(middle) == 1000
    with partial.writer(0) as other:
        assert other.write(bytes(5000)) == 4000
        assert other.position == 5000
    buffer = bytearray(5000)
    partial.readinto(0, buffer)
    assert buffer == bytes(1000) + middle + bytes(3000)
    partial.close()


def test_a_range_that_another_still_writes_is_not_journaled(tmp_path: Path) -> None:
    partial = reopen(tmp_path)
    partial._claimed.add(1000, 2000)  # by a thread that has not come to its write yet
    with partial.writer(0) as writer:
        writer.write(CONTENT[:5000])
    kill(partial)
    assert spans(reopen(tmp_path)) == [(0, 1000), (2000, 5000)]
