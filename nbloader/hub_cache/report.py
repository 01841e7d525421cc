"""What is in the Hub's cache, what of it can go, and its removal.

The cache belongs to all libraries that use the Hub. So revisions are removed by the Hub library's
own functions, and nothing that a process is at work on, or may go on from, is removed at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbloader.errors import CacheNotWritableError, InvalidArgumentError, NotCachedError
from nbloader.hub_cache.delete import delete_items
from nbloader.hub_cache.filesystem import free_bytes
from nbloader.hub_cache.judge import (
    CachedRepo,
    Item,
    ItemKind,
    Kept,
    Store,
    items_of,
    judge,
)
from nbloader.hub_cache.scan import find_repos, folder_size, open_files
from nbloader.machine import folder_of_environment, home_of_environment
from nbloader.paths import absolute, expanded
from nbloader.redaction import Redactor
from nbloader.request import check_folder, check_repo_id
from nbloader.text import format_bytes, quote_path
from nbloader.views import Row, Section, SectionsReport, sections_json

__all__ = ["CacheReport", "Deletion", "cache"]


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
    folder = Path(given) if given else folder_of_environment(os.environ)
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(
            f"cache_dir={quote_path(folder)} is not a folder", hint="Pass the Hub's cache folder."
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
    return report if repo_ids is None else replace(report, repos=_narrowed(report, repo_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport(SectionsReport):
    """What is in the cache, and what of it can go. Shows itself in a notebook.

    Attributes:
        cache_dir: the folder.
        repos: the repositories in it, in the order of their folders.
        stores: folders of bytes that repositories share, such as the chunks of Xet.
        disk_free: bytes on the file system of the folder; None if it cannot be asked.
    """

    cache_dir: str
    repos: tuple[CachedRepo, ...]
    stores: tuple[Store, ...] = ()
    disk_free: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all repositories; what they share through a store counts for each."""
        return sum(repo.bytes for repo in self.repos)

    @property
    def items(self) -> tuple[Item, ...]:
        """What can go."""
        return tuple(item for repo in self.repos for item in items_of(repo))

    @property
    def frees(self) -> int:
        """Bytes that are freed if all goes that can."""
        return sum(item.bytes for item in self.items)

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
        wanted = [item for repo in _narrowed(self, repo_ids) for item in items_of(repo)]
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

    def sections(self) -> tuple[Section, ...]:
        """Return the report as rows, from which all its forms are made."""
        free = "" if self.disk_free is None else f"{format_bytes(self.disk_free)} free on its disk"
        return (
            Section(
                key="cache",
                title="Cache",
                total=free,
                rows=(*self._folder_rows(), *self._store_rows()),
            ),
            Section(
                key="repositories",
                title="Repositories",
                total=_total([repo.bytes for repo in self.repos]),
                rows=tuple(row for repo in self.repos for row in _repo_rows(repo)),
            ),
            Section(
                key="partials",
                title="Partial downloads",
                total=_total([each.bytes for repo in self.repos for each in repo.partials]),
                rows=tuple(row for repo in self.repos for row in _partial_rows(repo)),
            ),
            Section(
                key="orphans",
                title="Orphaned blobs, which no revision names",
                total=_total([each.bytes for repo in self.repos for each in repo.orphans]),
                rows=tuple(row for repo in self.repos for row in _orphan_rows(repo)),
            ),
            _sum_section("can_go", "What can go", self.items),
        )

    def _folder_rows(self) -> Iterable[Row]:
        yield Row(name="folder", text=Redactor.here()(self.cache_dir))
        yield Row(
            name="repositories",
            text=f"{len(self.repos)}, {format_bytes(self.bytes)}",
            data={"count": len(self.repos), "bytes": self.bytes},
        )
        if self.disk_free is not None:
            yield Row(
                name="disk",
                text=f"{format_bytes(self.disk_free)} free",
                data={"free": self.disk_free},
            )

    def _store_rows(self) -> Iterable[Row]:
        for store in self.stores:
            yield Row(
                name=Redactor.here()(store.folder),
                text=f"{store.about}: {store.files} files, {format_bytes(store.bytes)}",
                data={"files": store.files, "bytes": store.bytes},
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion(SectionsReport):
    """What was deleted.

    Attributes:
        removed: what is gone; of a trial, what would go.
        kept: what was to go, and stayed.
        dry_run: whether it was a trial.
    """

    removed: tuple[Item, ...]
    kept: tuple[Kept, ...] = ()
    dry_run: bool = False

    @property
    def bytes(self) -> int:
        """Bytes that are freed by it."""
        return sum(item.bytes for item in self.removed)

    def sections(self) -> tuple[Section, ...]:
        """Return the report as rows, from which all its forms are made."""
        title = "Would be deleted" if self.dry_run else "Deleted"
        return (
            _sum_section("deleted", title, self.removed),
            Section(
                key="kept",
                title="Kept",
                total=_total([kept.item.bytes for kept in self.kept]),
                rows=tuple(
                    Row(name=_item_name(kept.item), text=f"{kept.item.kind}: {kept.why}")
                    for kept in self.kept
                ),
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values for `json.dumps`."""
        return {"dry_run": self.dry_run, "bytes": self.bytes, **sections_json(self.sections())}


def _title(repo_type: str, repo_id: str) -> str:
    """Write the id of a repository; other than a model's with its type, as addresses have it."""
    return repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"


def _repo_rows(repo: CachedRepo) -> Iterable[Row]:
    title = _title(repo.repo_type, repo.repo_id)
    used = "" if repo.used is None else f", read last {_day(repo.used)}"
    yield Row(
        name=title,
        text=f"{format_bytes(repo.bytes)}{used}",
        data={"type": repo.repo_type, "bytes": repo.bytes, "read_last": repo.used},
    )
    for each in repo.revisions:
        fate = each.stays or f"no reference names it; can go and frees {format_bytes(each.frees)}"
        yield Row(
            name=f"{title}@{each.commit_hash[:12]}",
            text=f"{format_bytes(each.bytes)}, {each.files} files: {fate}",
            data={
                "commit_hash": each.commit_hash,
                "refs": list(each.refs),
                "files": each.files,
                "bytes": each.bytes,
                "frees": each.frees,
                "stays": each.stays,
            },
        )
    for problem in repo.problems:
        yield Row(name=title, text=f"not as a cache should be: {problem}")


def _partial_rows(repo: CachedRepo) -> Iterable[Row]:
    for each in repo.partials:
        maker = "a load goes on from it" if each.ours else "of another library, which begins anew"
        yield Row(
            name=f"{_title(repo.repo_type, repo.repo_id)}: {each.path or each.etag[:12]}",
            text=f"{format_bytes(each.bytes)}, written {_day(each.written)}; {maker}: "
            f"{each.stays or 'can go'}",
            data={
                "etag": each.etag,
                "ours": each.ours,
                "path": each.path,
                "bytes": each.bytes,
                "written": each.written,
                "stays": each.stays,
            },
        )


def _orphan_rows(repo: CachedRepo) -> Iterable[Row]:
    for each in repo.orphans:
        yield Row(
            name=f"{_title(repo.repo_type, repo.repo_id)}: {each.etag[:12]}",
            text=f"{format_bytes(each.bytes)}: {each.stays or 'can go'}",
            data={"etag": each.etag, "bytes": each.bytes, "stays": each.stays},
        )


def _sum_section(key: str, title: str, items: Sequence[Item]) -> Section:
    by_kind = ((kind, [item for item in items if item.kind is kind]) for kind in ItemKind)
    rows = (_sum_row(f"{kind}s", same) for kind, same in by_kind if same)
    every = _sum_row("all", items)
    return Section(key=key, title=title, total=every.text, rows=(*rows, every), opened=bool(items))


def _sum_row(name: str, items: Sequence[Item]) -> Row:
    sizes = [item.bytes for item in items]
    return Row(name=name, text=_total(sizes), data={"count": len(items), "bytes": sum(sizes)})


def _total(sizes: Sequence[int]) -> str:
    return f"{len(sizes)}, {format_bytes(sum(sizes))}" if sizes else "nothing"


def _item_name(item: Item) -> str:
    return f"{item.repo_id}: {item.name[:12]}"


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return "–"


def _narrowed(report: CacheReport, repo_ids: str | Iterable[str] | None) -> tuple[CachedRepo, ...]:
    """Return the repositories that are named, or all for None.

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
                hint="`nbloader.cache()` lists what is there.",
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
        _title(repo.repo_type, repo.repo_id),
        f"{repo.repo_type}s/{repo.repo_id}",
    }


def _stores(folder: Path) -> tuple[Store, ...]:
    """Find the bytes that repositories share: the Hub's store of blobs, and the chunks of Xet."""
    xet = os.environ.get("HF_XET_CACHE")
    chunks = absolute(expanded(xet)) if xet else home_of_environment(os.environ) / "xet"
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
