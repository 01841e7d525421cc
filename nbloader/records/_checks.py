"""What checks find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CheckResult",
    "CheckStatus",
]


class CheckStatus(StrEnum):
    """What a check found."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: short and stable, such as `disk`.
        message: what was found, one line, with the figures.
        hint: what to do about it; empty where nothing is to be done.
        reference: of the error that a failure is, such as `disk-full`; empty if there is none.
        link: a page where it can be mended or read about; empty if there is none.
    """

    name: str
    status: CheckStatus
    message: str
    hint: str = ""
    reference: str = ""
    link: str = ""
