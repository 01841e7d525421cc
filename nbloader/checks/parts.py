"""Do the parts of a pipeline belong into its class?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from nbloader.checks.findings import Finding
from nbloader.errors import InvalidArgumentError, MissingComponentError
from nbloader.records import ClassFacts, Kind, Selection
from nbloader.selection import joining
from nbloader.text import quote


def incomplete(
    selection: Selection, classes: Iterable[ClassFacts], handed_in: Collection[str]
) -> Iterator[Finding]:
    """Find what the class of a pipeline asks for and neither repository nor caller brings."""
    there = {component.name for component in selection.components}.union(handed_in)
    for fact in classes:
        lacking = [(name, kind) for name, kind in fact.components if name not in there]
        if lacking:
            parts = ", ".join(f'"{name}": {_made(kind)}' for name, kind in lacking)
            yield Finding(
                error=MissingComponentError,
                certain=True,
                message=f"{quote(fact.name)} needs {', '.join(quote(name) for name, _ in lacking)},"
                f" and {selection.repo_id} has none",
                advice="Load it from where it is, as the repository's card says, and hand it in: "
                f"loader_kwargs={{{parts}}}",
            )


def not_taken(
    selection: Selection, classes: Iterable[ClassFacts], named: Collection[str] = ()
) -> Iterator[Finding]:
    """Find parts that the class of a pipeline has no place for.

    Those of another pipeline, handed in all together, may be more than it takes.

    Args:
        named: the components that the caller names.
    """
    elsewhere = [
        part.argument or part.name
        for part in selection.components
        if part.repo_id and part.class_name
    ]
    for fact in classes:
        if fact.takes is None:
            continue
        whole = bool(fact.components) and {name for name, _ in fact.components} <= {*named}
        given = dict.fromkeys([*elsewhere, *(() if whole else named)])
        for name in (name for name in given if name not in fact.takes):
            near = difflib.get_close_matches(name, fact.takes, n=3, cutoff=0.5)
            other = joining(name, is_xl="XL" in fact.name)
            advice = (
                f'A class that takes it has to be named, such as cls="{other}".' if other else ""
            )
            advice = advice or f"It takes {', '.join(near or fact.takes)}."
            yield Finding(
                error=InvalidArgumentError,
                message=f"components[{name!r}]: {fact.name} has no such component",
                advice=advice,
            )


def of_other_kinds(selection: Selection) -> Iterator[Finding]:
    """Find models from elsewhere that are of another kind than the component that they are for.

    The library takes any model for any other, and the first call of the pipeline fails.
    """
    if selection.kind is not Kind.DIFFUSERS:
        return
    for part in selection.components:
        name, made = part.argument or part.name, part.class_name or ""
        meant = _KINDS.get(name)
        if not part.repo_id or not made or meant is None:
            continue
        own = part.library == "diffusers"
        if own and meant.search(made):
            continue
        other = next((one for one, kind in _KINDS.items() if own and kind.search(made)), None)
        if own and other is None:
            continue  # The name tells nothing.
        place = "/".join(filter(None, (part.repo_id, part.folder)))
        yield Finding(
            error=InvalidArgumentError,
            message=f"components[{name!r}]: {place} is a {made}, which is no {name}",
            advice=f'Name the {name} of that repository, such as "{part.repo_id}/{name}".'
            if part.folder
            else "Name another place"
            + (f'; this one is for components={{"{other}": ...}}.' if other else "."),
        )


_KINDS: Mapping[str, re.Pattern[str]] = {
    "controlnet": re.compile("ControlNet"),
    "unet": re.compile("UNet|UVit"),
    "transformer": re.compile("Transformer|DiT|UVit|Prior"),
    "vae": re.compile("Autoencoder|V(AE|ae)|VQ"),
    "adapter": re.compile("^T2IAdapter$|^MultiAdapter$"),
    "motion_adapter": re.compile("^MotionAdapter$"),
    "scheduler": re.compile("Scheduler$"),
}
"""What the names of the classes have in them that are for a component of diffusers. None of
transformers is for one of these."""


# Pipelines name with it that they take one of several schedulers; it is no class by itself.
_ONE_OF: Mapping[str, str] = {"KarrasDiffusionSchedulers": "DPMSolverMultistepScheduler"}


def _made(kind: str) -> str:
    """Return how a component of the type that a pipeline's class names is made."""
    named = _ONE_OF.get(kind, kind)
    return f"{named}.from_pretrained(...)" if named[:1].isupper() and named != "Any" else "..."
