"""Is what is put into the model made for it?"""

from __future__ import annotations

from nbloader.checks.facts import Facts, failed, passed, warned
from nbloader.errors import UnsupportedRepoError
from nbloader.records import AdapterFacts, AdapterKind, CheckResult
from nbloader.selection import are_other_models
from nbloader.text import quote


def there_are_any(facts: Facts) -> bool:
    """Say whether the call names adapters."""
    return facts.selection is not None and bool(facts.selection.adapters)


def adapters(facts: Facts) -> CheckResult:
    """Is each adapter one, does it fit, and does the library load it?"""
    assert facts.selection is not None
    for one in facts.adapters:
        problem = _problem(one, facts.repo_id)
        if problem is not None:
            message, hint = problem
            certain = one.mismatched or one.lacks
            return failed(
                "adapters", UnsupportedRepoError, message, hint=hint, forceable=not certain
            )
    told = "; ".join(_told(one) for one in facts.adapters)
    unread = len(facts.selection.adapters) - len(facts.adapters)
    if unread:
        more = "1 adapter does" if unread == 1 else f"{unread} adapters do"
        told = "; ".join(filter(None, (told, f"{more} not tell what is in it")))
    partly = [one for one in facts.adapters if one.unmatched]
    if partly:
        return warned(
            "adapters",
            told,
            hint=f"What has no place is left out: {partly[0].example}. If the result is not what "
            f"you expect, look for an adapter of {partly[0].base or 'this model'}.",
        )
    return passed("adapters", told)


def _problem(one: AdapterFacts, repo_id: str) -> tuple[str, str] | None:
    """Return what is wrong with an adapter, and what to do about it; None if nothing is."""
    name = quote(one.name)
    if one.kind is None:
        return (
            f"{name} is no adapter: its tensors are neither those of a LoRA, a LoKr or an "
            "IP-Adapter, nor those of new words",
            "A whole model is loaded by its own id. If a repository has several files, name the "
            "one that is meant, as org/name/file.safetensors.",
        )
    found = one.matched + one.unknown
    wrong = one.mismatched + one.unmatched
    if are_other_models(one.made_for, one.base) and (wrong or not found):
        return (
            f"{name} is a {one.kind} made for {one.made_for}, and {repo_id} is {one.base}",
            f"Look for one that was made for {one.base}, or load it with a model of "
            f"{one.made_for}.",
        )
    model = f" of {one.base}" if one.base else ""
    if one.lacks:
        return (
            f"{name} changes the {one.lacks}, which this call leaves out",
            f"Load it with its {one.lacks}, or look for an adapter that changes none.",
        )
    if one.problem:
        return (
            f"{name}: {one.problem}",
            f"Look for a file{model} in another format: names that begin with "
            "`transformer.` or `unet.` are those of diffusers.",
        )
    if one.mismatched or not found:
        return (
            f"{name} does not fit {repo_id}: {_count(one, wrong)} no place in it; {one.example}",
            f"Look for one that was made for this model{model}.",
        )
    return None


def _told(one: AdapterFacts) -> str:
    """Say what an adapter is and what of it has a place in the model."""
    rank = f", rank {' to '.join(map(str, _ends(one.ranks)))}" if one.ranks else ""
    maker = f" in the format of {one.format}" if one.format not in ("", "diffusers") else ""
    known = one.matched + one.unmatched
    counts = f"{one.matched} of {known} {_what(one)} matched" if known else ""
    if one.unknown:
        more = f"{one.unknown} {_what(one)} not compared"
        counts = f"{counts}, {more}" if counts else more
    return f"{one.name}: {one.kind}{maker}{rank}, {counts}"


def _ends(ranks: tuple[int, ...]) -> tuple[int, ...]:
    return ranks if len(ranks) == 1 else (ranks[0], ranks[-1])


def _what(one: AdapterFacts) -> str:
    return "embeddings" if one.kind is AdapterKind.TEXTUAL_INVERSION else "layers"


def _count(one: AdapterFacts, wrong: int) -> str:
    total = one.matched + one.unknown + wrong
    return f"{wrong} of its {total} {_what(one)} {'has' if wrong == 1 else 'have'}"
