"""Files that other processes hold: who they are, since when, and when they are given up."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nbloader.errors import DownloadError
from nbloader.hub_cache import holder_of
from nbloader.records import Notice, RepoFile, TransferPolicy
from nbloader.redaction import short_path
from nbloader.text import format_duration

TOLD_EVERY_S = 3.0
"""Who holds a lock for less is not told of: most are given back at once."""


@dataclass(slots=True)
class _Held:
    """A file that is waited for.

    Attributes:
        since: when it was first found held.
        moved_at: when its holder last showed that it is at work.
        sizes: of what it writes, by name.
    """

    since: float
    moved_at: float
    sizes: Mapping[str, int]
    told: bool = False


@dataclass(slots=True)
class Holders:
    """The files of one fetch that others hold. Used by one thread.

    Attributes:
        told: takes what the user is to know.
    """

    policy: TransferPolicy
    clock: Callable[[], float]
    told: Callable[[Notice], object]
    _held: dict[str, _Held] = field(default_factory=dict)

    def free(self, file: RepoFile) -> None:
        """Note that nobody else holds a file any more."""
        self._held.pop(file.path, None)

    def held(self, file: RepoFile, lock: Path, sizes: Mapping[str, int]) -> None:
        """Note that another process holds a file, and tell of it once that takes its time.

        Args:
            lock: the file by which it does.
            sizes: of all that is being written where the files go, by name.

        Raises:
            DownloadError: it has held it for too long and has written nothing.
        """
        now = self.clock()
        own = {name: size for name, size in sizes.items() if name.startswith(file.etag)}
        seen = self._held.setdefault(file.path, _Held(now, now, own))
        if own != seen.sizes:
            seen.sizes, seen.moved_at = own, now
        limit_s = self.policy.quiet_limit_s(file.size)
        if now - seen.moved_at > limit_s:
            raise _given_up(file, lock, now - seen.moved_at)
        if now - seen.since >= TOLD_EVERY_S and not seen.told:
            seen.told = True
            self.told(_waited_for(file, lock, limit_s))


def _holder(lock: Path) -> tuple[str, int | None]:
    pid = holder_of(lock)
    return (f"process {pid}" if pid else "another process"), pid


def _waited_for(file: RepoFile, lock: Path, limit_s: float) -> Notice:
    who, _ = _holder(lock)
    return Notice(
        reference="file-held",
        message=f"{who} holds the lock of {file.path}: it is waited for",
        hint=f"Nothing is needed. After {format_duration(limit_s)} in which it writes nothing, "
        f"it is given up. The lock is {short_path(lock)}.",
    )


def _given_up(file: RepoFile, lock: Path, quiet_s: float) -> DownloadError:
    who, pid = _holder(lock)
    ending = f"End that process (kill {pid}). " if pid else "End the process that does. "
    return DownloadError(
        f"{file.path}: {who} holds its lock, and has written nothing for "
        f"{format_duration(quiet_s)}",
        hint=f"{ending}If none is at work on the file, remove the lock: "
        f"rm {shlex.quote(str(lock))}",
    )
