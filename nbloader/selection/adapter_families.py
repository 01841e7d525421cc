"""The models that adapters are made for: how their layers are called and how wide they are.

A layer has the same name in several models, and two models may have layers of the same width, so
both count: a LoRA of FLUX.1 and one of Qwen-Image change a `transformer_blocks.0.attn.to_q` of
3,072 numbers, and only the first has `single_transformer_blocks`.

What of it diffusers can load follows from its loaders, `loaders/lora_pipeline.py` of version 0.42.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nbloader.records import AdapterKind

SD1 = "Stable Diffusion 1"
SD2 = "Stable Diffusion 2"
SDXL = "Stable Diffusion XL"
SD3 = "Stable Diffusion 3"
FLUX1 = "FLUX.1"
FLUX2 = "FLUX.2"
QWEN_IMAGE = "Qwen-Image"
WAN = "Wan"
HUNYUAN_VIDEO = "HunyuanVideo"
LTX_VIDEO = "LTX-Video"
Z_IMAGE = "Z-Image"
LUMINA2 = "Lumina 2"
COGVIDEOX = "CogVideoX"
SANA = "Sana"
PIXART = "PixArt"
HIDREAM = "HiDream"

_TEXT_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
"""By how wide the text is that a UNet attends to."""


class Layer(Protocol):
    """What is looked at of a layer that an adapter changes; see `adapters.Target`."""

    @property
    def component(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...


# -- of a base model -------------------------------------------------------------------------------

_CLASSES: Mapping[str, str] = {
    "ChromaTransformer2DModel": "Chroma",
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "Flux2Transformer2DModel": FLUX2,
    "FluxTransformer2DModel": FLUX1,
    "HiDreamImageTransformer2DModel": HIDREAM,
    "HunyuanVideoTransformer3DModel": HUNYUAN_VIDEO,
    "LTXVideoTransformer3DModel": LTX_VIDEO,
    "Lumina2Transformer2DModel": LUMINA2,
    "PixArtTransformer2DModel": PIXART,
    "QwenImageTransformer2DModel": QWEN_IMAGE,
    "SD3Transformer2DModel": SD3,
    "SanaTransformer2DModel": SANA,
    "WanTransformer3DModel": WAN,
    "WanVACETransformer3DModel": WAN,
    "ZImageTransformer2DModel": Z_IMAGE,
}
"""By the class of the model that a pipeline of diffusers computes with."""

_UNETS = ("UNet2DConditionModel", "UNetMotionModel")

_SAME = frozenset({frozenset({FLUX1, "Chroma"})})
"""Made of the same layers: adapters of the one are used with the other."""


def of_base(class_name: str | None, layers: Iterable[Layer]) -> str:
    """Name the models that a denoiser is one of; empty if that cannot be told.

    Args:
        class_name: of diffusers.
        layers: of it.
    """
    if class_name in _UNETS:
        return _TEXT_WIDTHS.get(_text_width(layers), "")
    return _CLASSES.get(class_name or "", "")


def are_other_models(made_for: str, base: str) -> bool:
    """Say whether an adapter is known to be made for other models than the one it is put into."""
    return bool(made_for and base) and made_for != base and {made_for, base} not in _SAME


# -- of an adapter ---------------------------------------------------------------------------------

_UNET_LAYER = re.compile(r"(?:down|up|input|output)_blocks_\d+_|mid(?:dle)?_block_", re.ASCII)
_TEXT_KEY = re.compile(r"_attn2_to_[kv]\Z")
_ATTENTION = re.compile(
    r"_(?:to_q|(?<!attn2_)to_[kv]|add_[qkv]_proj|qkv(?:_[12])?|q|linear1|to_qkv(?:_mlp_proj)?)\Z",
    re.ASCII,
)


def _text_width(layers: Iterable[Layer]) -> int:
    """Return how wide the text is that the layers of a UNet attend to; 0 if they do not tell."""
    return next((one.inputs for one in layers if _TEXT_KEY.search(one.module)), 0)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How to tell one family by the layers that an adapter changes.

    Attributes:
        layers: a pattern that one of their modules matches.
        width: what goes into the attention of them; 0 for any.
        but_not: a pattern that none of them matches.
    """

    family: str
    layers: str
    width: Collection[int] = ()
    but_not: str = r"(?!)"


_STREAMS = r"(?:single_transformer_blocks|single_blocks|double_blocks)_\d+_"

# The first that holds counts.
_RULES: tuple[_Rule, ...] = (
    _Rule(FLUX2, r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj"),
    _Rule(FLUX2, r"(?:double|single)_stream_modulation"),
    # FLUX.1 has 19 double and 38 single blocks, HunyuanVideo 20 and 40 under the same names.
    _Rule(HUNYUAN_VIDEO, r"single_(?:transformer_)?blocks_(?:38|39)_|double_blocks_19_", {3072}),
    _Rule(FLUX1, _STREAMS, {3072}),
    _Rule(FLUX2, _STREAMS, {4096, 6144}),
    _Rule(FLUX2, r"\Atransformer_blocks_\d+_attn_(?:to|add)_", {4096, 6144}),
    _Rule(QWEN_IMAGE, r"transformer_blocks_\d+_(?:img|txt)_(?:mlp|mod)_"),
    # 60 blocks of two streams; FLUX.1 has 19.
    _Rule(QWEN_IMAGE, r"transformer_blocks_(?:19|[2-5]\d)_attn_", {3072}, _STREAMS),
    _Rule(SD3, r"transformer_blocks_\d+_attn2?_to_q", {1536, 2432}, r"_attn1_"),
    _Rule(WAN, r"blocks_\d+_(?:(?:self|cross)_attn_[qkvo]\Z|attn[12]_to_[qkv]|ffn_)", {1536, 5120}),
    _Rule(WAN, r"\Ablocks_\d+_(?:(?:self|cross)_attn_[qkvo]\Z|ffn_)"),
    _Rule(Z_IMAGE, r"layers_\d+_(?:attention|feed_forward|adaLN_modulation)_", {3840}),
    _Rule(LUMINA2, r"layers_\d+_(?:attention|attn|feed_forward)_", {2304}),
    _Rule(LTX_VIDEO, r"\Atransformer_blocks_\d+_attn2_to_", {2048, 4096}),
    _Rule(SANA, r"\Atransformer_blocks_\d+_attn2_to_", {2240}),
    _Rule(COGVIDEOX, r"\Atransformer_blocks_\d+_attn1_to_", {1920, 3072}, r"_attn2_"),
)


def of_layers(names: Iterable[str], layers: Sequence[Layer]) -> str:
    """Name the models whose layers these are; empty if that cannot be told.

    Args:
        names: of the layers, as they stand in the file.
        layers: the same, brought to one form.
    """
    if any(".img_attn_qkv" in name or ".txt_attn_qkv" in name for name in names):
        return HUNYUAN_VIDEO
    unet = [one for one in layers if _UNET_LAYER.match(one.module)]
    if unet:
        return _TEXT_WIDTHS.get(_text_width(unet), "") or (
            SDXL if any(one.component == "text_encoder_2" for one in layers) else ""
        )
    inner = [one for one in layers if not one.component.startswith("text_encoder")]
    width = next((one.inputs for one in inner if _ATTENTION.search(one.module)), 0)
    # The blocks of FLUX.2 are 9 times as wide as what goes in, those of FLUX.1 are 7 times.
    if any(one.module.endswith("_linear1") and one.outputs == 9 * one.inputs for one in inner):
        return FLUX2
    for rule in _RULES:
        if rule.width and width not in rule.width:
            continue
        if any(re.search(rule.but_not, one.module) for one in inner):
            continue
        if any(re.search(rule.layers, one.module) for one in inner):
            return rule.family
    return ""


def of_ip_adapter(layers: Iterable[Layer], *, xlabs: bool) -> str:
    """Name the models that an IP-Adapter is made for; empty if that cannot be told."""
    if xlabs:
        return FLUX1
    widths = [(one.inputs, one.outputs) for one in layers]
    if widths and all(inputs == outputs for inputs, outputs in widths):
        return {1536: SD3, 2432: SD3, 3072: FLUX1}.get(widths[0][0], "")
    return _TEXT_WIDTHS.get(widths[0][0], "") if widths else ""


def of_embeddings(widths: Mapping[str, int]) -> str:
    """Name the models that a textual inversion is made for; empty if that cannot be told."""
    if {"clip_l", "clip_g"} <= widths.keys():
        return SDXL
    return _TEXT_WIDTHS.get(next(iter(widths.values()), 0), "") if len(widths) == 1 else ""


# -- what diffusers loads --------------------------------------------------------------------------

_UNETS_OF = frozenset({SD1, SD2, SDXL})

_UNREAD: Mapping[str, Collection[str]] = {
    "kohya": {COGVIDEOX, HIDREAM, HUNYUAN_VIDEO, LTX_VIDEO, LUMINA2, SANA, SD3},
    "ComfyUI": {*_UNETS_OF, COGVIDEOX, FLUX1, "Chroma", HUNYUAN_VIDEO, SANA, SD3},
    "LyCORIS": {*_UNETS_OF, FLUX1, QWEN_IMAGE, SD3, WAN},
}
"""By the format of a LoRA, the models of which diffusers does not read it: it passes over the
names, or stumbles over them after the download. Only those of which that is certain."""

_TAKES: Mapping[AdapterKind, Collection[str]] = {
    AdapterKind.LOHA: (),
    AdapterKind.LOKR: (FLUX2, Z_IMAGE),
    AdapterKind.IP_ADAPTER: (*_UNETS_OF, SD3, FLUX1),
    AdapterKind.TEXTUAL_INVERSION: (*_UNETS_OF, FLUX1),
}
_KNOWN = frozenset({*_UNETS_OF, *_CLASSES.values()})


def why_not(kind: AdapterKind, writer: str, base: str) -> str:
    """Say why diffusers cannot load an adapter, as a clause; empty if it can, or may.

    Args:
        writer: the format.
        base: the models that it is put into; empty if they are not known.
    """
    if kind is AdapterKind.LOHA:
        return "diffusers loads no LoHa"
    if kind is AdapterKind.LORA:
        unread = base in _UNREAD.get(writer, ())
        return f"diffusers reads no LoRA of {base} in the format of {writer}" if unread else ""
    if base not in _KNOWN or base in _TAKES[kind]:
        return ""
    return f"diffusers loads no {kind} into {base}"
