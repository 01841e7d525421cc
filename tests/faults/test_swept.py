"""Caches that are cleaned up under a running download, and locks that do not see each other."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbloader.errors import DownloadError
from nbloader.localhub import Fault, LocalHub
from nbloader.records import Notice
from tests.faults.repos import ONE
from tests.faults.runs import BODY, BOTH, check_right, check_stopped, download
from tests.faults.test_killed import at_half, slow

REPO = "models--org--one"


def remove(pattern: str) -> Callable[[Path], None]:
    """Return what removes all of these files and folders."""

    def act(cache: Path) -> None:
        found = list(cache.glob(pattern))
        assert found
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    return act


def cut(size: int) -> Callable[[Path], None]:
    """Return what cuts the partial short."""

    def act(cache: Path) -> None:
        (data,) = cache.glob(f"{REPO}/blobs/*.nbloader.incomplete")
        os.truncate(data, size)

    return act


SWEEPS = {
    "the data": remove(f"{REPO}/blobs/*.nbloader.incomplete"),
    "the journal": remove(f"{REPO}/blobs/*journal.incomplete"),
    "both": remove(f"{REPO}/blobs/*.incomplete"),
    "files that are there": remove(f"{REPO}/blobs/" + "[0-9a-f]" * 40),
    "all blobs": remove(f"{REPO}/blobs"),
    "names": remove(f"{REPO}/snapshots/*/*"),
    "the snapshots": remove(f"{REPO}/snapshots"),
    "the repository": remove(REPO),
    "everything": remove("*"),
    "the locks": remove(".locks"),
    "the end of the data": cut(3_000_000),
    "all of the data": cut(0),
}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_cache_that_is_swept_under_a_download(hub: LocalHub, tmp_path: Path, sweep: str) -> None:
    cache = tmp_path / "hub"
    act = at_half(lambda: SWEEPS[sweep](cache))
    check_right(download(hub, ONE, cache, [slow("http")], on_event=act, route="http"))


def test_a_cache_that_is_swept_under_a_download_over_xet(hub: LocalHub, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    act = at_half(lambda: SWEEPS["the repository"](cache))
    check_right(download(hub, ONE, cache, [slow("xet")], on_event=act, route="xet"))


OTHER = """
import fcntl, sys
import nbloader
repo_id, endpoint, cache, route = sys.argv[1:]
nbloader.download(
    repo_id, kind="transformers", endpoint=endpoint, cache_dir=cache, view="none",
    settings={"route": route},
)
"""

BLIND = "import fcntl\nfcntl.flock = lambda *args: None\n"
"""What a process sees of locks on a file system where each machine has its own."""


@pytest.mark.parametrize("route", BOTH)
@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("quicker", ["first", "second"])
def test_two_whose_locks_do_not_see_each_other(
    hub: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    blind: bool,
    quicker: str,
) -> None:
    cache, site = tmp_path / "hub", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLIND if blind else "")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    others: list[subprocess.Popen[bytes]] = []

    def begin() -> None:
        SWEEPS["the locks"](cache)
        speed = 40_000_000 if quicker == "second" else 10_000_000
        hub.set_faults([Fault(BODY[route], total_bytes_per_second=speed)])
        arguments = [ONE.repo_id, hub.endpoint, str(cache), str(route)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
        others.append(subprocess.Popen([sys.executable, "-c", OTHER, *arguments], env=environment))

    run = download(hub, ONE, cache, [slow(route)], on_event=at_half(begin), route=route)
    assert others[0].wait() == 0
    check_right(run)


def test_a_lock_whose_holder_hangs(hub: LocalHub, tmp_path: Path) -> None:
    """Who holds it is told, and after the time that a file may make no progress it is given up."""
    cache = tmp_path / "hub"
    lock = cache / ".locks" / REPO / f"{ONE.hashes['one.bin']}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = download(hub, ONE, cache, timeout=4)
        check_stopped(run, DownloadError, "one.bin", f"process {os.getpid()} holds its lock")
        (told,) = [event for _, event in run.events if isinstance(event, Notice)]
        assert told.message == f"process {os.getpid()} holds the lock of one.bin: it is waited for"
    check_right(download(hub, ONE, cache))
