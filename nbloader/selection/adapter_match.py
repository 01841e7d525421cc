"""Whether an adapter fits a model: its layers against those that the model's headers name.

The rule is exact where both name their layers alike: a layer of an adapter is one of the model with
the same path, and as many numbers go in and come out. Some adapters are written with the names of a
model's authors, where diffusers has names of its own; those of FLUX.1 and Wan are known here. For
the others a layer counts as matched if the model has one as wide: then the family tells the rest.

Of a model in several files one header is read, and an index names all layers. Layers whose paths
differ by their numbers alone are taken to be as wide, unless some of them are known to differ.

Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nbloader.bounds import json_value
from nbloader.records import AdapterFacts, AdapterKind, Kind, Selection, SelectionRequest
from nbloader.selection import adapter_families as families
from nbloader.selection.adapter_originals import ORIGINALS, of_sgm
from nbloader.selection.adapters import (
    COMPONENTS,
    DENOISER,
    Adapter,
    Shapes,
    Target,
    recognised,
    squeezed,
)
from nbloader.selection.sizes import Header
from nbloader.text import quote

# -- the model -------------------------------------------------------------------------------------

_WEIGHT = ".weight"
_QUANTIZED = ".qweight"
_NUMBERS = re.compile(r"\d+")

Width = tuple[int, int]
"""How many numbers go into a layer and come out."""


_NOTHING_ASKED = SelectionRequest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component that adapters may change.

    Attributes:
        layers: by their squeezed paths; None for a width that is not known.
    """

    layers: Mapping[str, Width | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The model that adapters are put into.

    Attributes:
        family: which models it is one of; empty if that cannot be told.
        parts: by the names of the components.
        in_diffusers: whether diffusers loads the adapters.
        layers_per_block: of its UNet, for names that number blocks and layers in one.
        left_out: the components that the caller leaves out.
    """

    family: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)
    in_diffusers: bool = True
    layers_per_block: int = 2
    left_out: frozenset[str] = frozenset()

    @property
    def denoiser(self) -> str:
        """The component that it computes with in each step; empty if it has none."""
        return next((name for name in ("transformer", "unet", "prior") if name in self.parts), "")


def part_of(names: Iterable[str], shapes: Shapes, *, packed: bool = False) -> Part:
    """Describe a component by the names of its tensors, and the shapes of those that are known.

    Args:
        packed: whether weights are quantized, so that their shapes say nothing.
    """
    widths: dict[str, Width | None] = {}
    by_form: dict[str, set[Width]] = {}
    for name in [*shapes, *names]:
        if not name.endswith((_WEIGHT, _QUANTIZED)):
            continue
        layer = squeezed(name.rpartition(".")[0])
        shape = shapes.get(name, ())
        if packed or len(shape) < 2 or name.endswith(_QUANTIZED):
            widths.setdefault(layer, None)
            continue
        widths[layer] = width = (shape[1], shape[0])
        by_form.setdefault(_NUMBERS.sub("#", layer), set()).add(width)
    for layer, known in widths.items():
        alike = by_form.get(_NUMBERS.sub("#", layer), set())
        if known is None and len(alike) == 1 and not packed:
            (widths[layer],) = alike
    return Part(layers=widths)


def layers_of(part: Part) -> list[Target]:
    """Return the layers of a component, as those of an adapter are described."""
    return [
        Target(component="", module=name, inputs=width[0], outputs=width[1])
        for name, width in part.layers.items()
        if width is not None
    ]


def adapter_facts(
    selection: Selection,
    known: Mapping[str, bytes],
    headers: Mapping[str, Header | None],
    request: SelectionRequest = _NOTHING_ASKED,
) -> tuple[AdapterFacts, ...]:
    """Say of each adapter of a selection what it is, and whether it fits the model.

    What is not known of an adapter for a model of transformers is left out: only PEFT tells it.

    Args:
        known: content of the small files of the selection, by path.
        headers: of its weights, as far as they were read.
        request: that the selection was made for.
    """
    base = _with_handed_in(base_of(selection, known, headers), request)
    sizes = {file.path: file.size for file in selection.files}
    found = []
    for one in selection.adapters:
        header = headers.get(one.path)
        if header is None:
            continue
        size = sizes.get(one.path, header.length + sum(header.bytes_by_dtype.values()))
        name = one.component.partition(" ")[2] or one.name or one.filename
        facts = matched(one.path, size, header.shapes, base, name=name)
        if facts.kind is not None or base.in_diffusers:
            found.append(facts)
    return tuple(found)


def _with_handed_in(base: Base, request: SelectionRequest) -> Base:
    """Add what the caller hands in, of which nothing is known, and take out what is left out."""
    if not base.in_diffusers:
        return base
    given = COMPONENTS.intersection(request.handed_in) - {*request.left_out}
    unknown = {name: Part(layers={}) for name in sorted(given)}
    return replace(
        base, parts={**unknown, **base.parts}, left_out=COMPONENTS.intersection(request.left_out)
    )


def base_of(
    selection: Selection, known: Mapping[str, bytes], headers: Mapping[str, Header | None]
) -> Base:
    """Describe the model of a selection, as far as its headers tell."""
    added = {one.component for one in selection.adapters}
    in_diffusers = selection.kind is Kind.DIFFUSERS
    parts: dict[str, Part] = {}
    classes: dict[str, str | None] = {}
    for component in selection.components:
        if component.name in added or not component.weights:
            continue
        read = [header for path in component.weights if (header := headers.get(path)) is not None]
        shapes = {name: shape for header in read for name, shape in header.shapes.items()}
        names = [name for path in component.paths for name in _indexed(known.get(path))]
        if component.checkpoint:
            shapes, names = {}, []  # It has the names of its authors.
        packed = any(header.quantization not in (None, "fp8") for header in read)
        parts[component.name] = part_of(names, shapes, packed=packed)
        classes[component.name] = component.class_name
    base = Base(parts=parts, in_diffusers=in_diffusers)
    if not (in_diffusers and base.denoiser):
        return base
    denoiser = next(part for part in selection.components if part.name == base.denoiser)
    config = next((path for path in denoiser.paths if path.endswith("config.json")), "")
    layers = _object(known.get(config)).get("layers_per_block")
    return replace(
        base,
        family=families.of_base(classes[base.denoiser], layers_of(parts[base.denoiser])),
        layers_per_block=layers if type(layers) is int and 0 < layers < _MAX_LAYERS else 2,
    )


_MAX_LAYERS = 100


def _indexed(content: bytes | None) -> Iterable[str]:
    """The names in an index of shards; none in another file."""
    names = _object(content).get("weight_map")
    return names.keys() if isinstance(names, dict) else ()


def _object(content: bytes | None) -> Mapping[str, object]:
    try:
        value = json_value(content) if content is not None else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# -- the match -------------------------------------------------------------------------------------

_MATCHED, _UNMATCHED, _MISMATCHED, _UNKNOWN = "matched", "unmatched", "mismatched", "unknown"

_EXPANDED = frozenset({"x_embedder"})
"""Layers of FLUX.1 that a LoRA of a control may make wider; diffusers widens the model."""


def matched(path: str, size: int, shapes: Shapes, base: Base, *, name: str = "") -> AdapterFacts:
    """Say what a file is, and whether it fits a model.

    Args:
        path, size, name: of the facts.
        shapes: of its tensors.
    """
    adapter = recognised(shapes)
    if adapter is None:
        return AdapterFacts(path=path, name=name, kind=None, size=size, base=base.family)
    facts = AdapterFacts(
        path=path,
        name=name,
        kind=adapter.kind,
        format=adapter.format,
        made_for=adapter.made_for,
        base=base.family,
        ranks=adapter.ranks,
        size=size,
        problem=families.why_not(adapter.kind, adapter.format, base.family)
        if base.in_diffusers
        else "",
        lacks=_lacking(adapter, base),
    )
    found = Counter[str]()
    example = ""
    for what, detail in _MATCHES[adapter.kind](adapter, base):
        found[what] += 1
        example = example or detail
    return replace(
        facts,
        matched=found[_MATCHED],
        unmatched=found[_UNMATCHED],
        mismatched=found[_MISMATCHED],
        unknown=found[_UNKNOWN],
        example=example,
    )


def _lacking(adapter: Adapter, base: Base) -> str:
    """Name the text encoder that an adapter changes and that is left out; empty for none.

    diffusers puts layers of FLUX.1 into the first alone, and passes over the others.
    """
    changed = {target.component for target in adapter.targets} & base.left_out
    ends = ("text_encoder",) if base.family == families.FLUX1 else ("text_encoder", "encoder_2")
    return next((name for name in sorted(changed) if name.endswith(ends)), "")


def _match_layers(adapter: Adapter, base: Base) -> Iterator[tuple[str, str]]:
    """Yield what became of each layer of an adapter, and what is wrong with it."""
    widths = {
        name: Counter(width for width in part.layers.values() if width is not None)
        for name, part in base.parts.items()
    }
    for target in adapter.targets:
        component, part, module = _part_of(target, base)
        if part is None:
            yield _UNMATCHED, f"{quote(_told(target))} is in no part of this model"
            continue
        if not part.layers:
            yield _UNKNOWN, ""
            continue
        layers = _layers(module, part, adapter, base)
        if layers is None:
            if adapter.format in ("diffusers", "PEFT"):
                yield _UNMATCHED, f"this model has no {quote(_told(target))}"
            elif _is_as_wide(target, widths[component]):
                yield _MATCHED, ""
            else:
                yield _UNMATCHED, f"this model has no {quote(_told(target))}"
            continue
        yield _compare(target, layers, part)


def _part_of(target: Target, base: Base) -> tuple[str, Part | None, str]:
    """Return the component that a layer of an adapter is in, by name, and its path in there."""
    name = target.component
    if name in ("", DENOISER):
        # A model alone is one component, whatever its name.
        name = base.denoiser or next(iter(base.parts), "")
    if name in base.parts:
        return name, base.parts[name], target.module
    if len(base.parts) == 1 and name in COMPONENTS:
        # Its own path begins with a name that is one of a component elsewhere.
        (only, part), *_ = base.parts.items()
        return only, part, f"{name}_{target.module}"
    return name, None, target.module


def _layers(module: str, part: Part, adapter: Adapter, base: Base) -> list[str] | None:
    """Return the layers of a model that one of an adapter stands for; None if there are none."""
    if module in part.layers:
        return [module]
    if (name := of_sgm(module, base.layers_per_block)) is not None and name in part.layers:
        return [name]
    for pattern, names in ORIGINALS.get(adapter.made_for, ()):
        if (match := re.fullmatch(pattern, module, re.ASCII)) is not None:
            layers = [match.expand(name) for name in names]
            return layers if all(layer in part.layers for layer in layers) else None
    return None


def _compare(target: Target, layers: Sequence[str], part: Part) -> tuple[str, str]:
    known = [width for layer in layers if (width := part.layers[layer]) is not None]
    if len(known) < len(layers):
        return _UNKNOWN, ""
    inputs, outputs = known[0][0], sum(width[1] for width in known)
    if (target.inputs, target.outputs) == (inputs, outputs):
        return _MATCHED, ""
    if layers[0] in _EXPANDED and target.outputs == outputs and target.inputs > inputs:
        return _MATCHED, ""
    return (
        _MISMATCHED,
        f"{quote(_told(target))} is {target.inputs} to {target.outputs} wide, and "
        f"{inputs} to {outputs} here",
    )


def _is_as_wide(target: Target, widths: Mapping[Width, int]) -> bool:
    """Say whether a model has a layer as wide, or some that are one in the original."""
    outs = {outputs for inputs, outputs in widths if inputs == target.inputs}
    if target.outputs in outs or any(target.outputs in (2 * one, 3 * one) for one in outs):
        return True
    return any(target.outputs - 3 * one in outs for one in outs)


def _told(target: Target) -> str:
    part = "" if target.component in ("", DENOISER) else f"{target.component}."
    return part + target.module


def _match_attention(adapter: Adapter, base: Base) -> Iterator[tuple[str, str]]:
    """Compare the attention to a picture with that to the text, whose width it shares."""
    part = base.parts.get(base.denoiser)
    if part is None:
        yield from ((_UNMATCHED, "this model has no UNet") for _ in adapter.targets)
        return
    keys = {name: width for name, width in part.layers.items() if name.endswith("_attn2_to_k")}
    if not keys or None in keys.values():
        yield from ((_UNKNOWN, "") for _ in adapter.targets)
        return
    left = Counter(width for width in keys.values() if width is not None)
    here = next(iter(left))[0]
    for target in adapter.targets:
        width = (target.inputs, target.outputs)
        if left[width] > 0:
            left[width] -= 1
            yield _MATCHED, ""
        else:
            yield (
                _MISMATCHED,
                f"its attention is {width[0]} to {width[1]} wide, and the text has {here} here",
            )


def _match_words(adapter: Adapter, base: Base) -> Iterator[tuple[str, str]]:
    """Compare embeddings of new words with those that the text encoders have."""
    here = {
        name: layer
        for name, part in base.parts.items()
        if name.startswith("text_encoder")
        for layer in [part.layers.get("embeddings_token_embedding")]
    }
    # Of a table of embeddings, the first is the width of a word, the second how many there are.
    widths = {layer[0] for layer in here.values() if layer is not None}
    for word, width in adapter.widths.items():
        if not here:
            yield _UNMATCHED, "this model has no text encoder"
        elif not widths:
            yield _UNKNOWN, ""
        elif width in widths:
            yield _MATCHED, ""
        else:
            yield (
                _MISMATCHED,
                f"{quote(word)} is {width} wide, and words are "
                f"{' or '.join(map(str, sorted(widths)))} here",
            )


_MATCHES = {
    AdapterKind.LORA: _match_layers,
    AdapterKind.LOHA: _match_layers,
    AdapterKind.LOKR: _match_layers,
    AdapterKind.IP_ADAPTER: _match_attention,
    AdapterKind.TEXTUAL_INVERSION: _match_words,
}
