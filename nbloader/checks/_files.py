"""What the repository holds: can it be loaded?"""

from __future__ import annotations

from nbloader.checks._facts import Facts
from nbloader.checks._results import failed_with, passed, skipped
from nbloader.errors import CacheNotWritableError, DiskFullError
from nbloader.records import CheckResult
from nbloader.units import format_bytes

__all__ = ["files"]

_CACHE_ERRORS = (CacheNotWritableError, DiskFullError)  # told by the checks of cache and disk


def files(facts: Facts) -> CheckResult:
    """Which files will be loaded, and by what?"""
    if facts.problem is not None and not isinstance(facts.problem, _CACHE_ERRORS):
        return failed_with("files", facts.problem)
    if facts.plan is None:
        return skipped("files", "not checked: there is no plan")
    plan = facts.plan
    what = f"{plan.class_name} of {plan.kind}" if plan.class_name else str(plan.kind)
    quantized = sorted({part.quantization for part in facts.weights if part.quantization})
    already = f", quantized already ({', '.join(quantized)})" if quantized else ""
    return passed(
        "files",
        f"{what}: {len(plan.files)} files, {format_bytes(plan.total)}{already}, "
        f"{format_bytes(facts.missing_bytes)} to download",
    )
