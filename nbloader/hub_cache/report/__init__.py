"""What is in the Hub's cache, what of it can go, and its removal.

The cache belongs to all libraries that use the Hub. So revisions are removed by the Hub library's
own functions, and nothing that a process is at work on, or may go on from, is removed at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbloader.errors import CacheNotWritableError, InvalidArgumentError, NotCachedError
from nbloader.hub_cache.filesystem import free_bytes
from nbloader.hub_cache.report.delete import delete_items
from nbloader.hub_cache.report.forms import Deletion, Report, title_of
from nbloader.hub_cache.report.items import (
    CachedOrphan,
    CachedPartial,
    CachedRepo,
    CachedRevision,
    Item,
    ItemKind,
    Kept,
    Store,
)
from nbloader.hub_cache.report.judge import FRESH_S, judge
from nbloader.hub_cache.report.scan import find_repos, folder_size
from nbloader.hub_cache.report.use import open_files
from nbloader.machine import expanded, folder_of_environment, home_of_environment
from nbloader.request import check_folder, check_repo_id
from nbloader.text import quote

__all__ = [
    "FRESH_S",
    "CacheReport",
    "CachedOrphan",
    "CachedPartial",
    "CachedRepo",
    "CachedRevision",
    "Deletion",
    "Item",
    "ItemKind",
    "Kept",
    "Store",
    "cache",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport(Report):
    """What is in the cache, and what of it can go. Shows itself in a notebook."""

    def delete(
        self, repo_ids: str | Iterable[str] | None = None, *, dry_run: bool = False
    ) -> Deletion:
        """Delete what the report says can go, and nothing else.

        The folder is looked at once more before: what is in use now, or has changed, stays. The
        Hub's library is imported, and reads its settings from the environment then.

        Args:
            repo_ids: only of these repositories.
            dry_run: delete nothing, and say what would go.

        Raises:
            InputError: a repository is named by something that is no id.
            NotCachedError: the report has no such repository.
            CacheNotWritableError: nothing can be deleted there.
        """
        wanted = Report(cache_dir=self.cache_dir, repos=_narrowed(self, repo_ids)).items
        now = cache(self.cache_dir)
        still = frozenset(now.items)
        changed = tuple(
            Kept(item=item, why="it is in use, or has changed meanwhile")
            for item in wanted
            if item not in still
        )
        items = tuple(item for item in wanted if item in still)
        if dry_run:
            return Deletion(removed=items, kept=changed, dry_run=True)
        removed, kept = delete_items(Path(self.cache_dir), items)
        return Deletion(removed=removed, kept=(*changed, *kept))


def cache(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    repo_ids: str | Iterable[str] | None = None,
) -> CacheReport:
    """List what is in the Hub's cache, and what of it can go.

    Can go: revisions that no branch or tag names (a newer one has taken their place), blobs that no
    revision names, and partial downloads; none that a process is at work on, and no revision or
    partial that was written within a day. Nothing is changed, and nothing goes over the network.

    Args:
        cache_dir: the folder; by default where every library looks.
        repo_ids: list only these repositories, such as `Qwen/Qwen-Image-Edit-2509`, or
            `datasets/org/name`.

    Returns:
        The report; its `delete()` deletes what can go.

    Raises:
        InputError: an argument is wrong.
        NotCachedError: the cache does not hold a repository that was named.
        CacheNotWritableError: the folder cannot be read.
    """
    given = check_folder("cache_dir", cache_dir)
    folder = Path(given) if given else folder_of_environment(os.environ).absolute()
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(
            f"cache_dir={quote(str(folder))} is no folder", hint="Pass the Hub's cache folder."
        )
    now = time.time()
    try:
        repos = tuple(judge(found, now) for found in find_repos(folder, open_files(folder)))
    except OSError as error:
        raise CacheNotWritableError(
            f"the cache folder {folder} cannot be read: {error.strerror or type(error).__name__}",
            hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
        ) from None
    report = CacheReport(
        cache_dir=str(folder), repos=repos, stores=_stores(folder), disk_free=_free(folder)
    )
    return report if repo_ids is None else _only(report, repo_ids)


def _only(report: CacheReport, repo_ids: str | Iterable[str]) -> CacheReport:
    return CacheReport(
        cache_dir=report.cache_dir,
        repos=_narrowed(report, repo_ids),
        stores=report.stores,
        disk_free=report.disk_free,
    )


def _narrowed(report: Report, repo_ids: str | Iterable[str] | None) -> tuple[CachedRepo, ...]:
    """Give the repositories that are named, or all for None.

    Raises:
        InputError, NotCachedError: see `cache`.
    """
    if repo_ids is None:
        return report.repos
    wanted = [repo_ids] if isinstance(repo_ids, str) else list(repo_ids)
    for name in wanted:
        _check_name(name)
        if not any(name in _names(repo) for repo in report.repos):
            raise NotCachedError(
                f"{name} is not in the cache {report.cache_dir}",
                hint="`nbloader cache` lists what is there.",
            )
    return tuple(repo for repo in report.repos if not _names(repo).isdisjoint(wanted))


_TYPES = ("models/", "datasets/", "spaces/", "kernels/")


def _check_name(name: object) -> None:
    text = name
    for start in _TYPES:
        if isinstance(name, str) and name.startswith(start) and name.count("/") == 2:
            text = name.removeprefix(start)
    check_repo_id(text)


def _names(repo: CachedRepo) -> set[str]:
    return {
        repo.repo_id,
        title_of(repo.repo_type, repo.repo_id),
        f"{repo.repo_type}s/{repo.repo_id}",
    }


def _stores(folder: Path) -> tuple[Store, ...]:
    """Find the bytes that repositories share: the Hub's store of blobs, and the chunks of Xet."""
    xet = os.environ.get("HF_XET_CACHE")
    chunks = expanded(xet) if xet else home_of_environment(os.environ) / "xet"
    found = []
    for path, about in (
        (folder / "blobs", "blobs that repositories share"),
        (chunks, "the chunk cache of Xet"),
    ):
        if path.is_dir() and not path.is_symlink():
            files, size = folder_size(path)
            found.append(Store(folder=str(path), about=about, files=files, bytes=size))
    return tuple(found)


def _free(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except OSError:
        return None
