"""Tiny adapters with random weights, in the formats that people publish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LORA = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "v_proj", "fc1")
RANK = 4


def layers_of(model: Any, ends: Iterable[str]) -> dict[str, Any]:
    """The linear layers of a model whose paths end so, by their paths."""
    import torch

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(tuple(ends))
    }


def _pair(layer: Any, seed: int) -> tuple[Any, Any]:
    import torch

    noise = torch.Generator().manual_seed(seed)
    outputs, inputs = layer.weight.shape
    return (
        torch.randn((RANK, inputs), generator=noise) * 0.1,
        torch.randn((outputs, RANK), generator=noise) * 0.1,
    )


def lora(parts: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """A LoRA in the format of diffusers.

    Args:
        parts: the components that it changes, by name.
    """
    tensors: dict[str, Any] = {}
    for component, model in parts.items():
        is_text = component.startswith("text_encoder")
        for name, layer in layers_of(model, TEXT if is_text else ATTENTION).items():
            down, up = _pair(layer, seed + len(tensors))
            # As CLIP was called inside when most of them were trained.
            inner = f"text_model.{name.removeprefix('text_model.')}" if is_text else name
            tensors[f"{component}.{inner}.lora_A.weight"] = down
            tensors[f"{component}.{inner}.lora_B.weight"] = up
    return tensors


def kohya_lora(parts: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """A LoRA in the format of kohya's sd-scripts, with half the weight that its rank would give."""
    import torch

    several = "text_encoder_2" in parts
    prefixes = {"unet": "unet", "text_encoder": "te1" if several else "te", "text_encoder_2": "te2"}
    tensors: dict[str, Any] = {}
    for component, model in parts.items():
        is_text = component.startswith("text_encoder")
        for name, layer in layers_of(model, TEXT if is_text else ATTENTION).items():
            down, up = _pair(layer, seed + len(tensors))
            inner = f"text_model.{name.removeprefix('text_model.')}" if is_text else name
            key = f"lora_{prefixes[component]}_{inner.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = down
            tensors[f"{key}.lora_up.weight"] = up
            tensors[f"{key}.alpha"] = torch.tensor(RANK / 2)
    return tensors


def xlabs_lora(transformer: Any, *, seed: int = 0) -> dict[str, Any]:
    """A LoRA of FLUX.1 in the format of XLabs."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    width = transformer.inner_dim
    tensors: dict[str, Any] = {}
    for block in range(len(transformer.transformer_blocks)):
        for which in (1, 2):
            for layer, outputs in (("qkv", 3 * width), ("proj", width)):
                key = f"double_blocks.{block}.processor.{layer}_lora{which}"
                tensors[f"{key}.down.weight"] = torch.randn((RANK, width), generator=noise) * 0.1
                tensors[f"{key}.up.weight"] = torch.randn((outputs, RANK), generator=noise) * 0.1
    return tensors


def ip_adapter(unet: Any, *, seen: int = 16, seed: int = 0) -> dict[str, Any]:
    """An IP-Adapter, with the names that diffusers reads from safetensors.

    Args:
        seen: the width of the picture's embedding.
    """
    import torch

    noise = torch.Generator().manual_seed(seed)
    width = unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": torch.randn((4 * width, seen), generator=noise) * 0.1,
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    texts = [name for name in unet.attn_processors if "attn2" in name]
    for number, name in enumerate(texts):
        layer = unet.get_submodule(f"{name.removesuffix('.processor')}.to_k")
        for key in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{key}.weight"] = (
                torch.randn(layer.weight.shape, generator=noise) * 0.1
            )
    return tensors


def xlabs_ip_adapter(transformer: Any, *, seen: int = 16, seed: int = 0) -> dict[str, Any]:
    """An IP-Adapter of FLUX.1 in the format of XLabs."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    width, inner = transformer.config.joint_attention_dim, transformer.inner_dim
    tensors = {
        "ip_adapter_proj_model.proj.weight": torch.randn((4 * width, seen), generator=noise),
        "ip_adapter_proj_model.proj.bias": torch.zeros(4 * width),
        "ip_adapter_proj_model.norm.weight": torch.ones(width),
        "ip_adapter_proj_model.norm.bias": torch.zeros(width),
    }
    for block in range(len(transformer.transformer_blocks)):
        for side in "kv":
            key = f"double_blocks.{block}.processor.ip_adapter_double_stream_{side}_proj"
            tensors[f"{key}.weight"] = torch.randn((inner, width), generator=noise)
            tensors[f"{key}.bias"] = torch.zeros(inner)
    return tensors


def nested(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """An IP-Adapter as it is pickled: by its two parts."""
    made: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        made[part][rest] = tensor
    return made


def save_image_encoder(folder: Path, *, seen: int = 16) -> None:
    """Write an image encoder as small as can be."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from tests.models import seeded

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=seen,
    )
    seeded(lambda: CLIPVisionModelWithProjection(config)).save_pretrained(folder)


def write(file: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as the ending of the file says."""
    import torch
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(dict(tensors), file)
    else:
        torch.save(dict(tensors), file)
