"""What the repository holds: can it be loaded, and is that safe?"""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.checks._facts import Facts
from nbloader.checks._results import failed, failed_with, passed, skipped, warned
from nbloader.environment import is_one_of
from nbloader.errors import CacheNotWritableError, DiskFullError, PickledWeightsError
from nbloader.plan.pickles import pickled
from nbloader.quoting import quote
from nbloader.records import CheckResult, PickleFacts
from nbloader.units import format_bytes

__all__ = ["files", "safety"]

_CACHE_ERRORS = (CacheNotWritableError, DiskFullError)  # told by the checks of cache and disk

MAX_NAMES = 5

SAFE_TORCH = ">=2.6"
"""Before it, a pickle could run code in spite of `weights_only=True` (CVE-2025-32434)."""


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


def safety(facts: Facts) -> CheckResult:
    """Can loading the files run code?"""
    if facts.plan is None or not facts.loads:
        return skipped("safety", "not checked: nothing is loaded")
    paths = pickled(facts.plan)
    findings = _findings(facts, paths)
    code = [file.path for file in facts.plan.files if file.path.endswith(".py")]
    if findings and not facts.allow_pickle:
        return failed(
            "safety",
            PickledWeightsError,
            f"the weights are pickled, and can run code when they are loaded: {_named(findings)}",
            hint="Look for a repository or a revision with safetensors weights. If you trust "
            "this one, pass `allow_pickle=True`.",
            link="https://huggingface.co/docs/hub/security-pickle",
        )
    risks = [
        *([f"code of the repository will run: {_named(code)}"] if code else []),
        *([f"pickled weights will be loaded: {_named(findings)}"] if findings else []),
    ]
    if risks:
        return warned("safety", "; ".join(risks), hint="You have allowed it; nothing is needed.")
    if paths:
        return passed("safety", f"pickled, looked through: tensors only ({_named(paths)}); no code")
    return passed("safety", "safetensors weights, no code")


def _findings(facts: Facts, paths: Sequence[str]) -> list[str]:
    """Tell of each of the pickled files that cannot be vouched for why."""
    torch = facts.packages.get("torch")
    version = torch.installed if torch else None
    if version is not None and not is_one_of(version, SAFE_TORCH):
        return [f"{path} (torch {version} is not safe there, {SAFE_TORCH} is)" for path in paths]
    looked_through = {found.path: found for found in facts.pickles}
    return [
        f"{path} ({why})" for path in paths if (why := _finding(looked_through.get(path))) != ""
    ]


def _finding(found: PickleFacts | None) -> str:
    """Tell why a file cannot be vouched for; empty if it can."""
    if found is None:
        return "not looked through"
    if found.refused:
        return f"it names {_named([quote(name) for name in found.refused])}"
    return found.problem


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - MAX_NAMES
    return ", ".join(paths[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
