"""Models of diffusers in their published sizes, without their weights: names and widths alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import diffusers
import torch
import transformers

from nbloader.selection import adapter_families as families
from nbloader.selection.adapter_match import Base, layers_of, part_of

Made = dict[str, tuple[int, ...]]
"""Shapes of tensors, by their names."""


def sdxl_unet() -> torch.nn.Module:
    unet: torch.nn.Module = diffusers.UNet2DConditionModel(
        cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10),
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return unet


def clip(width: int, layers: int) -> torch.nn.Module:
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers
    )
    model: torch.nn.Module = transformers.CLIPTextModelWithProjection(config)
    return model


MODELS: Mapping[str, Mapping[str, Callable[[], torch.nn.Module]]] = {
    families.SD1: {
        "unet": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
        "text_encoder": lambda: clip(768, 12),
    },
    families.SD2: {
        "unet": lambda: diffusers.UNet2DConditionModel(
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        ),
        "text_encoder": lambda: clip(1024, 23),
    },
    families.SDXL: {
        "unet": sdxl_unet,
        "text_encoder": lambda: clip(768, 12),
        "text_encoder_2": lambda: clip(1280, 32),
    },
    families.FLUX1: {
        "transformer": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        "text_encoder": lambda: clip(768, 12),
    },
    families.FLUX2: {"transformer": lambda: diffusers.Flux2Transformer2DModel()},
    families.QWEN_IMAGE: {"transformer": lambda: diffusers.QwenImageTransformer2DModel()},
    families.SD3: {
        "transformer": lambda: diffusers.SD3Transformer2DModel(
            num_layers=24, num_attention_heads=24
        )
    },
    families.WAN: {"transformer": lambda: diffusers.WanTransformer3DModel()},
    families.HUNYUAN_VIDEO: {"transformer": lambda: diffusers.HunyuanVideoTransformer3DModel()},
    families.LTX_VIDEO: {"transformer": lambda: diffusers.LTXVideoTransformer3DModel()},
    families.Z_IMAGE: {"transformer": lambda: diffusers.ZImageTransformer2DModel()},
    families.LUMINA2: {"transformer": lambda: diffusers.Lumina2Transformer2DModel()},
    families.COGVIDEOX: {"transformer": lambda: diffusers.CogVideoXTransformer3DModel()},
    families.SANA: {"transformer": lambda: diffusers.SanaTransformer2DModel()},
}


@cache
def shapes_of(family: str) -> Mapping[str, Made]:
    """The shapes of all tensors of a model's components."""
    with torch.device("meta"):
        return {
            name: {key: tuple(tensor.shape) for key, tensor in make().state_dict().items()}
            for name, make in MODELS[family].items()
        }


@cache
def base_of(family: str) -> Base:
    parts = {name: part_of((), shapes) for name, shapes in shapes_of(family).items()}
    name = "unet" if "unet" in parts else "transformer"
    with torch.device("meta"):
        class_name = type(MODELS[family][name]()).__name__
    return Base(family=families.of_base(class_name, layers_of(parts[name])), parts=parts)
