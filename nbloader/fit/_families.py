"""The family that a model belongs to, and what computing takes beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType

from nbloader.fit._family import CONTEXT, GIB, IMAGE_1024, TEXTS, Family
from nbloader.fit._models import EMBEDDINGS, MODELS
from nbloader.fit._pipelines import PIPELINES, TEXT_ENCODERS
from nbloader.records import Component, Kind, Selection

__all__ = ["EMBEDDINGS", "MODELS", "PIPELINES", "Family", "activation_bytes", "family_of"]

_UNKNOWN: Mapping[Kind, Family] = MappingProxyType(
    {
        Kind.DIFFUSERS: Family(
            name="unknown pipeline",
            patterns=(),
            workload=IMAGE_1024,
            activation_bytes=int(5.2 * GIB),
            fp16_reason="not known",
            source="inferred: the most that a known family takes for that image",
        ),
        Kind.SENTENCE_TRANSFORMERS: Family(
            name="unknown embedding model",
            patterns=(),
            workload=TEXTS,
            activation_bytes=GIB,
            fp16_reason="not known",
            source="inferred: twice a BERT of hidden size 1024",
        ),
        Kind.TRANSFORMERS: Family(
            name="unknown model",
            patterns=(),
            workload=CONTEXT,
            activation_bytes=2 * GIB,
            fp16_reason="not known",
            source="inferred: as a language model",
        ),
    }
)


def family_of(selection: Selection) -> Family:
    """The family of what a selection loads; one for its kind if it is not known.

    A pipeline that is not known cannot compute in float16 if one of its text encoders cannot.
    """
    parts = [
        name
        for component in selection.components
        for name in (component.class_name, component.model_type)
        if name
    ]
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        return _match(EMBEDDINGS, parts) or _UNKNOWN[selection.kind]
    if selection.kind is Kind.TRANSFORMERS:
        task = [selection.task] if selection.task else []
        return _match(MODELS, parts) or _match(MODELS, task) or _UNKNOWN[selection.kind]
    known = _match(PIPELINES, [selection.class_name] if selection.class_name else [])
    known = known or _match(PIPELINES, parts)
    if known is not None:
        return known
    unknown = _UNKNOWN[selection.kind]
    for family in MODELS:
        if not family.fp16 and _match((family,), parts):
            return replace(unknown, fp16=False, fp16_reason=f"{family.name}: {family.fp16_reason}")
    return unknown


def activation_bytes(
    family: Family, dtype: str, component: Component | None = None, *, width: int = 0
) -> int:
    """What computing takes beside the weights, for the workload of `family`.

    Args:
        dtype: the format that is computed in, by torch's name.
        component: only while this one computes; None for the peak of all.
        width: of the model: the numbers that a token is between two layers; 0 if not known.
    """
    whole = family.width_bytes * width or family.activation_bytes
    if dtype == "float16":
        whole = family.activation_bytes_float16 or whole
    alone = _alone(family, component) if component is not None else None
    if alone is not None:
        return min(whole, alone) * (2 if dtype == "float32" else 1)
    if dtype != "float32":
        return whole
    return family.activation_bytes_float32 or 2 * whole


def _alone(family: Family, component: Component) -> int | None:
    """What a component takes by itself in 16 bits; None if that is not known."""
    if component.name in family.by_component:
        return family.by_component[component.name]
    name = component.class_name or ""
    return next((size for pattern, size in TEXT_ENCODERS if fnmatchcase(name, pattern)), None)


def _match(families: tuple[Family, ...], names: list[str]) -> Family | None:
    for family in families:
        if any(fnmatchcase(name, pattern) for name in names for pattern in family.patterns):
            return family
    return None
