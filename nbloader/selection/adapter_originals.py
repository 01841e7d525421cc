"""The layers of diffusers that the names of a model's authors stand for.

Adapters are written with either. Those of FLUX.1 and Wan are known here, and those of UNets.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nbloader.selection import adapter_families as families

_ATTENTION = ("to_q", "to_k", "to_v")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")
_TIMES = "time_text_embed"


def _renamed(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(prefix + name for name in names)


# Patterns of squeezed paths, and the layers of diffusers that such a one stands for: several where
# they are one matrix in the original. `loaders/lora_conversion_utils.py` of diffusers 0.42.
_DOUBLE, _SINGLE = r"transformer_blocks_\1_", r"single_transformer_blocks_\1_"
ORIGINALS: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]] = {
    families.FLUX1: (
        (r"double_blocks_(\d+)_(?:img_attn_qkv|qkv_1)", _renamed(_DOUBLE + "attn_", *_ATTENTION)),
        (r"double_blocks_(\d+)_(?:txt_attn_qkv|qkv_2)", _renamed(_DOUBLE + "attn_", *_ADDED)),
        (r"double_blocks_(\d+)_(?:img_attn_proj|proj_1)", (_DOUBLE + "attn_to_out_0",)),
        (r"double_blocks_(\d+)_(?:txt_attn_proj|proj_2)", (_DOUBLE + "attn_to_add_out",)),
        (r"double_blocks_(\d+)_img_mlp_0", (_DOUBLE + "ff_net_0_proj",)),
        (r"double_blocks_(\d+)_img_mlp_2", (_DOUBLE + "ff_net_2",)),
        (r"double_blocks_(\d+)_txt_mlp_0", (_DOUBLE + "ff_context_net_0_proj",)),
        (r"double_blocks_(\d+)_txt_mlp_2", (_DOUBLE + "ff_context_net_2",)),
        (r"double_blocks_(\d+)_img_mod_lin", (_DOUBLE + "norm1_linear",)),
        (r"double_blocks_(\d+)_txt_mod_lin", (_DOUBLE + "norm1_context_linear",)),
        (
            r"single_blocks_(\d+)_linear1",
            (*_renamed(_SINGLE + "attn_", *_ATTENTION), _SINGLE + "proj_mlp"),
        ),
        (r"single_blocks_(\d+)_qkv", _renamed(_SINGLE + "attn_", *_ATTENTION)),
        (r"single_blocks_(\d+)_(?:linear2|proj)", (_SINGLE + "proj_out",)),
        (r"single_blocks_(\d+)_modulation_lin", (_SINGLE + "norm_linear",)),
        (r"img_in", ("x_embedder",)),
        (r"txt_in", ("context_embedder",)),
        (r"final_layer_linear", ("proj_out",)),
        (r"final_layer_adaLN_modulation_1", ("norm_out_linear",)),
        (r"time_in_in_layer", (f"{_TIMES}_timestep_embedder_linear_1",)),
        (r"time_in_out_layer", (f"{_TIMES}_timestep_embedder_linear_2",)),
        (r"vector_in_in_layer", (f"{_TIMES}_text_embedder_linear_1",)),
        (r"vector_in_out_layer", (f"{_TIMES}_text_embedder_linear_2",)),
        (r"guidance_in_in_layer", (f"{_TIMES}_guidance_embedder_linear_1",)),
        (r"guidance_in_out_layer", (f"{_TIMES}_guidance_embedder_linear_2",)),
    ),
    families.WAN: (
        (r"blocks_(\d+)_self_attn_([qkv])", (r"blocks_\1_attn1_to_\2",)),
        (r"blocks_(\d+)_self_attn_o", (r"blocks_\1_attn1_to_out_0",)),
        (r"blocks_(\d+)_cross_attn_([qkv])", (r"blocks_\1_attn2_to_\2",)),
        (r"blocks_(\d+)_cross_attn_([kv])_img", (r"blocks_\1_attn2_add_\2_proj",)),
        (r"blocks_(\d+)_cross_attn_o", (r"blocks_\1_attn2_to_out_0",)),
        (r"blocks_(\d+)_ffn_0", (r"blocks_\1_ffn_net_0_proj",)),
        (r"blocks_(\d+)_ffn_2", (r"blocks_\1_ffn_net_2",)),
        (r"text_embedding_0", ("condition_embedder_text_embedder_linear_1",)),
        (r"text_embedding_2", ("condition_embedder_text_embedder_linear_2",)),
        (r"time_embedding_0", ("condition_embedder_time_embedder_linear_1",)),
        (r"time_embedding_2", ("condition_embedder_time_embedder_linear_2",)),
        (r"time_projection_1", ("condition_embedder_time_proj",)),
        (r"head_head", ("proj_out",)),
    ),
}

# `_maybe_map_sgm_blocks_to_diffusers`, and the names inside a block of `_convert_unet_lora_key`.
_SGM = re.compile(
    r"(?P<side>input|output)_blocks_(?P<block>\d+)_(?P<inner>\d+)_(?P<rest>.+)"
    r"|middle_block_(?P<middle>\d+)_(?P<in_middle>.+)",
    re.ASCII,
)
_SGM_INNER = ("resnets", "attentions", "upsamplers")
_SGM_MIDDLE = ("resnets_0", "attentions_0", "resnets_1")
_SGM_LAYERS = (
    ("in_layers_2", "conv1"),
    ("out_layers_3", "conv2"),
    ("emb_layers_1", "time_emb_proj"),
    ("skip_connection", "conv_shortcut"),
)
_SGM_TOP = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}


def of_sgm(module: str, layers_per_block: int) -> str | None:
    """Return the name in diffusers of a layer of a UNet as its authors name it; None for no such.

    Blocks and the layers in them are numbered in one there.
    """
    if module in _SGM_TOP:
        return _SGM_TOP[module]
    match = _SGM.fullmatch(module)
    if match is None:
        return None
    if match["middle"] is not None:
        middle = int(match["middle"])
        if middle >= len(_SGM_MIDDLE):
            return None
        return f"mid_block_{_SGM_MIDDLE[middle]}_{_inside(match['in_middle'])}"
    inner, rest = int(match["inner"]), match["rest"]
    if inner >= len(_SGM_INNER):
        return None
    is_input = match["side"] == "input"
    block, layer = divmod(int(match["block"]) - is_input, layers_per_block + 1)
    if is_input and rest == "op":
        return f"down_blocks_{block}_downsamplers_0_conv"
    kind = _SGM_INNER[inner]
    number = 0 if kind == "upsamplers" else layer
    return f"{'down' if is_input else 'up'}_blocks_{block}_{kind}_{number}_{_inside(rest)}"


def _inside(rest: str) -> str:
    return next((name for original, name in _SGM_LAYERS if rest == original), rest)
