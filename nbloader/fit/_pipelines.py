"""Families of pipelines of diffusers, with their figures."""

from __future__ import annotations

from nbloader.fit._family import CONVOLUTION_ROOM, GIB, IMAGE_512, IMAGE_1024, MB, ROOM, Family

__all__ = ["PIPELINES", "TEXT_ENCODERS"]

_KL_1024 = 2600 * MB
"""A decode to 1024 x 1024 by the VAE of Stable Diffusion's form, in 16 bits: 2.55 GB measured with
FLUX.1 and SDXL, 0.64 at a quarter of the pixels with Stable Diffusion 1.5, with which it grows;
counted are 1.61 GB, the convolutions take the rest. Published in 2024 and 2025, with the versions
of then, are 4.72 GiB for FLUX.1 (36.166 less 31.447, same data set) and 4.4 for Stable Diffusion 3
in float16 (18.765 GiB less 14.33 of weights, huggingface.co/blog/quanto-diffusers)."""

_KL_1024_FLOAT32 = int(4.2 * GIB)
"""The same in float32: 3.8 GB an image measured with SDXL, four at a time
(huggingface.co/blog/simple_sdxl_optimizations), counted 3.0 GiB. Not measured anew."""

_COMFY = "github.com/Comfy-Org/ComfyUI, comfy/supported_models.py"

TEXT_ENCODERS: tuple[tuple[str, int], ...] = (
    ("CLIPText*", 30 * MB),  # measured less than 10 MB, counted 4
    ("*T5EncoderModel", 270 * MB),  # measured up to 0.24 GB for 512 tokens, counted 0.1
    # Inferred: as those, with room for vocabularies and attention of other forms.
    ("Llama*", 500 * MB),
    ("Gemma*", 500 * MB),
    ("Qwen*", 500 * MB),
    ("ChatGLM*", 500 * MB),
)
"""What a text encoder takes by itself in 16 bits, by shell patterns over its class."""

PIPELINES: tuple[Family, ...] = (
    Family(
        name="Qwen-Image",
        patterns=("QwenImage*",),
        workload="one image of 1024 x 1024, edited from one of that size",
        activation_bytes=4900 * MB,
        activation_bytes_float32=int(3.38 * 2 * CONVOLUTION_ROOM * GIB),
        by_component={
            "transformer": int(0.73 * ROOM * GIB),
            "text_encoder": int(0.2 * ROOM * GIB),
        },
        fp16=False,
        fp16_reason="float16 overflows in the transformer: NaN, a black image "
        "(github.com/Comfy-Org/ComfyUI/issues/10751)",
        source="measured: 62.9 GB in all, of which 4.5 for a decode; published before, to scale, "
        "are 8.2 GB for a decode at 1328 x 1328 (github.com/Comfy-Org/ComfyUI/issues/9771) and "
        "75 GB in all at 2048 x 2048 (github.com/huggingface/diffusers/issues/12900); steps "
        "counted",
    ),
    Family(
        name="Z-Image",
        patterns=("ZImage*",),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * GIB)},
        fp16=False,
        fp16_reason="float16 gives NaN, a black image (github.com/Tongyi-MAI/Z-Image/issues/14)",
        source="inferred: the VAE and the number of tokens of FLUX.1",
    ),
    Family(
        name="FLUX Fill",
        patterns=("FluxFill*", "FluxControl*Inpaint*"),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * GIB)},
        fp16=False,
        fp16_reason="float16 gives a black image (github.com/huggingface/diffusers/issues/10533)",
        source="inferred: as FLUX",
    ),
    Family(
        name="FLUX",
        patterns=("Flux*", "Chroma*"),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * GIB)},
        fp16_reason="works: the transformer clips its activations; images differ a little from "
        "those of bfloat16 (github.com/huggingface/diffusers/pull/9097)",
        source="measured: 37.0 GB in all, of which 2.55 for a decode; published before with 4.72 "
        "GiB for it, in bfloat16, 4-bit and 8-bit alike "
        "(huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks)",
    ),
    Family(
        name="Stable Diffusion XL",
        patterns=("StableDiffusionXL*", "Kolors*"),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        # The VAE decodes in float32 then: 3.8 GB, and 0.17 more for its weights.
        activation_bytes_float16=4000 * MB,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"unet": int(0.31 * ROOM * GIB)},
        fp16_reason="published in float16; the pipeline turns the VAE, which overflows, to float32",
        float32_components=("vae",),
        source="measured: 10.2 GB in all in bfloat16; in float16 21.7 GB less 6.9 of weights for "
        "four images (huggingface.co/blog/simple_sdxl_optimizations); steps counted",
    ),
    Family(
        name="Stable Diffusion 3",
        patterns=("StableDiffusion3*",),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * GIB)},
        fp16_reason="published in float16",
        source="inferred: the VAE of FLUX.1's form; published in 2024, in float16, 18.765 GiB in "
        "all, of which 4.4 for a decode (huggingface.co/blog/quanto-diffusers)",
    ),
    Family(
        name="Stable Diffusion",
        patterns=("StableDiffusion*", "LatentConsistencyModel*", "AltDiffusion*"),
        workload=IMAGE_512,
        activation_bytes=_KL_1024 // 4,
        activation_bytes_float32=_KL_1024_FLOAT32 // 4,
        by_component={"unet": int(0.13 * ROOM * GIB)},
        fp16_reason="published in float16",
        source="measured: 4.11 GB in all, of which 0.64 for a decode; steps counted",
    ),
    Family(
        name="Wan",
        patterns=("Wan*",),
        workload="a video of 832 x 480, 81 frames",
        activation_bytes=6 * GIB,
        fp16_reason=f"its transformer is run in float16 ({_COMFY})",
        float32_components=("vae",),
        source="measured: 35 GB with the transformer of 14 billion parameters "
        "(huggingface.co/docs/diffusers/v0.33.0/api/pipelines/wan)",
    ),
    Family(
        name="HunyuanVideo",
        patterns=("HunyuanVideo*",),
        workload="a video of 960 x 544, 129 frames",
        activation_bytes=20 * GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="measured: 45 GB with the transformer of 13 billion parameters "
        "(huggingface.co/tencent/HunyuanVideo)",
    ),
    Family(
        name="LTX-Video",
        patterns=("LTX*",),
        workload="a video of 704 x 480, 161 frames",
        activation_bytes=6 * GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: as Wan",
    ),
    Family(
        name="CogVideoX",
        patterns=("CogVideoX*",),
        workload="a video of 720 x 480, 49 frames",
        activation_bytes=16 * GIB,
        fp16=False,
        fp16_reason="float16 gives black frames, but for the model of 2 billion parameters "
        "(github.com/zai-org/CogVideo/issues/559)",
        source="inferred: 20.7 GB in all with the transformer of 5 billion parameters, with tiles "
        "in the VAE (huggingface.co/zai-org/CogVideoX-5b), and more without them",
    ),
    Family(
        name="Mochi",
        patterns=("Mochi*",),
        workload="a video of 848 x 480, 84 frames",
        activation_bytes=20 * GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: as HunyuanVideo",
    ),
    Family(
        name="Sana",
        patterns=("Sana*",),
        workload=IMAGE_1024,
        activation_bytes=4 * GIB,
        by_component={"transformer": int(1.1 * GIB)},
        fp16=False,
        fp16_reason="its text encoder is a Gemma 2, which overflows in float16",
        source="inferred: less than FLUX.1, which has four times the tokens",
    ),
    Family(
        name="Lumina, HiDream, OmniGen",
        patterns=("Lumina*", "HiDream*", "OmniGen*"),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.8 * GIB)},
        fp16=False,
        fp16_reason=f"their transformers are run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: the VAE of FLUX.1",
    ),
    Family(
        name="Stable Cascade",
        patterns=("StableCascade*",),
        workload=IMAGE_1024,
        activation_bytes=4 * GIB,
        fp16=False,
        fp16_reason="float16 gives a black image "
        "(github.com/IndigoDosSantos/stable-cascade-one-click-installer/issues/3)",
        source="inferred: as Stable Diffusion XL",
    ),
    Family(
        name="PixArt, Hunyuan-DiT, AuraFlow",
        patterns=("PixArt*", "HunyuanDiT*", "AuraFlow*"),
        workload=IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * GIB)},
        fp16_reason="published in float16",
        source="inferred: the VAE of Stable Diffusion's form",
    ),
)
"""Pipelines of diffusers; the first match is taken."""
