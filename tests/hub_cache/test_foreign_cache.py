"""A cache that others may write to: what lies there is not believed, nor written through."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nbloader.bounds import MAX_FILES
from nbloader.hub_cache import ListingStore, LocalFolder, PassingFiles, RepoCache
from nbloader.hub_cache.layout import MAX_LISTING_BYTES
from nbloader.hub_cache.scan import find_repos
from nbloader.hub_cache.sweep import sweep
from nbloader.records import Listing, RepoFile
from tests.hub_cache.test_publish import COMMIT, LARGE, SMALL, publish

LISTING = Listing(
    repo_id="org/name", revision="main", commit_hash=COMMIT, files=(LARGE, SMALL), described=True
)


@pytest.fixture
def cache(tmp_path: Path) -> RepoCache:
    return RepoCache(tmp_path / "hub" / "models--org--name")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the user's own, outside of the cache."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*")}


# -- what is read back -------------------------------------------------------------------------


def change(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda kept: kept.update(values)


def change_file(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda kept: kept["files"][0].update(values)


@pytest.mark.parametrize(
    "spoil",
    [
        change(commit_hash="../../.."),
        change(commit_hash="d" * 40),
        change(repo_id="../../etc"),
        change(repo_id="a/b/c"),
        change(folder="/etc"),
        change(library_name="<script>"),
        change(pipeline_tag="x" * 100),
        change(base_models=["../.."]),
        change(base_models=["a/b"] * 100),
        change(files={}),
        change_file(etag="../../../victim/precious"),
        change_file(etag=""),
        change_file(etag="1" * 40),
        change_file(etag="A" * 64),
        change_file(etag="1" * 64 + "\n"),
        change_file(size=-1),
        change_file(size="many"),
        change_file(lfs=False),
        change_file(xet_hash="../x"),
        change_file(repo_id="other/repo"),
    ],
)
def test_a_kept_listing_is_believed_as_little_as_an_answer(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    home = tmp_path / "home"
    store = ListingStore(home / "nbloader" / "listings" / "models--org--name", home)
    store.keep(LISTING)
    assert store.get("v1", COMMIT) == replace(LISTING, revision="v1")
    kept = json.loads(json.dumps(asdict(LISTING)))
    spoil(kept)
    (store.folder / f"{COMMIT}.json").write_text(json.dumps(kept))
    assert store.get("v1", COMMIT) is None


def fifo(place: Path) -> None:
    os.mkfifo(place)


def endless(place: Path) -> None:
    place.symlink_to("/dev/zero")


def huge(place: Path) -> None:
    place.touch()
    os.truncate(place, 1 << 40)


@pytest.mark.parametrize("make", [fifo, endless, huge, Path.mkdir])
def test_what_never_ends_is_not_read(
    cache: RepoCache, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    home = tmp_path / "home"
    store = ListingStore(home / "listings", home)
    folder = LocalFolder.of(tmp_path / "own", "models--org--name")
    notes = PassingFiles.of(cache, home, os.getpid())
    publish(cache, LARGE)
    for place in (
        cache.folder / "refs" / "main",
        store.folder / f"{COMMIT}.json",
        folder._beside(LARGE.path, "metadata"),
        notes._place(LARGE),
    ):
        place.parent.mkdir(parents=True)
        make(place)
    assert cache.commit_of("main") is None
    assert store.get("main", COMMIT) is None
    assert not folder.has_pointer(COMMIT, LARGE)
    assert notes.kept(COMMIT, LARGE)
    (found,) = find_repos(cache.folder.parent, frozenset())
    assert found.refs == {}


def test_a_listing_as_large_as_one_can_be_is_kept(tmp_path: Path) -> None:
    store = ListingStore(tmp_path)
    files = tuple(replace(LARGE, path=f"{'a' * 100}/{number}.bin") for number in range(200_000))
    store.keep(replace(LISTING, files=files))
    assert (tmp_path / f"{COMMIT}.json").stat().st_size < MAX_LISTING_BYTES
    assert store.get("main", COMMIT) == replace(LISTING, files=files)


def test_a_listing_of_more_files_than_the_hub_gives_is_not_parsed(tmp_path: Path) -> None:
    store = ListingStore(tmp_path)
    store.keep(replace(LISTING, files=()))
    place = tmp_path / f"{COMMIT}.json"
    one = json.dumps({"path": "", "size": 0, "etag": "1" * 40, "lfs": False})
    kept = place.read_text()
    place.write_text(kept.replace('"files":[]', f'"files":[{one}]'))
    assert store.get("main", COMMIT) is not None
    many = ",".join([one] * (MAX_FILES + 1))
    place.write_text(kept.replace('"files":[]', f'"files":[{many}]'))
    assert place.stat().st_size < MAX_LISTING_BYTES
    assert store.get("main", COMMIT) is None


def test_a_commit_that_is_a_link_lists_nothing(cache: RepoCache) -> None:
    """Below it may be all of the disk."""
    cache.snapshot(COMMIT).parent.mkdir(parents=True)
    cache.snapshot(COMMIT).symlink_to("/")
    assert cache.listing("org/name", COMMIT) is None


# -- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ["../../../victim/precious", "..", "", "/etc/hostname"])
def test_an_etag_that_is_a_path_removes_nothing(cache: RepoCache, victim: Path, etag: str) -> None:
    cache.blobs.mkdir(parents=True)
    pointer = cache.pointer(COMMIT, "config.json")
    pointer.parent.mkdir(parents=True)
    pointer.write_text("of another size")
    file = RepoFile(path="config.json", size=1000, etag=etag)
    cache.discard(COMMIT, file)
    assert not pointer.exists()
    assert content(victim) == {"precious": "precious"}
    empty = cache.open_partial(replace(file, size=0), revision="main", commit_hash=COMMIT)
    with pytest.raises(OSError, match=r"no name of an entry|not below"):
        cache.publish(empty, COMMIT, file)
    assert content(victim) == {"precious": "precious"}


def test_a_name_that_leads_out_of_the_cache_is_removed_alone(
    cache: RepoCache, victim: Path
) -> None:
    pointer = cache.pointer(COMMIT, "config.json")
    pointer.parent.mkdir(parents=True)
    pointer.symlink_to(victim / "precious")
    cache.discard(COMMIT, SMALL)
    assert not os.path.lexists(pointer)
    assert content(victim) == {"precious": "precious"}


@pytest.mark.parametrize(
    "link", ["refs", "refs/deep", ".locks", ".locks/models--org--name", "listings", "passing"]
)
def test_a_link_in_the_place_of_a_folder_is_not_written_through(
    cache: RepoCache, tmp_path: Path, victim: Path, link: str
) -> None:
    home = tmp_path / "home" / "nbloader"
    place = {"refs": cache.folder, "refs/deep": cache.folder}.get(
        link, cache.folder.parent if link.startswith(".") else home
    ).joinpath(*link.split("/"))
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    tries: list[Callable[[], object]] = [
        lambda: cache.write_ref("deep/main", COMMIT),
        lambda: cache.try_lock(SMALL),
        lambda: ListingStore(home / "listings" / "x", home.parent).keep(LISTING),
        lambda: PassingFiles.of(cache, home.parent, 1).note(SMALL, victim / "precious"),
    ]
    refused = 0
    for act in tries:
        try:
            act()
        except OSError as error:
            refused += error.filename == str(place)
    assert refused == (not link.startswith(("listings", "passing")))
    assert content(victim) == {"precious": "precious"}


def test_a_revision_that_is_a_path_is_not_written(cache: RepoCache, victim: Path) -> None:
    for revision in ("../../../victim/precious", str(victim / "precious"), ".."):
        with pytest.raises(OSError, match=r"not below|no name of an entry"):
            cache.write_ref(revision, COMMIT)
        assert cache.commit_of(revision) is None
    assert content(victim) == {"precious": "precious"}


@pytest.mark.parametrize("link", [".cache", ".cache/huggingface", "text_encoder"])
def test_a_link_in_a_folder_of_the_users_own_is_not_written_through(
    tmp_path: Path, victim: Path, link: str
) -> None:
    folder = LocalFolder.of(tmp_path / "own", "models--org--name")
    place = folder.root.joinpath(*link.split("/"))
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    with pytest.raises(OSError, match="a link stands in the place of a folder"):
        publish(folder, LARGE)
    assert {path.name for path in victim.iterdir()} == {"precious"}
    if link == "text_encoder":
        assert folder.in_the_way(LARGE) == place


def test_links_among_the_partials_are_swept_alone(cache: RepoCache, victim: Path) -> None:
    cache.blobs.mkdir(parents=True)
    for name in (".nbloader.incomplete", ".nbloader-journal.incomplete", ".nbloader.1.incomplete"):
        (cache.blobs / f"{'1' * 64}{name}").symlink_to(victim / "precious")
    swept = sweep(cache, LISTING, now=0)
    assert swept.count == 1
    assert list(cache.blobs.iterdir()) == []
    assert content(victim) == {"precious": "precious"}


def test_a_partial_whose_lock_was_removed_is_not_swept(cache: RepoCache) -> None:
    other = replace(LARGE, etag="2" * 64)
    partial = cache.open_partial(other, revision="main", commit_hash=COMMIT)
    assert sweep(cache, LISTING, now=0).count == 0
    partial.close()
    assert sweep(cache, LISTING, now=0).count == 1
