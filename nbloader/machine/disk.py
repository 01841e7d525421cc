"""Folders and the file systems that they are on."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from nbloader.machine.places import place
from nbloader.paths import absolute, expanded
from nbloader.records import DiskFacts, Place

KAGGLE_WORKING_BYTES = 20_000_000_000
"""What Kaggle lets a notebook keep in `/kaggle/working`, in the smaller reading of its "20 GB".

https://www.kaggle.com/docs/notebooks#technical-specifications
"""

COUNT_WAIT_S = 0.25
"""How long the files that count against a quota are added up."""

LOOK_WAIT_S = 1.0
"""How long other disks are looked for."""

_CACHE = "huggingface"
"""The folder for a cache among the other things of a place."""

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
"""A download there takes from the memory that the model needs."""

_FUSE_OF_DISKS = frozenset({"fuseblk", "fuse.fuse-overlayfs"})
"""File systems in user space that are on a disk of this machine. The others are mostly drives
behind the network, such as Google Drive: slow, and without the links that the Hub's cache needs."""


def existing_part(folder: Path) -> Path:
    """Return the nearest folder above that exists, or `folder` itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk_facts(
    folder: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
) -> DiskFacts:
    """Measure the file system of `folder`, which need not exist yet.

    The path itself is measured, because `/` can be another file system (on Kaggle it reports
    terabytes). The quota of Kaggle's `/kaggle/working`, which the file system may not show, counts
    as well.

    Args:
        root: the folder that `kaggle/working` is under.
        clock: seconds; the count of what has been used of the quota ends after `COUNT_WAIT_S`.

    Raises:
        OSError: the file system cannot be asked.
    """
    there = existing_part(folder)
    usage = shutil.disk_usage(there)
    free, total, source = usage.free, usage.total, "disk_usage"
    if place(environ) is Place.KAGGLE:
        working = root / "kaggle/working"
        if _is_in(there, working):
            used, complete = _bytes_in(working, clock)
            total = min(total, KAGGLE_WORKING_BYTES)
            free = min(free, max(0, KAGGLE_WORKING_BYTES - used))
            source = "disk_usage and Kaggle's quota of 20 GB"
            source += "" if complete else " (not all files counted)"
        else:
            source = "disk_usage (Kaggle may allow less)"
    mode = there.stat().st_mode
    return DiskFacts(
        folder=str(folder),
        free=free,
        total=total,
        writable=_writable(there),
        source=source,
        # Where the folder itself is not there yet, it will be this user's alone.
        open_to_all=there == folder and bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX,
    )


def disk_facts_or_none(folder: Path, environ: Mapping[str, str] = os.environ) -> DiskFacts | None:
    """Measure as `disk_facts` does; None where the file system cannot be asked.

    So it is where a mount is dead, links go in a circle, or the name is none.
    """
    try:
        return disk_facts(folder, environ)
    except (OSError, RuntimeError, ValueError):
        return None


def bigger_disks(
    folder: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    root: Path = Path("/"),
    wait_s: float = LOOK_WAIT_S,
) -> tuple[DiskFacts, ...]:
    """Find places for a cache on other file systems with more free space than that of `folder`.

    They can be written to, though the last folder need not exist yet. File systems in memory, and
    drives behind the network that run in user space, such as Google Drive, are left out. One for
    each file system, the one with most space first.

    Args:
        root: the folder that the usual places (`tmp`, `data`, `mnt`, `kaggle`, ...) are under, and
            `proc`, which tells the kinds of file systems.
        wait_s: after so long, what was found until then is given.
    """
    found: list[DiskFacts] = []

    def look() -> None:
        # What cannot be asked, such as links in a circle, is not offered.
        with suppress(OSError, RuntimeError, ValueError):
            found.extend(_others(folder, environ, root))

    # A file server that does not answer holds whoever asks it, without end.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(wait_s)
    return tuple(sorted(found.copy(), key=lambda disk: -disk.free))


def _others(folder: Path, environ: Mapping[str, str], root: Path) -> Iterator[DiskFacts]:
    seen = {_volume(folder, environ, root)}
    least = disk_facts(folder, environ, root=root).free
    kinds = _kinds(root)
    for candidate in _candidates(environ, root):
        with suppress(OSError, RuntimeError, ValueError):
            if not _suits(_kind(existing_part(candidate).resolve(), kinds)):
                continue
            volume = _volume(candidate, environ, root)
            if volume in seen:
                continue
            disk = disk_facts(candidate, environ, root=root)
            if disk.writable:
                seen.add(volume)
                if disk.free > least:
                    yield disk


def _candidates(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    """Yield places that may be offered; of those on one file system the first one is."""
    where = place(environ)
    if where is Place.KAGGLE:
        # Made on first use. It is not kept with the notebook, and so has no quota.
        yield root / "kaggle/tmp" / _CACHE
    usual = [root / "content"] if where is Place.COLAB else []
    usual += [Path(environ[name]) for name in ("HOME", "SCRATCH", "TMPDIR") if environ.get(name)]
    usual += [root / name for name in ("data", "scratch", "workspace")]
    if os.path.ismount(root / "mnt"):  # otherwise a folder for mount points alone
        usual.append(root / "mnt")
    with suppress(OSError):
        usual += sorted((root / "mnt").iterdir())[:32]
    usual.append(root / "tmp")
    for folder in usual:
        # os.path.isdir, because that of pathlib raises where a folder may not be looked into.
        if folder.is_absolute() and os.path.isdir(folder):  # noqa: PTH112
            yield folder / _CACHE


def _volume(folder: Path, environ: Mapping[str, str], root: Path) -> tuple[int, bool]:
    """Return what tells volumes apart: the device, and whether a quota makes a part another one."""
    there = existing_part(folder).resolve()
    quota = place(environ) is Place.KAGGLE and _is_in(there, root / "kaggle/working")
    return there.stat().st_dev, quota


def _is_in(folder: Path, above: Path) -> bool:
    return folder.resolve().is_relative_to(above.resolve())


def _bytes_in(folder: Path, clock: Callable[[], float]) -> tuple[int, bool]:
    """Add up what the files below take on the disk; False if that took too long."""
    until = clock() + COUNT_WAIT_S
    total, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if clock() > until:
                        return total, False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    with suppress(OSError):  # deleted in between
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total, True


def _kinds(root: Path) -> dict[Path, str]:
    """Return the kind of file system at each mount point (`/proc/self/mountinfo`, proc(5))."""
    try:
        lines = (root / "proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    kinds = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) >= 6 and after:
            # A later mount hides an earlier one at the same place. Blanks are written in octal.
            point = fields[4].replace("\\040", " ")
            kinds[root / point.lstrip("/")] = after.split(" ")[0]
    return kinds


def _kind(folder: Path, kinds: Mapping[Path, str]) -> str:
    for above in (folder, *folder.parents):
        if above in kinds:
            return kinds[above]
    return ""


def _suits(kind: str) -> bool:
    return kind not in _IN_MEMORY and (not kind.startswith("fuse") or kind in _FUSE_OF_DISKS)


def _writable(folder: Path) -> bool:
    try:
        # A real file, because permission bits say nothing on a read-only or networked system.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".nbloader-"):
            return True
    except OSError:
        return False


def folder_of_environment(environ: Mapping[str, str]) -> Path:
    """Return the Hub's cache folder by the Hub library's own rules, without importing it."""
    if cache := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return absolute(expanded(cache))
    return home_of_environment(environ) / "hub"


def home_of_environment(environ: Mapping[str, str]) -> Path:
    """Return the Hub library's home folder (`HF_HOME`) by its own rules, without importing it."""
    if home := environ.get("HF_HOME"):
        return absolute(expanded(home))
    return absolute(expanded(environ.get("XDG_CACHE_HOME") or "~/.cache")) / "huggingface"


def offline_variable(environ: Mapping[str, str]) -> str:
    """Return the variable that rules the network out, of those that the libraries have; or ""."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if switched_on(environ, name)), "")


def switched_on(environ: Mapping[str, str], variable: str) -> bool:
    """Say whether a variable is set to what the Hub's library takes for a yes."""
    return environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}
