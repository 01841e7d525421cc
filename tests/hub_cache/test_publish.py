"""How a verified file enters the Hub's cache, on the file systems that there are."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import filelock
import pytest
from huggingface_hub import file_download, try_to_load_from_cache
from huggingface_hub.utils import WeakFileLock

from nbloader.errors import CacheNotWritableError
from nbloader.hub_cache.filesystem import FileSystem, probe, try_lock
from nbloader.hub_cache.hashing import matches
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.partial import SMALL_FILE_BYTES, open_partial
from nbloader.records import RepoFile

COMMIT, LATER = "c" * 40, "d" * 40
CONTENT = Random(2).randbytes(SMALL_FILE_BYTES + 1)
LARGE = RepoFile(
    path="text_encoder/1/model.safetensors",
    size=len(CONTENT),
    etag=hashlib.sha256(CONTENT).hexdigest(),
    lfs=True,
)
SMALL = RepoFile(path="config.json", size=1000, etag="1" * 40)
NO_LINKS = FileSystem(symlinks=False)


def publish(cache: RepoCache, file: RepoFile, commit_hash: str = COMMIT) -> Path:
    """Bring a file into the cache, as a download does, and give its name there."""
    partial = cache.open_partial(file, revision="main", commit_hash=commit_hash)
    with partial.writer(0) as writer:
        writer.write(CONTENT[: file.size])
    lock = cache.try_lock(file)
    assert lock is not None
    with lock:
        cache.publish(partial, commit_hash, file)
    return cache.pointer(commit_hash, file.path)


def tree(cache: RepoCache) -> dict[str, str | int]:
    """Return all files of a repository in the cache: sizes, or where links point to."""
    return {
        path.relative_to(cache.folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.stat().st_size
        )
        for path in cache.folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def cache(tmp_path: Path) -> RepoCache:
    return RepoCache(tmp_path / "models--org--name")


# -- with links -------------------------------------------------------------------------------


def test_files_enter_as_the_hubs_library_puts_them(cache: RepoCache, tmp_path: Path) -> None:
    for file in (SMALL, LARGE):
        pointer = publish(cache, file)
        assert pointer.read_bytes() == CONTENT[: file.size]
        assert try_to_load_from_cache(
            "org/name", file.path, cache_dir=tmp_path, revision=COMMIT
        ) == str(pointer)
        made = tmp_path / "models--org--name" / "snapshots" / LATER / file.path
        made.parent.mkdir(parents=True, exist_ok=True)
        file_download._create_symlink(str(cache.blob(file)), str(made))
        assert pointer.readlink() == made.readlink()
        assert cache.has_bytes(COMMIT, file)
    assert tree(cache) == {
        f"blobs/{LARGE.etag}": LARGE.size,
        f"blobs/{SMALL.etag}": SMALL.size,
        **{
            f"snapshots/{commit}/{path}": target
            for commit in (COMMIT, LATER)
            for path, target in (
                (LARGE.path, f"../../../../blobs/{LARGE.etag}"),
                (SMALL.path, f"../../blobs/{SMALL.etag}"),
            )
        },
    }


def test_a_file_of_another_commit_only_gets_its_name(cache: RepoCache) -> None:
    publish(cache, LARGE)
    cache.link(LATER, LARGE)
    linked = cache.pointer(LATER, LARGE.path)
    before = linked.lstat()
    cache.link(LATER, LARGE)
    assert (linked.lstat(), matches(linked, LARGE)) == (before, True)


@pytest.mark.parametrize("file_system", [FileSystem(), NO_LINKS])
@pytest.mark.parametrize("wrong", ["file", "link", "dangling link"])
def test_a_wrong_name_is_replaced(cache: RepoCache, file_system: FileSystem, wrong: str) -> None:
    cache = RepoCache(cache.folder, file_system)
    pointer = cache.pointer(COMMIT, LARGE.path)
    pointer.parent.mkdir(parents=True)
    elsewhere = cache.folder / "elsewhere"
    elsewhere.write_bytes(b"old")
    if wrong == "file":
        pointer.write_bytes(b"old")
    else:
        pointer.symlink_to(elsewhere if wrong == "link" else "nowhere")
    publish(cache, LARGE)
    assert (matches(pointer, LARGE), elsewhere.read_bytes()) == (True, b"old")
    # What lies under a name that scratch files once had is not touched.
    old = cache.blobs / f"{LARGE.etag}.nbloader.{os.getpid()}.incomplete"
    old.symlink_to(elsewhere)
    pointer.unlink()
    pointer.symlink_to(elsewhere)
    cache.blobs.joinpath(LARGE.etag).write_bytes(CONTENT)
    cache.link(COMMIT, LARGE)
    assert (matches(pointer, LARGE), elsewhere.read_bytes()) == (True, b"old")
    assert [path for path in tree(cache) if path.endswith("incomplete")] == [f"blobs/{old.name}"]


def test_a_blob_in_the_shared_store_is_followed_and_not_written_through(
    cache: RepoCache, tmp_path: Path
) -> None:
    store = tmp_path / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    store.write_bytes(CONTENT)
    cache.blobs.mkdir(parents=True)
    cache.blob(LARGE).symlink_to(f"../../blobs/ab/{store.name}")
    assert (cache.has_bytes(COMMIT, LARGE), cache.has_pointer(COMMIT, LARGE)) == (True, False)
    cache.link(COMMIT, LARGE)
    assert matches(cache.pointer(COMMIT, LARGE.path), LARGE)
    listed = cache.listing("org/name", COMMIT)
    assert listed is not None
    assert listed.files == (LARGE,)
    cache.discard(COMMIT, LARGE)
    assert (store.read_bytes(), cache.has_bytes(COMMIT, LARGE)) == (CONTENT, False)
    cache.blob(LARGE).symlink_to(f"../../blobs/ab/{store.name}")
    store.write_bytes(b"wrong")
    publish(cache, LARGE)
    assert (store.read_bytes(), tree(cache)[f"blobs/{LARGE.etag}"]) == (b"wrong", LARGE.size)


@pytest.mark.parametrize("redirected", [".", "models--org--name", "blobs", "snapshots"])
def test_folders_of_the_cache_may_be_links(tmp_path: Path, redirected: str) -> None:
    real, cache_dir = tmp_path / "disk" / "deeper" / "down", tmp_path / "cache"
    real.mkdir(parents=True)
    cache = RepoCache(cache_dir / "models--org--name")
    link = {
        ".": cache_dir,
        "models--org--name": cache.folder,
        "blobs": cache.blobs,
        "snapshots": cache.folder / "snapshots",
    }[redirected]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(real)
    assert probe(cache_dir) == FileSystem()
    for file in (LARGE, SMALL):
        publish(cache, file)
        cache.link(LATER, file)
        for commit in (COMMIT, LATER):
            pointer = cache.pointer(commit, file.path)
            assert pointer.read_bytes() == CONTENT[: file.size]
            if redirected in (".", "models--org--name", "blobs"):
                up = "../" * (2 + file.path.count("/"))
                assert str(pointer.readlink()) == f"{up}blobs/{file.etag}"
    assert link.is_symlink()


@pytest.mark.parametrize("place", ["", "text_encoder", "text_encoder/1"])
def test_a_commit_or_a_folder_in_it_that_is_a_link_is_not_followed(
    cache: RepoCache, tmp_path: Path, place: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "model.safetensors").write_text("the user's own")
    link = cache.snapshot(COMMIT) / place
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    for act in (
        lambda: publish(cache, LARGE),
        lambda: cache.link(COMMIT, LARGE),
        lambda: cache.discard(COMMIT, LARGE),
    ):
        with pytest.raises(OSError, match="a link stands in the place of a folder") as caught:
            act()
        assert caught.value.filename == str(link)
    assert [(path.name, path.read_text()) for path in victim.iterdir()] == [
        ("model.safetensors", "the user's own")
    ]
    assert cache.has_bytes(COMMIT, LARGE)


def test_a_link_that_names_no_blob_says_no_hash(cache: RepoCache) -> None:
    cache.blobs.mkdir(parents=True)
    cache.snapshot(COMMIT).mkdir(parents=True)
    for number, name in enumerate(("blobs/odd", f"blobs/{SMALL.etag}", f"other/{SMALL.etag}")):
        target = cache.folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"x")
        (cache.snapshot(COMMIT) / str(number)).symlink_to(f"../../{name}")
    (cache.snapshot(COMMIT) / "3").symlink_to("nowhere")
    listed = cache.listing("org/name", COMMIT)
    assert listed is not None
    assert [(file.path, file.etag) for file in listed.files] == [
        ("0", ""),
        ("1", SMALL.etag),
        ("2", ""),
    ]


# -- without links, locks, or anything --------------------------------------------------------


def test_without_links_the_file_itself_gets_the_name(cache: RepoCache) -> None:
    cache = RepoCache(cache.folder, NO_LINKS)
    for file in (LARGE, SMALL):
        publish(cache, file)
    assert tree(cache) == {f"snapshots/{COMMIT}/{file.path}": file.size for file in (LARGE, SMALL)}
    # A kill between the two steps leaves the blob, to which other names may belong.
    cache.pointer(COMMIT, LARGE.path).replace(cache.blob(LARGE))
    cache.link(COMMIT, LARGE)
    assert matches(cache.pointer(COMMIT, LARGE.path), LARGE)
    assert matches(cache.blob(LARGE), LARGE)


WITHOUT_LINKS = """
import os, sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise OSError(1, "Operation not permitted")

os.symlink = refuse
from nbloader.hub_cache.filesystem import probe
from tests.hub_cache.test_publish import LARGE, SMALL, RepoCache, publish

cache_dir = Path(sys.argv[1])
found = probe(cache_dir)
for file in (LARGE, SMALL):
    print(publish(RepoCache(cache_dir / "models--org--name", found), file))
print(found)
"""


def test_a_process_that_may_make_no_links_publishes(cache: RepoCache, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LINKS, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    places = [str(cache.pointer(COMMIT, file.path)) for file in (LARGE, SMALL)]
    assert done.stdout.splitlines() == [*places, str(NO_LINKS)]
    assert tree(cache) == {f"snapshots/{COMMIT}/{file.path}": file.size for file in (LARGE, SMALL)}


def test_what_the_file_system_can_do_is_tried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir = tmp_path / "not" / "yet"
    assert probe(cache_dir) == FileSystem(symlinks=True, locks=True)
    assert probe(cache_dir, symlinks=False) == FileSystem(symlinks=False, locks=True)

    def no_flock(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    for flock in (no_flock, lambda *args: None):  # As on some networked systems: all may hold it.
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            assert probe(cache_dir) == FileSystem(symlinks=True, locks=False)

    def no_replace(*args: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(CacheNotWritableError, match="in one step"):
        probe(cache_dir)
    assert list(cache_dir.iterdir()) == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems of our own; skips where that is not allowed."""
    mounted: list[Path] = []

    def make(*options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir(exist_ok=True)
        command: list[str | Path] = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join(options),
            "none",
            folder,
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a file system")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_cache_serves_what_it_has(mount: Callable[..., Path]) -> None:
    cache_dir = mount("size=8m")
    cache = RepoCache(cache_dir / "models--org--name")
    publish(cache, LARGE)
    subprocess.run(["mount", "-o", "remount,ro", cache_dir], check=True)
    before = tree(cache)
    assert (cache.has_pointer(COMMIT, LARGE), matches(cache.blob(LARGE), LARGE)) == (True, True)
    cache.link(COMMIT, LARGE)
    for write in (
        lambda: probe(cache_dir),
        lambda: publish(cache, SMALL),
        lambda: cache.link(LATER, LARGE),
        lambda: cache.try_lock(SMALL),
        lambda: open_partial(cache.blobs, LARGE, revision="main", commit_hash=COMMIT),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            write()
    assert tree(cache) == before


def test_a_full_disk_keeps_what_has_arrived(mount: Callable[..., Path]) -> None:
    cache = RepoCache(mount("size=768k") / "models--org--name")
    partial = open_partial(cache.blobs, LARGE, revision="main", commit_hash=COMMIT)
    writer = partial.writer(0)
    with pytest.raises(OSError, match="No space left"):
        writer.write(CONTENT)
    assert 0 < partial.arrived == writer.position < LARGE.size
    assert cache.free_bytes() == 0
    arrived = partial.arrived
    partial.close()
    assert partial.path is not None
    assert partial.path.read_bytes()[:arrived] == CONTENT[:arrived]
    subprocess.run(["mount", "-o", "remount,size=8m", cache.folder.parent], check=True)
    partial = open_partial(cache.blobs, LARGE, revision="main", commit_hash=COMMIT)
    assert partial.arrived == arrived
    with partial.writer(arrived) as writer:
        writer.write(CONTENT[arrived:])
    cache.publish(partial, COMMIT, LARGE)
    assert matches(cache.pointer(COMMIT, LARGE.path), LARGE)


def test_a_copy_that_does_not_fit_leaves_nothing(mount: Callable[..., Path]) -> None:
    cache = RepoCache(mount("size=1536k") / "models--org--name", NO_LINKS)
    cache.blobs.mkdir(parents=True)
    cache.blob(LARGE).write_bytes(CONTENT)
    with pytest.raises(OSError, match="No space left"):
        cache.link(COMMIT, LARGE)
    assert tree(cache) == {f"blobs/{LARGE.etag}": LARGE.size}


@pytest.mark.parametrize("name", ["snapshots", f"snapshots/{COMMIT}", "folder", "pointer"])
def test_a_file_in_the_place_of_a_folder_costs_no_bytes(cache: RepoCache, name: str) -> None:
    pointer = cache.pointer(COMMIT, LARGE.path)
    where = {"folder": pointer.parents[1], "pointer": pointer / "inside"}.get(
        name, cache.folder / name
    )
    where.parent.mkdir(parents=True)
    where.write_text("in the way")
    with pytest.raises(OSError, match=r"irectory|exists"):
        publish(cache, LARGE)
    assert cache.has_bytes(COMMIT, LARGE)
    where.unlink()
    if name == "pointer":
        pointer.rmdir()
    cache.link(COMMIT, LARGE)
    assert matches(pointer, LARGE)
    assert [path for path in tree(cache) if path.endswith("incomplete")] == []


def test_free_space_is_that_of_the_folder_of_blobs(mount: Callable[..., Path]) -> None:
    cache_dir = mount("size=8m")
    cache = RepoCache(cache_dir / "models--org--name")
    assert 0 < cache.free_bytes() <= 8 << 20
    cache.folder.mkdir()
    cache.blobs.symlink_to("/proc")
    assert cache.free_bytes() == 0


# -- locks ------------------------------------------------------------------------------------


def test_the_hubs_library_and_nbloader_wait_for_each_other(
    cache: RepoCache, tmp_path: Path
) -> None:
    path = tmp_path / ".locks" / "models--org--name" / f"{LARGE.etag}.lock"
    held = cache.try_lock(LARGE)
    assert held is not None
    assert cache.try_lock(LARGE) is None
    with pytest.raises(filelock.Timeout), WeakFileLock(path, timeout=0.01):
        pass
    held.release()
    held.release()
    mode = path.stat().st_mode
    path.unlink()
    with WeakFileLock(path, timeout=0.01):
        assert cache.try_lock(LARGE) is None
        assert path.stat().st_mode == mode
    assert cache.try_lock(LARGE) is not None


def test_a_lock_that_cannot_be_given_back_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = try_lock(tmp_path / "lock", flock=True)
    assert lock is not None

    def refuse(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        lock.release()
    lock.release()
    assert try_lock(tmp_path / "lock", flock=True) is not None


@pytest.mark.parametrize("flock", [True, False])
def test_another_process_is_waited_for_until_it_gives_back_the_lock(
    tmp_path: Path, flock: bool
) -> None:
    path = tmp_path / "locks" / "lock"
    holds = f"""
import sys
from pathlib import Path
from nbloader.hub_cache.filesystem import try_lock
lock = try_lock(Path({str(path)!r}), flock={flock})
print(lock is not None, flush=True)
sys.stdin.read()
lock.release()
print("released", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"True\n"
        assert try_lock(path, flock=flock) is None
        process.stdin.close()
        assert process.stdout.readline() == b"released\n"
        lock = try_lock(path, flock=flock)
        assert lock is not None
        lock.release()


def test_a_lock_is_given_back_by_any_thread(tmp_path: Path) -> None:
    import threading

    lock = try_lock(tmp_path / "lock", flock=True)
    assert lock is not None
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert try_lock(tmp_path / "lock", flock=True) is not None
