"""What is in the cache already: parts of a snapshot, other libraries' files, wrong files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import nbloader
from nbloader.errors import NotCachedError
from nbloader.hub_cache.layout import RepoCache
from nbloader.localhub import LocalHub
from nbloader.localhub.demo import MINILM
from nbloader.records import Event, Notice, RepoFile, TransferPolicy

NOWHERE = "http://127.0.0.1:9"


def download(cache: Path, endpoint: str, **keywords: Any) -> tuple[Path, list[str]]:
    events: list[Event] = []
    folder = nbloader.download(
        MINILM,
        cache_dir=cache,
        endpoint=endpoint,
        view="none",
        on_event=events.append,
        settings={"max_retries": 1},
        **keywords,
    )
    return folder, [event.reference for event in events if isinstance(event, Notice)]


@pytest.fixture
def folder(demo_hub: LocalHub, tmp_path: Path) -> Path:
    """The complete snapshot in the cache of this test."""
    return download(tmp_path, demo_hub.endpoint)[0]


@pytest.mark.parametrize(
    "missing", ["tokenizer.json", "model.safetensors", "1_Pooling/config.json"]
)
def test_a_part_of_a_snapshot_is_not_taken_for_the_whole(
    folder: Path, tmp_path: Path, demo_hub: LocalHub, missing: str
) -> None:
    (folder / missing).resolve().unlink()
    (folder / missing).unlink()
    with pytest.raises(NotCachedError):
        download(tmp_path, NOWHERE, local_files_only=True)
    with pytest.raises(nbloader.errors.HubUnreachableError):
        download(tmp_path, NOWHERE)
    assert download(tmp_path, demo_hub.endpoint) == (folder, [])
    assert (folder / missing).is_file()


def test_files_of_another_library_are_used_with_a_notice(
    folder: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the listing that nbloader kept, the cache looks as if another library had filled it.
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("other-home")))
    assert download(tmp_path, NOWHERE, local_files_only=True) == (folder, ["not-certain"])
    with pytest.raises(nbloader.errors.HubUnreachableError):
        download(tmp_path, NOWHERE)


def test_a_commit_can_be_named_without_a_network(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder.parents[1] / "refs")
    with pytest.raises(NotCachedError):
        download(tmp_path, NOWHERE, local_files_only=True)
    found = download(tmp_path, NOWHERE, local_files_only=True, revision=folder.name)
    assert found == (folder, [])


def test_a_cache_that_cannot_note_the_branch_still_serves(
    folder: Path, tmp_path: Path, demo_hub: LocalHub
) -> None:
    refs = folder.parents[1] / "refs"
    shutil.rmtree(refs)
    refs.write_text("in the way")
    assert download(tmp_path, demo_hub.endpoint) == (folder, ["cache-not-writable"])


def test_the_reference_is_readable_like_the_hubs_own(folder: Path) -> None:
    reference = folder.parents[1] / "refs" / "main"
    plain = folder.parents[1] / "plain"
    plain.write_text("x")
    assert (reference.read_text(), reference.stat().st_mode) == (folder.name, plain.stat().st_mode)
    assert [path.name for path in folder.parents[1].iterdir() if path.name.startswith(".ref")] == []


def test_verify_mends_a_small_file_that_decides_the_selection(
    folder: Path, tmp_path: Path, demo_hub: LocalHub
) -> None:
    blob = (folder / "modules.json").resolve()
    right = blob.read_bytes()
    blob.write_bytes(b" " * len(right))
    assert download(tmp_path, demo_hub.endpoint, verify=True) == (folder, [])
    assert (folder / "modules.json").read_bytes() == right


def test_a_cache_without_links_can_be_verified(folder: Path, tmp_path: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_symlink()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert download(tmp_path, NOWHERE, local_files_only=True, verify=True) == (folder, [])


def test_offline_mode_needs_no_argument(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
        assert download(tmp_path, NOWHERE) == (folder, [])
        monkeypatch.delenv(name)


def test_partial_files_of_killed_downloads_do_not_pile_up(
    demo_hub: LocalHub, folder: Path, tmp_path: Path
) -> None:
    from filelock import FileLock

    blob = (folder / "model.safetensors").resolve()
    mine, older, other = (
        blob.with_name(f"{blob.name}{name}.incomplete") for name in (".0123abcd", "", ".keep")
    )
    lock = tmp_path / ".locks" / blob.parents[1].name / f"{blob.name}.lock"

    def download_again() -> None:
        blob.unlink()
        for path in (mine, older, other):
            path.write_bytes(b"part")
        download(tmp_path, demo_hub.endpoint)

    download_again()
    assert (mine.exists(), other.exists()) == (False, True)
    mine.write_bytes(b"part")
    cache = RepoCache(blob.parents[1])
    file = RepoFile(path="model.safetensors", size=1, etag=blob.name, lfs=True)
    with FileLock(lock):
        assert cache.try_lock(file) is None
    held = cache.try_lock(file)
    assert held is not None
    with held:
        cache.remove_orphans(file)
    assert (mine.exists(), other.exists()) == (False, True)


def test_a_listing_that_does_not_end_is_not_taken_for_a_short_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nbloader.worker.hub import Hub

    hub = Hub(
        repo_id="org/name",
        policy=TransferPolicy(),
        token=False,
        publish=lambda retry: None,
    )
    monkeypatch.setattr(Hub, "_page", lambda self, url: ([], url))
    with pytest.raises(nbloader.errors.HubUnreachableError, match="the listing does not end"):
        hub.listing("main", "c" * 40)
