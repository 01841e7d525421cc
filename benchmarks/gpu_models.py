"""A pipeline of the shape of FLUX with random weights, of any size, written without building it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["save_flux"]

_SHARD_BYTES = 5_000_000_000
_BLOCK_BYTES = 64 * 1024**2

_DOUBLE, _SINGLE, _T5_LAYER = 340_000_000, 142_000_000, 193_000_000
"""Parameters of a layer of each kind, in the width of FLUX.1."""


def save_flux(folder: Path, size: int, *, tiny: bool = False) -> None:
    """Write a pipeline, in bfloat16.

    Args:
        size: bytes of its weights, roughly; FLUX.1 has 33.7 GB.
        tiny: whether to write one of some megabytes.
    """
    import diffusers
    import transformers

    # As in FLUX.1: two single layers for a double one, and a third of the bytes for the T5.
    singles = max(1, round(size / 2 * 0.7 / (_DOUBLE / 2 + _SINGLE)))
    width = {"num_attention_heads": 2, "attention_head_dim": 64} if tiny else {}
    text = {"d_model": 64, "d_ff": 64, "d_kv": 16, "num_heads": 4} if tiny else {}
    clip = transformers.CLIPTextConfig(
        vocab_size=4,
        hidden_size=64 if tiny else 768,
        intermediate_size=64 if tiny else 3072,
        num_hidden_layers=1 if tiny else 12,
        num_attention_heads=4 if tiny else 12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    t5 = transformers.T5Config(
        **{"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, **text},
        num_layers=1 if tiny else max(1, round(size / 2 * 0.3 / _T5_LAYER)),
        vocab_size=6,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        transformer = diffusers.FluxTransformer2DModel(
            num_layers=1 if tiny else max(1, round(singles / 2)),
            num_single_layers=1 if tiny else singles,
            joint_attention_dim=t5.d_model,
            pooled_projection_dim=clip.hidden_size,
            axes_dims_rope=(16, 24, 24) if tiny else (16, 56, 56),
            **width,
        )
        first, second = transformers.CLIPTextModel(clip), transformers.T5EncoderModel(t5)
        vae = diffusers.AutoencoderKL(
            block_out_channels=[32, 32],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0), ("b", -3.0)]
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    parts: dict[str, Any] = {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        "tokenizer": transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=77),
        "tokenizer_2": transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    models = {"text_encoder": first, "text_encoder_2": second, "transformer": transformer}
    for name, model in {**models, "vae": vae}.items():
        of_diffusers = name in ("transformer", "vae")
        save = model.save_config if of_diffusers else model.config.save_pretrained
        save(folder / name)
        stem = "diffusion_pytorch_model" if of_diffusers else "model"
        _write(folder / name, stem, _shapes(model))
        parts[name] = model
    index: dict[str, list[str | None]] = {
        name: [type(part).__module__.partition(".")[0], type(part).__name__]
        for name, part in parts.items()
    }
    index |= {"image_encoder": [None, None], "feature_extractor": [None, None]}
    content = {"_class_name": "FluxPipeline", "_diffusers_version": diffusers.__version__, **index}
    (folder / "model_index.json").write_text(json.dumps(content))


def _shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is stored of a model: what is tied is stored once."""
    seen: set[int] = set()
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tuple(tensor.shape)
    return found


def _write(folder: Path, stem: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the weights of a model, in shards where they are large."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = _SHARD_BYTES
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        if size > room and shards[-1]:
            shards.append({})
            room = _SHARD_BYTES
        shards[-1][name] = shape
        room -= size
    names = [f"{stem}-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    total = 0
    for number, (name, shard) in enumerate(zip(names, shards, strict=True)):
        total += _write_file(folder / name, shard, seed=number)
    if len(shards) > 1:
        where = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def _write_file(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> int:
    """Write a file of small random numbers; return the bytes of its tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = position
        for block in _blocks(seed):
            if not left:
                break
            left -= file.write(block[:left])
    return position


def _blocks(seed: int) -> Iterator[memoryview]:
    """Yield blocks of random numbers: one, turned a little further each time."""
    generator = torch.Generator().manual_seed(seed)
    numbers = 0.02 * torch.randn(_BLOCK_BYTES // 2, generator=generator)
    block = numbers.to(torch.bfloat16)
    while True:
        yield memoryview(block.view(torch.uint8).numpy())  # type: ignore[arg-type]
        block = block.roll(4099)
