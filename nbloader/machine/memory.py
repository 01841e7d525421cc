"""Memory of the machine or the container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nbloader.records import MemoryFacts

UNKNOWN_MEMORY = MemoryFacts(available=0, total=0, source="unknown")
"""Where the memory cannot be measured: no machine has a total of 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """The files of one version of cgroups.

    Attributes:
        fields: of `memory.stat`: the cached files of the whole subtree. The kernel drops them when
            memory runs short.
    """

    name: str
    limit: str
    used: str
    fields: tuple[str, ...]


# https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
_V2 = _Version(
    name="cgroup v2",
    limit="memory.max",
    used="memory.current",
    fields=("inactive_file", "active_file"),
)
# https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_V1 = _Version(
    name="cgroup v1",
    limit="memory.limit_in_bytes",
    used="memory.usage_in_bytes",
    fields=("total_inactive_file", "total_active_file"),
)


def memory_facts() -> MemoryFacts:
    """Measure the memory of this machine, within the limit of the container if there is one.

    `UNKNOWN_MEMORY` where psutil is missing, or fails.
    """
    try:
        import psutil

        memory = psutil.virtual_memory()
        machine = MemoryFacts(available=int(memory.available), total=int(memory.total))
    except Exception:  # As where /proc is not there, or a part of psutil is of another system.
        return UNKNOWN_MEMORY
    try:
        return within_cgroups(machine)
    except Exception:  # Files of the kernel in a form that is not known.
        return machine


def own_bytes() -> int:
    """Return the memory that this process has of its own, and not mapped from files.

    0 where the system does not say it as Linux does (proc_pid_status(5)).
    """
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
        lines = (line.split() for line in status.splitlines())
        return next(int(words[1]) * 1024 for words in lines if words and words[0] == "RssAnon:")
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def within_cgroups(machine: MemoryFacts, root: Path = Path("/")) -> MemoryFacts:
    """Lower the figures of a machine to the limits that this process's cgroups set.

    Every cgroup above counts, since each limits all that is below it. File cache is not counted as
    used: a model that was just downloaded fills it, and it goes when the memory is wanted.

    Args:
        root: the folder that `proc` and `sys` are under.
    """
    limits = []
    for version, folder, name in _cgroups(root):
        limit = _number(folder / version.limit)
        used = _number(folder / version.used)
        if limit is None or used is None or limit >= machine.total:
            continue  # "max", the huge number that stands for it in v1, or no such file
        left = max(0, limit - max(0, used - _reclaimable(folder, version)))
        limits.append((left, limit, f"{version.name}, limit of {name}"))
    if not limits:
        return machine
    left, _, source = min(limits, key=lambda found: found[0])
    return MemoryFacts(
        available=min(machine.available, left),
        total=min(limit for _, limit, _ in limits),
        source=source,
    )


def _cgroups(root: Path) -> Iterator[tuple[_Version, Path, str]]:
    """Yield the cgroups that limit memory: this process's own first, then those above it."""
    for version, path in _own_cgroups(root):
        for mount, inside in _mounts(root, version):
            # A container without a cgroup namespace sees the host's path, while the mount shows
            # only what is below its own cgroup.
            parts = _below(path, inside)
            top = root / str(mount).lstrip("/")
            for length in range(len(parts), -1, -1):
                name = "/" + "/".join(parts[:length])
                yield version, top.joinpath(*parts[:length]), name


def _own_cgroups(root: Path) -> Iterator[tuple[_Version, PurePosixPath]]:
    """Read `/proc/self/cgroup`: `hierarchy:controllers:path` a line (cgroups(7))."""
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield _V2, PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield _V1, PurePosixPath(path)


def _mounts(root: Path, version: _Version) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """Read mount points, and what they show of the hierarchy (`/proc/self/mountinfo`, proc(5))."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        is_one = (
            kind[0] == "cgroup2"
            if version is _V2
            else kind[0] == "cgroup" and "memory" in kind[2].split(",")
        )
        if is_one:
            yield PurePosixPath(fields[4]), PurePosixPath(fields[3])


def _below(path: PurePosixPath, inside: PurePosixPath) -> tuple[str, ...]:
    """Return the parts of a cgroup's path below what a mount shows; none if it is not in there."""
    if not path.is_relative_to(inside):
        return ()
    parts = path.relative_to(inside).parts
    return () if ".." in parts else tuple(part for part in parts if part != "/")


def _reclaimable(folder: Path, version: _Version) -> int:
    values = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    return sum(
        int(value) for field in version.fields if (value := values.get(field, "0")).isdecimal()
    )


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
