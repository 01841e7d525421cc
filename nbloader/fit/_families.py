"""What is known of families of models: what computing takes beside weights, and float16.

Each figure says where it comes from:

* "measured" ones are the peak of a run less the weights that were on the GPU. Where no other source
  stands beside them, they were taken on one H200 with torch 2.11, diffusers 0.42.1 and transformers
  5.17 (`python -m benchmarks.memory`, in bfloat16). Older measurements that were published and
  disagree are named: other versions of torch and cuDNN chose other kernels;
* "counted" ones are the peak of live tensors in the passes of the true architecture at the true
  size (`python -m benchmarks.memory --count`), with room for what kernels take beside tensors:
  `_ROOM` where attention and matrices rule, `_CONVOLUTION_ROOM` where convolutions do;
* "inferred" ones follow from a relative that was measured or counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType

from nbloader.records import Component, Kind, Plan

__all__ = ["EMBEDDINGS", "MODELS", "PIPELINES", "Family", "activation_bytes", "family_of"]

_GIB = 1024**3

_MB = 1_000_000

_ROOM = 2.4
"""Measured 1.1 GB for a step of FLUX.1 on the H200 (13.7 GB with offload, of which 12.6 are
weights), and 1.10 GiB before (23.271 less 22.168,
huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks); counted 0.46 GiB."""

_CONVOLUTION_ROOM = 1.35
"""Measured 8.2 GB for a decode of Qwen-Image at 1328 x 1328, counted 6.1 GB
(github.com/Comfy-Org/ComfyUI/issues/9771); on the H200 4.5 GB at 1024 x 1024, counted 3.6. For
16 bits in two dimensions see `_KL_1024`."""

_KL_1024 = 2600 * _MB
"""A decode to 1024 x 1024 by the VAE of Stable Diffusion's form, in 16 bits: 2.55 GB measured with
FLUX.1 and SDXL, 0.64 at a quarter of the pixels with Stable Diffusion 1.5, with which it grows;
counted are 1.61 GB, the convolutions take the rest. Published in 2024 and 2025, with the versions
of then, are 4.72 GiB for FLUX.1 (36.166 less 31.447, same data set) and 4.4 for Stable Diffusion 3
in float16 (18.765 GiB less 14.33 of weights, huggingface.co/blog/quanto-diffusers)."""

_KL_1024_FLOAT32 = int(4.2 * _GIB)
"""The same in float32: 3.8 GB an image measured with SDXL, four at a time
(huggingface.co/blog/simple_sdxl_optimizations), counted 3.0 GiB. Not measured anew."""

_COMFY = "github.com/Comfy-Org/ComfyUI, comfy/supported_models.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that behave alike.

    Attributes:
        patterns: shell patterns over the class of a pipeline, the classes of its components and
            their model types.
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
    patterns: tuple[str, ...]
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


_IMAGE_512 = "one image of 512 x 512"
_IMAGE_1024 = "one image of 1024 x 1024"
_CONTEXT = "4096 tokens of context"
_TEXTS = "32 texts of 512 tokens"

_TEXT_ENCODERS: tuple[tuple[str, int], ...] = (
    ("CLIPText*", 30 * _MB),  # measured less than 10 MB, counted 4
    ("*T5EncoderModel", 270 * _MB),  # measured up to 0.24 GB for 512 tokens, counted 0.1
    # Inferred: as those, with room for vocabularies and attention of other forms.
    ("Llama*", 500 * _MB),
    ("Gemma*", 500 * _MB),
    ("Qwen*", 500 * _MB),
    ("ChatGLM*", 500 * _MB),
)
"""What a text encoder takes by itself in 16 bits, by shell patterns over its class."""

PIPELINES: tuple[Family, ...] = (
    Family(
        name="Qwen-Image",
        patterns=("QwenImage*",),
        workload="one image of 1024 x 1024, edited from one of that size",
        activation_bytes=4900 * _MB,
        activation_bytes_float32=int(3.38 * 2 * _CONVOLUTION_ROOM * _GIB),
        by_component={
            "transformer": int(0.73 * _ROOM * _GIB),
            "text_encoder": int(0.2 * _ROOM * _GIB),
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
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16=False,
        fp16_reason="float16 gives NaN, a black image (github.com/Tongyi-MAI/Z-Image/issues/14)",
        source="inferred: the VAE and the number of tokens of FLUX.1",
    ),
    Family(
        name="FLUX Fill",
        patterns=("FluxFill*", "FluxControl*Inpaint*"),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16=False,
        fp16_reason="float16 gives a black image (github.com/huggingface/diffusers/issues/10533)",
        source="inferred: as FLUX",
    ),
    Family(
        name="FLUX",
        patterns=("Flux*", "Chroma*"),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16_reason="works: the transformer clips its activations; images differ a little from "
        "those of bfloat16 (github.com/huggingface/diffusers/pull/9097)",
        source="measured: 37.0 GB in all, of which 2.55 for a decode; published before with 4.72 "
        "GiB for it, in bfloat16, 4-bit and 8-bit alike "
        "(huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks)",
    ),
    Family(
        name="Stable Diffusion XL",
        patterns=("StableDiffusionXL*", "Kolors*"),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        # The VAE decodes in float32 then: 3.8 GB, and 0.17 more for its weights.
        activation_bytes_float16=4000 * _MB,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"unet": int(0.31 * _ROOM * _GIB)},
        fp16_reason="published in float16; the pipeline turns the VAE, which overflows, to float32",
        float32_components=("vae",),
        source="measured: 10.2 GB in all in bfloat16; in float16 21.7 GB less 6.9 of weights for "
        "four images (huggingface.co/blog/simple_sdxl_optimizations); steps counted",
    ),
    Family(
        name="Stable Diffusion 3",
        patterns=("StableDiffusion3*",),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16_reason="published in float16",
        source="inferred: the VAE of FLUX.1's form; published in 2024, in float16, 18.765 GiB in "
        "all, of which 4.4 for a decode (huggingface.co/blog/quanto-diffusers)",
    ),
    Family(
        name="Stable Diffusion",
        patterns=("StableDiffusion*", "LatentConsistencyModel*", "AltDiffusion*"),
        workload=_IMAGE_512,
        activation_bytes=_KL_1024 // 4,
        activation_bytes_float32=_KL_1024_FLOAT32 // 4,
        by_component={"unet": int(0.13 * _ROOM * _GIB)},
        fp16_reason="published in float16",
        source="measured: 4.11 GB in all, of which 0.64 for a decode; steps counted",
    ),
    Family(
        name="Wan",
        patterns=("Wan*",),
        workload="a video of 832 x 480, 81 frames",
        activation_bytes=6 * _GIB,
        fp16_reason=f"its transformer is run in float16 ({_COMFY})",
        float32_components=("vae",),
        source="measured: 35 GB with the transformer of 14 billion parameters "
        "(huggingface.co/docs/diffusers/v0.33.0/api/pipelines/wan)",
    ),
    Family(
        name="HunyuanVideo",
        patterns=("HunyuanVideo*",),
        workload="a video of 960 x 544, 129 frames",
        activation_bytes=20 * _GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="measured: 45 GB with the transformer of 13 billion parameters "
        "(huggingface.co/tencent/HunyuanVideo)",
    ),
    Family(
        name="LTX-Video",
        patterns=("LTX*",),
        workload="a video of 704 x 480, 161 frames",
        activation_bytes=6 * _GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: as Wan",
    ),
    Family(
        name="CogVideoX",
        patterns=("CogVideoX*",),
        workload="a video of 720 x 480, 49 frames",
        activation_bytes=16 * _GIB,
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
        activation_bytes=20 * _GIB,
        fp16=False,
        fp16_reason=f"its transformer is run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: as HunyuanVideo",
    ),
    Family(
        name="Sana",
        patterns=("Sana*",),
        workload=_IMAGE_1024,
        activation_bytes=4 * _GIB,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16=False,
        fp16_reason="its text encoder is a Gemma 2, which overflows in float16",
        source="inferred: less than FLUX.1, which has four times the tokens",
    ),
    Family(
        name="Lumina, HiDream, OmniGen",
        patterns=("Lumina*", "HiDream*", "OmniGen*"),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.8 * _GIB)},
        fp16=False,
        fp16_reason=f"their transformers are run in bfloat16 or float32 only ({_COMFY})",
        source="inferred: the VAE of FLUX.1",
    ),
    Family(
        name="Stable Cascade",
        patterns=("StableCascade*",),
        workload=_IMAGE_1024,
        activation_bytes=4 * _GIB,
        fp16=False,
        fp16_reason="float16 gives a black image "
        "(github.com/IndigoDosSantos/stable-cascade-one-click-installer/issues/3)",
        source="inferred: as Stable Diffusion XL",
    ),
    Family(
        name="PixArt, Hunyuan-DiT, AuraFlow",
        patterns=("PixArt*", "HunyuanDiT*", "AuraFlow*"),
        workload=_IMAGE_1024,
        activation_bytes=_KL_1024,
        activation_bytes_float32=_KL_1024_FLOAT32,
        by_component={"transformer": int(1.1 * _GIB)},
        fp16_reason="published in float16",
        source="inferred: the VAE of Stable Diffusion's form",
    ),
)
"""Pipelines of diffusers; the first match is taken."""

_GEMMA_FP16 = (
    "activations of up to 800,000 overflow in float16 "
    "(github.com/huggingface/transformers/issues/36822, github.com/unslothai/unsloth/pull/4014)"
)
_T5_FP16 = (
    "works: transformers keeps the layers that overflow, `wo`, in float32 (`_keep_in_fp32_modules`)"
)
_BERT_FP16 = "works (sbert.net/docs/sentence_transformer/usage/efficiency.html)"
_LANGUAGE_FP16 = (
    "works with fused attention, torch's default; the eager one of Qwen2 overflows "
    "(github.com/QwenLM/Qwen3/issues/868)"
)
_BERTS = (
    *("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra", "albert"),
    *("nomic_bert", "modernbert", "new", "deberta*"),
)
_BERT_BYTES = 420 * _MB
_BERT_WIDTH_BYTES = 400_000
_BERT_SOURCE = (
    "measured: 0.91 GB in all with MiniLM, as much as counted: 0.13 GiB for a width of 384, 0.26 "
    "for 768, 0.34 for 1024"
)
_T5S = ("t5", "mt5", "umt5", "T5*", "MT5*", "UMT5*")
_LANGUAGE_MODELS = (
    *("llama*", "qwen2*", "qwen3*", "mistral*", "phi*", "smollm*", "olmo*", "falcon*", "gpt*"),
    "*ForCausalLM",
)
_GEMMAS = ("gemma*", "Gemma*", "t5gemma*", "T5Gemma*")

EMBEDDINGS: tuple[Family, ...] = (
    Family(
        name="EmbeddingGemma",
        patterns=_GEMMAS,
        workload=_TEXTS,
        activation_bytes=2 * _GIB,
        fp16=False,
        fp16_reason=_GEMMA_FP16,
        source="inferred: as Qwen3-Embedding, with fewer layers",
    ),
    Family(
        name="T5 encoder",
        patterns=_T5S,
        workload=_TEXTS,
        activation_bytes=2 * _GIB,
        fp16_reason=_T5_FP16,
        source="inferred: 32 texts by the half of an XXL encoder, counted 0.09 GiB a text",
    ),
    Family(
        name="BERT",
        patterns=_BERTS,
        workload=_TEXTS,
        activation_bytes=_BERT_BYTES,
        width_bytes=_BERT_WIDTH_BYTES,
        fp16_reason=_BERT_FP16,
        source=_BERT_SOURCE,
    ),
    Family(
        name="language model for embeddings",
        patterns=_LANGUAGE_MODELS,
        workload=_TEXTS,
        activation_bytes=int(2.4 * _GIB),
        fp16_reason=_LANGUAGE_FP16,
        source="measured: 4.24 GB in all with Qwen3-Embedding-0.6B, as much as counted: 2.16 GiB, "
        "most of it keys and values",
    ),
)
"""Models of sentence-transformers; the first match is taken."""

MODELS: tuple[Family, ...] = (
    Family(
        name="Gemma",
        patterns=_GEMMAS,
        workload=_CONTEXT,
        activation_bytes=3 * _GIB,
        fp16=False,
        fp16_reason=_GEMMA_FP16,
        source="inferred: as other language models, with wider layers",
    ),
    Family(
        name="T5",
        patterns=_T5S,
        workload=_CONTEXT,
        activation_bytes=2 * _GIB,
        fp16_reason=_T5_FP16,
        source="inferred: 8 times the count for 512 tokens, 0.09 GiB for the XXL encoder",
    ),
    Family(
        name="BERT",
        patterns=_BERTS,
        workload=_TEXTS,
        activation_bytes=_BERT_BYTES,
        width_bytes=_BERT_WIDTH_BYTES,
        fp16_reason=_BERT_FP16,
        source=_BERT_SOURCE,
    ),
    Family(
        name="language model",
        patterns=_LANGUAGE_MODELS,
        workload=_CONTEXT,
        activation_bytes=_GIB,
        fp16_reason=_LANGUAGE_FP16,
        source="measured: 16.8 GB in all with Qwen2.5-7B, as much as counted: 0.76 GiB, a quarter "
        "of it keys and values; models with fewer key heads or narrower layers take less, those of "
        "70 billion parameters twice that",
    ),
)
"""Models of transformers, and text encoders of pipelines; the first match is taken."""

_UNKNOWN: Mapping[Kind, Family] = MappingProxyType(
    {
        Kind.DIFFUSERS: Family(
            name="unknown pipeline",
            patterns=(),
            workload=_IMAGE_1024,
            activation_bytes=int(5.2 * _GIB),
            fp16_reason="not known",
            source="inferred: the most that a known family takes for that image",
        ),
        Kind.SENTENCE_TRANSFORMERS: Family(
            name="unknown embedding model",
            patterns=(),
            workload=_TEXTS,
            activation_bytes=_GIB,
            fp16_reason="not known",
            source="inferred: twice a BERT of hidden size 1024",
        ),
        Kind.TRANSFORMERS: Family(
            name="unknown model",
            patterns=(),
            workload=_CONTEXT,
            activation_bytes=2 * _GIB,
            fp16_reason="not known",
            source="inferred: as a language model",
        ),
    }
)


def family_of(plan: Plan) -> Family:
    """The family of what a plan loads; one for its kind if it is not known.

    A pipeline that is not known cannot compute in float16 if one of its text encoders cannot.
    """
    parts = [
        name
        for component in plan.components
        for name in (component.class_name, component.model_type)
        if name
    ]
    if plan.kind is Kind.SENTENCE_TRANSFORMERS:
        return _match(EMBEDDINGS, parts) or _UNKNOWN[plan.kind]
    if plan.kind is Kind.TRANSFORMERS:
        return _match(MODELS, parts) or _UNKNOWN[plan.kind]
    known = _match(PIPELINES, [plan.class_name] if plan.class_name else [])
    known = known or _match(PIPELINES, parts)
    if known is not None:
        return known
    unknown = _UNKNOWN[plan.kind]
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
    return next((size for pattern, size in _TEXT_ENCODERS if fnmatchcase(name, pattern)), None)


def _match(families: tuple[Family, ...], names: list[str]) -> Family | None:
    for family in families:
        if any(fnmatchcase(name, pattern) for name in names for pattern in family.patterns):
            return family
    return None
