"""What a GPU does for the first time in a process, done while other libraries are imported.

The libraries of CUDA are loaded when something is first computed with them, and so is each kernel:
two seconds on an H200, before the first number comes out of a text encoder and of a decoder of
pictures. None of it needs more than torch, nor the weights.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from nbloader.records import Placement

if TYPE_CHECKING:
    import torch

_WIDTH, _HEADS, _TOKENS, _PIXELS, _GROUPS = 64, 2, 4, 4, 8

_USED: set[tuple[str, str]] = set()
"""Devices and number formats that were used so in this process."""


def use_first(placement: Placement) -> None:
    """Compute once, with few numbers, what models begin with, on each GPU of a plan.

    Torch is imported. Nothing stays but what the first use of a model would leave, too; random
    numbers are not drawn. What fails is passed over: the model will say what is wrong.
    """
    for device, dtype in _uses(placement) - _USED:
        _USED.add((device, dtype))
        with suppress(Exception):
            _use(device, dtype)


def _uses(placement: Placement) -> set[tuple[str, str]]:
    return {
        (device, part.dtype)
        for part in placement.components
        for device in (placement.device, *part.device.split(","))
        if device.startswith("cuda")
    }


def _use(device: str, dtype: str) -> None:
    import torch

    place = {"device": device, "dtype": getattr(torch, dtype)}
    with torch.no_grad():
        found = [_encode(place), _decode(place)]
        # Brought here, so that all of it was done; and so are the checks of weights.
        for tensor in found:
            torch.isfinite(tensor.sum(dtype=torch.float32)).item()
            torch.isfinite(tensor).all().item()


def _encode(place: dict[str, object]) -> torch.Tensor:
    """Compute what layers of transformers do."""
    import torch
    from torch.nn import functional

    table = torch.ones(_TOKENS, _WIDTH, **place)  # type: ignore[call-overload]
    one, weight = table[0], table[:1].expand(_WIDTH, _WIDTH).contiguous()
    tokens = torch.arange(_TOKENS, device=table.device).unsqueeze(0) % _TOKENS
    x = functional.embedding(tokens, table)
    x = functional.layer_norm(x, (_WIDTH,), one, one)
    x = x + x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype)
    x = functional.linear(functional.linear(x, weight), weight, one)
    heads = x.view(1, _TOKENS, _HEADS, -1).transpose(1, 2).contiguous()
    scores = torch.matmul(heads, heads.transpose(-1, -2))
    mask = torch.zeros_like(scores)
    attend = functional.scaled_dot_product_attention
    heads = attend(heads, heads, heads, is_causal=True) + attend(heads, heads, heads)
    heads = attend(heads, heads, heads, attn_mask=mask)
    heads = torch.matmul(torch.softmax((scores + mask).float(), dim=-1).to(x.dtype), heads)
    return functional.gelu(x) * functional.gelu(x, approximate="tanh") + heads.sum()


def _decode(place: dict[str, object]) -> torch.Tensor:
    """Compute what decoders of pictures do."""
    import torch
    from torch.nn import functional

    weight = torch.ones(_WIDTH, _WIDTH, 3, 3, **place)  # type: ignore[call-overload]
    one = weight[0, :, 0, 0].contiguous()
    x = torch.ones(1, _WIDTH, _PIXELS, _PIXELS, **place)  # type: ignore[call-overload]
    x = functional.silu(functional.group_norm(x, _GROUPS, one, one))
    x = functional.conv2d(functional.interpolate(x, scale_factor=2.0), weight, one, padding=1)
    return functional.conv2d(x, weight[:, :, :1, :1].contiguous(), one)
