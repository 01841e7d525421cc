"""A small `QwenImageEditPlusPipeline` with random weights, in the shape of the real repository.

Every class, folder and file name is the real one; only the sizes are small, so an edit takes
seconds on a CPU and gives noise. Run as a script it builds in a process of its own, which keeps
torch, and the seeding of its global generator, out of the process that publishes:

    python qwen_image_edit.py FOLDER
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageTransformer2DModel,
    )
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
    )

REPO_ID = "Qwen/Qwen-Image-Edit-2509"

_SEED = 2509
_HIDDEN_SIZE = 512  # of the text encoder, and so the width at which it meets the transformer
_SHARDED = {
    "text_encoder": {"max_shard_size": "16MB"},
    "transformer": {"max_shard_size": "16MB"},
}
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_README = f"""\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: image-to-image
---
# A stand-in for {REPO_ID}

The pipeline class, its components and the names of its files are those of the real repository.
The weights are random and few: an edit takes seconds on a CPU, and its result is noise.
"""
GITATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def build(folder: Path) -> None:
    """Write the repository's files into the new folder `folder`.

    With the same versions of torch, diffusers and transformers the bytes are always the same.
    Seeds torch's global generator.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import Qwen2VLImageProcessor

    torch.manual_seed(_SEED)
    write_repository(
        folder,
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_image_seq_len=256,
            base_shift=0.5,
            max_image_seq_len=8192,
            max_shift=0.9,
            shift_terminal=0.02,
            use_dynamic_shifting=True,
        ),
        vae=_vae(),
        text_encoder=_text_encoder(),
        transformer=_transformer(),
        image_processor=Qwen2VLImageProcessor(),
        readme=_README,
    )


def write_repository(
    folder: Path,
    *,
    scheduler: FlowMatchEulerDiscreteScheduler,
    vae: AutoencoderKLQwenImage,
    text_encoder: Qwen2_5_VLForConditionalGeneration,
    transformer: QwenImageTransformer2DModel,
    image_processor: Qwen2VLImageProcessor,
    readme: str,
    vocab: Mapping[str, int] | None = None,
    merges: Sequence[str] = (),
) -> None:
    """Write a `QwenImageEditPlusPipeline` in bfloat16, in the shape of the real repository.

    Args:
        vocab: see `_write_tokenizer`.
        merges: likewise.
    """
    import torch
    from diffusers import QwenImageEditPlusPipeline
    from transformers import Qwen2Tokenizer, Qwen2VLProcessor, Qwen2VLVideoProcessor

    _write_tokenizer(folder / "tokenizer", vocab, merges)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    pipeline = QwenImageEditPlusPipeline(
        scheduler=scheduler,
        vae=vae.to(torch.bfloat16),
        text_encoder=text_encoder.to(torch.bfloat16),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(
            image_processor, tokenizer, Qwen2VLVideoProcessor(), _CHAT_TEMPLATE
        ),
        transformer=transformer.to(torch.bfloat16),
    )

    # Part by part: `pipeline.save_pretrained` has one shard size for all of them, and writes the
    # tokenizer and the processor in a newer form than that of the real repository.
    pipeline.save_config(folder)
    for name in ("scheduler", "text_encoder", "transformer", "vae"):
        getattr(pipeline, name).save_pretrained(folder / name, **_SHARDED.get(name, {}))
    _write_tokenizer(folder / "processor", vocab, merges)
    tokenizer.backend_tokenizer.save(str(folder / "processor/tokenizer.json"))
    pipeline.processor.image_processor.save_pretrained(folder / "processor")
    pipeline.processor.video_processor.save_pretrained(folder / "processor")
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / ".gitattributes").write_text(GITATTRIBUTES, encoding="utf-8")


def _write_tokenizer(
    folder: Path, vocab: Mapping[str, int] | None = None, merges: Sequence[str] = ()
) -> None:
    """Write the files of a tokenizer in the form of the real repository.

    Args:
        vocab: tokens and their numbers, from 0 on; without it there is one token a byte. The
            special tokens come after them.
        merges: of byte pair encoding.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    if vocab is None:
        vocab = {char: token for token, char in enumerate(sorted(ByteLevel.alphabet()))}
    special_ids = special_token_ids(len(vocab))

    def write(name: str, content: object) -> None:
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")

    folder.mkdir(parents=True)
    special = {
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    write("vocab.json", vocab)
    lines = ["#version: 0.2", *merges, ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    write("added_tokens.json", special_ids)
    write("special_tokens_map.json", special)
    write(
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token): {
                    "content": text,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for text, token in special_ids.items()
            },
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 131_072,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
            **special,
        },
    )
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")


def special_token_ids(vocab_size: int) -> dict[str, int]:
    """Number the special tokens, after those of a vocabulary."""
    return {text: vocab_size + place for place, text in enumerate(SPECIAL_TOKENS)}


def _text_encoder() -> Qwen2_5_VLForConditionalGeneration:
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = text_encoder_config(
        special_token_ids(256),
        _HIDDEN_SIZE,
        text={
            "vocab_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128_000,
        },
        mrope_section=[8, 12, 12],
        vision={
            "depth": 2,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "fullatt_block_indexes": [1],
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def text_encoder_config(
    special_ids: Mapping[str, int],
    width: int,
    *,
    text: Mapping[str, object],
    mrope_section: Sequence[int],
    vision: Mapping[str, object],
    **options: object,
) -> Qwen2_5_VLConfig:
    """Return the configuration of a text encoder as the real one is, in other sizes.

    Args:
        special_ids: of `special_token_ids`.
        width: at which it meets the transformer.
        text: sizes of the language model.
        mrope_section: halves of one of its heads for time, height and width.
        vision: sizes of what sees pictures.
        options: further ones of the configuration.
    """
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "hidden_size": width,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": mrope_section,
            },
            "bos_token_id": special_ids["<|endoftext|>"],
            "eos_token_id": special_ids["<|im_end|>"],
        },
        vision_config={**vision, "out_hidden_size": width, "tokens_per_second": 2},
        image_token_id=special_ids["<|image_pad|>"],
        video_token_id=special_ids["<|video_pad|>"],
        vision_start_token_id=special_ids["<|vision_start|>"],
        vision_end_token_id=special_ids["<|vision_end|>"],
        **options,
    )


def _transformer() -> QwenImageTransformer2DModel:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=3,
        attention_head_dim=64,
        num_attention_heads=8,
        joint_attention_dim=_HIDDEN_SIZE,
        axes_dims_rope=(8, 28, 28),
    )


def _vae() -> AutoencoderKLQwenImage:
    from diffusers import AutoencoderKLQwenImage

    # The defaults are the real ones, the mean and spread of the latents among them. The pipeline
    # scales every input to about 1024 x 1024 pixels; a fourth halving, one more than the real
    # model has, leaves the transformer a quarter of the tokens.
    return AutoencoderKLQwenImage(
        base_dim=8,
        dim_mult=[1, 2, 4, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, False, True, True],
    )


if __name__ == "__main__":
    gc.disable()  # a short process, whose imports the collector slows down by a fifth
    build(Path(sys.argv[1]))
