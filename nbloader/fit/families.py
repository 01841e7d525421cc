"""The family that a model belongs to, and what computing takes beside its weights.

What is known of families stands in `pipelines.toml` and `models.toml`. Each figure there says where
it comes from:

* "measured" ones are the peak of a run less the weights that were on the GPU. Where no other source
  stands beside them, they were taken on one H200 with torch 2.11, diffusers 0.42.1 and transformers
  5.17 (`python -m benchmarks.memory`, in bfloat16). Older measurements that were published and
  disagree are named: other versions of torch and cuDNN chose other kernels;
* "counted" ones are the peak of live tensors in the passes of the true architecture at the true
  size (`python -m benchmarks.memory --count`, `python -m benchmarks.workloads`), with room for
  what kernels take beside tensors: 2.4 times where attention and matrices rule, 1.35 times where
  convolutions do;
* "inferred" ones follow from a relative that was measured or counted.

The 2.4: measured 1.1 GB for a step of FLUX.1 on the H200 (13.7 GB with offload, of which 12.6 are
weights), and 1.10 GiB before (23.271 less 22.168,
huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks); counted 0.46 GiB. The 1.35:
measured 8.2 GB for a decode of Qwen-Image at 1328 x 1328, counted 6.1 GB
(github.com/Comfy-Org/ComfyUI/issues/9771); on the H200 4.5 GB at 1024 x 1024, counted 3.6. For 16
bits in two dimensions see `pipelines.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from nbloader.records import Component, Kind, Selection

_UNITS = {"B": 1, "MB": 1_000_000, "GiB": 1024**3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that behave alike.

    In the tables, the names of sizes are without `_bytes`, and a size is a number, its unit, and
    perhaps factors: `0.73 GiB x 2.4`.

    Attributes:
        patterns: shell patterns over the class of a pipeline, the classes of its components and
            their model types, and over the task of a model of which these say nothing.
        workload: what `activation_bytes` are for.
        activation_bytes: what computing takes at its peak beside the weights, in a format of
            16 bits.
        activation_bytes_float16: the same in float16 where that differs from bfloat16; 0 where
            it does not.
        activation_bytes_float32: the same in float32; 0 for twice that of 16 bits.
        width_bytes: the same in 16 bits for each number that a token is between two layers, for
            models of one form and many sizes; 0 if that is not known. It counts where their width
            is known.
        by_component: what the parts take by themselves where that is less, in 16 bits: it counts
            where only one of them is on the GPU.
        fp16: whether float16 gives right results: False where it is known not to.
        fp16_reason: what is known of float16, and from where.
        float32_components: those that the pipeline turns to float32 for use, or that its authors
            say to keep in float32; what that takes is in `activation_bytes`.
        source: where the figures of memory come from.
    """

    name: str
    patterns: tuple[str, ...] = ()
    workload: str
    activation_bytes: int
    activation_bytes_float16: int = 0
    activation_bytes_float32: int = 0
    width_bytes: int = 0
    by_component: Mapping[str, int] = field(default_factory=dict)
    fp16: bool = True
    fp16_reason: str
    float32_components: tuple[str, ...] = ()
    source: str


# -- the tables ------------------------------------------------------------------------------------


@cache
def pipelines() -> tuple[Family, ...]:
    """Return the families of pipelines of diffusers; the first match is taken."""
    return tuple(_family(entry) for entry in _table("pipelines.toml")["family"])


@cache
def models(*groups: str) -> tuple[Family, ...]:
    """Return the families of models in groups, one after the other; the first match is taken.

    Args:
        groups: `sense` and `text` of transformers, `embedding` of sentence-transformers.
    """
    table = _table("models.toml")
    return tuple(
        _family(entry, table)
        for group in groups
        for entry in table["family"]
        if group in entry["of"]
    )


@cache
def _text_encoders() -> tuple[tuple[str, int], ...]:
    sizes: dict[str, str] = _table("pipelines.toml")["text_encoders"]
    return tuple((pattern, _size(text)) for pattern, text in sizes.items())


@cache
def _unknown(kind: Kind) -> Family:
    name = "pipelines.toml" if kind is Kind.DIFFUSERS else "models.toml"
    return _family(_table(name)["unknown"][kind])


@cache
def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(name).read_text("utf-8"))


def _family(entry: Mapping[str, Any], table: Mapping[str, Any] | None = None) -> Family:
    """Read a family.

    Args:
        table: has what `@name` stands for.
    """

    def meant(value: Any, shared: str) -> Any:
        named = isinstance(value, str) and value.startswith("@")
        return table[shared][value[1:]] if table and named else value

    return Family(
        name=entry["name"],
        patterns=tuple(meant(entry.get("patterns", ()), "patterns")),
        workload=entry["workload"],
        activation_bytes=_size(entry["activation"]),
        activation_bytes_float16=_size(entry.get("activation_float16", "0 B")),
        activation_bytes_float32=_size(entry.get("activation_float32", "0 B")),
        width_bytes=_size(entry.get("width", "0 B")),
        by_component={name: _size(text) for name, text in entry.get("by_component", {}).items()},
        fp16=entry.get("fp16", True),
        fp16_reason=meant(entry["fp16_reason"], "fp16"),
        float32_components=tuple(entry.get("float32_components", ())),
        source=entry["source"],
    )


def _size(text: str) -> int:
    """Return the bytes that a size of the tables stands for."""
    number, unit, *factors = text.replace(" x ", " ").split()
    size = float(number)
    for factor in factors:
        size *= float(factor)
    return int(size * _UNITS[unit])


# -- the family of a model -------------------------------------------------------------------------


def family_of(selection: Selection) -> Family:
    """Return the family of what a selection loads; one for its kind if it is not known.

    A pipeline that is not known cannot compute in float16 if one of its text encoders cannot.
    """
    parts = [
        name
        for component in selection.components
        for name in (component.class_name, component.model_type)
        if name
    ]
    unknown = _unknown(_kind_of(selection))
    if selection.kind is Kind.SENTENCE_TRANSFORMERS:
        return _match(models("embedding"), parts) or unknown
    known = models("sense", "text")
    if selection.kind is Kind.CLASSES:
        return _match(known, parts) or _match(pipelines(), parts) or unknown
    if selection.kind is Kind.TRANSFORMERS:
        task = [selection.task] if selection.task else []
        return _match(known, parts) or _match(known, task) or unknown
    named = [selection.class_name] if selection.class_name else []
    if found := _match(pipelines(), named) or _match(pipelines(), parts):
        return found
    for family in known:
        if not family.fp16 and _match((family,), parts):
            return replace(unknown, fp16=False, fp16_reason=f"{family.name}: {family.fp16_reason}")
    return unknown


def _kind_of(selection: Selection) -> Kind:
    """Return the kind whose figures count for a selection."""
    if selection.kind is not Kind.CLASSES:
        return selection.kind
    of_pipelines = any(part.library == "diffusers" for part in selection.components)
    return Kind.DIFFUSERS if of_pipelines else Kind.TRANSFORMERS


def activation_bytes(
    family: Family, dtype: str, component: Component | None = None, *, width: int = 0
) -> int:
    """Return what computing takes beside the weights, for the workload of `family`.

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
    """Return what a component takes by itself in 16 bits; None if that is not known."""
    if component.name in family.by_component:
        return family.by_component[component.name]
    name = component.class_name or ""
    return next((size for pattern, size in _text_encoders() if fnmatchcase(name, pattern)), None)


def _match(families: tuple[Family, ...], names: list[str]) -> Family | None:
    for family in families:
        if any(fnmatchcase(name, pattern) for name in names for pattern in family.patterns):
            return family
    return None
