"""A folder of the user's own: notes, locks, and what is taken over."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub._local_folder import (
    get_local_download_paths,
    read_download_metadata,
    write_download_metadata,
)
from huggingface_hub.utils import WeakFileLock

from nbloader.hub_cache import LocalFolder
from nbloader.records import Listing, RepoFile

COMMIT, LATER = "c" * 40, "d" * 40
CONTENT = b"the content of a file"
FILE = RepoFile(
    path="sub/model.bin", size=len(CONTENT), etag=hashlib.sha256(CONTENT).hexdigest(), lfs=True
)


def unheard(count: int) -> None:
    """Nobody counts what is hashed."""


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder.of(tmp_path / "local", "models--org--name", donors=(tmp_path / "blobs",))


def publish(folder: LocalFolder, file: RepoFile = FILE, content: bytes = CONTENT) -> Path:
    partial = folder.open_partial(file, revision="main", commit_hash=COMMIT)
    with partial.writer(0) as writer:
        writer.write(content)
    lock = folder.try_lock(file)
    assert lock is not None
    with lock:
        folder.publish(partial, COMMIT, file)
    return folder.pointer(COMMIT, file.path)


def test_the_hubs_library_reads_what_is_noted(folder: LocalFolder) -> None:
    place = publish(folder)
    assert place == folder.root / "sub" / "model.bin"
    noted = read_download_metadata(folder.root, FILE.path)
    assert noted is not None
    assert (noted.commit_hash, noted.etag) == (COMMIT, FILE.etag)
    assert noted.timestamp >= place.stat().st_mtime - 1
    assert not list(folder.root.rglob("*.incomplete"))


def test_what_the_hubs_library_has_noted_is_read(folder: LocalFolder) -> None:
    place = get_local_download_paths(folder.root, FILE.path).file_path
    place.write_bytes(CONTENT)
    assert not folder.has_pointer(COMMIT, FILE)
    write_download_metadata(folder.root, FILE.path, COMMIT, FILE.etag)
    assert folder.has_pointer(COMMIT, FILE)
    # The same content for another commit is as good.
    assert folder.has_pointer(LATER, FILE)
    listing = Listing(repo_id="org/name", revision="main", commit_hash=COMMIT, files=(FILE,))
    assert folder.listing("org/name", "main") == listing


@pytest.mark.parametrize(
    "note",
    [
        "",
        "x",
        f"{COMMIT}\n",
        f"{COMMIT}\n{FILE.etag}\nsoon\n",
        f"../x\n{FILE.etag}\n1e12\n",
        "\xff",
    ],
)
def test_a_note_that_is_none_counts_for_nothing(folder: LocalFolder, note: str) -> None:
    publish(folder)
    (place,) = folder.root.rglob("*.metadata")
    place.write_bytes(note.encode("latin-1"))
    assert not folder.has_pointer(COMMIT, FILE)
    assert folder.recognise(COMMIT, FILE, unheard) is True
    assert folder.has_pointer(COMMIT, FILE)


@pytest.mark.parametrize(("content", "expected"), [(CONTENT, True), (b"x" * len(CONTENT), False)])
def test_a_file_that_is_newer_than_its_note_is_hashed(
    folder: LocalFolder, content: bytes, expected: bool
) -> None:
    place = publish(folder)
    assert folder.recognise(COMMIT, FILE, unheard) is None
    place.write_bytes(content)
    os.utime(place, (place.stat().st_atime, place.stat().st_mtime + 10))
    assert folder.recognise(COMMIT, FILE, unheard) is expected
    # What is right is noted anew only once its time has come; what is wrong never.
    assert place.read_bytes() == content


def test_an_older_version_is_no_file_of_the_users(folder: LocalFolder) -> None:
    publish(folder)
    other = RepoFile(path=FILE.path, size=5, etag="e" * 64, lfs=True)
    assert folder.recognise(LATER, other, unheard) is None
    assert not folder.has_pointer(LATER, other)


@pytest.mark.parametrize("right", [True, False])
def test_a_file_of_the_cache_is_copied_if_it_is_right(folder: LocalFolder, right: bool) -> None:
    (donor,) = folder.donors
    donor.mkdir()
    blob = donor / FILE.etag
    blob.write_bytes(CONTENT if right else b"y" * len(CONTENT))
    assert folder.elsewhere(FILE) == blob
    assert folder.adopt(COMMIT, FILE, unheard) is right
    place = folder.pointer(COMMIT, FILE.path)
    assert (place.is_file(), folder.has_pointer(COMMIT, FILE)) == (right, right)
    assert not list(folder.root.rglob("*.incomplete"))
    if right:
        assert place.stat().st_nlink == 1


def test_a_lock_of_the_hubs_library_is_honoured_and_kept_for_it(folder: LocalFolder) -> None:
    theirs = get_local_download_paths(folder.root, FILE.path).lock_path
    with WeakFileLock(theirs):
        assert folder.try_lock(FILE) is None
        assert folder.held_lock(FILE) == theirs
    ours = folder.try_lock(FILE)
    assert ours is not None
    assert folder.held_lock(FILE) == folder.lock_path(FILE.etag)
    with pytest.raises(Exception, match="could not be acquired"), WeakFileLock(theirs, timeout=0.1):
        pass
    ours.release()
    # Neither is the lock of the partial held any more, which two names may share.
    again = folder.try_lock(FILE)
    assert again is not None
    again.release()
