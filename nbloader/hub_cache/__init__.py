"""The Hub's cache folder on the disk: its layout and locks, partial files, and what may be swept.

`report` says what lies there and deletes what can go; it builds on views, so it is a part of its
own, which a worker does not import.
"""

from __future__ import annotations

from nbloader.hub_cache.claims import HeldError
from nbloader.hub_cache.filesystem import FileLock, holder_of, probe
from nbloader.hub_cache.hashing import FileHash, Room, matches
from nbloader.hub_cache.layout import COMMIT, ListingStore, RepoCache
from nbloader.hub_cache.local_folder import LocalFolder
from nbloader.hub_cache.partial import (
    SMALL_FILE_BYTES,
    Partial,
    SpoiltError,
    Writer,
    bytes_on_disk,
)
from nbloader.hub_cache.passing import PassingFiles
from nbloader.hub_cache.ranges import Spans
from nbloader.hub_cache.sweep import Swept, found_partials, sweep

__all__ = [
    "COMMIT",
    "SMALL_FILE_BYTES",
    "FileHash",
    "FileLock",
    "HeldError",
    "ListingStore",
    "LocalFolder",
    "Partial",
    "PassingFiles",
    "RepoCache",
    "Room",
    "Spans",
    "SpoiltError",
    "Swept",
    "Writer",
    "bytes_on_disk",
    "found_partials",
    "holder_of",
    "matches",
    "probe",
    "sweep",
]
