"""What the repository holds: can it be loaded, and is that safe?"""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.checks._facts import Facts
from nbloader.checks._results import failed, failed_with, passed, skipped, warned
from nbloader.errors import CacheNotWritableError, DiskFullError, PickledWeightsError
from nbloader.records import CheckResult, Plan
from nbloader.units import format_bytes

__all__ = ["files", "safety"]

_CACHE_ERRORS = (CacheNotWritableError, DiskFullError)  # told by the checks of cache and disk

MAX_NAMES = 5


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
    pickled = _pickled(facts.plan)
    code = [file.path for file in facts.plan.files if file.path.endswith(".py")]
    if pickled and not facts.allow_pickle:
        return failed(
            "safety",
            PickledWeightsError,
            f"the weights are pickled, and can run code when they are loaded: {_named(pickled)}",
            hint="Look for a repository or a revision with safetensors weights. If you trust "
            "this one, pass `allow_pickle=True`.",
            link="https://huggingface.co/docs/hub/security-pickle",
        )
    risks = [
        *([f"code of the repository will run: {_named(code)}"] if code else []),
        *([f"pickled weights will be loaded: {_named(pickled)}"] if pickled else []),
    ]
    if risks:
        return warned("safety", "; ".join(risks), hint="You have allowed it; nothing is needed.")
    return passed("safety", "safetensors weights, no code")


def _pickled(plan: Plan) -> list[str]:
    return [
        path
        for component in plan.components
        for path in component.weights
        if not path.endswith(".safetensors")
    ]


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - MAX_NAMES
    return ", ".join(paths[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
