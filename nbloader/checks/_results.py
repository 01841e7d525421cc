"""The four things that a check can say, and how it names several."""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.errors import NbloaderError
from nbloader.records import CheckResult, CheckStatus

__all__ = ["failed", "failed_with", "named", "passed", "skipped", "warned"]

MAX_NAMES = 5


def passed(name: str, message: str) -> CheckResult:
    """Make the result of a check that found nothing wrong."""
    return CheckResult(name=name, status=CheckStatus.PASSED, message=message)


def skipped(name: str, message: str) -> CheckResult:
    """Make the result of a check that was not made."""
    return CheckResult(name=name, status=CheckStatus.SKIPPED, message=message)


def warned(
    name: str, message: str, *, hint: str, reference: str = "", link: str = ""
) -> CheckResult:
    """Make the result of a check that found something the user should know."""
    return CheckResult(
        name=name,
        status=CheckStatus.WARNING,
        message=message,
        hint=hint,
        reference=reference,
        link=link,
    )


def failed(
    name: str, error: type[NbloaderError], message: str, *, hint: str, link: str = ""
) -> CheckResult:
    """Make the result of a check that stops the load with an error of this kind."""
    return CheckResult(
        name=name,
        status=CheckStatus.FAILED,
        message=message,
        hint=hint,
        reference=error.reference,
        link=link,
    )


def failed_with(name: str, error: NbloaderError, *, link: str = "") -> CheckResult:
    """Make the result of a check that found this error."""
    return failed(name, type(error), error.message, hint=error.hint, link=link)


def named(names: Sequence[str]) -> str:
    """Name the first few, and count the rest."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
