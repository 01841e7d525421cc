"""Disks that are full, and folders that cannot be written any more."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbloader.errors import CacheNotWritableError, DiskFullError, DiskSpaceError
from nbloader.localhub import Fault, LocalHub
from nbloader.records import Event, FileProgress, Selected
from tests.faults.repos import ONE
from tests.faults.runs import BODY, BOTH, check_kept, check_right, check_stopped, download

MIB = 1 << 20


def attempt(*command: str | Path) -> bool:
    """Say whether a command of the system worked."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


class Disk:
    """A small disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.there = attempt("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)

    def remount(self, options: str) -> None:
        assert attempt("mount", "-o", f"remount,{options}", self.folder)

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    if not disk.there:
        pytest.skip("a file system may not be mounted here")
    yield disk
    assert attempt("umount", "--lazy", tmp_path)


@pytest.mark.parametrize("route", BOTH)
def test_a_disk_that_is_full_keeps_what_has_arrived(hub: LocalHub, disk: Disk, route: str) -> None:
    disk.remount("size=16m")
    run = download(hub, ONE, disk.folder, route=route, check_disk_space=False)
    check_stopped(run, DiskFullError, "is full")
    assert run.told > 12 * MIB
    disk.remount("size=64m")
    check_kept(hub, run, disk.folder, route=route)


def test_too_small_a_disk_is_told_before_anything_comes(hub: LocalHub, disk: Disk) -> None:
    disk.remount("size=16m")
    run = download(hub, ONE, disk.folder)
    check_stopped(run, DiskSpaceError)
    assert run.served < MIB


def test_it_stops_before_the_disk_is_full(hub: LocalHub, disk: Disk) -> None:
    other = disk.folder / "other"

    def fill(event: Event) -> None:
        if isinstance(event, FileProgress) and event.path == "one.bin" and not other.exists():
            other.write_bytes(bytes(disk.free - 18 * MIB))

    slow = Fault(BODY["http"], total_bytes_per_second=2_000_000)
    run = download(hub, ONE, disk.folder, [slow], on_event=fill, route="http")
    check_stopped(run, DiskFullError, "still to come", "left")
    assert disk.free > 2 * MIB
    other.unlink()
    check_kept(hub, run, disk.folder, route="http")


@pytest.mark.parametrize("route", BOTH)
def test_a_disk_that_becomes_read_only(hub: LocalHub, disk: Disk, route: str) -> None:
    def freeze(event: Event) -> None:
        if isinstance(event, Selected):
            disk.remount("ro")

    # The check of the cache folder comes between, and would see it first.
    run = download(hub, ONE, disk.folder, on_event=freeze, route=route, force=True)
    check_stopped(run, CacheNotWritableError)
    disk.remount("rw")
    check_right(download(hub, ONE, disk.folder, route=route))


@pytest.mark.parametrize("route", BOTH)
def test_a_folder_that_takes_no_more_files(hub: LocalHub, disk: Disk, route: str) -> None:
    blobs = disk.folder / "models--org--one" / "blobs"

    def freeze(event: Event) -> None:
        if isinstance(event, FileProgress) and event.path == "one.bin":
            attempt("chattr", "+i", blobs)

    slow = Fault(BODY[route], total_bytes_per_second=60_000_000)
    if not (attempt("chattr", "+i", disk.folder) and attempt("chattr", "-i", disk.folder)):
        pytest.skip("folders cannot be made immutable here")
    run = download(hub, ONE, disk.folder, [slow], on_event=freeze, route=route)
    check_stopped(run, CacheNotWritableError)
    assert attempt("chattr", "-i", blobs)
    check_kept(hub, run, disk.folder, route=route)
