"""Can loading the files run code, and does the library build a model of them?

All three libraries load pickles with torch's restricted unpickler and with nothing else:
transformers, from 5.0 to 5.23, takes `weights_only=False` and passes over it. So there is what is
vouched for, what the user may allow, and what would be refused after the download.
"""

from __future__ import annotations

from collections.abc import Sequence

from nbloader.checks.facts import Facts, failed, failed_with, named, passed, skipped, warned
from nbloader.errors import BY_FORCE, NbloaderError, PickledWeightsError
from nbloader.libraries import is_one_of, pip_hint
from nbloader.records import CheckResult, Kind, PickleFacts, Selection
from nbloader.selection import pickled, torch_refuses
from nbloader.text import quote

SAFE_TORCH = ">=2.6"
"""Before it, a pickle could run code in spite of `weights_only=True` (CVE-2025-32434)."""

_LINK = "https://huggingface.co/docs/hub/security-pickle"
_SEARCH = "Look for a repository or a revision with safetensors weights"


def safety(facts: Facts) -> CheckResult:
    """Can loading the files run code?"""
    if facts.selection is None or not facts.loads:
        return skipped("safety", "nothing is loaded")
    paths = pickled(facts.selection)
    found = {each.path: each for each in facts.pickles}
    old_torch = _old_torch(facts)
    doubtful = {
        path: f"{path} ({why})" for path in paths if (why := _doubt(found.get(path), old_torch))
    }
    hopeless = [path for path in doubtful if _is_hopeless(facts, path, found.get(path), old_torch)]
    if doubtful and (hopeless or not facts.allow_pickle):
        return failed(
            "safety",
            PickledWeightsError,
            "the weights are pickled, and can run code when they are loaded: "
            + named(list(doubtful.values())),
            hint=_hint(facts, facts.selection, hopeless, old_torch),
            link=_LINK,
        )
    code = [file.path for file in facts.selection.files if file.path.endswith(".py")]
    risks = [
        *([f"code of the repository will run: {named(code)}"] if code else []),
        *(
            [f"pickled weights will be loaded: {named(list(doubtful.values()))}"]
            if doubtful
            else []
        ),
    ]
    if risks:
        return warned("safety", "; ".join(risks), hint="You have allowed it; nothing is needed.")
    if paths:
        return passed("safety", f"pickled, looked through: tensors only ({named(paths)}); no code")
    weights = [path for part in facts.selection.components for path in part.weights]
    packed = any(path.lower().endswith(".gguf") for path in weights)
    what = facts.selection.backend or ("GGUF" if packed else "safetensors")
    return passed("safety", f"{what} weights, no code")


def _old_torch(facts: Facts) -> str | None:
    """Return the version of torch if it is one that is not safe; None if it is, or is not there."""
    torch = facts.packages.get("torch")
    version = torch.installed if torch else None
    return version if version is not None and not is_one_of(version, SAFE_TORCH) else None


def _doubt(found: PickleFacts | None, old_torch: str | None) -> str:
    """Return why a file cannot be vouched for; empty if it can."""
    if found is None:
        return "not looked through"
    if found.refused:
        return f"it names {named([quote(name) for name in found.refused])}"
    if found.problem:
        return found.problem
    return f"torch {old_torch} is not safe there, {SAFE_TORCH} is" if old_torch else ""


def _is_hopeless(facts: Facts, path: str, found: PickleFacts | None, old_torch: str | None) -> bool:
    """Say whether the library would refuse the file, whatever is allowed here."""
    if old_torch and facts.selection is not None and _by_transformers(facts.selection, path):
        return True  # its `check_torch_load_is_safe`
    return found is not None and torch_refuses(found, facts.safe_globals)


def _by_transformers(selection: Selection, path: str) -> bool:
    """Say whether it is transformers that loads a file."""
    (component,) = (part for part in selection.components if path in part.weights)
    match selection.kind:
        case Kind.DIFFUSERS | Kind.CLASSES:
            return component.library == "transformers"
        case Kind.SENTENCE_TRANSFORMERS:
            return component.model_type is not None
        case Kind.TRANSFORMERS:
            return True
        case Kind.FILES:
            return False


def _hint(
    facts: Facts, selection: Selection, hopeless: Sequence[str], old_torch: str | None
) -> str:
    if old_torch and facts.pickles and all(found.tensors_only for found in facts.pickles):
        change = {"torch": SAFE_TORCH}
        return pip_hint(change, facts.packages, notebook=facts.in_notebook)
    if not hopeless:
        return f"{_SEARCH}. If you trust this one, pass `allow_pickle=True`."
    named_ones = any(found.refused for found in facts.pickles if found.path in hopeless)
    return f"{_SEARCH}: {selection.kind} loads pickles with `weights_only=True` alone" + (
        ", which takes what this one names only after `torch.serialization.add_safe_globals`."
        if named_ones
        else ", which refuses this one."
    )


def trial(found: NbloaderError | str | None) -> CheckResult:
    """Judge a trial of the build.

    Args:
        found: the error that it ended with, why it was not made, or None if a model came of it.
    """
    if isinstance(found, NbloaderError):
        return failed_with("trial", found, forceable=BY_FORCE in found.hint)
    if found is not None:
        return skipped("trial", found)
    return passed("trial", "the library builds it: no tensor is missing")
