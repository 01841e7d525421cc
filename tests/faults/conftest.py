from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import psutil
import pytest

from nbloader.localhub import LocalHub
from tests.conftest import WriteRepo
from tests.faults.repos import LARGE, ONE, SIZES, SMALL

HANG_S = 90
"""Far longer than any case takes: what is not over then hangs."""


@pytest.fixture(scope="session")
def _faulty(tmp_path_factory: pytest.TempPathFactory, write_repo: WriteRepo) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("matrix")
    for repo in (SIZES, ONE, SMALL, LARGE):
        write_repo(root, repo.repo_id, repo.files)
    with LocalHub.start(root, max_seconds=1200) as hub:
        for repo in (SIZES, ONE, SMALL, LARGE):
            hub.upload_to_xet(repo.repo_id)
        yield hub


@pytest.fixture
def hub(_faulty: LocalHub) -> Iterator[LocalHub]:
    """A server of the matrix's repositories, all of them in Xet storage too."""
    _faulty.reset_counters()
    yield _faulty
    _faulty.clear_faults()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """End a case that hangs."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not over after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _no_process_stays(_bounded: None) -> Iterator[None]:
    before = psutil.Process().children(recursive=True)
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child not in before]
    for child in left:
        child.kill()
    assert left == []
