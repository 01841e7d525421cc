from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbloader.machine import bigger_disks, disk, disk_facts, disk_facts_or_none
from nbloader.records import DiskFacts
from tests.machine.machines import write

KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}
QUOTA = "disk_usage and Kaggle's quota of 20 GB"
MB = 1_000_000


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o755, False), (0o775, False), (0o777, True), (0o1777, False)]
)
def test_a_folder_that_every_user_may_write_to(tmp_path: Path, mode: int, expected: bool) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    assert disk_facts(folder, {}).open_to_all is expected
    assert not disk_facts(folder / "new", {}).open_to_all


@pytest.fixture
def working(tmp_path: Path) -> Path:
    folder = tmp_path / "kaggle" / "working"
    folder.mkdir(parents=True)
    return folder


def blocks(*files: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in files)


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    facts = disk_facts(folder, {})
    there = shutil.disk_usage(tmp_path)
    assert facts == DiskFacts(
        folder=str(folder), free=facts.free, total=there.total, writable=True, source="disk_usage"
    )
    assert facts.free > 0
    assert list(tmp_path.iterdir()) == []


def test_the_quota_of_kaggle(
    tmp_path: Path, working: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small that no disk has less.
    monkeypatch.setattr(disk, "KAGGLE_WORKING_BYTES", 8 * MB)
    write(working, {"a": b"x" * MB, "deep/er/b": b"x" * 2 * MB})
    (working / "loop").symlink_to(working)
    os.truncate(working / "a", 100 * MB)  # sparse: that takes no more of the disk
    used = blocks(working / "a", working / "deep/er/b")
    assert 3 * MB <= used < 4 * MB
    (tmp_path / "link").symlink_to(working)
    for folder in (working, working / "hub" / "new", tmp_path / "link" / "hub"):
        assert disk_facts(folder, KAGGLE, root=tmp_path) == DiskFacts(
            folder=str(folder),
            free=8 * MB - used - (working / "loop").lstat().st_blocks * 512,
            total=8 * MB,
            writable=True,
            source=QUOTA,
        )
    write(working, {"c": b"x" * 6 * MB})
    assert disk_facts(working, KAGGLE, root=tmp_path).free == 0


def test_outside_of_the_quota(tmp_path: Path, working: Path) -> None:
    total = shutil.disk_usage(tmp_path).total
    for folder in (tmp_path / "kaggle" / "tmp", tmp_path / "kaggle" / "working2"):
        facts = disk_facts(folder, KAGGLE, root=tmp_path)
        assert (facts.total, facts.source) == (total, "disk_usage (Kaggle may allow less)")
    assert disk_facts(working, {}, root=tmp_path).source == "disk_usage"


def test_the_count_takes_no_longer_than_it_may(tmp_path: Path, working: Path) -> None:
    write(working, {f"{number}/file": b"x" * 10_000 for number in range(100)})
    ticks = iter(range(1000))
    facts = disk_facts(working, KAGGLE, root=tmp_path, clock=lambda: next(ticks) * 0.01)
    assert facts.source == f"{QUOTA} (not all files counted)"
    assert next(ticks) < 40


Mount = Callable[[str, int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a real file system of so many MiB below the root of the test."""
    mounted: list[Path] = []

    def make(name: str, mebibytes: int) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "nbloader", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"nothing can be mounted here: {getattr(error, 'stderr', error)}")
        mounted.append(folder)
        return folder

    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def kinds(root: Path, **kinds: str) -> None:
    """Write what the kernel would say of the mounts; `_` stands for `/`."""
    lines = [
        f"{number} 1 0:{number} / /{point.replace('_', '/')} rw,relatime shared:1 - {kind} x rw"
        for number, (point, kind) in enumerate(kinds.items(), 30)
    ]
    write(root, {"proc/self/mountinfo": "nonsense\n" + "\n".join(lines) + "\n"})


def offered(folder: Path, environ: dict[str, str], root: Path) -> list[tuple[str, int]]:
    found = bigger_disks(folder, environ, root=root)
    assert all(disk.writable for disk in found)
    places = [(Path(disk.folder).relative_to(root), disk.total // 2**20) for disk in found]
    assert all(place.name == "huggingface" for place, _ in places)
    return [(str(place.parent), size) for place, size in places]


def test_bigger_disks_the_biggest_first(tmp_path: Path, mount: Mount) -> None:
    cache = mount("cache", 8)
    mount("data", 64)
    mount("mnt/fast", 32)
    mount("scratch", 4)
    mount("workspace", 128)
    kinds(
        tmp_path,
        cache="ext4",
        data="ext4",
        mnt_fast="xfs",
        scratch="ext4",
        workspace="overlay",
    )
    expected = [("workspace", 128), ("data", 64), ("mnt/fast", 32)]
    assert offered(cache / "hub", {}, tmp_path) == expected
    # One for each file system, and not that of the folder itself.
    inside = tmp_path / "data" / "home"
    inside.mkdir()
    environ = {"HOME": str(inside), "TMPDIR": str(cache), "SCRATCH": "relative"}
    expected[1] = ("data/home", 64)
    assert offered(cache / "hub", environ, tmp_path) == expected
    assert offered(tmp_path / "workspace", environ, tmp_path) == []


def test_disks_that_suit_no_cache(tmp_path: Path, mount: Mount) -> None:
    cache = mount("cache", 8)
    for name in ("data", "scratch", "workspace", "mnt/drive", "mnt/disk"):
        mount(name, 64)
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "workspace")], check=True)
    kinds(
        tmp_path,
        data="tmpfs",
        scratch="fuse.drive",
        workspace="ext4",
        mnt_drive="fuse.rclone",
        mnt_disk="fuseblk",
    )
    assert offered(cache, {}, tmp_path) == [("mnt/disk", 64)]


def test_memory_is_not_offered_as_a_disk(mount: Mount) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    cache = mount("cache", 1)
    found = bigger_disks(cache, {"TMPDIR": "/dev/shm", "SCRATCH": str(cache.parent)})
    places = [str(Path(disk.folder).parent) for disk in found]
    assert str(cache.parent) in places
    assert "/dev/shm" not in places


def test_kaggle_and_colab(
    tmp_path: Path, working: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same file system as that with the quota, and another that is only asked about on Colab.
    monkeypatch.setattr(disk, "KAGGLE_WORKING_BYTES", MB)
    total = shutil.disk_usage(tmp_path).total // 2**20
    assert offered(working / "hub", KAGGLE, tmp_path) == [("kaggle/tmp", total)]
    assert not (tmp_path / "kaggle" / "tmp").exists()
    assert offered(tmp_path / "kaggle" / "tmp", KAGGLE, tmp_path) == []
    cache = mount("cache", 8)
    mount("content", 16)
    assert offered(cache, {"COLAB_GPU": ""}, tmp_path) == [("content", 16)]
    assert offered(cache, {}, tmp_path) == []


def test_a_file_server_that_does_not_answer(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = mount("cache", 8)
    data, scratch = mount("data", 16), mount("scratch", 64)
    answers = threading.Event()
    ask = disk.disk_facts

    def held(folder: Path, *args: Any, **keywords: Any) -> DiskFacts:
        if folder.parent == scratch:
            answers.wait(60)
        return ask(folder, *args, **keywords)

    monkeypatch.setattr(disk, "disk_facts", held)
    before = set(threading.enumerate())
    found = bigger_disks(cache, {}, root=tmp_path, wait_s=2)
    answers.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert [disk.folder for disk in found] == [str(data / "huggingface")]


def test_folders_that_cannot_be_asked(tmp_path: Path, working: Path) -> None:
    loop = tmp_path / "data"
    loop.symlink_to(loop)
    write(tmp_path, {"scratch": "a file", "mnt": "another"})
    assert bigger_disks(loop / "x", {}, root=tmp_path) == ()
    assert bigger_disks(working, {"HOME": "/\0"}, root=tmp_path) == ()


def test_a_file_system_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = disk_facts_or_none(tmp_path / "new")
    assert found is not None
    assert found == replace(disk_facts(tmp_path / "new"), free=found.free)

    def dead(folder: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("shutil.disk_usage", dead)
    assert disk_facts_or_none(tmp_path) is None


def test_folders_without_a_home_are_those_of_the_hubs_library(tmp_path: Path) -> None:
    code = """
import os, pwd
def missing(uid): raise KeyError(uid)
pwd.getpwuid = missing
from nbloader.machine import folder_of_environment
from nbloader.tokens import token_origin
found = folder_of_environment(os.environ)
facts = token_origin(None, os.environ)
from huggingface_hub.constants import HF_HUB_CACHE
assert HF_HUB_CACHE == "~/.cache/huggingface/hub"
assert str(found) == os.path.abspath(HF_HUB_CACHE), (found, HF_HUB_CACHE)  # as the library reads it
print(facts.source or "none")
"""
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "none\n"
