"""What a file of weights changes in a model: told by the names and the shapes of its tensors.

An adapter changes layers of a model that is there: LoRA, LoHa and LoKr add a product of small
matrices to a layer's weights, an IP-Adapter brings attention to a picture, a textual inversion
brings embeddings of new words. Programs that train them name the same tensors in many ways; here
they are brought to one.

The names are those that diffusers 0.42 reads (`loaders/lora_pipeline.py`,
`lora_conversion_utils.py`, `ip_adapter.py` and `textual_inversion.py`), and those of the programs
that write them: kohya's sd-scripts and musubi-tuner, XLabs, ComfyUI, LyCORIS.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nbloader.records import AdapterKind
from nbloader.selection import adapter_families as families

Shapes = Mapping[str, tuple[int, ...]]
"""The sides of the tensors of a file, by their names."""

DENOISER = "denoiser"
"""Stands for the model that a pipeline computes with in each step: its `unet` or `transformer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A layer that an adapter changes.

    Attributes:
        component: the part of a pipeline that it is in; empty if the name does not tell.
        module: its path in there, with `_` for each dot, as kohya writes it. Where `component` may
            be the first name of the path instead, the path begins behind it.
        inputs, outputs: how many numbers go in and come out; 0 if that cannot be told.
        rank: of the matrices; 0 if they have none.
    """

    component: str
    module: str
    inputs: int
    outputs: int
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What was recognised.

    Attributes:
        format: who writes the names so.
        targets: of a LoRA and its like, and of an IP-Adapter.
        widths: of the embeddings of a textual inversion, by the names of its tensors.
        made_for: the models that it was trained on; empty if that cannot be told.
    """

    kind: AdapterKind
    format: str
    targets: tuple[Target, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    made_for: str = ""

    @property
    def ranks(self) -> tuple[int, ...]:
        """All that there are, sorted."""
        return tuple(sorted({target.rank for target in self.targets if target.rank}))


def recognised(shapes: Shapes) -> Adapter | None:
    """Say what a file is; None for one that is no adapter."""
    return _ip_adapter(shapes) or _low_rank(shapes) or _textual_inversion(shapes)


# -- LoRA and its like -----------------------------------------------------------------------------

# What stands behind the name of a layer, and which matrix it is: the first goes from the inputs to
# the rank, the second from there to the outputs.
_MATRICES: tuple[tuple[AdapterKind, re.Pattern[str]], ...] = (
    # `to_q.lora_A.weight`, and with the name of the adapter `to_q.lora_A.default.weight`
    (
        AdapterKind.LORA,
        re.compile(r"\.lora_(?P<part>A|B|down|up)(?:\.[\w-]+)?\.weight\Z", re.ASCII),
    ),
    # `to_q.lora.down.weight`, `to_q_lora.down.weight`, `fc1.lora_linear_layer.up.weight`; XLabs:
    # `qkv_lora1.down.weight` for the picture and `qkv_lora2` for the text
    (
        AdapterKind.LORA,
        re.compile(
            r"[._]lora(?:_linear_layer)?(?P<which>[12]?)\.(?P<part>down|up)\.weight\Z", re.ASCII
        ),
    ),
    (AdapterKind.LORA, re.compile(r"\.lora_embedding_(?P<part>A|B)(?:\.[\w-]+)?\Z", re.ASCII)),
    (AdapterKind.LOHA, re.compile(r"\.hada_(?P<part>w[12]_[ab])\Z")),
    (AdapterKind.LOKR, re.compile(r"\.lokr_(?P<part>w[12](?:_[ab])?)\Z")),
)
_ENDS = ("weight", "A", "B", "default", "w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b")
_PARTS = {"A": "down", "B": "up"}

_KOHYA = re.compile(
    r"lora_(?:(?P<denoiser>unet|transformer|prior_unet)|te(?P<number>[123]?))_", re.ASCII
)
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "lycoris_")
_PEFT = "base_model.model."
COMPONENTS = frozenset(
    {
        "connectors",
        "image_encoder",
        "prior",
        "text_conditioner",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "transformer",
        "transformer_2",
        "transformer_ref",
        "unet",
    }
)
"""Those that a name may begin with."""

# Before diffusers 0.26 a LoRA of an attention was named after its processor.
_OLD_TEXT = re.compile(r"(?<=self_attn_)to_(q|k|v|out)\Z")


def _low_rank(shapes: Shapes) -> Adapter | None:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    kinds: dict[str, AdapterKind] = {}
    embeddings: set[str] = set()
    for name, shape in shapes.items():
        if not name.endswith(_ENDS):
            continue
        for kind, pattern in _MATRICES:
            if (match := pattern.search(name)) is None:
                continue
            layer = name[: match.start()]
            if which := match.groupdict().get("which"):
                layer += f".{which}"
            part = match["part"]
            found.setdefault(layer, {})[_PARTS.get(part, part)] = shape
            kinds[layer] = kind
            if "embedding_" in match[0]:
                embeddings.add(layer)
            break
    targets = []
    for layer, parts in found.items():
        sides = _SIDES[kinds[layer]](parts)
        if sides is None:
            continue
        inputs, outputs, rank = sides
        component, module = place_of(layer)
        if layer in embeddings:  # of which the weights are the other way round
            inputs, outputs = outputs, inputs
        targets.append(
            Target(component=component, module=module, inputs=inputs, outputs=outputs, rank=rank)
        )
    if not targets:
        return None
    all_kinds = set(kinds.values())
    # A library that takes the others only would stumble over it.
    rarest = [AdapterKind.LOHA, AdapterKind.LOKR, AdapterKind.LORA]
    return Adapter(
        kind=next(kind for kind in rarest if kind in all_kinds),
        format=_format(found, shapes),
        targets=tuple(targets),
        made_for=families.of_layers(found, targets),
    )


def place_of(layer: str) -> tuple[str, str]:
    """Return the component that the name of a layer tells, and its module."""
    name = layer.removeprefix(_PEFT)
    component = ""
    if (match := _KOHYA.match(name)) is not None:
        number = match["number"]
        component = DENOISER if match["denoiser"] else _text_encoder(number)
        name = name[match.end() :]
    elif (prefix := next((each for each in _PREFIXES if name.startswith(each)), None)) is not None:
        component, name = DENOISER, name.removeprefix(prefix)
    else:
        first, _, rest = name.partition(".")
        if first in COMPONENTS and rest:
            component, name = first, rest
    return component, squeezed(name)


def _text_encoder(number: str | None) -> str:
    return f"text_encoder_{number}" if number in ("2", "3") else "text_encoder"


def squeezed(module: str) -> str:
    """Return the path of a module in the form in which all programs agree on it."""
    name = module.removeprefix("text_model.").replace(".processor.", ".").replace(".", "_")
    name = name.removeprefix("text_model_")
    if (match := _OLD_TEXT.search(name)) is not None:
        return f"{name[: match.start()]}{match[1]}_proj"
    return f"{name}_0" if name.endswith("_to_out") else name


def _of_lora(parts: Shapes) -> tuple[int, int, int] | None:
    down, up = parts.get("down", ()), parts.get("up", ())
    if len(down) < 2 or len(up) < 2:
        return None
    return down[1], up[0], down[0]


def _of_loha(parts: Shapes) -> tuple[int, int, int] | None:
    first, second = parts.get("w1_a", ()), parts.get("w1_b", ())
    if len(first) < 2 or len(second) < 2:
        return None
    rank = second[0]
    # With a core (`hada_t1`) the first is the other way round.
    return second[1], first[0] if first[1] == rank else first[1], rank


def _of_lokr(parts: Shapes) -> tuple[int, int, int] | None:
    inputs = outputs = 1
    rank = 0
    for which in ("w1", "w2"):
        whole = parts.get(which, ())
        first, second = parts.get(f"{which}_a", ()), parts.get(f"{which}_b", ())
        if len(whole) > 1:
            outputs, inputs = outputs * whole[0], inputs * whole[1]
        elif len(first) > 1 and len(second) > 1:
            rank = second[0]
            outputs *= first[0] if first[1] == rank else first[1]
            inputs *= second[1]
        else:
            return None
    return inputs, outputs, rank


_SIDES = {
    AdapterKind.LORA: _of_lora,
    AdapterKind.LOHA: _of_loha,
    AdapterKind.LOKR: _of_lokr,
}


_ORIGINAL = ("blocks.", "double_blocks.", "layers.", "single_blocks.")
"""What the names of layers begin with in the files of a model's authors."""


def _format(layers: Iterable[str], tensors: Iterable[str]) -> str:
    """Name who writes names like these, as far as it matters to who reads them."""
    names = list(layers)
    down = any(name.endswith(".lora_down.weight") for name in tensors)
    if any(name.startswith("lycoris_") for name in names):
        return "LyCORIS"
    if any(_KOHYA.match(name) or (down and name.startswith(_PREFIXES)) for name in names):
        return "kohya"
    if any(name.startswith(_ORIGINAL) and ".processor." in name for name in names):
        return "XLabs"
    if any(name.startswith(_PREFIXES) for name in names):
        return "ComfyUI"
    if any(name.startswith(_PEFT) for name in names):
        return "PEFT"
    return "original" if any(name.startswith(_ORIGINAL) for name in names) else "diffusers"


# -- IP-Adapters -----------------------------------------------------------------------------------

# `ip_adapter.1.to_k_ip.weight`; XLabs: `double_blocks.0.processor.ip_adapter_double_stream_k_proj`.
_IP_KEY = re.compile(
    r"(?:ip_adapter\.(?P<number>\d+)\.to_k_ip"
    r"|double_blocks\.(?P<block>\d+)\.processor\.ip_adapter_double_stream_k_proj)\.weight",
    re.ASCII,
)
_IP_PROJECTION = ("image_proj.", "ip_adapter_proj_model.")


def _ip_adapter(shapes: Shapes) -> Adapter | None:
    keys = [(match, shapes[name]) for name in shapes if (match := _IP_KEY.fullmatch(name))]
    if not keys or not any(name.startswith(_IP_PROJECTION) for name in shapes):
        return None
    targets = tuple(
        Target(
            component=DENOISER,
            module=f"{match['number'] or match['block']}_to_k_ip",
            inputs=shape[1],
            outputs=shape[0],
        )
        for match, shape in keys
        if len(shape) == 2
    )
    return Adapter(
        kind=AdapterKind.IP_ADAPTER,
        format="XLabs" if keys[0][0]["block"] else "diffusers",
        targets=targets,
        made_for=families.of_ip_adapter(targets, xlabs=keys[0][0]["block"] is not None),
    )


# -- textual inversions ----------------------------------------------------------------------------

_MAX_WORDS = 512
"""Embeddings of one new word; a token of CLIP has 77 places."""

_OF_WORDS = {"clip_g", "clip_l", "emb_params", "string_to_param.*", "t5xxl"}
"""What other programs than diffusers call them; diffusers names a tensor after its word."""


def _textual_inversion(shapes: Shapes) -> Adapter | None:
    words = {
        name: shape
        for name, shape in shapes.items()
        if len(shape) in (1, 2) and (len(shape) == 1 or 0 < shape[0] <= _MAX_WORDS)
    }
    alone = len(shapes) == 1 and not next(iter(shapes)).endswith(("weight", "bias"))
    if not words or not (alone or words.keys() == shapes.keys() <= _OF_WORDS):
        return None
    widths = {name: shape[-1] for name, shape in words.items()}
    named_by = words.keys() & _OF_WORDS
    return Adapter(
        kind=AdapterKind.TEXTUAL_INVERSION,
        format="other" if named_by else "diffusers",
        widths=widths,
        made_for=families.of_embeddings(widths),
    )
