"""Names from outside, checked before they become a path."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nbloader.errors import UnsafePathError
from nbloader.quoting import quote

__all__ = ["check_portable", "check_safe"]

_MAX_LENGTH = 1024
# Control characters, the backslash (a separator on Windows) and lone surrogates (no file system
# and no JSON can hold them).
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_RESERVED = re.compile(
    r'(?i)(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?|.*[<>:"|?*].*|.*[ .]', re.DOTALL
)
_HINT = "Do not use this repository, and report it to the Hub."


def check_safe(path: str, *, where: str) -> None:
    """Refuse a path that could leave the folder that it is put in.

    Args:
        where: what the path was read from, for the error's text.

    Raises:
        UnsafePathError: absolute, with a drive, `..`, an empty segment, a backslash or a control
            character, or too long.
    """
    if (
        not 0 < len(path) <= _MAX_LENGTH
        or _FORBIDDEN.search(path)
        or _DRIVE.match(path)
        or not {"", ".", ".."}.isdisjoint(path.split("/"))
    ):
        raise UnsafePathError(f"{where} has an unsafe file name: {quote(path)}.", hint=_HINT)


def check_portable(paths: Iterable[str]) -> None:
    """Refuse files that Windows could not hold, or would take for a device.

    Raises:
        UnsafePathError: such a name is among `paths`.
    """
    for path in paths:
        if any(_RESERVED.fullmatch(segment) for segment in path.split("/")):
            raise UnsafePathError(
                f"The repository has a file name that not every system can hold: {quote(path)}.",
                hint="Ask its author to rename the file.",
            )
