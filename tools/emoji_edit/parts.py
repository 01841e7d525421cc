"""The parts of the pipeline: the classes of Qwen-Image-Edit-2509, small.

Only the transformer is trained. The text encoder has random weights, which is enough to tell words
apart. The weights of the autoencoder follow from what it has to do: a latent is the mean colour of
32 x 32 pixels, so that a picture of 1024 x 1024 has 32 x 32 of them, and is drawn in such squares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nbloader.localhub.demo.qwen_image_edit import (
    SPECIAL_TOKENS,
    special_token_ids,
    text_encoder_config,
    write_repository,
)
from tools.emoji_edit.edits import EDITS
from tools.emoji_edit.latents import MEAN, SPREAD

if TYPE_CHECKING:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from torch import Tensor
    from transformers import Qwen2_5_VLForConditionalGeneration

_SEED = 64
_TEXT_WIDTH = 64
_SEEN = 56 * 56  # pixels of a picture that the text encoder sees
_BIG = 64.0
"""A constant channel that is much larger than the colours, from -1 to 1: what a norm divides by is
then as good as constant."""

_README = """\
---
license: cc-by-sa-4.0
library_name: diffusers
pipeline_tag: image-to-image
---
# A small model that edits emoji

A `QwenImageEditPlusPipeline`, as Qwen/Qwen-Image-Edit-2509 is one, with a transformer of 1.4
million weights. It was trained on the emoji of [OpenMoji](https://openmoji.org), the work of its
contributors under [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/), at 32 x 32
pixels. It knows eight edits, each in three wordings. tools/emoji_edit of nbloader's repository
trains it.
"""


def autoencoder() -> AutoencoderKLQwenImage:
    """Set the weights of an autoencoder that takes means; silu(x) - silu(-x) is x."""
    import torch
    from diffusers import AutoencoderKLQwenImage

    # The fourth channel is brightness: three channels would be taken for a picture.
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1] * 6,
        num_res_blocks=0,
        temperal_downsample=[False] * 5,
        latents_mean=[MEAN] * 4,
        latents_std=[SPREAD] * 4,
    )
    state = vae.state_dict()
    for name, tensor in state.items():
        if not name.endswith("gamma"):
            tensor.zero_()
    gain = _BIG / 8**0.5  # undoes the norm

    # Eight channels within encoder and decoder: each colour with both signs, the constant one, and
    # one that is empty.
    for side in ("encoder", "decoder"):
        _split(state[f"{side}.conv_in.weight"][:, :, 2, 1, 1])
        state[f"{side}.conv_in.bias"][6] = _BIG
        _join(state[f"{side}.conv_out.weight"][:, :, 2, 1, 1], gain)
    brightness = state["encoder.conv_out.weight"][:, :, 2, 1, 1]
    brightness[3] = brightness[:3].mean(dim=0)
    state["quant_conv.weight"][:, :, 0, 0, 0] = torch.eye(8)
    state["quant_conv.bias"][4:] = -30  # the logarithm of the variance
    state["post_quant_conv.weight"][:, :, 0, 0, 0] = torch.eye(4)

    for name, tensor in state.items():
        if "encoder.down_blocks" in name and name.endswith("resample.1.weight"):
            for channel in range(8):
                tensor[channel, channel, :2, :2] = 1 / 4
        elif "decoder.up_blocks" in name and name.endswith("resample.1.weight"):
            # Between the blocks of the decoder are four: the colours and the constant one.
            _join(tensor[:, :, 1, 1], 1 / 2)
            tensor[3, 6, 1, 1] = 1
        elif "decoder.up_blocks" in name and name.endswith("conv_shortcut.weight"):
            _split(tensor[:, :, 0, 0, 0])
            tensor[6, 3, 0, 0, 0] = 1
    vae.load_state_dict(state)
    return vae.eval()


def _split(weight: Tensor) -> None:
    """Let a layer give each colour twice, with both signs; its weight has (outputs, inputs)."""
    for colour in range(3):
        weight[2 * colour, colour], weight[2 * colour + 1, colour] = 1, -1


def _join(weight: Tensor, gain: float) -> None:
    """Let a layer make a colour again of the two."""
    for colour in range(3):
        weight[colour, 2 * colour], weight[colour, 2 * colour + 1] = gain, -gain


def vocabulary(template: str) -> tuple[dict[str, int], list[str]]:
    """Tokens and merges with which each word of a template and of the edits is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    for special in SPECIAL_TOKENS:
        template = template.replace(special, "\n")
    sentences = [wording for edit in EDITS.values() for wording in edit.wordings]
    texts = [template, "Picture 1: ", *sentences, *(f" {sentence}" for sentence in sentences)]
    tokenizer = Tokenizer(models.BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Qwen2Tokenizer(vocab={char: token for token, char in enumerate(alphabet)}, merges=[])
    tokenizer.pre_tokenizer = plain.backend_tokenizer.pre_tokenizer
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=4096, min_frequency=1, initial_alphabet=alphabet, show_progress=False
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return model["vocab"], merges


def text_encoder(vocab_size: int) -> Qwen2_5_VLForConditionalGeneration:
    """Draw a text encoder, which is always the same."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    special_ids = special_token_ids(vocab_size)
    config = text_encoder_config(
        special_ids,
        _TEXT_WIDTH,
        text={
            "vocab_size": vocab_size + len(special_ids),
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
        },
        mrope_section=[4, 6, 6],
        vision={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "fullatt_block_indexes": [0],
        },
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        return Qwen2_5_VLForConditionalGeneration(config).eval()


def transformer() -> QwenImageTransformer2DModel:
    """Draw a transformer by torch's global generator; its blocks begin as the identity."""
    from diffusers import QwenImageTransformer2DModel
    from torch import nn

    model = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=_TEXT_WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    modulations = [
        layer
        for block in model.transformer_blocks
        for layer in (block.img_mod[1], block.txt_mod[1])
    ]
    for layer in (*modulations, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def write(folder: Path, transformer: QwenImageTransformer2DModel) -> None:
    """Write the repository."""
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
    from transformers import Qwen2VLImageProcessor

    template = QwenImageEditPlusPipeline(*[None] * 6).prompt_template_encode
    vocab, merges = vocabulary(template)
    write_repository(
        folder,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(),
        text_encoder=text_encoder(len(vocab)),
        transformer=transformer,
        # Four tokens a picture: what is asked for stands in the sentence.
        image_processor=Qwen2VLImageProcessor(min_pixels=_SEEN, max_pixels=_SEEN),
        readme=_README,
        vocab=vocab,
        merges=merges,
    )
    # It is written where the repository is published: here git would heed it.
    (folder / ".gitattributes").unlink()
