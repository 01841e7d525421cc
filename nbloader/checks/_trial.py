"""Does the library build it of these files?"""

from __future__ import annotations

from nbloader.checks._results import failed_with, passed, skipped
from nbloader.errors import NbloaderError
from nbloader.records import CheckResult

__all__ = ["trial"]


def trial(found: NbloaderError | str | None) -> CheckResult:
    """Judge a trial of the build.

    Args:
        found: the error that it ended with, why it was not made, or None if a model came of it.
    """
    if isinstance(found, NbloaderError):
        return failed_with("trial", found)
    if found is not None:
        return skipped("trial", f"not built beforehand: {found}")
    return passed("trial", "the library builds it: no tensor is missing")
