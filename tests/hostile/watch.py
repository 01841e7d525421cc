"""What was changed in a folder, to the last bit."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Seen = dict[str, tuple[object, ...]]


def seen(folder: Path, *, leave_out: Path | None = None) -> Seen:
    """Describe all that is in a folder: kinds, rights, links, times of writing, contents.

    Args:
        leave_out: a folder in it where everything may happen.
    """
    found: Seen = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(place, name) != leave_out]
        for name in (*folders, *names):
            path = Path(place, name)
            facts = path.lstat()
            content: object = None
            if stat.S_ISLNK(facts.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(facts.st_mode):
                content = path.read_bytes()
            when = None if stat.S_ISDIR(facts.st_mode) else facts.st_mtime_ns
            found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_nlink, when, content)
    return found


@contextmanager
def unchanged(folder: Path, *, leave_out: Path | None = None) -> Iterator[None]:
    """See that nothing in a folder is made, changed or removed meanwhile."""
    before = seen(folder, leave_out=leave_out)
    yield
    assert seen(folder, leave_out=leave_out) == before


def holding(folder: Path, secret: str) -> list[str]:
    """Name the files below a folder that hold a secret, in their names, links or contents."""
    found = seen(folder)
    return [
        path
        for path, facts in found.items()
        if secret in path or any(secret.encode() in _bytes(fact) for fact in facts)
    ]


def _bytes(fact: object) -> bytes:
    return fact if isinstance(fact, bytes) else str(fact).encode("utf-8", "surrogateescape")
