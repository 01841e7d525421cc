"""Files that go once they are loaded: which may be removed, and which may not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nbloader.hub_cache import PassingFiles, RepoCache
from nbloader.hub_cache.filesystem import FileSystem
from nbloader.records import RepoFile
from tests.hub_cache.test_publish import COMMIT, LARGE, LATER, NO_LINKS, publish, tree


@pytest.fixture(params=["links", "no links"])
def cache(tmp_path: Path, request: pytest.FixtureRequest) -> RepoCache:
    return RepoCache(
        tmp_path / "hub" / "models--org--name",
        file_system=FileSystem() if request.param == "links" else NO_LINKS,
    )


@pytest.fixture
def notes(cache: RepoCache, tmp_path: Path) -> PassingFiles:
    return PassingFiles.of(cache, tmp_path / "home", os.getpid())


def bring(notes: PassingFiles) -> Path:
    """Bring a file that may go."""
    place = publish(notes.cache, LARGE)
    notes.note(LARGE, place)
    return place


def noted(notes: PassingFiles) -> list[str]:
    return [each.name for each in notes.folder.iterdir()] if notes.folder.is_dir() else []


def test_a_file_that_is_noted_goes_with_its_note(notes: PassingFiles) -> None:
    bring(notes)
    assert notes.has(COMMIT, LARGE)
    assert notes.remove(COMMIT, LARGE)
    assert (tree(notes.cache), noted(notes)) == ({}, [])
    assert not notes.has(COMMIT, LARGE)
    assert not notes.remove(COMMIT, LARGE)


def test_a_note_that_is_made_before_the_file_has_its_place_is_about_it(
    notes: PassingFiles, tmp_path: Path
) -> None:
    shutil.copyfile(publish(notes.cache, LARGE), scratch := tmp_path / "scratch")
    notes.note(LARGE, scratch)
    assert not notes.has(COMMIT, LARGE)  # What is there is another's.
    scratch.replace(notes.cache.pointer(COMMIT, LARGE.path).resolve())
    assert notes.has(COMMIT, LARGE)


def test_what_is_there_without_a_note_stays(notes: PassingFiles) -> None:
    place = publish(notes.cache, LARGE)
    assert not notes.remove(COMMIT, LARGE)
    assert place.exists()


def test_what_has_taken_the_place_of_the_file_stays(notes: PassingFiles, tmp_path: Path) -> None:
    place = bring(notes)
    shutil.copyfile(place, other := tmp_path / "other")
    other.replace(place.resolve())
    assert not notes.has(COMMIT, LARGE)
    assert not notes.remove(COMMIT, LARGE)
    assert place.exists()


def test_what_is_wanted_stays(notes: PassingFiles) -> None:
    place = bring(notes)
    assert notes.kept(COMMIT, LARGE)
    assert noted(notes) == []
    assert not notes.remove(COMMIT, LARGE)
    assert place.exists()
    assert notes.kept(COMMIT, LARGE)  # There is nothing to do.


@pytest.fixture
def dead() -> int:
    """The number of a process that was there."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_load_has_noted_is_taken_over(notes: PassingFiles, dead: int) -> None:
    bring(replace(notes, owner=dead))
    assert [notes.has(COMMIT, LARGE), notes.may_go(COMMIT, LARGE)] == [False, True]
    assert not notes.remove(COMMIT, LARGE)
    bring(replace(notes, owner=dead))
    assert notes.claimed(COMMIT, LARGE)
    assert notes.remove(COMMIT, LARGE)


def test_what_another_load_has_noted_stays_for_both(notes: PassingFiles) -> None:
    other = replace(notes, owner=os.getppid())
    place = bring(other)
    assert [notes.has(COMMIT, LARGE), notes.may_go(COMMIT, LARGE)] == [False, False]
    assert notes.claimed(COMMIT, LARGE)
    assert not other.remove(COMMIT, LARGE)
    assert not notes.remove(COMMIT, LARGE)
    assert place.exists()


def test_what_another_load_is_removing_cannot_be_claimed(notes: PassingFiles) -> None:
    bring(replace(notes, owner=os.getppid()))
    lock = notes.cache.try_lock(LARGE)
    assert lock is not None
    with lock:
        assert not notes.claimed(COMMIT, LARGE)


@pytest.mark.parametrize("note", ["", "1", "x y", "1 2 3", "\xff"])
def test_a_note_that_is_none_is_about_nothing(notes: PassingFiles, note: str) -> None:
    bring(notes)
    [place] = notes.folder.iterdir()
    place.write_bytes(note.encode("latin-1"))
    assert [notes.has(COMMIT, LARGE), notes.may_go(COMMIT, LARGE)] == [False, False]
    assert not notes.remove(COMMIT, LARGE)


def test_what_is_being_removed_is_not_kept(notes: PassingFiles) -> None:
    bring(notes)
    lock = notes.cache.try_lock(LARGE)
    assert lock is not None
    with lock:
        assert not notes.kept(COMMIT, LARGE)
    assert notes.kept(COMMIT, LARGE)


def test_what_another_process_holds_stays_and_nobody_waits_for_it(notes: PassingFiles) -> None:
    place = bring(notes)
    lock = notes.cache.try_lock(LARGE)
    assert lock is not None
    with lock:
        assert not notes.remove(COMMIT, LARGE)
    assert place.exists()
    assert not notes.has(COMMIT, LARGE)


def test_what_another_commit_has_too_stays_and_nobody_waits_for_it(tmp_path: Path) -> None:
    notes = PassingFiles.of(
        RepoCache(tmp_path / "hub" / "models--org--name"), tmp_path / "home", os.getpid()
    )
    place = bring(notes)
    notes.cache.link(LATER, LARGE)
    assert not notes.remove(COMMIT, LARGE)
    assert place.exists()
    assert not notes.has(COMMIT, LARGE)


class Owners(RuleBasedStateMachine):
    """Loads that keep nothing, and others, at work on three files of one repository."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        cache = RepoCache(self.root / "hub" / "models--org--name")
        self.notes = PassingFiles.of(cache, self.root / "home", os.getpid())
        self.theirs: dict[int, int] = {}
        self.ours: set[int] = set()
        self.count = 0

    def place(self, number: int) -> Path:
        return self.notes.cache.pointer(COMMIT, self.file(number).path)

    def file(self, number: int) -> RepoFile:
        return replace(LARGE, path=f"{number}.safetensors", etag=f"{number}" * 64)

    def write(self, scratch: Path) -> None:
        self.count += 1
        scratch.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as opened:
            opened.truncate(LARGE.size)
        os.utime(scratch, ns=(self.count, self.count))

    @rule(number=st.integers(0, 2))
    def we_bring(self, number: int) -> None:
        if self.place(number).exists():
            return
        cache, file = self.notes.cache, self.file(number)
        scratch = self.root / "scratch"
        self.write(scratch)
        self.notes.note(file, scratch)
        cache.blobs.mkdir(parents=True, exist_ok=True)
        scratch.replace(cache.blob(file))
        cache.link(COMMIT, file)
        self.ours.add(number)

    @rule(number=st.integers(0, 2))
    def others_bring_or_replace(self, number: int) -> None:
        cache, file = self.notes.cache, self.file(number)
        scratch = self.root / "scratch"
        self.write(scratch)
        cache.blobs.mkdir(parents=True, exist_ok=True)
        scratch.replace(cache.blob(file))
        cache.link(COMMIT, file)
        self.theirs[number] = self.count
        self.ours.discard(number)

    @rule(number=st.integers(0, 2))
    def others_want(self, number: int) -> None:
        if self.place(number).exists() and self.notes.kept(COMMIT, self.file(number)):
            self.theirs[number] = self.place(number).stat().st_mtime_ns
            self.ours.discard(number)

    @rule(number=st.integers(0, 2))
    def others_remove(self, number: int) -> None:
        cache, file = self.notes.cache, self.file(number)
        cache.discard(COMMIT, file)
        self.theirs.pop(number, None)
        self.ours.discard(number)

    @rule(number=st.integers(0, 2))
    def we_remove(self, number: int) -> None:
        assert self.notes.remove(COMMIT, self.file(number)) == (number in self.ours)
        self.ours.discard(number)

    @invariant()
    def what_is_theirs_is_there(self) -> None:
        for number, stamp in self.theirs.items():
            assert self.place(number).stat().st_mtime_ns == stamp
        for number in self.ours:
            assert self.notes.has(COMMIT, self.file(number))

    def teardown(self) -> None:
        shutil.rmtree(self.root)


TestOwners = Owners.TestCase
TestOwners.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
