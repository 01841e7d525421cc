"""Can this work here? Facts and a plan turned into a report, before the first weight is fetched.

Each check is a small object that looks at facts and says what it found. A check whose
requirements did not pass is skipped. Pure: the facts are gathered elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbloader.checks import _disk, _files, _hub, _memory, _packages, _safety
from nbloader.checks._disk import LOW_DISK_BYTES
from nbloader.checks._facts import Facts
from nbloader.checks._packages import (
    inspected_packages,
    install_hint,
    quantizations_of,
    required_packages,
)
from nbloader.checks._report import FORCEABLE, PreflightReport
from nbloader.checks._results import skipped
from nbloader.checks._trial import trial
from nbloader.records import CheckResult, CheckStatus

__all__ = [
    "CHECKS",
    "FORCEABLE",
    "LOW_DISK_BYTES",
    "Check",
    "Facts",
    "PreflightReport",
    "inspected_packages",
    "install_hint",
    "quantizations_of",
    "required_packages",
    "run_checks",
    "trial",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: short and stable.
        requires: names of checks that must not have failed.
        run: looks at the facts.
    """

    name: str
    requires: tuple[str, ...]
    run: Callable[[Facts], CheckResult]


def run_checks(facts: Facts) -> tuple[CheckResult, ...]:
    """Make all checks, in their order."""
    results: dict[str, CheckResult] = {}
    for check in CHECKS:
        unmet = [name for name in check.requires if _unmet(results[name])]
        results[check.name] = (
            skipped(check.name, f"not checked: {unmet[0]} did not pass")
            if unmet
            else check.run(facts)
        )
    return tuple(results.values())


def _unmet(result: CheckResult) -> bool:
    """Tell whether a check that requires this one has to be skipped."""
    if result.status is CheckStatus.SKIPPED:
        return result.name != "hub"  # Then the cache answers in its place.
    return result.status is CheckStatus.FAILED


CHECKS: tuple[Check, ...] = (
    Check("hub", (), _hub.hub),
    Check("access", ("hub",), _hub.access),
    Check("license", ("access",), _hub.license_),
    Check("rate-limit", ("access",), _hub.rate_limit),
    Check("files", ("access",), _files.files),
    Check("safety", ("files",), _safety.safety),
    Check("xet", ("files",), _hub.xet),
    Check("cache", ("access",), _disk.cache),
    Check("disk", ("access",), _disk.disk),
    Check("packages", ("files",), _packages.packages),
    Check("placement", ("files",), _memory.placement),
    Check("vram", ("placement",), _memory.vram),
    Check("ram", ("placement",), _memory.ram),
)
