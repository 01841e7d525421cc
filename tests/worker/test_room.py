"""Files that go once they are loaded, on a disk that has not room for all of them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from nbloader.errors import DiskFullError
from nbloader.hub_cache import PassingFiles, RepoCache
from nbloader.records import SPARE_DISK_BYTES, RepoFile, Route, TransferPolicy
from nbloader.worker.engine import Engine
from nbloader.worker.piece import Piece
from tests.worker.test_engine import COMMIT, MIB, MemoryRoute, bring

SIZE = 9 * MIB
CONTENT = {f"{number}.safetensors": Random(number).randbytes(SIZE) for number in range(5)}
FILES = [
    RepoFile(path=path, size=SIZE, etag=hashlib.sha256(content).hexdigest(), lfs=True)
    for path, content in CONTENT.items()
]
PATHS = frozenset(CONTENT)
JOURNALS = 4096


@dataclass(frozen=True, slots=True)
class SmallDisk(RepoCache):
    """A cache on a disk of `capacity` bytes."""

    capacity: int = 0

    def free_bytes(self) -> int:
        return self.capacity - used(self)


def used(cache: RepoCache) -> int:
    total = 0
    for path in cache.blobs.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # It goes just now.
            continue
    return total


class Load:
    """One fetch, and what becomes of its files."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self.cache = SmallDisk(folder / "models--org--name", capacity=capacity)
        self.notes = PassingFiles.of(self.cache, folder / "home", os.getpid())
        self.done: list[str] = []
        self.most = 0
        self.meanwhile: Callable[[RepoFile], object] = lambda file: None
        self.engine: Engine | None = None

    def _fetch(self, piece: Piece) -> None:
        self.most = max(self.most, used(self.cache))
        bring(piece, CONTENT[piece.cut.file.path])

    def _done(self, file: RepoFile) -> None:
        self.done.append(file.path)
        self.meanwhile(file)

    def go(self, file: RepoFile) -> None:
        """Remove a file, as it is once it is loaded."""
        assert self.notes.remove(COMMIT, file)

    def stay(self, file: RepoFile) -> None:
        self.notes.keep(file)

    def __call__(
        self,
        files: Sequence[RepoFile] = FILES,
        passing: frozenset[str] = PATHS,
        passed: Sequence[RepoFile] = (),
    ) -> list[str]:
        self.engine = Engine(
            files,
            cache=self.cache,
            revision="main",
            commit_hash=COMMIT,
            routes={Route.HTTP: MemoryRoute(self._fetch)},
            policy=TransferPolicy(route=Route.HTTP),
            publish=lambda event: None,
            done=self._done,
            stuck=lambda path, route: None,
            passing=passing,
            passed=passed,
            notes=self.notes,
        )
        self.engine.fetch()
        return sorted(self.done)

    def has(self, file: RepoFile) -> bool:
        return self.cache.has_pointer(COMMIT, file)


def bring_one(load: Load, file: RepoFile, *, noted: bool, named: bool = True) -> None:
    """Put a file there, as another process does."""
    load.cache.blobs.mkdir(parents=True, exist_ok=True)
    load.cache.blob(file).write_bytes(CONTENT[file.path])
    if named:
        load.cache.link(COMMIT, file)
    if noted:
        load.notes.note(file, load.cache.blob(file))


@pytest.mark.parametrize("room", [1, 2, 3])
def test_files_begin_only_where_there_is_room(tmp_path: Path, room: int) -> None:
    load = Load(tmp_path, room * SIZE + SPARE_DISK_BYTES)
    load.meanwhile = load.go
    assert load() == sorted(PATHS)
    assert load.most <= room * SIZE + JOURNALS
    assert used(load.cache) == 0


def test_where_there_is_room_for_all_nobody_waits(tmp_path: Path) -> None:
    load = Load(tmp_path, 5 * SIZE + SPARE_DISK_BYTES)
    assert load() == sorted(PATHS)
    assert all(load.notes.has(COMMIT, file) for file in FILES)


def test_while_room_is_waited_for_that_counts_as_work(tmp_path: Path) -> None:
    load = Load(tmp_path, SIZE + SPARE_DISK_BYTES)
    moved: list[int] = []

    def later(file: RepoFile) -> None:
        def watch() -> None:
            assert load.engine is not None
            before = load.engine.moved
            while load.engine.moved < before + 2:
                threading.Event().wait(0.01)
            moved.append(load.engine.moved - before)
            load.go(file)

        if len(load.done) < 3:
            threading.Thread(target=watch).start()

    load.meanwhile = later
    assert load(FILES[:3]) == [file.path for file in FILES[:3]]
    assert len(moved) == 2


def test_where_nothing_will_make_room_that_is_an_error(tmp_path: Path) -> None:
    load = Load(tmp_path, SIZE + 2 * SPARE_DISK_BYTES)
    load.meanwhile = load.stay
    with pytest.raises(DiskFullError) as caught:
        load()
    assert caught.value.message == (
        "13.6 MB have to have room at a time, and the disk of the cache has only 8.4 MB left"
    )
    assert caught.value.hint == (
        "Free some space there and run the line again: what has arrived is kept, but for what was "
        "loaded already. Or pass a folder on another disk as `cache_dir=`."
    )
    assert len(load.done) == 1


def test_where_not_even_one_has_room_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError):
        Load(tmp_path, SIZE + SPARE_DISK_BYTES - 1)()


def test_what_is_to_stay_has_its_room_first(tmp_path: Path) -> None:
    load = Load(tmp_path, 3 * SIZE + SPARE_DISK_BYTES)
    stays = {FILES[1].path, FILES[4].path}

    def go(file: RepoFile) -> None:
        if file.path not in stays:
            load.go(file)

    load.meanwhile = go
    assert load(passing=PATHS - stays) == sorted(PATHS)
    assert load.most <= 3 * SIZE + JOURNALS
    assert [file.path for file in FILES if load.has(file)] == sorted(stays)


def test_what_was_there_before_goes_first(tmp_path: Path) -> None:
    load = Load(tmp_path, 2 * SIZE + SPARE_DISK_BYTES)
    there = FILES[3:]
    for file in there:
        bring_one(load, file, noted=True)

    def go() -> None:
        for file in there:
            load.go(file)

    timer = threading.Timer(0.3, go)
    timer.start()
    load.meanwhile = load.go
    assert load(FILES[:3], passed=there) == [file.path for file in FILES[:3]]
    timer.join()


@pytest.mark.parametrize(
    ("passing", "named", "stays_noted"),
    [(True, True, False), (True, False, True), (False, True, False), (False, False, False)],
)
def test_what_another_process_has_brought_meanwhile_stays(
    tmp_path: Path, passing: bool, named: bool, stays_noted: bool
) -> None:
    """Without its name it is from one that was killed before it could give it."""
    load = Load(tmp_path, 9 * SIZE)
    file = replace(FILES[0])
    bring_one(load, file, noted=True, named=named)
    assert load([file], passing=PATHS if passing else frozenset()) == [file.path]
    assert load.has(file)
    assert load.notes.has(COMMIT, file) == stays_noted
