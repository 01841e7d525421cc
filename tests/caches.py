"""Caches that real downloads have filled, for the tests of their care."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import nbloader
from nbloader.hub_cache.judge import Item, ItemKind
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.partial import DiskPartial
from nbloader.hub_cache.report import CacheReport, cache
from nbloader.localhub import LocalHub
from nbloader.records import RepoFile
from tests.conftest import WriteRepo

DAY_S = 86_400
CONFIG = json.dumps({"architectures": ["BertModel"], "model_type": "bert"}).encode()
SIZE = 2_000_000


def weights(seed: int) -> bytes:
    numbers = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    return save({"weight": numbers})


def age(folder: Path, days: float = 2) -> None:
    """Let all below a folder look as if it had been written and read some days ago."""
    then = time.time() - days * DAY_S
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)


@contextmanager
def locked(cache_dir: Path, folder: str, etag: str) -> Iterator[None]:
    """Hold the Hub's lock of a file, in another process."""
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    path = cache_dir / ".locks" / folder / f"{etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What real downloads of two commits of one repository left.

    Attributes:
        snapshots: their folders below `folder`, the older first.
    """

    repo_id: str
    folder: Path
    snapshots: tuple[Path, ...]


def build(hub: LocalHub, root: Path, write_repo: WriteRepo, folder: Path) -> Built:
    """Download two commits of a repository that is made for it."""
    repo_id, snapshots = "org/cared-for", []
    for seed in (1, 2):
        files = {"config.json": CONFIG, "tokenizer.json": b"{}"}
        write_repo(root, repo_id, {**files, "model.safetensors": weights(seed)})
        snapshots.append(
            nbloader.download(repo_id, cache_dir=folder, endpoint=hub.endpoint, view="none")
        )
    assert len(set(snapshots)) == 2
    return Built(
        repo_id=repo_id,
        folder=folder,
        snapshots=tuple(path.relative_to(folder) for path in snapshots),
    )


class Cache:
    """A cache with one repository of which two commits were downloaded, the older one unnamed.

    Attributes:
        old, new: the snapshot folders.
        old_revision: what can go.
        old_weights: the blob that goes with it.
    """

    def __init__(self, cache_dir: Path, hub: LocalHub, built: Built) -> None:
        self.dir, self.hub, self.repo_id = cache_dir, hub, built.repo_id
        shutil.copytree(built.folder, cache_dir, symlinks=True)
        self.old, self.new = (cache_dir / path for path in built.snapshots)
        self.repo = self.old.parents[1]
        age(cache_dir)
        self.old_weights = (self.old / "model.safetensors").resolve()
        self.old_revision = self.item(
            ItemKind.REVISION, self.old.name, self.old_weights.stat().st_size
        )

    def download(self) -> Path:
        return nbloader.download(
            self.repo_id, cache_dir=self.dir, endpoint=self.hub.endpoint, view="none"
        )

    @property
    def report(self) -> CacheReport:
        return cache(self.dir)

    def item(self, kind: ItemKind, name: str, size: int, **more: bool) -> Item:
        return Item(
            kind=kind, folder=self.repo.name, repo_id=self.repo_id, name=name, bytes=size, **more
        )

    def leave_partial(self, etag: str = "a" * 64, days: float = 2, commit: str = "c" * 40) -> Item:
        """Leave a partial of nbloader's own."""
        file = RepoFile(path="other.safetensors", size=100_000, etag=etag, lfs=True)
        blobs = RepoCache(self.repo).blobs
        partial = DiskPartial(blobs, file, revision="main", commit_hash=commit)
        with partial.writer(0) as writer:
            writer.write(bytes(50_000))
        partial.close()
        paths = list(blobs.glob(f"{etag}.*"))
        then = time.time() - days * DAY_S
        for path in paths:
            os.utime(path, (then, then))
        size = sum(path.stat().st_blocks * 512 for path in paths)
        return self.item(ItemKind.PARTIAL, etag, size, ours=True)

    def stays(self) -> str:
        """Why the old revision stays."""
        (repo,) = self.report.repos
        (revision,) = [each for each in repo.revisions if each.commit_hash == self.old.name]
        return revision.stays
