from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nbloader.localhub.store import (
    Commit,
    LostContentError,
    RepoMissingError,
    Store,
    StoredFile,
    blob_oid,
    is_repo_id,
    lfs_pointer,
)

WriteRepo = Callable[[Path, str, Mapping[str, bytes]], None]


def _content(store: Store, file: StoredFile) -> bytes:
    with store.open(file.oid) as opened:
        return opened.read()


def _contents(store: Store, commit: Commit) -> dict[str, bytes]:
    return {path: _content(store, file) for path, file in commit.files.items()}


def _settle(root: Path) -> None:
    """Make all files older than the time within which a change might go unseen."""
    for path in (root / "models").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


def test_a_commit_names_the_files_and_their_hashes(
    tmp_path: Path, write_repo: WriteRepo, weights: bytes
) -> None:
    files = {"config.json": b"{}", "unet/model.safetensors": b"tiny", "blob.dat": weights}
    write_repo(tmp_path, "org/name", files)
    _settle(tmp_path)
    commit = Store(tmp_path).main("org/name")
    sha256 = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}

    def lfs(path: str) -> StoredFile:
        size = len(files[path])
        pointer = blob_oid(lfs_pointer(sha256[path], size))
        return StoredFile(path, size, pointer, sha256[path])

    assert dict(commit.files) == {
        "blob.dat": lfs("blob.dat"),
        "config.json": StoredFile("config.json", 2, blob_oid(b"{}"), None),
        "unet/model.safetensors": lfs("unet/model.safetensors"),
    }
    assert (list(commit.folders), commit.time) == (["unet"], 1_000_000_000)


def test_the_commit_is_a_function_of_the_content_alone(
    tmp_path: Path, write_repo: WriteRepo
) -> None:
    store = Store(tmp_path)
    for repo_id in ("org/one", "other/two"):
        write_repo(tmp_path, repo_id, {"a.txt": b"a", "b/c.txt": b"c"})
    assert store.main("org/one").sha == store.main("other/two").sha


def test_an_old_commit_can_be_read_after_a_change(
    tmp_path: Path, write_repo: WriteRepo, weights: bytes
) -> None:
    store = Store(tmp_path)
    before = {"config.json": b"{}", "gone.txt": b"gone", "model.safetensors": weights}
    write_repo(tmp_path, "org/name", before)
    old = store.main("org/name")

    after = {"config.json": b"{ }", "model.safetensors": weights[::-1]}
    write_repo(tmp_path, "org/name", after)
    (tmp_path / "models/org/name/gone.txt").unlink()
    new = store.main("org/name")

    assert old.sha != new.sha
    assert list(store.repo("org/name").commits) == [old.sha, new.sha]
    assert (_contents(store, old), _contents(store, new)) == (before, after)


def test_going_back_gives_the_old_commit_again(tmp_path: Path, write_repo: WriteRepo) -> None:
    store = Store(tmp_path)
    shas = []
    for content in (b"one", b"two", b"one"):
        write_repo(tmp_path, "org/name", {"a.txt": content})
        shas.append(store.main("org/name").sha)
    assert shas[0] == shas[2] != shas[1]


def test_a_small_file_may_be_written_in_place(tmp_path: Path, write_repo: WriteRepo) -> None:
    store = Store(tmp_path)
    write_repo(tmp_path, "org/name", {"a.txt": b"one"})
    old = store.main("org/name")
    (tmp_path / "models/org/name/a.txt").write_bytes(b"two")
    new = store.main("org/name")
    assert (_contents(store, old), _contents(store, new)) == ({"a.txt": b"one"}, {"a.txt": b"two"})


def test_a_large_file_written_in_place_is_lost_and_never_wrong(
    tmp_path: Path, write_repo: WriteRepo, weights: bytes
) -> None:
    store = Store(tmp_path)
    write_repo(tmp_path, "org/name", {"a.bin": weights})
    _settle(tmp_path)
    old = store.main("org/name")
    (tmp_path / "models/org/name/a.bin").write_bytes(weights[::-1])
    new = store.main("org/name")
    with pytest.raises(LostContentError):
        store.open(old.files["a.bin"].oid)
    assert _contents(store, new) == {"a.bin": weights[::-1]}

    write_repo(tmp_path, "org/name", {"a.bin": weights})
    assert _contents(store, store.main("org/name")) == {"a.bin": weights}


def test_a_restart_hashes_nothing_again(
    tmp_path: Path,
    write_repo: WriteRepo,
    weights: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_repo(tmp_path, "org/name", {"a.bin": weights, "b.txt": b"b"})
    _settle(tmp_path)
    first = Store(tmp_path)
    commit = first.main("org/name")
    first.set_ref("org/name", "v1", "tag", commit.sha)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was hashed again")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    monkeypatch.setattr("nbloader.localhub.store.blob_oid", refuse)
    second = Store(tmp_path)
    assert second.main("org/name") == commit
    assert second.repo("org/name").refs == {"v1": ("tag", commit.sha)}


@pytest.mark.parametrize("index", [b"", b"{", b"[]", b'{"version": 0}', b'{"version": 1}'])
def test_a_broken_index_is_made_anew(tmp_path: Path, write_repo: WriteRepo, index: bytes) -> None:
    write_repo(tmp_path, "org/name", {"a.bin": b"a", "b.txt": b"b"})
    commit = Store(tmp_path).main("org/name")
    (tmp_path / ".localhub/index.json").write_bytes(index)
    store = Store(tmp_path)
    assert _contents(store, store.main("org/name")) == {"a.bin": b"a", "b.txt": b"b"}
    assert store.main("org/name").sha == commit.sha


def test_objects_that_are_removed_come_back_at_the_next_look(
    tmp_path: Path, write_repo: WriteRepo
) -> None:
    write_repo(tmp_path, "org/name", {"a.bin": b"a", "b.txt": b"b"})
    _settle(tmp_path)
    store = Store(tmp_path)
    commit = store.main("org/name")
    for file in commit.files.values():
        (tmp_path / ".localhub/objects" / file.oid[:2] / file.oid).unlink()
    assert _contents(store, store.main("org/name")) == {"a.bin": b"a", "b.txt": b"b"}


def test_files_may_be_links_but_folders_may_not(tmp_path: Path, write_repo: WriteRepo) -> None:
    write_repo(tmp_path, "org/name", {"a.txt": b"a"})
    folder = tmp_path / "models/org/name"
    (tmp_path / "outside.bin").write_bytes(b"linked")
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "loop").symlink_to(folder)
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    store = Store(tmp_path)
    assert _contents(store, store.main("org/name")) == {"a.txt": b"a", "link.bin": b"linked"}


def test_only_known_commits_get_a_name(tmp_path: Path, write_repo: WriteRepo) -> None:
    write_repo(tmp_path, "org/name", {"a.txt": b"a"})
    with pytest.raises(LookupError):
        Store(tmp_path).set_ref("org/name", "v1", "tag", "0" * 40)


@pytest.mark.parametrize(
    "repo_id",
    [
        "",
        "name",
        "org/",
        "/name",
        "org/name/more",
        "../name",
        "org/..",
        "org/.",
        "org/a..b",
        "datasets/name",
        "api/models",
        "org/na me",
        "org/name\n",
        "org/" + "n" * 97,
        "o\\rg/name",
    ],
)
def test_what_is_no_repo_id_is_no_path(tmp_path: Path, repo_id: str) -> None:
    assert not is_repo_id(repo_id)
    with pytest.raises(RepoMissingError):
        Store(tmp_path).folder(repo_id)


@pytest.mark.parametrize("repo_id", ["sentence-transformers/all-MiniLM-L6-v2", "Qwen/Q.1_2", "_/_"])
def test_names_of_the_hub_are_repo_ids(repo_id: str) -> None:
    assert is_repo_id(repo_id)
