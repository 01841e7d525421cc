"""What a component takes in a number format, or quantized. All sizes are bytes."""

from __future__ import annotations

import re
from dataclasses import replace

from nbloader.records import Component, ComponentWeights, Quantization

_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}

_STORED = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16}
"""Number formats of safetensors that the libraries cast; others (F8, integers) stay as they are."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

FLOAT32_SHARE: tuple[tuple[str, float], ...] = (
    # transformers lists the second matrix of T5's feed-forward layers (`wo`) under
    # `_keep_in_fp32_modules`: 24 x 4096 x 10240 of the 4.76 billion parameters of the XXL encoder.
    (r"U?MT5EncoderModel|T5EncoderModel", 0.21),
)
"""Which share of the parameters of a class stays in float32 with float16, and unquantized."""

_NF4_BYTES = 0.5 + 4 / 64
"""A parameter in NF4: half a byte, and a float32 for every block of 64 (bitsandbytes)."""

_INT8_BYTES = 1.0 + 4 / 1024
"""A parameter in LLM.int8: a byte, and a float32 for every row."""

_TEXT_LIBRARIES = frozenset({"transformers", "sentence_transformers"})

LARGE_BYTES = 1_000_000_000
"""Components below this are not worth the loss of quantizing."""


def bits(dtype: str) -> int:
    """Return the bits of a number of torch's `dtype`."""
    return _BITS[dtype]


def main_dtype(part: ComponentWeights) -> str | None:
    """Return the format of most of the weights by torch's name; None if the libraries cast none."""
    floats = {name: size for name, size in part.bytes_by_dtype.items() if name in _NAMES}
    return _NAMES[max(floats, key=lambda name: floats[name])] if floats else None


def parameters(part: ComponentWeights) -> int:
    """Count the numbers that the libraries cast."""
    return sum(
        size * 8 // _STORED[name] for name, size in part.bytes_by_dtype.items() if name in _STORED
    )


def width(part: ComponentWeights) -> int:
    """Estimate the numbers that a token is between two layers of a transformer; 0 if not known.

    A layer has 12 times its square: attention 4, and twice 4 for the feed-forward matrices, which
    holds to a few percent for the other forms of today.
    """
    if not part.largest_block or not part.counted:
        return 0
    return int((parameters(part) * part.largest_block / max(1, part.total) / 12) ** 0.5)


def unpacked(
    part: ComponentWeights,
    component: Component,
    capability: tuple[int, int] | None,
    *,
    kernels: bool,
) -> ComponentWeights:
    """Return the weights as they are once the library has loaded them, before a cast.

    diffusers casts float8 like any other number. transformers computes in float8 from compute
    capability 8.9 on and in MXFP4 from 7.5 on with its kernels, and turns them into bfloat16
    elsewhere (`quantizer_finegrained_fp8.py`, `quantizer_mxfp4.py`, 5.23).

    Args:
        capability: the lowest of the GPUs; None for none.
        kernels: whether `kernels` and `triton` are installed.
    """
    sizes = dict(part.bytes_by_dtype)
    packed = {name: size for name, size in sizes.items() if name.startswith("F8_")}
    each = 1
    if part.quantization == "mxfp4":
        stays = capability is not None and capability >= (7, 5) and kernels
        packed, each = {name: sizes[name] for name in ("U8", "F4") if name in sizes}, 2
    elif part.quantization is not None and "fp8" not in part.quantization:
        stays = True
    else:
        runs = capability is not None and capability >= (8, 9)
        stays = runs and component.library != "diffusers"
    if stays:
        return part
    if not packed:
        return part
    for name in packed:
        del sizes[name]
    sizes["BF16"] = sizes.get("BF16", 0) + 2 * each * sum(packed.values())
    grown = sum(sizes.values()) / max(1, part.total)
    return replace(
        part,
        bytes_by_dtype=sizes,
        largest_tensor=int(part.largest_tensor * grown),
        largest_block=int(part.largest_block * grown),
        quantization=None,
    )


def bytes_as(part: ComponentWeights, component: Component, dtype: str) -> int:
    """Return what a component takes once it is loaded in `dtype`."""
    if part.quantization is not None:
        return part.total
    kept = sum(size for name, size in part.bytes_by_dtype.items() if name not in _STORED)
    count = parameters(part)
    share = _float32_share(component) if dtype == "float16" else 0.0
    return kept + int(count * (share * 4 + (1 - share) * bits(dtype) / 8))


def cast_bytes(part: ComponentWeights, component: Component, dtype: str) -> int:
    """Return the bytes of the tensors that have to be made anew in `dtype`.

    Those that are stored in it already are mapped from the file, and take no memory of their own.
    """
    if component.checkpoint.lower().endswith(".gguf"):
        return bytes_as(part, component, dtype)  # Both libraries copy all of it out of the file.
    if part.quantization is not None:
        return 0
    stored = sum(size for name, size in part.bytes_by_dtype.items() if _NAMES.get(name) == dtype)
    floats = sum(size for name, size in part.bytes_by_dtype.items() if name not in _STORED)
    return max(0, bytes_as(part, component, dtype) - stored - floats)


def quantizable(part: ComponentWeights, component: Component) -> bool:
    """Say whether quantizing a component pays: it is large, and made of linear layers.

    bitsandbytes replaces `nn.Linear` only: a VAE and a U-Net consist of convolutions.
    """
    name = component.class_name or ""
    return (
        part.quantization is None
        and part.counted
        and parameters(part) * 2 > LARGE_BYTES
        and not re.search(r"Autoencoder|VAE|VQ|UNet", name)
    )


def quantized_bytes(
    part: ComponentWeights, component: Component, to: Quantization, dtype: str
) -> int:
    """Return what a component takes once its linear layers are quantized.

    Embeddings stay in `dtype`, and so does the output layer of a language model; the largest
    tensor stands for either.
    """
    count = parameters(part)
    largest = int(part.largest_tensor / max(1, part.total) * count)
    name = component.class_name or ""
    text = (component.library or "").partition(".")[0] in _TEXT_LIBRARIES
    plain = largest * (2 if re.search(r"For(ConditionalGeneration|CausalLM)$", name) else 1)
    plain = min(count, plain) if text else 0
    float32 = int(count * _float32_share(component))
    rest = max(0, count - plain - float32)
    each = _NF4_BYTES if to is Quantization.FOUR_BIT else _INT8_BYTES
    return int(rest * each + plain * bits(dtype) / 8 + float32 * 4)


def _float32_share(component: Component) -> float:
    for pattern, share in FLOAT32_SHARE:
        if re.fullmatch(pattern, component.class_name or ""):
            return share
    return 0.0
