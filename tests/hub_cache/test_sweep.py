"""What earlier downloads left behind: what is removed, and what is not touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbloader.hub_cache.filesystem import FileLock
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.partial import DiskPartial
from nbloader.hub_cache.sweep import ORPHAN_AGE_S, FoundPartial, Swept, found_partials, sweep
from nbloader.records import Listing, RepoFile

NOW = 2_000_000_000.0
COMMIT, LATER = "c" * 40, "d" * 40
OLD = RepoFile(path="model.safetensors", size=10_000, etag="a" * 64, lfs=True)
NEW = RepoFile(path="model.safetensors", size=10_000, etag="b" * 64, lfs=True)


def listing(*files: RepoFile, revision: str = "main") -> Listing:
    return Listing(repo_id="org/name", revision=revision, commit_hash=LATER, files=files)


@pytest.fixture
def cache(tmp_path: Path) -> RepoCache:
    return RepoCache(tmp_path / "models--org--name")


def leave(cache: RepoCache, file: RepoFile, revision: str = "main") -> int:
    """Leave the partial of a file in the cache, and give its size on the disk."""
    partial = DiskPartial(cache.blobs, file, revision=revision, commit_hash=COMMIT)
    with partial.writer(0) as writer:
        writer.write(bytes(5000))
    partial.close()
    return sum(path.stat().st_blocks * 512 for path in cache.blobs.glob(f"{file.etag}.*"))


def names(cache: RepoCache) -> list[str]:
    return sorted(path.name for path in cache.blobs.iterdir())


def test_partials_in_a_folder_are_found(cache: RepoCache) -> None:
    assert found_partials(cache.blobs) == []
    size = leave(cache, OLD)
    other = "1" * 40
    data, journal = (
        cache.blobs / f"{OLD.etag}.nbloader{half}.incomplete" for half in ("", "-journal")
    )
    alone, scratch, foreign, older = (
        cache.blobs / f"{other}{name}.incomplete"
        for name in (".nbloader", ".nbloader.123", ".0123abcd", "")
    )
    for path in (alone, scratch, foreign, older, cache.blobs / other, cache.blobs / "x.incomplete"):
        path.touch()
    for path, mtime in ((data, 5), (journal, 9), (alone, 3), (scratch, 1), (foreign, 2)):
        os.utime(path, (mtime, mtime))
    os.utime(older, (7, 7))
    nothing = {"path": None, "revision": None, "commit_hash": None, "bytes_on_disk": 0}
    expected = [
        FoundPartial(etag=other, ours=False, files=(foreign, older), mtime=7, **nothing),  # type: ignore[arg-type]
        FoundPartial(etag=other, ours=True, files=(scratch, alone), mtime=3, **nothing),  # type: ignore[arg-type]
        FoundPartial(
            etag=OLD.etag,
            ours=True,
            files=(journal, data),
            path=OLD.path,
            revision="main",
            commit_hash=COMMIT,
            bytes_on_disk=size,
            mtime=9,
        ),
    ]
    assert found_partials(cache.blobs) == expected
    os.truncate(data, OLD.size)  # A hole takes no space.
    assert found_partials(cache.blobs)[2].bytes_on_disk == size
    journal.replace(cache.blobs / f"{NEW.etag}.nbloader-journal.incomplete")
    assert [found.path for found in found_partials(cache.blobs)] == [None] * 4


def test_a_partial_that_is_gone_on_from_stays(cache: RepoCache) -> None:
    leave(cache, OLD)
    leave(cache, NEW, revision="v2")
    before = names(cache)
    assert sweep(cache, listing(OLD), NOW) == Swept(count=0, bytes_freed=0)
    # It has moved, or belongs to another revision, of which this listing says nothing.
    moved = RepoFile(path="unet/model.safetensors", size=OLD.size, etag=OLD.etag, lfs=True)
    assert sweep(cache, listing(moved), NOW) == Swept(count=0, bytes_freed=0)
    assert sweep(cache, listing(NEW, revision="v3"), NOW) == Swept(count=0, bytes_freed=0)
    assert names(cache) == before


@pytest.mark.parametrize("files", [(NEW,), ()])
def test_a_partial_of_a_file_that_has_changed_or_is_gone_is_removed(
    cache: RepoCache, files: tuple[RepoFile, ...]
) -> None:
    size = leave(cache, OLD)
    assert (sweep(cache, listing(*files), NOW), names(cache)) == (
        Swept(count=1, bytes_freed=size),
        [],
    )


def test_a_partial_that_another_process_goes_on_from_meanwhile_stays(cache: RepoCache) -> None:
    leave(cache, OLD)
    (cache.blobs / f"{OLD.etag}.nbloader-journal.incomplete").unlink()

    class Late(RepoCache):
        def try_lock_etag(self, etag: str) -> FileLock | None:
            leave(cache, OLD)
            return cache.try_lock_etag(etag)

    assert sweep(Late(cache.folder), listing(OLD), NOW) == Swept(count=0, bytes_freed=0)
    assert [found.path for found in found_partials(cache.blobs)] == [OLD.path]


def test_a_partial_under_another_name_is_removed(cache: RepoCache) -> None:
    leave(cache, OLD)
    for path in tuple(cache.blobs.iterdir()):
        path.replace(path.with_name(path.name.replace(OLD.etag, NEW.etag)))
    assert sweep(cache, listing(OLD, NEW), NOW).count == 1


def test_halves_and_leftovers_of_nbloader_are_removed(cache: RepoCache) -> None:
    leave(cache, OLD)
    leave(cache, NEW)
    (cache.blobs / f"{OLD.etag}.nbloader.incomplete").unlink()
    (cache.blobs / f"{NEW.etag}.nbloader-journal.incomplete").write_bytes(b"no journal")
    (cache.blobs / f"{'1' * 40}.nbloader.99.incomplete").symlink_to("nowhere")
    sizes = sum(path.lstat().st_blocks * 512 for path in cache.blobs.iterdir())
    assert sweep(cache, listing(OLD, NEW), NOW) == Swept(count=3, bytes_freed=sizes)
    assert names(cache) == []


def test_a_partial_of_a_file_that_is_complete_is_removed(cache: RepoCache) -> None:
    sizes = [leave(cache, file, revision="v2") for file in (OLD, NEW)]
    cache.blobs.joinpath(OLD.etag).write_bytes(bytes(OLD.size))
    cache.blobs.joinpath(NEW.etag).write_bytes(bytes(NEW.size))
    # The one is of the listing, the other of another revision.
    assert sweep(cache, listing(OLD), NOW) == Swept(count=2, bytes_freed=sum(sizes))
    assert names(cache) == [OLD.etag, NEW.etag]


def test_a_blob_of_the_wrong_size_does_not_cost_the_partial(cache: RepoCache) -> None:
    leave(cache, OLD)
    cache.blobs.joinpath(OLD.etag).write_bytes(bytes(OLD.size - 1))
    assert sweep(cache, listing(OLD), NOW) == Swept(count=0, bytes_freed=0)


def test_a_kill_between_the_rename_and_the_end_of_the_journal_leaves_nothing(
    cache: RepoCache,
) -> None:
    leave(cache, OLD)
    (cache.blobs / f"{OLD.etag}.nbloader.incomplete").replace(cache.blobs / OLD.etag)
    assert sweep(cache, listing(OLD), NOW).count == 1
    assert names(cache) == [OLD.etag]


def test_old_partials_of_other_libraries_are_removed_if_nobody_holds_them(
    cache: RepoCache,
) -> None:
    cache.blobs.mkdir(parents=True)
    ages = {
        f"{OLD.etag}.0123abcd.incomplete": ORPHAN_AGE_S + 1,
        f"{NEW.etag}.incomplete": ORPHAN_AGE_S + 1,
        f"{'1' * 40}.0123abcd.incomplete": ORPHAN_AGE_S - 1,
        "other.incomplete": ORPHAN_AGE_S + 1,
    }
    for name, age in ages.items():
        (cache.blobs / name).write_bytes(bytes(5000))
        os.utime(cache.blobs / name, (NOW - age, NOW - age))
    size = (cache.blobs / "other.incomplete").stat().st_blocks * 512
    held = cache.try_lock(OLD)
    assert held is not None
    with held:
        assert sweep(cache, listing(), NOW) == Swept(count=1, bytes_freed=size)
        assert names(cache) == sorted(name for name in ages if not name.startswith(NEW.etag))
    assert sweep(cache, listing(), NOW) == Swept(count=1, bytes_freed=size)


def test_what_a_process_is_at_work_on_is_not_touched(cache: RepoCache) -> None:
    leave(cache, OLD)
    lock = cache.try_lock(OLD)
    assert lock is not None
    assert sweep(cache, listing(NEW), NOW) == Swept(count=0, bytes_freed=0)
    lock.release()
    assert sweep(cache, listing(NEW), NOW).count == 1


def test_nothing_to_sweep_makes_nothing(cache: RepoCache) -> None:
    assert sweep(cache, listing(OLD), NOW) == Swept(count=0, bytes_freed=0)
    assert not cache.folder.parent.joinpath(".locks").exists()


def test_a_cache_that_cannot_be_swept_still_serves(cache: RepoCache) -> None:
    leave(cache, OLD)
    (cache.folder.parent / ".locks").write_text("in the way")
    assert sweep(cache, listing(NEW), NOW) == Swept(count=0, bytes_freed=0)
    (cache.folder.parent / "models--other").write_text("in the way")
    assert sweep(RepoCache(cache.folder.parent / "models--other"), listing(), NOW) == Swept(
        count=0, bytes_freed=0
    )
