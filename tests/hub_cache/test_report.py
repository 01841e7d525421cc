"""The care of a cache that real downloads have filled: what is listed, what goes, what stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from IPython.lib.pretty import pretty

import nbloader
from nbloader.errors import (
    CacheNotWritableError,
    InvalidArgumentError,
    InvalidRepoIdError,
    NotCachedError,
)
from nbloader.hub_cache.delete import delete_items
from nbloader.hub_cache.filesystem import is_held
from nbloader.hub_cache.judge import ItemKind
from nbloader.hub_cache.report import cache
from nbloader.hub_cache.scan import open_files
from nbloader.localhub import LocalHub
from nbloader.text import format_bytes
from tests.caches import Built, Cache, age, build, locked
from tests.conftest import WriteRepo
from tests.same_content import assert_same_content


@pytest.fixture(scope="module")
def built(
    _server: tuple[LocalHub, Path], write_repo: WriteRepo, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))
        return build(*_server, write_repo, tmp_path_factory.mktemp("built"))


@pytest.fixture
def cached(tmp_path: Path, hub: LocalHub, built: Built) -> Cache:
    return Cache(tmp_path / "cache", hub, built)


# -- what is there ---------------------------------------------------------------------------------


def test_the_sizes_are_those_of_the_hubs_own_scan(cached: Cache) -> None:
    (repo,) = cached.report.repos
    (theirs,) = scan_cache_dir(cached.dir).repos
    assert (repo.repo_id, repo.repo_type, repo.bytes, repo.problems) == (
        theirs.repo_id,
        theirs.repo_type,
        theirs.size_on_disk,
        (),
    )
    assert {
        each.commit_hash: (each.bytes, each.files, set(each.refs)) for each in repo.revisions
    } == {
        each.commit_hash: (each.size_on_disk, each.nb_files, set(each.refs))
        for each in theirs.revisions
    }
    strategy = scan_cache_dir(cached.dir).delete_revisions(cached.old.name)
    assert cached.report.items == (cached.old_revision,)
    assert cached.report.frees == strategy.expected_freed_size


def test_no_cache_holds_nothing(tmp_path: Path) -> None:
    report = cache(tmp_path / "none")
    assert (report.repos, report.items, report.bytes) == ((), (), 0)
    assert not (tmp_path / "none").exists()
    assert report.delete().removed == ()
    assert str(report).endswith("What can go\n  all  nothing")


def test_a_title_tells_what_is_folded_behind_it(cached: Cache, tmp_path: Path) -> None:
    cached.leave_partial()
    report = cached.report
    titles = re.findall(r"<details( open)?><summary[^>]*>(.*?)</summary>", report._repr_html_())
    size = format_bytes(report.bytes)
    frees = format_bytes(report.frees)
    assert report.disk_free is not None
    (partial,) = report.repos[0].partials
    assert titles == [
        ("", f"<b>Cache</b>: {format_bytes(report.disk_free)} free on its disk"),
        ("", f"<b>Repositories</b>: 1, {size}"),
        ("", f"<b>Partial downloads</b>: 1, {format_bytes(partial.bytes)}"),
        (" open", f"<b>What can go</b>: {len(report.items)}, {frees}"),
    ]
    empty = cache(tmp_path / "none")._repr_html_()
    assert "<b>What can go</b>: nothing" in empty
    assert "<details open>" not in empty
    removed = report.delete(dry_run=True)._repr_html_()
    assert f"<b>Would be deleted</b>: {len(report.items)}, {frees}" in removed


def test_listing_changes_nothing(cached: Cache) -> None:
    cached.leave_partial()

    def everything() -> list[tuple[str, float]]:
        return sorted((str(path), path.lstat().st_mtime) for path in cached.dir.rglob("*"))

    before = everything()
    str(cached.report)
    cached.report.delete(dry_run=True)
    assert everything() == before


def test_the_default_is_where_every_library_looks(
    cached: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(cached.dir))
    assert nbloader.cache().repos == cached.report.repos


def test_a_report_can_be_of_some_repositories(cached: Cache) -> None:
    snapshot_download(
        cached.repo_id, cache_dir=cached.dir, endpoint=cached.hub.endpoint, repo_type="model"
    )
    assert cache(cached.dir, repo_ids=cached.repo_id).repos == cached.report.repos
    assert cache(cached.dir, repo_ids=[f"models/{cached.repo_id}"]).repos == cached.report.repos
    with pytest.raises(NotCachedError, match="org/none is not in the cache"):
        cache(cached.dir, repo_ids=["org/none"])
    with pytest.raises(NotCachedError, match="datasets/org/none is not in the cache"):
        cached.report.delete("datasets/org/none")
    with pytest.raises(InvalidRepoIdError):
        cache(cached.dir, repo_ids="../x")


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="is not a folder"):
        cache(tmp_path / "file")
    with pytest.raises(InvalidArgumentError):
        cache(3)  # type: ignore[arg-type]


def test_text_html_and_json_have_the_same_content(cached: Cache) -> None:
    cached.leave_partial()
    cached.repo.joinpath("blobs", "b" * 40).write_bytes(b"orphan")
    report = cached.report
    assert_same_content(report.sections(), str(report), report._repr_html_(), report.to_json())
    deleted = report.delete(dry_run=True)
    assert_same_content(deleted.sections(), str(deleted), deleted._repr_html_(), deleted.to_json())
    for each in (report, deleted):
        assert pretty(each) == str(each)  # type: ignore[no-untyped-call]
    assert [section.key for section in report.sections() if section.rows] == [
        "cache",
        "repositories",
        "partials",
        "orphans",
        "can_go",
    ]


# -- what goes -------------------------------------------------------------------------------------


def test_all_that_can_go_goes_and_the_rest_works(cached: Cache) -> None:
    partial = cached.leave_partial()
    orphan = cached.repo / "blobs" / ("b" * 40)
    orphan.write_bytes(b"orphan")
    expected = (
        cached.old_revision,
        cached.item(ItemKind.ORPHAN, orphan.name, 6),
        partial,
    )
    report = cached.report
    assert report.items == expected
    trial = report.delete(dry_run=True)
    assert (trial.removed, trial.kept, trial.dry_run) == (expected, (), True)
    blob = cached.old_weights
    deleted = report.delete()
    assert (set(deleted.removed), deleted.kept) == (set(expected), ())
    assert deleted.bytes == sum(item.bytes for item in expected)
    assert not any(path.exists() for path in (orphan, cached.old, blob))
    assert list(cached.repo.glob("blobs/*.incomplete")) == []
    # Nothing is fetched for what stays, and the Hub's own library finds nothing to complain of.
    cached.hub.reset_counters()
    assert cached.download() == cached.new
    assert cached.hub.counters().file_bytes == 0
    assert scan_cache_dir(cached.dir).warnings == []
    assert cached.report.items == ()


def test_a_report_that_is_old_deletes_nothing_that_it_did_not_show(cached: Cache) -> None:
    report = cached.report
    partial = cached.leave_partial()
    (cached.repo / "refs" / "old").write_text(cached.old.name)
    deleted = report.delete()
    assert deleted.removed == ()
    assert [kept.item for kept in deleted.kept] == [cached.old_revision]
    assert cached.report.items == (partial,)


def test_only_the_repositories_that_are_named_are_touched(cached: Cache) -> None:
    other = cached.dir / "models--org--other"
    other.mkdir()
    for name in ("blobs", "snapshots", "refs"):
        (other / name).mkdir()
    orphan = other / "blobs" / ("b" * 40)
    orphan.write_bytes(b"orphan")
    assert cached.report.delete(["org/other"]).bytes == 6
    assert not orphan.exists()
    assert cached.old.exists()
    assert cached.report.delete(cached.repo_id).removed == (cached.old_revision,)


def test_the_same_commit_under_another_id_stays(cached: Cache) -> None:
    """The Hub's own function takes the first commit of that name, in whichever repository."""
    twins = [cached.dir / f"models--org--twin{number}" for number in range(12)]
    for twin in twins:
        shutil.copytree(cached.repo, twin, symlinks=True, copy_function=os.link)
        (twin / "refs" / "main").unlink()
        (twin / "refs" / "main").write_text(cached.old.name)
    age(cached.dir)
    report = cache(cached.dir, repo_ids=cached.repo_id)
    # The copies are second links: what they hold on to is not free.
    assert report.delete().removed == (replace(cached.old_revision, bytes=0),)
    assert not cached.old.exists()
    assert all((twin / "snapshots" / cached.old.name).is_dir() for twin in twins)


def test_with_its_last_revision_the_folder_goes(cached: Cache) -> None:
    (cached.repo / "refs" / "main").unlink()
    deleted = cached.report.delete()
    assert {item.name for item in deleted.removed} == {cached.old.name, cached.new.name}
    assert not cached.repo.exists()


def test_what_two_revisions_share_that_go_is_counted_once(cached: Cache) -> None:
    (cached.repo / "refs" / "main").unlink()
    blobs = cached.repo / "blobs"
    assert cached.report.frees == sum(path.stat().st_size for path in blobs.iterdir())


# -- what stays ------------------------------------------------------------------------------------


def test_what_a_reference_names_stays(cached: Cache) -> None:
    (cached.repo / "refs" / "pr").mkdir()
    (cached.repo / "refs" / "pr" / "1").write_text(cached.old.name)
    assert cached.stays() == "named by pr/1"


def test_what_was_written_today_stays(cached: Cache) -> None:
    os.utime(cached.old / "config.json", follow_symlinks=False)
    assert cached.stays() == "written within the last day"
    assert cached.report.items == ()


def test_what_a_download_goes_on_from_stays(cached: Cache) -> None:
    cached.leave_partial(days=0, commit=cached.old.name)
    assert cached.stays() == "a download for it can go on"
    (repo,) = cached.report.repos
    assert [each.stays for each in repo.partials] == ["written within the last day"]
    assert cached.report.items == ()


def test_a_fresh_partial_keeps_the_folder_that_would_go_with_the_last_revision(
    cached: Cache,
) -> None:
    cached.leave_partial(days=0)
    (cached.repo / "refs" / "main").unlink()
    assert cached.stays() == "a download that can go on lies in its folder"
    assert cached.report.delete().removed == ()


def test_what_a_process_has_locked_stays(cached: Cache) -> None:
    partial = cached.leave_partial()
    orphan = cached.repo / "blobs" / ("b" * 40)
    orphan.write_bytes(b"orphan")
    report = cached.report
    assert len(report.items) == 3
    with locked(cached.dir, cached.repo.name, orphan.name):
        assert [item.kind for item in cached.report.items] == [ItemKind.PARTIAL]
    with locked(cached.dir, cached.repo.name, partial.name):
        assert [item.kind for item in cached.report.items] == [ItemKind.ORPHAN]
        deleted = report.delete()
    assert [item.kind for item in deleted.removed] == [ItemKind.ORPHAN]
    assert {kept.item for kept in deleted.kept} == {cached.old_revision, partial}
    assert cached.report.delete().kept == ()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is open")
def test_what_a_process_has_open_or_mapped_stays(cached: Cache) -> None:
    # The library closes the file once it is mapped.
    code = (
        "import sys, safetensors\n"
        "held = safetensors.safe_open(sys.argv[1], framework='np')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(cached.old_weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert str(cached.old_weights) in open_files(cached.dir)
        assert cached.stays() == "a process has its files open"
        process.stdin.close()
    with cached.old_weights.open("rb"):
        assert cached.stays() == "a process has its files open"
    assert cached.report.items == (cached.old_revision,)


def test_a_lock_that_cannot_be_asked_counts_as_held(tmp_path: Path) -> None:
    (tmp_path / "free").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert [is_held(tmp_path / name) for name in ("none", "free", "loop")] == [False, False, True]


def test_a_cache_that_is_gone_is_no_error(cached: Cache) -> None:
    report = cached.report
    cached.dir.rename(cached.dir.with_name("moved"))
    assert [kept.item for kept in report.delete().kept] == [cached.old_revision]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_told(cached: Cache) -> None:
    with pytest.raises(CacheNotWritableError, match="nothing can be deleted in /proc"):
        delete_items(Path("/proc"), [cached.old_revision])


def test_a_cache_without_links_keeps_its_blobs(cached: Cache) -> None:
    name = cached.new / "config.json"
    content = name.read_bytes()
    name.unlink()
    name.write_bytes(content)
    (cached.repo / "blobs" / ("b" * 40)).write_bytes(b"orphan?")
    age(cached.dir)
    (repo,) = cached.report.repos
    assert (repo.orphans, repo.problems) == ((), ())
    assert [item.name for item in cached.report.delete().removed] == [cached.old.name]
    assert name.read_bytes() == content


def test_bytes_that_repositories_share_are_not_promised(cached: Cache) -> None:
    """From version 1.33 on, a blob of the Hub's library may be a link into a store of its cache."""
    stored = cached.dir / "blobs" / "ab" / ("1" * 64)
    stored.parent.mkdir(parents=True)
    cached.old_weights.rename(stored)
    cached.old_weights.symlink_to(os.path.relpath(stored, cached.old_weights.parent))
    assert cached.report.frees == cached.old_revision.bytes
    twin = cached.dir / "models--org--twin" / "blobs" / cached.old_weights.name
    twin.parent.mkdir(parents=True)
    twin.symlink_to("../../blobs/ab/" + "1" * 64)
    assert cached.report.frees == 0
    assert [store.bytes for store in cached.report.stores] == [cached.old_revision.bytes]
    assert {(item.kind, item.bytes) for item in cached.report.items} == {
        (ItemKind.REVISION, 0),
        (ItemKind.ORPHAN, 0),
    }


def test_a_second_link_to_the_same_bytes_frees_nothing(cached: Cache) -> None:
    """So it is where several repositories that have the same file were downloaded in one call."""
    twin = cached.dir / "models--org--twin" / "blobs" / cached.old_weights.name
    twin.parent.mkdir(parents=True)
    twin.hardlink_to(cached.old_weights)
    assert cached.report.frees == 0


def test_a_revision_that_is_all_copies_goes_with_them(cached: Cache) -> None:
    """So it is on a file system without links: the files are moved to their names."""
    for path in [path for path in cached.repo.glob("snapshots/*/*") if path.is_symlink()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    shutil.rmtree(cached.repo / "blobs")
    age(cached.dir)
    size = sum(path.stat().st_size for path in cached.old.iterdir())
    item = cached.item(ItemKind.REVISION, cached.old.name, size)
    assert cached.report.delete().removed == (item,)
    assert (cached.old.exists(), len(list(cached.new.iterdir()))) == (False, 3)


# -- hostile caches --------------------------------------------------------------------------------


def test_nothing_outside_the_cache_is_deleted(cached: Cache, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (cached.old / "tokenizer.json").unlink()
    (cached.old / "tokenizer.json").symlink_to(precious)
    age(cached.old)
    assert "leads out of the blobs" in cached.stays()
    assert cached.report.delete().removed == ()
    # Even if it is offered: the last look is at what the Hub's library would delete.
    removed, kept = delete_items(cached.dir, [cached.old_revision])
    assert (removed, [each.why for each in kept]) == ((), ["its files lie outside its folder"])
    assert precious.read_bytes() == b"precious"


def test_a_repository_that_is_a_link_stays(cached: Cache, tmp_path: Path) -> None:
    cached.repo.rename(tmp_path / "elsewhere")
    cached.repo.symlink_to(tmp_path / "elsewhere")
    (repo,) = cached.report.repos
    assert (repo.problems, cached.report.items) == ((f"{cached.repo.name} is not a folder",), ())


ODD = "models--org--<script>alert(1)<\n\x1b[2J"


def test_a_hostile_cache_breaks_neither_the_report_nor_its_neighbours(cached: Cache) -> None:
    odd = cached.dir / ODD
    for name in ("blobs", "snapshots", "refs"):
        (odd / name).mkdir(parents=True)
    (odd / "snapshots" / ("d" * 40)).mkdir()
    (odd / "snapshots" / ("d" * 40) / "loop").symlink_to("loop")
    (odd / "snapshots" / ("d" * 40) / "up").symlink_to("..")
    (odd / "snapshots" / "file").write_text("in the way")
    (odd / "refs" / "main").write_bytes(b"\xff\xfe" * 10_000)
    (odd / "refs" / "folder").symlink_to("/")
    (odd / "blobs" / ("e" * 40)).mkdir()
    (odd / "blobs" / ("f" * 40)).symlink_to("nowhere")
    os.mkfifo(odd / "blobs" / f"{'1' * 64}.nbloader-journal.incomplete")
    os.mkfifo(odd / "blobs" / f"{'1' * 64}.nbloader.incomplete")
    os.mkfifo(odd / "blobs" / ("2" * 40))
    (cached.dir / "models--file").write_text("a file")
    (cached.dir / "models--loop").symlink_to("models--loop")
    (cached.dir / "models--").mkdir()
    (cached.dir / "datasets--org--empty").mkdir()
    (cached.dir / "models--org--blobs").mkdir()
    (cached.dir / "models--org--blobs" / "blobs").write_text("in the way")
    (cached.dir / "models--org--refs").mkdir()
    (cached.dir / "models--org--refs" / "refs").write_text("in the way")
    (cached.dir / os.fsdecode(b"models--org--\xff\xfe")).mkdir()
    (cached.dir / ".locks" / "models--org--refs").mkdir(parents=True)
    deep = cached.dir / "models--org--deep" / "snapshots"
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    report = cached.report
    assert len(report.repos) == 9
    assert report.items == (cached.old_revision,)
    text, markup = str(report), report._repr_html_()
    json.dumps(report.to_json())
    text.encode()
    assert "\x1b" not in text
    assert "<script>" not in markup
    deleted = report.delete()
    # The Hub's library cannot scan a cache with such a reference, and so deletes nothing in it.
    (kept,) = deleted.kept
    assert (deleted.removed, kept.item) == ((), cached.old_revision)
    assert kept.why.startswith("the Hub's library cannot read this cache")
    (odd / "refs" / "main").unlink()
    (odd / "refs" / "folder").unlink()
    assert report.delete().removed == (cached.old_revision,)
