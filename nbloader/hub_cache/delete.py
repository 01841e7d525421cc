"""Removal of what can go. Revisions are removed by the Hub library's own functions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader.errors import CacheNotWritableError
from nbloader.hub_cache.filesystem import FileSystem, probe
from nbloader.hub_cache.judge import Item, ItemKind, Kept
from nbloader.hub_cache.layout import RepoCache
from nbloader.hub_cache.sweep import found_partials, remove_files

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_CHANGED = "it has changed meanwhile"
_LOCKED = "a process is at work on it"


class _Refused(Exception):  # noqa: N818 - a reason to keep something, told to the caller as such
    """Why something stays."""


def delete_items(cache_dir: Path, items: Iterable[Item]) -> tuple[tuple[Item, ...], list[Kept]]:
    """Remove things, and give those that are gone, and those that stayed.

    Args:
        items: what was found able to go just now.

    Raises:
        CacheNotWritableError: nothing can be removed there.
    """
    gone: list[Item] = []
    kept: list[Kept] = []
    items = tuple(items)
    if not items:
        return (), kept
    file_system = _file_system(cache_dir)
    revisions = [item for item in items if item.kind is ItemKind.REVISION]
    # Partials and orphans first: with the last revision of a repository goes its folder.
    for item in items:
        if item.kind is not ItemKind.REVISION:
            with _noted([item], gone, kept):
                remove = _remove_partial if item.kind is ItemKind.PARTIAL else _remove_orphan
                remove(RepoCache(cache_dir / item.folder, file_system), item)
    if revisions:
        _delete_revisions(cache_dir, revisions, gone, kept)
    return tuple(gone), kept


def _file_system(cache_dir: Path) -> FileSystem:
    try:
        return probe(cache_dir)
    except OSError as error:
        raise CacheNotWritableError(
            f"nothing can be deleted in {cache_dir}: {error.strerror or error}",
            hint="Run it as the owner of that folder.",
        ) from None


@contextlib.contextmanager
def _noted(items: list[Item], gone: list[Item], kept: list[Kept]) -> Iterator[None]:
    """Note how the removal of things went that go together."""
    try:
        yield
    except _Refused as refused:
        kept += (Kept(item=item, why=str(refused)) for item in items)
    except OSError as error:
        kept += (Kept(item=item, why=error.strerror or type(error).__name__) for item in items)
    else:
        gone += items


# -- partials and orphans --------------------------------------------------------------------------


def _remove_partial(cache: RepoCache, item: Item) -> None:
    lock = cache.try_lock_etag(item.name)
    if lock is None:
        raise _Refused(_LOCKED)
    with lock:
        same = [
            found
            for found in found_partials(cache.blobs)
            if (found.etag, found.ours) == (item.name, item.ours)
        ]
        if [found.bytes_on_disk for found in same] != [item.bytes]:
            raise _Refused(_CHANGED)
        if not remove_files(cache, same[0]):
            raise _Refused(_LOCKED)


def _remove_orphan(cache: RepoCache, item: Item) -> None:
    lock = cache.try_lock_etag(item.name)
    if lock is None:
        raise _Refused(_LOCKED)
    with lock, cache.open_blobs(make=False) as blobs:
        if not blobs.unlink(item.name):
            raise _Refused(_CHANGED)


# -- revisions -------------------------------------------------------------------------------------


def _delete_revisions(
    cache_dir: Path, items: list[Item], gone: list[Item], kept: list[Kept]
) -> None:
    from huggingface_hub import scan_cache_dir

    try:
        info = scan_cache_dir(cache_dir)
    except Exception as error:  # Whatever a damaged cache makes of the Hub library's scan.
        why = f"the Hub's library cannot read this cache: {type(error).__name__}"
        kept += (Kept(item=item, why=why) for item in items)
        return
    for folder in dict.fromkeys(item.folder for item in items):
        group = [item for item in items if item.folder == folder]
        with _noted(group, gone, kept):
            _execute(info, folder, group)


def _execute(info: HFCacheInfo, folder: str, items: list[Item]) -> None:
    repo = next((repo for repo in info.repos if repo.repo_path.name == folder), None)
    if repo is None:
        raise _Refused("the Hub's library does not know it as a repository")
    names = {item.name for item in items}
    if not names <= {each.commit_hash for each in repo.revisions if not each.refs}:
        raise _Refused(_CHANGED)
    # The same commit may lie in the cache under another id, and there it stays.
    strategy = replace(info, repos=frozenset({repo})).delete_revisions(*sorted(names))
    paths = strategy.repos | strategy.snapshots | strategy.refs | strategy.blobs
    if not all(path == repo.repo_path or _is_inside(path, repo.repo_path) for path in paths):
        raise _Refused("its files lie outside its folder")
    strategy.execute()
    # What the Hub's functions cannot remove, they pass over.
    if any(map(os.path.lexists, paths)):
        raise _Refused("the Hub's library could not remove all of it")


def _is_inside(path: Path, folder: Path) -> bool:
    """Say whether what is removed with a path lies below a folder, whatever links lead to it."""
    return Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))
