"""Can attention be computed as the caller asks: the library, the class, the GPU, the package?"""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.checks.facts import Facts, failed, named, passed, skipped, warned
from nbloader.errors import (
    DoesNotFitError,
    InvalidArgumentError,
    MissingPackageError,
    UnsupportedClassError,
)
from nbloader.libraries import (
    Attention,
    attention_library,
    attention_named,
    distribution_name,
    is_one_of,
    pip_hint,
)
from nbloader.records import CheckResult, GpuFacts, Kind, Placement, Selection
from nbloader.text import quote

_NAME = "attention"
_WIDE = "float32"


def is_asked(facts: Facts) -> bool:
    """Say whether the call names a way."""
    return facts.attention is not None


def attention(facts: Facts) -> CheckResult:
    """Can attention be computed in the way that the caller asks for?"""
    way = attention_named(facts.attention.name) if facts.attention else None
    if way is None or facts.selection is None or not facts.loads:
        return skipped(_NAME, "the library chooses it")
    return (
        _unknown(facts, facts.selection, way)
        or _not_taken(facts, way)
        or _on_no_gpu(facts, way)
        or _not_installed(facts, facts.selection, way)
        or _too_wide(facts, way)
        or _for_others(facts, way)
        or passed(_NAME, f"{way.name}{_version(facts, way)}")
    )


def _unknown(facts: Facts, selection: Selection, way: Attention) -> CheckResult | None:
    """Fail where the library has none of the name."""
    if selection.kind is Kind.CLASSES and not any(part.weights for part in selection.components):
        return failed(
            _NAME,
            InvalidArgumentError,
            "attention= is for a model, and none of the classes is one",
            hint="Leave it out.",
        )
    library = attention_library(selection)
    own = way.of(library)
    if not own:
        return failed(
            _NAME,
            InvalidArgumentError,
            f"attention={way.name!r} is none of {library}, which builds {selection.repo_id}",
            hint=_instead(facts),
        )
    if facts.attention is None or facts.attention.offered is not False:
        return None
    found = facts.packages.get(library)
    installed = found.installed if found else None
    line = pip_hint({library: f">{installed}"}, facts.packages, notebook=facts.in_notebook)
    return failed(
        _NAME,
        UnsupportedClassError,
        f"{library} {installed or '?'} has no attention {own!r}",
        hint=f"{_instead(facts)} {line if installed not in (None, '?') else ''}".rstrip(),
    )


def _not_taken(facts: Facts, way: Attention) -> CheckResult | None:
    """Fail where no class can compute so, and warn where some cannot."""
    classes = facts.attention.classes if facts.attention else ()
    without = [name for name, takes in classes if takes is not None and way.name not in takes]
    if not without:
        return None
    names = named([quote(name) for name in without])
    message = f"{names} cannot compute attention as {way.name!r}"
    if len(without) < len(classes):
        return warned(
            _NAME,
            f"{message}: that part computes as it always does",
            hint="Nothing is needed.",
        )
    return failed(_NAME, UnsupportedClassError, message, hint=_instead(facts))


def _on_no_gpu(facts: Facts, way: Attention) -> CheckResult | None:
    """Fail where it needs a GPU, and the model goes to none or to one that is too old."""
    gpus = _gpus(facts)
    if not way.on_gpu or gpus is None:
        return None
    least = way.capability
    needs = f"{way.name} needs an NVIDIA GPU"
    needs += f" of compute capability {_dotted(least)} or newer" if least else ""
    old = [gpu for gpu in gpus if least and gpu.capability < least]
    if gpus and not old:
        return None
    what = f"{old[0].name} has {_dotted(old[0].capability)}" if old else "the model goes to none"
    return failed(_NAME, DoesNotFitError, f"{needs}, and {what}", hint=_instead(facts))


def _not_installed(facts: Facts, selection: Selection, way: Attention) -> CheckResult | None:
    """Fail where its package is missing or too old.

    transformers would take a kernel of the Hub in place of one that is missing, and fetch it by
    itself.
    """
    package = facts.packages.get(way.package)
    if package is None:
        return None
    wanted = way.versions.get(attention_library(selection), "")
    # The libraries look for it by its metadata, without which it has no version.
    installed = None if package.installed == "?" else package.installed
    if installed is not None and (not wanted or is_one_of(installed, wanted) is not False):
        return None
    name = distribution_name(way.package)
    lacks = f"{name}{wanted}, and {installed} is installed" if installed else f"{name}{wanted}"
    line = (
        f"Or build {name} from its sources: {way.sources}"
        if way.sources
        else pip_hint({way.package: wanted}, facts.packages, notebook=facts.in_notebook)
    )
    return failed(
        _NAME,
        MissingPackageError,
        f"{way.name} needs {lacks}{'' if installed else ', which is not installed'}",
        hint=f"{_instead(facts)}\n{line}",
    )


def _too_wide(facts: Facts, way: Attention) -> CheckResult | None:
    """Fail where it computes in 16 bits alone, and the model does not."""
    placement = _placement(facts)
    if not way.in_16_bits or placement is None or placement.dtype != _WIDE:
        return None
    return failed(
        _NAME,
        InvalidArgumentError,
        f"{way.name} computes in bfloat16 or float16, and the model would be in {_WIDE}",
        hint=f'Pass dtype="bfloat16", or: {_instead(facts)}',
    )


def _for_others(facts: Facts, way: Attention) -> CheckResult | None:
    """Warn where its authors name other GPUs."""
    others = [gpu for gpu in _gpus(facts) or () if gpu.capability[0] != way.made_for]
    if way.made_for is None or not others:
        return None
    return warned(
        _NAME,
        f"{way.name} is made for GPUs of compute capability {way.made_for}.x, and "
        f"{others[0].name} has {_dotted(others[0].capability)}",
        hint=f"It works if it was built for this GPU. If it does not: {_instead(facts)}",
    )


# -- what the checks look at -----------------------------------------------------------------------


def _placement(facts: Facts) -> Placement | None:
    """Return where the model goes; the second only where that is forced."""
    return (facts.fit.chosen or facts.fit.nearest) if facts.fit else None


def _gpus(facts: Facts) -> Sequence[GpuFacts] | None:
    """Return the GPUs that the model computes on, or the best one where the caller places it.

    None where it is not known.
    """
    placement, machine = _placement(facts), facts.machine
    if machine is None:
        return None
    if facts.places_itself:
        return sorted(machine.gpus, key=lambda gpu: gpu.capability)[-1:]
    if placement is None:
        return None
    used = [gpu for gpu, peak in zip(machine.gpus, placement.vram, strict=False) if peak]
    return (used or machine.gpus) if placement.device.startswith("cuda") else ()


def _instead(facts: Facts) -> str:
    """Say what works here, as a line: torch's own, or the plain way, or what the library takes."""
    classes = facts.attention.classes if facts.attention else ()
    for name in ("sdpa", "eager"):
        if classes and all(takes is None or name in takes for _, takes in classes):
            return f'Pass attention="{name}".'
    return "Leave attention= out: the library takes the best that the model has."


def _version(facts: Facts, way: Attention) -> str:
    found = facts.packages.get(way.package)
    return f" ({distribution_name(way.package)} {found.installed})" if found else ""


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
