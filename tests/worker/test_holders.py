"""Files that other processes hold: told once, and given up when their holder writes nothing."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from nbloader.errors import DownloadError
from nbloader.records import Notice, RepoFile, TransferPolicy
from nbloader.worker.holders import TOLD_EVERY_S, Holders

FILE = RepoFile(path="model.safetensors", size=5_000_000, etag="1" * 64, lfs=True)
LIMIT_S = 20.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def holders(told: list[Notice]) -> tuple[Holders, Clock]:
    clock = Clock()
    return Holders(TransferPolicy(timeout_s=LIMIT_S), clock, told.append), clock


def test_who_holds_a_file_is_told_once_it_takes_long(tmp_path: Path) -> None:
    told: list[Notice] = []
    waits, clock = holders(told)
    lock = tmp_path / "lock"
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waits.held(FILE, lock, {})
        clock.now += TOLD_EVERY_S - 0.1
        waits.held(FILE, lock, {})
        assert told == []
        clock.now += 0.2
        waits.held(FILE, lock, {})
        waits.held(FILE, lock, {})
    (notice,) = told
    assert notice.message == (
        f"process {os.getpid()} holds the lock of model.safetensors: it is waited for"
    )
    assert str(lock) in notice.hint


def test_one_that_works_is_waited_for_and_one_that_hangs_is_not(tmp_path: Path) -> None:
    waits, clock = holders([])
    name = f"{FILE.etag}.nbloader-journal.incomplete"
    for size in range(10):
        waits.held(FILE, tmp_path / "my lock", {name: size, "other": 1})
        clock.now += LIMIT_S - 1
    clock.now += 2
    with pytest.raises(DownloadError) as caught:
        waits.held(FILE, tmp_path / "my lock", {name: 9, "other": 2})
    assert "another process holds its lock, and has written nothing for 21 s" in str(caught.value)
    assert f"rm '{tmp_path}/my lock'" in caught.value.hint


def test_a_file_that_is_free_begins_anew(tmp_path: Path) -> None:
    waits, clock = holders([])
    waits.held(FILE, tmp_path, {})
    waits.free(FILE)
    clock.now += 2 * LIMIT_S
    waits.held(FILE, tmp_path, {})
