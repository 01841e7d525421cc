"""Tiny components of diffusers' pipelines: what a pipeline's own `__init__` asks for, made small.

A pipeline says by the annotations of its `__init__` what it is made of. `parts_of` makes each with
random numbers, of a few thousand parameters: sizes that many classes share by the names of their
arguments (`SMALL`), the rest by class (`SIZES`). They need not fit together: they are saved and
loaded, not called.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

__all__ = ["parts_of"]

# -- models of diffusers ---------------------------------------------------------------------------

SMALL: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            "num_layers",
            "num_single_layers",
            "num_joint_layers",
            "num_mmdit_layers",
            "num_single_dit_layers",
            "num_refiner_layers",
            "num_hidden_layers",
            "n_layers",
            "n_refiner_layers",
            "mmdit_layers",
            "layers_per_block",
            "num_res_blocks",
            "motion_layers_per_block",
            "motion_mid_block_layers_per_block",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "num_kv_heads",
            "num_key_value_heads",
            "num_key_value_attention_heads",
            "num_cross_attention_heads",
            "n_heads",
            "n_kv_heads",
            "norm_num_groups",
            "motion_num_attention_heads",
            "motion_norm_num_groups",
        ),
        2,
    ),
    **dict.fromkeys(("attention_head_dim", "cross_attention_head_dim"), 16),
    **dict.fromkeys(
        (
            "joint_attention_dim",
            "cross_attention_dim",
            "caption_projection_dim",
            "caption_channels",
            "pooled_projection_dim",
            "text_embed_dim",
            "text_dim",
            "cap_feat_dim",
            "hidden_size",
            "dim",
            "time_embed_dim",
            "embedding_dim",
            "cross_attention_input_dim",
            "global_states_input_dim",
            "cond_embed_dim",
            "encoder_hidden_size",
            "adaln_lora_dim",
            "condition_dim",
            "freq_dim",
        ),
        32,
    ),
    **dict.fromkeys(("ffn_dim", "intermediate_size"), 64),
    **dict.fromkeys(("sample_size", "sample_height", "sample_width", "pos_embed_max_size"), 8),
    "axes_dims_rope": (4, 4, 8),
    "axes_dim_rope": (4, 4, 8),
    "axes_dims": [4, 4, 8],
    "axes_lens": [8, 8, 8],
    "rope_axes_dim": (4, 4, 8),
    "max_text_seq_length": 16,
    "sample_frames": 5,
    "base_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "multiple_of": 8,
}
"""Arguments of models by what they mean, wherever a class has one of that name."""

_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_TWO = (8, 16)
_FOUR = (8, 8, 8, 8)
_DC = {"attention_head_dim": 4, "latent_channels": 4}

SIZES: Mapping[str, Mapping[str, Any]] = {
    "AllegroTransformer3DModel": {"cross_attention_dim": 32},
    "AutoencoderDC": {
        **_DC,
        "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "encoder_block_out_channels": _TWO,
        "decoder_block_out_channels": _TWO,
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), (5,)),
        "decoder_qkv_multiscales": ((), (5,)),
    },
    "AutoencoderKL": {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
    "AutoencoderKLAllegro": {"block_out_channels": _FOUR},
    "AutoencoderKLCogVideoX": {"block_out_channels": _FOUR},
    "AutoencoderKLFlux2": {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    },
    "AutoencoderKLHunyuanVideo": {"block_out_channels": _FOUR},
    "AutoencoderKLLTXVideo": {
        "latent_channels": 8,
        "block_out_channels": _FOUR,
        "decoder_block_out_channels": _FOUR,
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
    },
    "AutoencoderKLMochi": {
        "encoder_block_out_channels": (32, 32, 32, 32),
        "decoder_block_out_channels": (32, 32, 32, 32),
        "layers_per_block": (1, 1, 1, 1, 1),
    },
    "AutoencoderKLTemporalDecoder": {
        "block_out_channels": [32, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
    },
    "AutoencoderOobleck": {
        "encoder_hidden_size": 4,
        "downsampling_ratios": [2, 2],
        "channel_multiples": [1, 1],
        "decoder_channels": 4,
        "decoder_input_channels": 4,
    },
    "AutoencoderTiny": {"encoder_block_out_channels": _FOUR, "decoder_block_out_channels": _FOUR},
    "ChromaTransformer2DModel": {
        "in_channels": 16,
        "approximator_num_channels": 16,
        "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    },
    "ControlNetModel": {
        "block_out_channels": _TWO,
        "down_block_types": _DOWN,
        "conditioning_embedding_out_channels": (4, 8),
        "attention_head_dim": 2,
    },
    "ControlNetUnionModel": {
        "block_out_channels": _TWO,
        "down_block_types": _DOWN,
        "conditioning_embedding_out_channels": (4, 8),
        "attention_head_dim": 2,
        "num_trans_head": 2,
        "transformer_layers_per_block": 1,
    },
    "CosmosTransformer3DModel": {"max_size": (4, 8, 8)},
    "DiTTransformer2DModel": {"num_embeds_ada_norm": 8},
    "Flux2Transformer2DModel": {"in_channels": 16, "axes_dims_rope": (4, 4, 4, 4)},
    "FluxControlNetModel": {"in_channels": 16},
    "FluxTransformer2DModel": {"in_channels": 16},
    "HiDreamImageTransformer2DModel": {
        "patch_size": 2,
        "in_channels": 4,
        "axes_dims_rope": (8, 8),
        "max_resolution": (8, 8),
        "caption_channels": [32, 16],
        "text_emb_dim": 32,
        "llama_layers": [0, 1],
    },
    "HunyuanDiT2DModel": {
        "in_channels": 4,
        "patch_size": 2,
        "cross_attention_dim_t5": 32,
        "text_len": 4,
        "text_len_t5": 4,
    },
    "I2VGenXLUNet": {
        "block_out_channels": _TWO,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "num_attention_heads": None,
        "attention_head_dim": 4,
    },
    "Kandinsky3UNet": {
        "time_embedding_dim": 4,
        "groups": 2,
        "attention_head_dim": 4,
        "block_out_channels": _TWO,
        "encoder_hid_dim": 32,
    },
    "LTXVideoTransformer3DModel": {"in_channels": 8, "out_channels": 8},
    "LatteTransformer3DModel": {
        "in_channels": 4,
        "patch_size": 2,
        "norm_type": "ada_norm_single",
        "num_embeds_ada_norm": 8,
        "video_length": 1,
        "norm_elementwise_affine": False,
    },
    "Lumina2Transformer2DModel": {"in_channels": 4},
    "MotionAdapter": {"block_out_channels": _TWO, "use_motion_mid_block": False},
    "OmniGenTransformer2DModel": {
        "vocab_size": 32,
        "pad_token_id": 0,
        "rope_scaling": {"long_factor": [1] * 8, "short_factor": [1] * 8},
    },
    "PaellaVQModel": {
        "embed_dim": 4,
        "latent_channels": 4,
        "levels": 2,
        "bottleneck_blocks": 1,
        "num_vq_embeddings": 8,
    },
    "PixArtTransformer2DModel": {"num_embeds_ada_norm": 8},
    "PriorTransformer": {"num_embeddings": 4, "time_embed_dim": None},
    "QwenImageTransformer2DModel": {"in_channels": 16, "out_channels": 4},
    "SanaTransformer2DModel": {"in_channels": 4, "out_channels": 4},
    "StableAudioDiTModel": {"in_channels": 4, "out_channels": 4},
    "StableCascadeUNet": {
        "conditioning_dim": 16,
        "block_out_channels": (16, 16),
        "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1),
        "clip_text_pooled_in_channels": 16,
    },
    "T2IAdapter": {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 2},
    "Transformer2DModel": {
        "num_vector_embeds": 8,
        "num_embeds_ada_norm": 8,
        "norm_type": "ada_norm",
        "sample_size": 4,
    },
    "UNet1DModel": {"block_out_channels": (8, 8, 16), "extra_in_channels": 4, "sample_size": 16},
    "UNet2DConditionModel": {
        "block_out_channels": _TWO,
        "down_block_types": _DOWN,
        "up_block_types": _UP,
        "attention_head_dim": 2,
        "num_attention_heads": None,
    },
    "UNet2DModel": {
        "block_out_channels": _TWO,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    },
    "UNet3DConditionModel": {
        "block_out_channels": _TWO,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 4,
        "num_attention_heads": None,
    },
    "UNetSpatioTemporalConditionModel": {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "num_attention_heads": (2, 4),
    },
    "UVit2DModel": {
        "micro_cond_encode_dim": 8,
        "micro_cond_embed_dim": 8,
        "vocab_size": 16,
        "codebook_size": 16,
        "in_channels": 8,
        "block_out_channels": 8,
        "block_num_heads": 2,
    },
    "VQModel": {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "num_vq_embeddings": 8,
    },
    "WuerstchenDiffNeXt": {
        "c_in": 4,
        "c_out": 4,
        "c_r": 4,
        "c_cond": 8,
        "c_hidden": [8, 8],
        "nhead": [-1, 2],
        "blocks": [1, 1],
        "level_config": ["CT", "CTA"],
        "inject_effnet": [False, True],
        "effnet_embd": 4,
        "clip_embd": 16,
    },
    "WuerstchenPrior": {"c_in": 2, "c": 8, "c_cond": 16, "c_r": 4, "depth": 1, "nhead": 2},
    "ZImageTransformer2DModel": {"in_channels": 4},
}

# -- models of transformers ------------------------------------------------------------------------

_DECODER = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_T5 = {
    "vocab_size": 32,
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 16,
    "num_layers": 1,
    "num_heads": 2,
}
_CLIP = {
    "vocab_size": 4,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_EYES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 32,
    "image_size": 32,
    "patch_size": 8,
}
_QWEN_VL = {
    "text_config": {
        **_DECODER,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [2, 2, 4],
            "rope_theta": 1e6,
        },
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "embed_dim": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
    },
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "CLIPVisionModel": _EYES,
    "CLIPVisionModelWithProjection": _EYES,
    "Gemma2Model": _DECODER,
    "GlmModel": _DECODER,
    "GemmaModel": _DECODER,
    "LlamaForCausalLM": _DECODER,
    "LlamaModel": _DECODER,
    "Qwen2VLForConditionalGeneration": _QWEN_VL,
    "Qwen2_5_VLForConditionalGeneration": _QWEN_VL,
    "Qwen3ForCausalLM": _DECODER,
    "Qwen3Model": _DECODER,
    "SiglipVisionModel": _EYES,
    "BertModel": {**_CLIP, "vocab_size": 32, "max_position_embeddings": 64},
    "SpeechT5HifiGan": {
        "model_in_dim": 8,
        "upsample_initial_channel": 16,
        "upsample_rates": [2],
        "upsample_kernel_sizes": [4],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
    },
    "T5EncoderModel": _T5,
    "UMT5EncoderModel": _T5,
    "ClapTextModelWithProjection": {**_CLIP, "vocab_size": 32, "max_position_embeddings": 64},
}

INSTEAD = {
    "AutoTokenizer": "Qwen2Tokenizer",
    "Gemma2PreTrainedModel": "Gemma2Model",
    "GemmaPreTrainedModel": "GemmaModel",
    "KarrasDiffusionSchedulers": "DDIMScheduler",
    "PreTrainedModel": "Qwen3Model",
    "PreTrainedTokenizerBase": "Qwen2Tokenizer",
    "SchedulerMixin": "DDIMScheduler",
    "TokenizersBackend": "Qwen2Tokenizer",
}
"""What stands for a class that is none of its own."""


def parts_of(pipeline_class: Any, also: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
    """Make the components that a pipeline cannot do without.

    Args:
        also: further parameters of its `__init__` to make.
        given: components, or arguments, that are taken as they are.
    """
    hints = typing.get_type_hints(pipeline_class.__init__)
    parts = {}
    for name, parameter in inspect.signature(pipeline_class.__init__).parameters.items():
        if name == "self" or name in given:
            continue
        optional = name in pipeline_class._optional_components
        if name in also or (parameter.default is parameter.empty and not optional):
            parts[name] = make(_class_in(hints[name]))
        elif parameter.default is parameter.empty:
            parts[name] = None
    return parts | given


def _class_in(hint: Any) -> str:
    """Name the first class of an annotation."""
    for each in typing.get_args(hint) or (hint,):
        name = getattr(each, "__name__", str(each))
        if name not in ("NoneType", "list"):
            return INSTEAD.get(name, name)
    raise ValueError(hint)


def make(name: str) -> Any:
    """Make a component of a class of diffusers or transformers."""
    import diffusers
    import transformers

    if maker := _MAKERS.get(name):
        return maker(getattr(transformers, name))
    if name in CONFIGS:
        model = getattr(transformers, name)
        return model(model.config_class(**CONFIGS[name])).eval()
    if hasattr(diffusers, name):
        model = getattr(diffusers, name)
        takes = inspect.signature(model.__init__).parameters
        sizes = {key: value for key, value in SMALL.items() if key in takes} | dict(
            SIZES.get(name, {})
        )
        made = model(**sizes) if hasattr(model, "parameters") else model()
        return made.eval() if hasattr(made, "eval") else made
    return getattr(transformers, name)()


def _clip_tokenizer(tokenizer: Any) -> Any:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    return tokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _byte_tokenizer(tokenizer: Any) -> Any:
    vocabulary = {"<s>": 0, "<|endoftext|>": 1, "a": 2, "b": 3, "<unk>": 4, "<pad>": 5, "</s>": 6}
    return tokenizer(vocab=vocabulary, merges=[], model_max_length=64)


def _unigram_tokenizer(tokenizer: Any) -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0), ("b", -3.0)]
    return tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)


_MAKERS = {
    "CLIPTokenizer": _clip_tokenizer,
    "GPT2Tokenizer": _byte_tokenizer,
    "GemmaTokenizer": lambda tokenizer: tokenizer(
        vocab={"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "▁": 6},
        merges=[],
    ),
    "LlamaTokenizer": lambda tokenizer: tokenizer(
        vocab={"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "▁": 4}, merges=[]
    ),
    "Qwen2Tokenizer": _byte_tokenizer,
    "RobertaTokenizer": _byte_tokenizer,
    "T5Tokenizer": _unigram_tokenizer,
}
