"""The files of the load: can they be loaded, and is there room where they go?"""

from __future__ import annotations

import shlex

from nbloader.checks.facts import Facts, failed, failed_with, named, passed, skipped, warned
from nbloader.errors import CacheNotWritableError, DiskFullError, DiskSpaceError
from nbloader.records import CheckResult
from nbloader.redaction import short_path
from nbloader.text import format_bytes, format_share
from nbloader.views import counted, what_it_is

LOW_DISK_BYTES = 1_000_000_000
"""With less than this left after the download, a notebook's machine soon runs into trouble."""

_CACHE_ERRORS = (CacheNotWritableError, DiskFullError)  # the checks of cache and disk say so


def files(facts: Facts) -> CheckResult:
    """Which files will be loaded, and by what?"""
    if facts.problem is not None and not isinstance(facts.problem, _CACHE_ERRORS):
        return failed_with("files", facts.problem)
    if facts.selection is None:
        return skipped("files", "the files are not known")
    selection = facts.selection
    what = f"{made}: " if (made := what_it_is(selection)) else ""
    others = list(dict.fromkeys(part.repo_id for part in selection.components if part.repo_id))
    origins = f", some of them from {named(others)}" if others else ""
    quantized = sorted({part.quantization for part in facts.weights if part.quantization})
    already = f", quantized already ({', '.join(quantized)})" if quantized else ""
    count = counted(len(selection.files), "file", "files")
    total = selection.total
    missing = f"{format_bytes(total)}, nothing to download"
    if facts.missing_bytes:
        missing = f"{format_share(facts.missing_bytes, total)} to download"
    return passed("files", f"{what}{count}{origins}{already}, {missing}")


def cache(facts: Facts) -> CheckResult:
    """Can the cache folder be written?"""
    if isinstance(facts.problem, CacheNotWritableError):
        return failed_with("cache", facts.problem)
    if facts.disk is None:
        return _not_checked("cache", facts)
    folder = short_path(facts.disk.folder)
    if not facts.room_bytes or facts.disk.writable:
        if facts.disk.open_to_all:
            return warned(
                "cache",
                f"every user of this machine may write to {folder}",
                hint=f"Take that right away: chmod o-w {_in_shell(folder)}. What lies there is "
                "believed by its name and size; `verify=True` hashes it.",
            )
        return passed("cache", folder)
    if _is_local(facts):
        return failed(
            "cache",
            CacheNotWritableError,
            f"the folder {folder} cannot be written",
            hint="Pass another one as `local_dir=`.",
        )
    return failed(
        "cache",
        CacheNotWritableError,
        f"the cache folder {folder} cannot be written",
        hint="Pass a folder of your own as `cache_dir=`, or set HF_HOME.",
    )


def _in_shell(folder: str) -> str:
    """Quote a folder for a shell, which is to see the `~` that it begins with."""
    if folder.startswith("~/"):
        return f"~/{shlex.quote(folder[2:])}"
    return shlex.quote(folder)


def _is_local(facts: Facts) -> bool:
    """Say whether the files go into a folder of the user's own, and not into a cache."""
    return facts.hub is not None and facts.hub.local


def disk(facts: Facts) -> CheckResult:
    """Is there room for exactly the missing bytes, and for what is copied?"""
    if isinstance(facts.problem, DiskFullError):
        return failed_with("disk", facts.problem)
    if not facts.check_disk_space:
        return skipped("disk", "check_disk_space is off")
    if facts.disk is None:
        return _not_checked("disk", facts)
    required = facts.required_bytes
    folder = short_path(facts.disk.folder)
    passes = facts.passes and bool(facts.passing)
    # What differs from the bytes that are missing was set.
    asked = "" if required == facts.room_bytes else " (asked for by required_disk_space_gb)"
    if passes:
        asked = f" at a time for {format_bytes(facts.room_bytes)} in all, as weights are not kept"
    figures = (
        f"{format_bytes(required)} required{asked}, {format_bytes(facts.disk.free)} available "
        f"at {folder}"
    )
    if facts.disk.free < required:
        # The folder is named, because without its name another one may be listed.
        shows = (
            ""
            if _is_local(facts)
            else f" (`nbloader.cache(cache_dir={folder!r})` shows what can go)"
        )
        return failed(
            "disk",
            DiskSpaceError,
            f"not enough disk space: {figures}",
            hint=f"Free {format_bytes(required - facts.disk.free)} there{shows}, "
            f"or {_elsewhere(facts, required)}.{_piece_by_piece(facts)}",
            forceable=True,
        )
    if required and not passes and facts.disk.free - required < LOW_DISK_BYTES:
        return warned(
            "disk",
            f"the disk will be almost full: {figures}",
            hint=f"Free some space there, or {_elsewhere(facts, required + LOW_DISK_BYTES)}."
            f"{_stays(facts)}",
        )
    stays = f"; all files are kept: {facts.stays}" if facts.passes and not passes else ""
    return passed("disk", figures + stays)


def _piece_by_piece(facts: Facts) -> str:
    """Offer to load a model that is larger than the disk, or say why that cannot be."""
    assert facts.disk is not None
    if facts.passes or not facts.passing or facts.passing_room_bytes > facts.disk.free:
        return _stays(facts)
    return (
        f" Or pass `keep_files=False`, which needs {format_bytes(facts.passing_room_bytes)} at a "
        "time: weights are deleted once they are loaded, and the next load downloads them again."
    )


def _stays(facts: Facts) -> str:
    """Say why files are kept though the call asks for none."""
    if not facts.passes or facts.passing:
        return ""
    return f" keep_files=False does not help here: {facts.stays}."


def _elsewhere(facts: Facts, required: int) -> str:
    argument = "local_dir" if _is_local(facts) else "cache_dir"
    for other in facts.bigger_disks:
        if other.free >= required and other.writable:
            folder = short_path(other.folder)
            return f"pass `{argument}={folder!r}`, where {format_bytes(other.free)} are free"
    return f"pass a folder on another disk as `{argument}=`"


def _not_checked(name: str, facts: Facts) -> CheckResult:
    if facts.hub is None:
        nothing = facts.folder is not None and facts.problem is None
        return skipped(name, "nothing is downloaded" if nothing else "the folder is not known")
    return skipped(name, f"the file system of {short_path(facts.hub.cache_dir)} cannot be asked")
