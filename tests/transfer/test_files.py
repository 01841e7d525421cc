"""Files that are named, beside what the Hub's own library makes of the same arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

import nbloader
from nbloader.errors import (
    DiskSpaceError,
    GatedRepoError,
    NotCachedError,
    RepoNotFoundError,
    UnsupportedRepoError,
)
from nbloader.localhub import LocalHub
from nbloader.records import Event, FileDone, Kind, Listing, RepoFile, Selected
from nbloader.request import DownloadCall, checked
from nbloader.selection.plain import select_plain
from tests.conftest import WriteRepo
from tests.gguf_files import gguf_file

Publish = Callable[[Mapping[str, bytes]], str]

FILES = {
    "README.md": b"# read me",
    "config.json": b'{"model_type": "bert"}',
    "data/a.csv": b"1,2\n",
    "data/deep/b.csv": b"3,4\n",
    "onnx/model.onnx": bytes(3_000_000),
    "aux/con.txt": b"a name that Windows has for a device",
}


def tree(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def cached(cache: Path) -> dict[str, str | bytes]:
    """All that makes a cache: contents by their names, and what links say."""
    return {
        path.relative_to(cache).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in cache.rglob("*")
        if (path.is_symlink() or path.is_file())
        and not {".locks", "trees", "CACHEDIR.TAG"} & set(path.relative_to(cache).parts)
    }


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
@pytest.mark.parametrize(
    "patterns",
    [
        {"allow_patterns": "*"},
        {"allow_patterns": ["data/", "*.md"]},
        {"allow_patterns": "data/*", "ignore_patterns": ["data/deep/"]},
        {"ignore_patterns": ["*.onnx", "*.JSON"]},
    ],
)
def test_a_snapshot_is_the_one_of_the_hubs_library(
    hub: LocalHub,
    hub_root: Path,
    write_repo: WriteRepo,
    tmp_path: Path,
    repo_type: str,
    patterns: dict[str, Any],
) -> None:
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    write_repo(hub_root, f"{prefix}org/plain", FILES)
    where = {"endpoint": hub.endpoint, "token": False, "repo_type": repo_type, **patterns}
    theirs = snapshot_download("org/plain", cache_dir=tmp_path / "theirs", **where)
    ours = nbloader.download("org/plain", cache_dir=tmp_path / "ours", view="none", **where)
    assert tree(ours) == tree(theirs)
    assert cached(tmp_path / "ours") == cached(tmp_path / "theirs")
    assert not scan_cache_dir(tmp_path / "ours").warnings

    # Neither fetches again what the other has brought.
    hub.reset_counters()
    for cache in ("ours", "theirs"):
        again = {**where, "cache_dir": tmp_path / cache}
        assert tree(snapshot_download("org/plain", **again)) == tree(ours)
        assert tree(nbloader.download("org/plain", view="none", **again)) == tree(ours)
    assert hub.counters().file_bytes == 0


def test_one_file_is_that_of_the_hubs_library(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    where: dict[str, Any] = {"endpoint": hub.endpoint, "token": False}
    theirs = hf_hub_download(repo_id, "data/deep/b.csv", cache_dir=tmp_path / "theirs", **where)
    events: list[Event] = []
    ours = nbloader.download(
        repo_id,
        "data/deep/b.csv",
        cache_dir=tmp_path / "ours",
        view="none",
        on_event=events.append,
        **where,
    )
    assert ours.read_bytes() == FILES["data/deep/b.csv"]
    assert ours.relative_to(tmp_path / "ours") == Path(theirs).relative_to(tmp_path / "theirs")
    assert cached(tmp_path / "ours") == cached(tmp_path / "theirs")
    (selected,) = [event for event in events if isinstance(event, Selected)]
    assert (selected.selection.kind, selected.weights) == (Kind.FILES, ())
    assert [event.path for event in events if isinstance(event, FileDone)] == ["data/deep/b.csv"]


def test_another_revision_has_its_own_files(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish({"a.txt": b"first"})
    hub.set_ref(repo_id, "v1", kind="tag")
    publish({"a.txt": b"second"})
    where: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path, "view": "none"}
    first = nbloader.download(repo_id, "a.txt", revision="v1", **where)
    second = nbloader.download(repo_id, "a.txt", **where)
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")


def test_offline_the_cache_answers(hub: LocalHub, publish: Publish, tmp_path: Path) -> None:
    repo_id = publish(FILES)
    where: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path, "view": "none"}
    folder = nbloader.download(repo_id, allow_patterns="data/", **where)
    hub.reset_counters()
    where["local_files_only"] = True
    assert nbloader.download(repo_id, allow_patterns="data/", **where) == folder
    one = nbloader.download(repo_id, "data/a.csv", **where)
    assert one == folder / "data" / "a.csv"
    with pytest.raises(NotCachedError):
        nbloader.download(repo_id, "README.md", **where)
    assert hub.requests() == []


def test_a_file_that_is_not_there_is_told_before_a_byte(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish(FILES)
    with pytest.raises(UnsupportedRepoError, match=r"no file 'readme\.md'") as caught:
        nbloader.download(
            repo_id, "readme.md", endpoint=hub.endpoint, cache_dir=tmp_path, view="none"
        )
    assert caught.value.hint == "Is 'README.md' meant?"
    assert hub.counters().file_bytes == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"filename": "data"}, "For several files: allow_patterns='data/'."),
        ({"filename": "*.json"}, "For several files: allow_patterns='*.json'."),
        ({"filename": "./config.json"}, "Is 'config.json' meant?"),
        ({"allow_patterns": "data"}, "Is allow_patterns='data/' meant?"),
        ({"allow_patterns": ["./data/*"]}, "Is allow_patterns='data/*' meant?"),
    ],
)
def test_what_was_meant_is_told(arguments: dict[str, Any], hint: str) -> None:
    listing = Listing(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(RepoFile(path=path, size=1, etag="0" * 40) for path in FILES),
    )
    choice = checked(DownloadCall("org/name", **arguments)).selection.files
    assert choice is not None
    with pytest.raises(UnsupportedRepoError) as caught:
        select_plain(listing, choice)
    assert caught.value.hint == hint


def test_what_no_load_can_use_can_be_fetched_by_the_line_that_is_told(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    repo_id = publish({"model.onnx": b"x", "odd.gguf": gguf_file({"general.architecture": "odd"})})
    where: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path, "view": "none"}
    for place, line in (
        (repo_id, f'nbloader.download("{repo_id}", allow_patterns="*")'),
        (f"{repo_id}/odd.gguf", f'nbloader.download("{repo_id}", "odd.gguf")'),
    ):
        with pytest.raises(UnsupportedRepoError) as caught:
            nbloader.download(place, **where)
        assert line in caught.value.hint
        with pytest.raises(UnsupportedRepoError) as caught:
            nbloader.load(place, **where)
        assert line not in caught.value.hint


def test_the_checks_hold_for_files_too(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    write_repo(hub_root, "datasets/org/checked", FILES)
    where: dict[str, Any] = {
        "repo_type": "dataset",
        "endpoint": hub.endpoint,
        "cache_dir": tmp_path,
        "view": "none",
    }
    with pytest.raises(DiskSpaceError, match="not enough disk space"):
        nbloader.download("org/checked", settings={"required_disk_space_gb": 1e6}, **where)
    hub.set_access("datasets/org/checked", gated="manual")
    with pytest.raises(GatedRepoError) as caught:
        nbloader.download("org/checked", **where)
    assert "https://huggingface.co/datasets/org/checked" in caught.value.hint
    assert not (tmp_path / "datasets--org--checked" / "blobs").exists()
    with pytest.raises(RepoNotFoundError):
        nbloader.download("org/no-such-dataset", **where)


def test_a_dataset_is_not_the_model_of_the_same_name(
    hub: LocalHub, hub_root: Path, write_repo: WriteRepo, tmp_path: Path
) -> None:
    write_repo(hub_root, "org/twins", {"a.txt": b"model"})
    write_repo(hub_root, "datasets/org/twins", {"a.txt": b"dataset"})
    where: dict[str, Any] = {"endpoint": hub.endpoint, "cache_dir": tmp_path, "view": "none"}
    model = nbloader.download("org/twins", "a.txt", **where)
    dataset = nbloader.download("org/twins", "a.txt", repo_type="dataset", **where)
    assert (model.read_bytes(), dataset.read_bytes()) == (b"model", b"dataset")


def test_without_names_it_stays_what_a_load_uses(
    hub: LocalHub, publish: Publish, tmp_path: Path
) -> None:
    from tests.transfer.test_transfer import files

    repo_id = publish({**files(1000), "onnx/model.onnx": b"not for a load"})
    where: dict[str, Any] = {"endpoint": hub.endpoint, "token": False, "view": "none"}
    folder = nbloader.download(repo_id, cache_dir=tmp_path / "cache", **where)
    local = nbloader.download(repo_id, local_dir=tmp_path / "local", **where)
    expected = {"config.json", "model.safetensors"}
    assert set(tree(folder)) == expected
    assert {path for path in tree(local) if not path.startswith(".cache/")} == expected
