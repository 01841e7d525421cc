"""What is in the cache and what was deleted, as text, HTML and JSON with the same content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nbloader.hub_cache.report.items import CachedRepo, Item, ItemKind, Kept, Store
from nbloader.hub_cache.report.judge import items_of
from nbloader.redaction import Redactor
from nbloader.text import format_bytes
from nbloader.views import Row, Section, SectionsReport, sections_json

__all__ = ["Deletion", "Report", "title_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(SectionsReport):
    """What was found in a cache folder.

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
        """Give the report as plain values for `json.dumps`."""
        return {"dry_run": self.dry_run, "bytes": self.bytes, **sections_json(self.sections())}


def title_of(repo_type: str, repo_id: str) -> str:
    """Write the id of a repository; other than a model's with its type, as addresses have it."""
    return repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"


def _repo_rows(repo: CachedRepo) -> Iterable[Row]:
    title = title_of(repo.repo_type, repo.repo_id)
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
            name=f"{title_of(repo.repo_type, repo.repo_id)}: {each.path or each.etag[:12]}",
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
            name=f"{title_of(repo.repo_type, repo.repo_id)}: {each.etag[:12]}",
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
