"""The ways to compute attention: what each library calls them, and what they take.

Read in transformers 5.0 to 5.23 and diffusers 0.37 to 0.42. sentence-transformers hands the name on
to transformers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nbloader.records import Selection

_FLASH = "https://github.com/Dao-AILab/flash-attention"
_SAGE = "https://github.com/thu-ml/SageAttention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A way to compute attention.

    Attributes:
        name: ours: that of transformers; that of diffusers where transformers has none.
        transformers: `attn_implementation` of its `from_pretrained`; empty if it has none.
        diffusers: what its `set_attention_backend` takes; empty if it has none.
        package: without which it cannot be used, as it is imported; empty for none.
        versions: of the package (PEP 440) that `diffusers` and `transformers` take, where one of
            them does not take any.
        sources: where the package is built from, if the package index does not have it ready.
        on_gpu: whether it computes on an NVIDIA GPU alone.
        capability: the least compute capability of the GPU; None for any.
        made_for: the major compute capability that its authors name; None for any.
        in_16_bits: whether it computes in bfloat16 and float16 alone.
    """

    name: str
    transformers: str = ""
    diffusers: str = ""
    package: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: str = ""
    on_gpu: bool = False
    capability: tuple[int, int] | None = None
    made_for: int | None = None
    in_16_bits: bool = False

    def of(self, library: str) -> str:
        """Return its name in `diffusers` or `transformers`; empty if that has none."""
        return self.diffusers if library == "diffusers" else self.transformers


def _sage(
    name: str, capability: tuple[int, int] = (8, 0), *, in_16_bits: bool = False
) -> Attention:
    # `_REQUIRED_SAGE_VERSION` of diffusers. Its README: Ampere, Ada, Hopper; int8 with fp8 is
    # compiled from 8.9 on (its setup.py).
    return Attention(
        name=name,
        diffusers=name,
        package="sageattention",
        versions={"diffusers": ">=2.1.1"},
        sources=_SAGE,
        on_gpu=True,
        capability=capability,
        in_16_bits=in_16_bits,
    )


ATTENTIONS: tuple[Attention, ...] = (
    # torch's own. `AttentionInterface` of transformers, which has `eager` beside it;
    # `AttentionBackendName` of diffusers, which has none for `eager`.
    Attention(name="sdpa", transformers="sdpa", diffusers="native"),
    Attention(name="eager", transformers="eager"),
    Attention(
        # `_REQUIRED_FLEX_VERSION` of diffusers; transformers asks for no more.
        name="flex_attention",
        transformers="flex_attention",
        diffusers="flex",
        package="torch",
        versions={"diffusers": ">=2.5"},
    ),
    Attention(
        # `_REQUIRED_FLASH_VERSION` of diffusers, `is_flash_attn_2_available` of transformers. "Only
        # supports Ampere GPUs or newer", and fp16 and bf16 (csrc/flash_attn/flash_api.cpp).
        name="flash_attention_2",
        transformers="flash_attention_2",
        diffusers="flash",
        package="flash_attn",
        versions={"diffusers": ">=2.6.3", "transformers": ">=2.3.3"},
        on_gpu=True,
        capability=(8, 0),
        in_16_bits=True,
    ),
    Attention(
        # Its README names H100 and H800. transformers takes it from 8.0 on
        # (`FLASH_ATTENTION_COMPATIBILITY_MATRIX`), where it is built for that.
        name="flash_attention_3",
        transformers="flash_attention_3",
        diffusers="_flash_3",
        package="flash_attn_interface",
        sources=_FLASH,
        on_gpu=True,
        capability=(8, 0),
        made_for=9,
        in_16_bits=True,
    ),
    Attention(
        # `FLASH_ATTENTION_COMPATIBILITY_MATRIX`. diffusers takes it as a kernel of the Hub alone.
        name="flash_attention_4",
        transformers="flash_attention_4",
        package="flash_attn.cute",
        sources=_FLASH,
        on_gpu=True,
        capability=(9, 0),
        in_16_bits=True,
    ),
    # What only diffusers has: the rest of `AttentionBackendName`, but for other hardware. What they
    # take stands at `_AttentionBackendRegistry.register` and in
    # `_check_attention_backend_requirements`.
    _sage("sage", in_16_bits=True),
    Attention(
        # `_REQUIRED_XFORMERS_VERSION`.
        name="xformers",
        diffusers="xformers",
        package="xformers",
        versions={"diffusers": ">=0.0.29"},
        on_gpu=True,
    ),
    Attention(
        name="flash_varlen",
        diffusers="flash_varlen",
        package="flash_attn",
        versions={"diffusers": ">=2.6.3"},
        on_gpu=True,
        capability=(8, 0),
        in_16_bits=True,
    ),
    Attention(
        name="_flash_varlen_3",
        diffusers="_flash_varlen_3",
        package="flash_attn_interface",
        sources=_FLASH,
        on_gpu=True,
        capability=(8, 0),
        made_for=9,
        in_16_bits=True,
    ),
    # torch's kernels, each by itself: cuDNN's and flash from 8.0 on (`sdp_utils.cpp`).
    Attention(
        name="_native_cudnn",
        diffusers="_native_cudnn",
        on_gpu=True,
        capability=(8, 0),
        in_16_bits=True,
    ),
    Attention(
        name="_native_flash",
        diffusers="_native_flash",
        on_gpu=True,
        capability=(8, 0),
        in_16_bits=True,
    ),
    Attention(name="_native_efficient", diffusers="_native_efficient", on_gpu=True),
    Attention(name="_native_math", diffusers="_native_math"),
    _sage("sage_varlen", in_16_bits=True),
    _sage("_sage_qk_int8_pv_fp16_cuda"),
    _sage("_sage_qk_int8_pv_fp16_triton"),
    _sage("_sage_qk_int8_pv_fp8_cuda", (8, 9)),
    _sage("_sage_qk_int8_pv_fp8_cuda_sm90", (9, 0)),
)

_BY_NAME = {
    name: each
    for each in ATTENTIONS
    for name in (each.name, each.transformers, each.diffusers)
    if name
}

_HUB = frozenset(
    # `_HUB_KERNELS_REGISTRY` of diffusers.
    {
        "_flash_3_hub",
        "_flash_3_varlen_hub",
        "aiter_fa2_hub",
        "flash_4_hub",
        "flash_hub",
        "flash_varlen_hub",
        "sage_blackwell_hub",
        "sage_hub",
    }
)
_KERNEL = re.compile(r"[^/:\s]+/[^/:\s]+(@[^/:\s]+)?(:[^/:\s]+)?")  # `is_kernel` of transformers

_DENOISER = re.compile(r"Transformer|UNet|UVit|DiT")
_UNET = re.compile(r"UNet|^SD3Transformer")


def attention_named(name: str) -> Attention | None:
    """Return the way that a library or nbloader calls so; None if there is none."""
    return _BY_NAME.get(name)


def near_attentions(name: str) -> list[str]:
    """Return the names that are most like one that is not known; the usual ones if none is."""
    usual = [each.name for each in ATTENTIONS if not each.name.startswith("_")]
    near = difflib.get_close_matches(name.lower(), _BY_NAME, n=3, cutoff=0.6)
    return list(dict.fromkeys(_BY_NAME[each].name for each in near)) or usual


def is_hub_kernel(name: str) -> bool:
    """Say whether a name is that of a kernel that the package `kernels` fetches from the Hub."""
    return name in _HUB or _KERNEL.fullmatch(name) is not None


def attention_library(selection: Selection) -> str:
    """Return which of `diffusers` and `transformers` computes the attention of a selection."""
    return "diffusers" if selection.of_diffusers else "transformers"


def is_denoiser(class_name: str) -> bool:
    """Say whether a class of diffusers is a model that denoises, step by step, by its name."""
    return _DENOISER.search(class_name) is not None


def takes_xformers(class_name: str) -> bool:
    """Say whether `enable_xformers_memory_efficient_attention` is for a class of diffusers.

    It puts its own processors in place of those of the class, and has one for the attention of a
    UNet and one for that of Stable Diffusion 3 (`set_use_memory_efficient_attention_xformers`).
    """
    return _UNET.search(class_name) is not None
