"""Memory of the machine or the container."""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_facts"]


def memory_facts() -> tuple[int, int]:
    """Give (available, total) bytes of memory, within the limit of the container if any."""
    import psutil

    memory = psutil.virtual_memory()
    available, total = int(memory.available), int(memory.total)
    for limit, used in _CGROUP_FILES:
        try:
            most = int(Path(limit).read_text("ascii"))
            left = max(0, most - int(Path(used).read_text("ascii")))
        except (OSError, ValueError):  # No such file, or "max".
            continue
        return min(available, left), min(total, most)
    return available, total


_CGROUP = "/sys/fs/cgroup"
_CGROUP_FILES = (
    (f"{_CGROUP}/memory.max", f"{_CGROUP}/memory.current"),
    (f"{_CGROUP}/memory/memory.limit_in_bytes", f"{_CGROUP}/memory/memory.usage_in_bytes"),
)
