"""Files of one repository, brought into the cache."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import constants

from nbloader.errors import NbloaderError
from nbloader.hub_cache import PassingFiles, RepoCache, matches, probe
from nbloader.records import FileProgress, Notice, RepoFile, Retry, Route, Silence
from nbloader.transfer.protocol import Tried
from nbloader.worker.engine import Engine
from nbloader.worker.http_route import HttpRoute
from nbloader.worker.hub import Hub
from nbloader.worker.piece import RouteLike
from nbloader.worker.xet_route import ChunkStarts, XetRoute, may_use_xet


@dataclass(slots=True)
class Downloads:
    """Brings files of a repository into the cache.

    Attributes:
        publish: told of progress, silences, retries and waits, from any thread.
        stuck: told of a fetch that hangs; see `Engine`.
        tried: what an earlier worker learned.
        fetched: paths that were not in the cache before.
    """

    hub: Hub
    cache: RepoCache
    publish: Callable[[FileProgress | Silence | Retry | Notice], object]
    stuck: Callable[[str, Route], object]
    tried: Sequence[Tried] = ()
    fetched: set[str] = field(default_factory=set)
    _engine: Engine | None = None
    _checked: int = 0
    _probed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def moved(self) -> int:
        """A number that grows while bytes arrive, or are hashed."""
        return self._checked + (self._engine.moved if self._engine else 0)

    def fetch(
        self,
        revision: str,
        commit_hash: str,
        files: Sequence[RepoFile],
        *,
        done: Callable[[RepoFile], object],
        verify: bool,
        passing: frozenset[str] = frozenset(),
    ) -> None:
        """Bring files into the cache, in about this order.

        What the cache holds with the right size is taken as it is, or hashed if `verify`.

        Args:
            done: told of each file that is there, from any thread.
            passing: paths of those that go again once they are loaded.

        Raises:
            NbloaderError: of the tree under `RepoError` or `TransferError`.
        """

        def arrived(file: RepoFile) -> None:
            self.fetched.add(file.path)
            done(file)

        notes = self._notes()
        try:
            missing = self._missing(commit_hash, files, verify=verify)
        except OSError as error:
            raise self.hub.explained(error) from error
        known = set(missing)
        there = [file for file in files if file not in known]
        going = self.keep([file for file in there if file.path not in passing], commit_hash)
        going += [
            file for file in there if file.path in passing and not notes.claimed(commit_hash, file)
        ]
        if going:
            known.update(going)
            missing = [file for file in files if file in known]
        paths = {file.path for file in missing}
        for file in files:
            if file.path not in paths:
                done(file)
        if not missing:
            return
        self._probe()
        self._engine = engine = Engine(
            missing,
            cache=self.cache,
            revision=revision,
            commit_hash=commit_hash,
            routes=self._routes(commit_hash),
            policy=self.hub.policy,
            publish=self.publish,
            done=arrived,
            stuck=self.stuck,
            tried=self.tried,
            passing=passing,
            passed=[file for file in files if file.path in passing and file.path not in paths],
            notes=notes,
            answers=self.hub.endpoint.answers,
        )
        try:
            engine.fetch()
        except NbloaderError:
            raise
        except Exception as error:
            raise self.hub.explained(error, path=engine.failed_path) from error

    def keep(self, files: Sequence[RepoFile], commit_hash: str) -> list[RepoFile]:
        """Let files that are there stay, though a load that keeps none was going to remove them.

        Returns:
            Those that may be on their way out just now.
        """
        notes = self._notes()
        return [file for file in files if not notes.kept(commit_hash, file)]

    def _notes(self) -> PassingFiles:
        return PassingFiles.of(self.cache, Path(constants.HF_HOME), os.getppid())

    def _probe(self) -> None:
        """Find out what the file system of the cache can do, before the first file is written."""
        if self._probed:
            return
        try:
            self.cache = replace(
                self.cache, file_system=probe(self.cache.folder.parent, symlinks=_wants_symlinks())
            )
        except OSError as error:
            raise self.hub.explained(error) from error
        self._probed = True

    def is_right(self, commit_hash: str, file: RepoFile) -> bool:
        """Hash a file that the cache has under its name in a commit; `moved` grows meanwhile."""
        return matches(self.cache.pointer(commit_hash, file.path_in_repo), file, self._count)

    def recognise(self, commit_hash: str, file: RepoFile) -> bool | None:
        """Find out about a file under its name; see `RepoCache`. `moved` grows meanwhile."""
        return self.cache.recognise(commit_hash, file, self._count)

    def _count(self, count: int) -> None:
        with self._lock:
            self._checked += count

    def _missing(
        self, commit_hash: str, files: Sequence[RepoFile], *, verify: bool
    ) -> list[RepoFile]:
        """Look which files the cache lacks, and remove what is wrong there."""
        look = functools.partial(self._is_missing, commit_hash, verify=verify)
        with ThreadPoolExecutor(self.hub.policy.max_workers) as pool:
            found = list(pool.map(look, files))
        return [file for file, missing in zip(files, found, strict=True) if missing]

    def _is_missing(self, commit_hash: str, file: RepoFile, *, verify: bool) -> bool:
        cache = self.cache
        pointer, blob = cache.pointer(commit_hash, file.path_in_repo), cache.blob(file)
        seen = _stamps(pointer, blob)
        if cache.has_pointer(commit_hash, file):
            if not verify or matches(pointer, file, self._count):
                return False
            self._discard(commit_hash, file, seen)
        elif cache.has_bytes(commit_hash, file):
            if verify and not matches(blob, file, self._count):
                self._discard(commit_hash, file, seen)
        elif pointer.exists():
            self._discard(commit_hash, file, seen)  # A wrong size can never become right.
        return True

    def _discard(self, commit_hash: str, file: RepoFile, seen: object) -> None:
        """Remove what was found wrong, unless another process has mended it or is about to."""
        lock = self.cache.try_lock(file)
        if lock is None:
            return
        with lock:
            pointer = self.cache.pointer(commit_hash, file.path_in_repo)
            if seen == _stamps(pointer, self.cache.blob(file)):
                self.cache.discard(commit_hash, file)

    def _routes(self, commit_hash: str) -> Mapping[Route, RouteLike]:
        """Return the ways that there are here, and that the settings allow."""
        policy = self.hub.policy
        routes: dict[Route, RouteLike] = {
            Route.HTTP: HttpRoute(
                self.hub.links, stall_timeout_s=policy.stall_timeout_s, min_speed=policy.min_speed
            )
        }
        if may_use_xet(policy):
            routes[Route.XET] = XetRoute(
                functools.partial(self.hub.xet_access, commit_hash),
                stall_timeout_s=policy.stall_timeout_s,
                chunks=ChunkStarts(policy.stall_timeout_s),
            )
        return routes


def _stamps(*paths: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what differs once a file was replaced or written."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _wants_symlinks() -> bool:
    return not getattr(constants, "HF_HUB_DISABLE_SYMLINKS", False)
