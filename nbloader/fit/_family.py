"""What is known of a family of models: what computing takes beside weights, and float16.

Each figure says where it comes from:

* "measured" ones are the peak of a run less the weights that were on the GPU. Where no other source
  stands beside them, they were taken on one H200 with torch 2.11, diffusers 0.42.1 and transformers
  5.17 (`python -m benchmarks.memory`, in bfloat16). Older measurements that were published and
  disagree are named: other versions of torch and cuDNN chose other kernels;
* "counted" ones are the peak of live tensors in the passes of the true architecture at the true
  size (`python -m benchmarks.memory --count`, `python -m benchmarks.workloads`), with room for
  what kernels take beside tensors: `ROOM` where attention and matrices rule, `CONVOLUTION_ROOM`
  where convolutions do;
* "inferred" ones follow from a relative that was measured or counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CONTEXT",
    "CONVOLUTION_ROOM",
    "GIB",
    "IMAGE_512",
    "IMAGE_1024",
    "LANGUAGE_FP16",
    "MB",
    "NOT_KNOWN_TO_OVERFLOW",
    "ROOM",
    "TEXTS",
    "Family",
]

GIB = 1024**3

MB = 1_000_000

ROOM = 2.4
"""Measured 1.1 GB for a step of FLUX.1 on the H200 (13.7 GB with offload, of which 12.6 are
weights), and 1.10 GiB before (23.271 less 22.168,
huggingface.co/datasets/derekl35/diffusers-quantization-benchmarks); counted 0.46 GiB."""

CONVOLUTION_ROOM = 1.35
"""Measured 8.2 GB for a decode of Qwen-Image at 1328 x 1328, counted 6.1 GB
(github.com/Comfy-Org/ComfyUI/issues/9771); on the H200 4.5 GB at 1024 x 1024, counted 3.6. For
16 bits in two dimensions see `_KL_1024` of `_pipelines`."""

IMAGE_512 = "one image of 512 x 512"
IMAGE_1024 = "one image of 1024 x 1024"
CONTEXT = "4096 tokens of context"
TEXTS = "32 texts of 512 tokens"

LANGUAGE_FP16 = (
    "works with fused attention, torch's default; the eager one of Qwen2 overflows "
    "(github.com/QwenLM/Qwen3/issues/868)"
)
NOT_KNOWN_TO_OVERFLOW = "not known to overflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that behave alike.

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
