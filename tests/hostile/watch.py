"""What was changed in a folder, to the last bit, and what was opened to be changed, or run."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


_CHANGES = {
    *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
    *("os.symlink", "os.truncate", "os.utime"),
}
_FOLLOWING = {"os.chmod", "os.chown", "os.truncate", "os.utime"}
_RUNS = {"os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watching: list[tuple[str, list[str]]] = []
"""The folder where everything may happen, and what was seen elsewhere. Hooks cannot be removed."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    allowed, touched = _watching[-1]
    if event in _RUNS:
        touched.append(f"{event} {arguments[0]!r}")
    elif event in _CHANGES or (event == "open" and _writes(arguments)):
        # By a name alone it is in a folder that is held open: that was an absolute one before.
        named = [os.fsdecode(each) for each in arguments if isinstance(each, (str, bytes))]
        paths = [Path(each) for each in named if each.startswith("/") and each[:5] != "/dev/"]
        follows = event in _FOLLOWING or (event == "open" and not arguments[2] & os.O_NOFOLLOW)
        touched += [f"{event} {path}" for path in paths if not _inside(path, allowed, follows)]


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & _WRITING)


def _inside(path: Path, folder: str, follows: bool) -> bool:
    """Say whether a path is in a folder, wherever links lead.

    Args:
        follows: whether a link at its end is followed, too.
    """
    true = path.resolve() if follows else path.parent.resolve() / path.name
    return true.is_relative_to(folder)


sys.addaudithook(_hook)


@contextmanager
def watched(allowed: Path) -> Iterator[list[str]]:
    """Yield what is opened for writing, changed or removed outside a folder meanwhile, or run."""
    touched: list[str] = []
    _watching.append((os.path.realpath(allowed), touched))
    try:
        yield touched
    finally:
        _watching.pop()


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
