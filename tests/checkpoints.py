"""Tiny models as their authors write them: one file, with the names of the original code.

The names are those of CompVis' Stable Diffusion and of Wan; each is what the library's conversion
turns back into its own. That they are right is seen by the library, which loads what it has saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.gguf_files import Typed, gguf_file

SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"
WAN = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"

State = dict[str, torch.Tensor]


def save_sd(folder: Path) -> Any:
    """Save a pipeline of Stable Diffusion 1 as the library does, and give it."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        layers_per_block=1,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=1000,
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            bos_token_id=0,
            eos_token_id=2,
        )
    )
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text,
        tokenizer=_tokenizer(folder),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return pipeline


def _tokenizer(folder: Path) -> Any:
    """A tokenizer of CLIP that knows single letters."""
    import json

    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{each}</w>" for each in letters)]
    source = folder.parent / f"{folder.name}-vocabulary"
    source.mkdir(parents=True, exist_ok=True)
    (source / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=77
    )


def sd_checkpoint(pipeline: Any) -> State:
    """The tensors of a pipeline under the names of its authors."""
    text = pipeline.text_encoder.state_dict()
    names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in text}
    return {
        **_prefixed("model.diffusion_model.", ldm_unet(pipeline.unet)),
        **_prefixed("first_stage_model.", ldm_vae(pipeline.vae)),
        **_prefixed(
            "cond_stage_model.transformer.", {names[name]: each for name, each in text.items()}
        ),
    }


def _prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> State:
    return {f"{prefix}{name}": tensor.clone().contiguous() for name, tensor in state.items()}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(unet: Any) -> State:
    """A U-Net under the names of CompVis."""
    levels, layers = len(unet.config.block_out_channels), unet.config.layers_per_block
    blocks = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for level in range(levels):
        for layer in range(layers + 1):
            down, up = (layers + 1) * level + layer + 1, (layers + 1) * level + layer
            for number, kind in enumerate(("resnets", "attentions")):
                if layer < layers:
                    blocks[f"down_blocks.{level}.{kind}.{layer}"] = f"input_blocks.{down}.{number}"
                blocks[f"up_blocks.{level}.{kind}.{layer}"] = f"output_blocks.{up}.{number}"
        attended = hasattr(unet.up_blocks[level], "attentions")
        last = (layers + 1) * level + layers
        blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{last + 1}.0.op"
        blocks[f"up_blocks.{level}.upsamplers.0.conv"] = (
            f"output_blocks.{last}.{2 if attended else 1}.conv"
        )
    return _renamed(unet.state_dict(), blocks, lambda rest: _inner(rest, _RESNET))


def ldm_vae(vae: Any) -> State:
    """A VAE under the names of CompVis, whose attention is made of convolutions."""
    levels, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    blocks = {}
    for side in ("encoder", "decoder"):
        for name in ("conv_in", "conv_out"):
            blocks[f"{side}.{name}"] = f"{side}.{name}"
        blocks[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for number in (0, 1):
            blocks[f"{side}.mid_block.resnets.{number}"] = f"{side}.mid.block_{number + 1}"
        blocks[f"{side}.mid_block.attentions.0"] = f"{side}.mid.attn_1"
    for level in range(levels):
        up = levels - 1 - level
        for layer in range(layers + 1):
            blocks[f"encoder.down_blocks.{level}.resnets.{layer}"] = (
                f"encoder.down.{level}.block.{layer}"
            )
            blocks[f"decoder.up_blocks.{level}.resnets.{layer}"] = f"decoder.up.{up}.block.{layer}"
        blocks[f"encoder.down_blocks.{level}.downsamplers.0"] = f"encoder.down.{level}.downsample"
        blocks[f"decoder.up_blocks.{level}.upsamplers.0"] = f"decoder.up.{up}.upsample"
    inner = {
        "conv_shortcut": "nin_shortcut",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }
    blocks |= {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    state = _renamed(vae.state_dict(), blocks, lambda rest: _inner(rest, inner))
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.dim() == 2 else tensor
        for name, tensor in state.items()
    }


def _renamed(state: State, blocks: Mapping[str, str], inner: Callable[[str], str]) -> State:
    renamed = {}
    for name, tensor in state.items():
        found = max((each for each in blocks if name.startswith(f"{each}.")), key=len)
        renamed[f"{blocks[found]}.{inner(name[len(found) + 1 :])}"] = tensor
    return renamed


def _inner(rest: str, names: Mapping[str, str]) -> str:
    for name, other in names.items():
        if rest.startswith(f"{name}."):
            return f"{other}.{rest[len(name) + 1 :]}"
    return rest


# -- Wan -------------------------------------------------------------------------------------------

_WAN = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn1": "self_attn",
    "attn2": "cross_attn",
    ".to_out.0.": ".o.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    "proj_out": "head.head",
    ".ffn.net.0.proj.": ".ffn.0.",
    ".ffn.net.2.": ".ffn.2.",
    # The two norms that the library numbers the other way round.
    ".norm2.": ".norm_x.",
    ".norm3.": ".norm2.",
    ".norm_x.": ".norm3.",
}


def wan() -> Any:
    """A transformer of Wan."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
    )


def wan_checkpoint(model: Any) -> State:
    """A transformer of Wan under the names of its authors."""
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in _WAN.items():
            name = name.replace(ours, theirs)
        if name.endswith("scale_shift_table"):
            name = name.replace(
                "scale_shift_table", "modulation" if "." in name else "head.modulation"
            )
        state[name] = tensor.clone().contiguous()
    return state


# -- files -----------------------------------------------------------------------------------------


def safetensors_of(state: State, path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path.read_bytes()


def gguf_of(state: State, architecture: str, *, quantized: str = "Q8_0") -> bytes:
    """The tensors in a GGUF: matrices whose rows are whole blocks quantized, others as they are."""
    tensors = {}
    for name, tensor in state.items():
        array = tensor.float().numpy()
        if array.ndim == 2 and array.shape[-1] % 32 == 0 and quantized == "Q8_0":
            tensors[name] = ("Q8_0", array.shape, _q8_0(array))
        else:
            tensors[name] = ("F32", array.shape, array.astype("<f4").tobytes())
    return gguf_file({"general.architecture": architecture}, tensors)


def _q8_0(array: np.ndarray[Any, Any]) -> bytes:
    """Blocks of 32: a scale in float16, and a byte for each number."""
    blocks = array.reshape(-1, 32).astype("float32")
    scales = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("<f2")
    safe = np.where(scales == 0, 1, scales).astype("float32")
    numbers = np.clip(np.rint(blocks / safe), -127, 127).astype("i1")
    return b"".join(
        scale.tobytes() + row.tobytes() for scale, row in zip(scales, numbers, strict=True)
    )


def llama_gguf() -> bytes:
    """A language model in a GGUF, with its vocabulary."""
    random = np.random.default_rng(0)
    letters = [chr(number) for number in range(ord("!"), ord("~") + 1)]
    tokens = ["<unk>", "<s>", "</s>", *letters, "Ġ", "ab"]
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": 64,
        "llama.block_count": 1,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.rope.dimension_count": 16,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Typed(5, [3, 3, 3] + [1] * (len(tokens) - 3)),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    shapes = {
        "token_embd.weight": (len(tokens), 32),
        "blk.0.attn_norm.weight": (32,),
        **{f"blk.0.attn_{name}.weight": (32, 32) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.ffn_gate.weight": (64, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
        "output_norm.weight": (32,),
        "output.weight": (len(tokens), 32),
    }
    tensors: dict[str, tuple[str, Sequence[int], bytes | None]] = {}
    for name, shape in shapes.items():
        array = random.standard_normal(shape, dtype="float32")
        packed = len(shape) == 2
        tensors[name] = (
            "Q8_0" if packed else "F32",
            shape,
            _q8_0(array) if packed else array.tobytes(),
        )
    return gguf_file(metadata, tensors)
