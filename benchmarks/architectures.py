"""The true architectures of well-known models, with their published configurations.

Built under `torch.device("meta")` they take no memory: that gives the names, shapes and counts of
their tensors. Built on a GPU with random weights they take what the real ones take.

The configurations are those that the repositories on the Hub hold in their `config.json`; a test
compares the sizes that follow with the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "Architecture", "Part"]

Make = Callable[..., "Tensor"]
"""Makes a tensor of a shape in the dtype of the part; `kind="ids"` makes token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component.

    Attributes:
        build: makes it, on torch's default device and in torch's default dtype; with True a small
            one of the same shape.
        step: runs it once at the workload of its family, of a model that is run many times one of
            those; with True on small inputs. None if what it takes does not matter.
        extra: tensors that the published files hold, but the class no longer has: their dtype
            and shape by name.
    """

    name: str
    library: str
    class_name: str
    build: Callable[[bool], nn.Module]
    step: Callable[[Any, Make, bool], object] | None = None
    model_type: str | None = None
    extra: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A repository.

    Attributes:
        published: bytes of the weights that the library loads, as the Hub lists their files, by
            variant (empty for the plain ones).
        dtypes: what they are stored in, by variant.
    """

    repo_id: str
    kind: str
    class_name: str | None
    parts: tuple[Part, ...]
    published: Mapping[str, int]
    dtypes: Mapping[str, str]


def _transformers(class_name: str, config_name: str, config: dict[str, Any], **tiny: Any) -> Any:
    def build(small: bool) -> Any:
        import transformers

        settings = {**config, **tiny} if small else config
        return getattr(transformers, class_name)(getattr(transformers, config_name)(**settings))

    return build


def _diffusers(class_name: str, config: dict[str, Any], **tiny: Any) -> Any:
    def build(small: bool) -> Any:
        import diffusers

        return getattr(diffusers, class_name)(**({**config, **tiny} if small else config))

    return build


# -- text encoders and language models --------------------------------------------------------

_CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
_CLIP_BIG_G = {
    **_CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "num_decoder_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
_QWEN2_5_VL = {
    "tie_word_embeddings": False,
    "text_config": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "rope_parameters": {
            "mrope_section": [16, 24, 24],
            "rope_theta": 1000000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    },
}
_QWEN2_5_VL_TINY = {
    "text_config": {
        **_QWEN2_5_VL["text_config"],  # type: ignore[dict-item]
        "num_hidden_layers": 2,
        "hidden_size": 56,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 1000,
        "rope_parameters": {
            "mrope_section": [4, 5, 5],
            "rope_theta": 1000000.0,
            "rope_type": "default",
        },
    },
    "vision_config": {
        **_QWEN2_5_VL["vision_config"],  # type: ignore[dict-item]
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 56,
    },
}
_BERT_TINY = {"num_hidden_layers": 2, "vocab_size": 1000}


def _clip_step(model: Any, make: Make, tiny: bool) -> object:
    return model(input_ids=make(1, 8 if tiny else 77, kind="ids"))


def _text_step(tokens: int) -> Callable[[Any, Make, bool], object]:
    def step(model: Any, make: Make, tiny: bool) -> object:
        return model(input_ids=make(1, 8 if tiny else tokens, kind="ids"))

    return step


def _vision_language_step(model: Any, make: Make, tiny: bool) -> object:
    # The instruction and some 200 tokens for each of up to three images of 384 x 384.
    language = model.model.language_model
    return language(inputs_embeds=make(1, 8 if tiny else 1024, language.config.hidden_size))


def _embedding_step(model: Any, make: Make, tiny: bool) -> object:
    length = 8 if tiny else min(512, model.config.max_position_embeddings)
    return model(input_ids=make(2 if tiny else 32, length, kind="ids"))


def _generation_step(model: Any, make: Make, tiny: bool) -> object:
    """The first step: the whole prompt, whose keys and values are kept."""
    return model(
        input_ids=make(1, 16 if tiny else 4096, kind="ids"), use_cache=True, logits_to_keep=1
    )


# -- autoencoders -----------------------------------------------------------------------------

_KL = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "latent_channels": 4,
    "sample_size": 512,
}
_KL_TINY = {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}


def _decode(channels: int, size: int) -> Callable[[Any, Make, bool], object]:
    def step(model: Any, make: Make, tiny: bool) -> object:
        side = 8 if tiny else size // 8
        return model.decode(make(1, channels, side, side))

    return step


def _kl_part(size: int, **config: Any) -> Part:
    return Part(
        name="vae",
        library="diffusers",
        class_name="AutoencoderKL",
        build=_diffusers("AutoencoderKL", {**_KL, **config}, **_KL_TINY),
        step=_decode(config.get("latent_channels", 4), size),
    )


# -- denoisers --------------------------------------------------------------------------------

_SD_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "layers_per_block": 2,
}
_SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "layers_per_block": 2,
}


def _sd_step(model: Any, make: Make, tiny: bool) -> object:
    # Two of each: with and without the prompt, for guidance.
    side = 8 if tiny else 64
    return model(
        make(2, 4, side, side), 1, make(2, 77, model.config.cross_attention_dim), return_dict=False
    )


def _sdxl_step(model: Any, make: Make, tiny: bool) -> object:
    side = 8 if tiny else 128
    return model(
        make(2, 4, side, side),
        1,
        make(2, 77, model.config.cross_attention_dim),
        added_cond_kwargs={"text_embeds": make(2, 1280), "time_ids": make(2, 6)},
        return_dict=False,
    )


def _flux_step(model: Any, make: Make, tiny: bool) -> object:
    tokens, words = (16, 8) if tiny else (4096, 512)
    return model(
        hidden_states=make(1, tokens, model.config.in_channels),
        encoder_hidden_states=make(1, words, model.config.joint_attention_dim),
        pooled_projections=make(1, model.config.pooled_projection_dim),
        timestep=make(1),
        guidance=make(1),
        img_ids=make(tokens, 3),
        txt_ids=make(words, 3),
        return_dict=False,
    )


def _qwen_image_step(model: Any, make: Make, tiny: bool) -> object:
    # The noise and one image to edit, each of 1024 x 1024.
    side, words = (4, 8) if tiny else (64, 512)
    return model(
        hidden_states=make(1, 2 * side * side, model.config.in_channels),
        encoder_hidden_states=make(1, words, model.config.joint_attention_dim),
        timestep=make(1),
        img_shapes=[[(1, side, side), (1, side, side)]],
        return_dict=False,
    )


def _qwen_decode(model: Any, make: Make, tiny: bool) -> object:
    side = 8 if tiny else 128
    return model.decode(make(1, 16, 1, side, side))


_CLIP_TINY = {"num_hidden_layers": 2, "vocab_size": 1000}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        repo_id="Qwen/Qwen-Image-Edit-2509",
        kind="diffusers",
        class_name="QwenImageEditPlusPipeline",
        parts=(
            Part(
                name="text_encoder",
                library="transformers",
                class_name="Qwen2_5_VLForConditionalGeneration",
                model_type="qwen2_5_vl",
                build=_transformers(
                    "Qwen2_5_VLForConditionalGeneration",
                    "Qwen2_5_VLConfig",
                    _QWEN2_5_VL,
                    **_QWEN2_5_VL_TINY,
                ),
                step=_vision_language_step,
            ),
            Part(
                name="transformer",
                library="diffusers",
                class_name="QwenImageTransformer2DModel",
                build=_diffusers(
                    "QwenImageTransformer2DModel",
                    {
                        "patch_size": 2,
                        "in_channels": 64,
                        "out_channels": 16,
                        "num_layers": 60,
                        "attention_head_dim": 128,
                        "num_attention_heads": 24,
                        "joint_attention_dim": 3584,
                        "axes_dims_rope": (16, 56, 56),
                    },
                    num_layers=2,
                    num_attention_heads=2,
                    joint_attention_dim=56,
                ),
                step=_qwen_image_step,
            ),
            Part(
                name="vae",
                library="diffusers",
                class_name="AutoencoderKLQwenImage",
                build=_diffusers(
                    "AutoencoderKLQwenImage",
                    {
                        "base_dim": 96,
                        "z_dim": 16,
                        "dim_mult": [1, 2, 4, 4],
                        "num_res_blocks": 2,
                        "temperal_downsample": [False, True, True],
                    },
                    base_dim=8,
                    num_res_blocks=1,
                ),
                step=_qwen_decode,
            ),
        ),
        published={"": 57_700_000_000},
        dtypes={"": "bfloat16"},
    ),
    Architecture(
        repo_id="black-forest-labs/FLUX.1-dev",
        kind="diffusers",
        class_name="FluxPipeline",
        parts=(
            Part(
                name="text_encoder",
                library="transformers",
                class_name="CLIPTextModel",
                model_type="clip_text_model",
                build=_transformers("CLIPTextModel", "CLIPTextConfig", _CLIP_L, **_CLIP_TINY),
                step=_clip_step,
            ),
            Part(
                name="text_encoder_2",
                library="transformers",
                class_name="T5EncoderModel",
                model_type="t5",
                build=_transformers(
                    "T5EncoderModel",
                    "T5Config",
                    _T5_XXL,
                    num_layers=2,
                    d_model=64,
                    d_ff=64,
                    vocab_size=1000,
                ),
                step=_text_step(512),
            ),
            Part(
                name="transformer",
                library="diffusers",
                class_name="FluxTransformer2DModel",
                build=_diffusers(
                    "FluxTransformer2DModel",
                    {
                        "patch_size": 1,
                        "in_channels": 64,
                        "num_layers": 19,
                        "num_single_layers": 38,
                        "attention_head_dim": 128,
                        "num_attention_heads": 24,
                        "joint_attention_dim": 4096,
                        "pooled_projection_dim": 768,
                        "guidance_embeds": True,
                    },
                    num_layers=1,
                    num_single_layers=1,
                    num_attention_heads=2,
                    joint_attention_dim=64,
                ),
                step=_flux_step,
            ),
            _kl_part(
                1024,
                latent_channels=16,
                sample_size=1024,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
        ),
        published={"": 23_802_947_360 + 9_524_648_808 + 246_144_352 + 167_666_902},
        dtypes={"": "bfloat16"},
    ),
    Architecture(
        repo_id="stabilityai/stable-diffusion-xl-base-1.0",
        kind="diffusers",
        class_name="StableDiffusionXLPipeline",
        parts=(
            Part(
                name="text_encoder",
                library="transformers",
                class_name="CLIPTextModel",
                model_type="clip_text_model",
                build=_transformers("CLIPTextModel", "CLIPTextConfig", _CLIP_L, **_CLIP_TINY),
                step=_clip_step,
            ),
            Part(
                name="text_encoder_2",
                library="transformers",
                class_name="CLIPTextModelWithProjection",
                model_type="clip_text_model",
                build=_transformers(
                    "CLIPTextModelWithProjection", "CLIPTextConfig", _CLIP_BIG_G, **_CLIP_TINY
                ),
                step=_clip_step,
            ),
            Part(
                name="unet",
                library="diffusers",
                class_name="UNet2DConditionModel",
                build=_diffusers(
                    "UNet2DConditionModel",
                    _SDXL_UNET,
                    block_out_channels=[32, 64, 64],
                    transformer_layers_per_block=1,
                    attention_head_dim=2,
                ),
                step=_sdxl_step,
            ),
            _kl_part(1024, sample_size=1024, force_upcast=True),
        ),
        published={
            "": 10_270_077_736 + 2_778_702_264 + 492_265_168 + 334_643_268,
            "fp16": 5_135_149_760 + 1_389_382_176 + 246_144_152 + 167_335_342,
        },
        dtypes={"": "float32", "fp16": "float16"},
    ),
    Architecture(
        repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
        kind="diffusers",
        class_name="StableDiffusionPipeline",
        parts=(
            Part(
                name="safety_checker",
                library="stable_diffusion",
                class_name="StableDiffusionSafetyChecker",
                model_type="clip",
                build=lambda small: _safety_checker(small),
            ),
            Part(
                name="text_encoder",
                library="transformers",
                class_name="CLIPTextModel",
                model_type="clip_text_model",
                build=_transformers("CLIPTextModel", "CLIPTextConfig", _CLIP_L, **_CLIP_TINY),
                step=_clip_step,
            ),
            Part(
                name="unet",
                library="diffusers",
                class_name="UNet2DConditionModel",
                build=_diffusers(
                    "UNet2DConditionModel",
                    _SD_UNET,
                    block_out_channels=[32, 32, 64, 64],
                    attention_head_dim=2,
                ),
                step=_sd_step,
            ),
            _kl_part(512),
        ),
        published={
            "": 3_438_167_534 + 492_265_168 + 1_215_981_830 + 334_643_268,
            "fp16": 1_719_125_304 + 246_144_152 + 608_018_440 + 167_335_342,
        },
        dtypes={"": "float32", "fp16": "float16"},
    ),
    Architecture(
        repo_id="sentence-transformers/all-MiniLM-L6-v2",
        kind="sentence-transformers",
        class_name=None,
        parts=(
            Part(
                name="model",
                library="sentence_transformers",
                class_name="Transformer",
                model_type="bert",
                build=_transformers(
                    "BertModel",
                    "BertConfig",
                    {
                        "vocab_size": 30522,
                        "hidden_size": 384,
                        "intermediate_size": 1536,
                        "num_hidden_layers": 6,
                        "num_attention_heads": 12,
                        "max_position_embeddings": 512,
                    },
                    **_BERT_TINY,
                ),
                step=_embedding_step,
                extra={"embeddings.position_ids": ("I64", (1, 512))},
            ),
        ),
        published={"": 90_868_376},
        dtypes={"": "float32"},
    ),
    Architecture(
        repo_id="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        kind="sentence-transformers",
        class_name=None,
        parts=(
            Part(
                name="model",
                library="sentence_transformers",
                class_name="Transformer",
                model_type="bert",
                build=_transformers(
                    "BertModel",
                    "BertConfig",
                    {
                        "vocab_size": 250037,
                        "hidden_size": 384,
                        "intermediate_size": 1536,
                        "num_hidden_layers": 12,
                        "num_attention_heads": 12,
                        "max_position_embeddings": 512,
                    },
                    **_BERT_TINY,
                ),
                step=_embedding_step,
                extra={"embeddings.position_ids": ("I64", (1, 512))},
            ),
        ),
        published={"": 470_641_600},
        dtypes={"": "float32"},
    ),
    Architecture(
        repo_id="Qwen/Qwen3-Embedding-0.6B",
        kind="sentence-transformers",
        class_name=None,
        parts=(
            Part(
                name="model",
                library="sentence_transformers",
                class_name="Transformer",
                model_type="qwen3",
                build=_transformers(
                    "Qwen3Model",
                    "Qwen3Config",
                    {
                        "vocab_size": 151669,
                        "hidden_size": 1024,
                        "intermediate_size": 3072,
                        "num_hidden_layers": 28,
                        "num_attention_heads": 16,
                        "num_key_value_heads": 8,
                        "head_dim": 128,
                        "max_position_embeddings": 32768,
                        "tie_word_embeddings": True,
                    },
                    num_hidden_layers=2,
                    vocab_size=1000,
                ),
                step=_embedding_step,
            ),
        ),
        published={"": 1_191_586_416},
        dtypes={"": "bfloat16"},
    ),
    Architecture(
        repo_id="Qwen/Qwen2.5-7B-Instruct",
        kind="transformers",
        class_name=None,
        parts=(
            Part(
                name="model",
                library="transformers",
                class_name="Qwen2ForCausalLM",
                model_type="qwen2",
                build=_transformers(
                    "Qwen2ForCausalLM",
                    "Qwen2Config",
                    {
                        "vocab_size": 152064,
                        "hidden_size": 3584,
                        "intermediate_size": 18944,
                        "num_hidden_layers": 28,
                        "num_attention_heads": 28,
                        "num_key_value_heads": 4,
                        "max_position_embeddings": 32768,
                        "tie_word_embeddings": False,
                    },
                    num_hidden_layers=2,
                    vocab_size=1000,
                    hidden_size=56,
                    intermediate_size=64,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                ),
                step=_generation_step,
            ),
        ),
        published={"": 15_231_233_024},
        dtypes={"": "bfloat16"},
    ),
)


def _safety_checker(small: bool) -> nn.Module:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 1 if small else 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "projection_dim": 768,
    }
    checker: nn.Module = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision, text_config={}, projection_dim=768)
    )
    return checker
