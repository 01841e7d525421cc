"""The models that are loaded: real classes of the libraries, with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODELS", "Model", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A repository with a model.

    Attributes:
        kind: `pipeline` of diffusers or `embedder` of sentence-transformers.
        save: writes its files into a folder.
    """

    repo_id: str
    kind: str
    save: Callable[[Path], object]


def publish(root: Path, model: Model) -> None:
    """Write a repository below the root of a local Hub, unless it is there."""
    folder = root / "models" / model.repo_id
    if folder.exists():
        return
    writing = root / "writing"
    shutil.rmtree(writing, ignore_errors=True)
    model.save(writing)
    folder.parent.mkdir(parents=True, exist_ok=True)
    writing.rename(folder)


def _save_minilm(folder: Path) -> None:
    from nbloader.localhub.demo import minilm

    minilm.build(folder)


def _save_pipeline(folder: Path) -> None:
    """Write a Stable Diffusion of about 1 GB in float32, most of it the UNet."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = folder.with_name("words")
    _save_words(words)
    unet = UNet2DConditionModel(
        block_out_channels=(192, 384, 576),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=768,
        attention_head_dim=8,
        sample_size=16,
    )
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=8,
        num_attention_heads=12,
        vocab_size=49408,
        projection_dim=768,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(64, 128),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt")),
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    shutil.rmtree(words)


def _save_words(folder: Path) -> None:
    """Write a vocabulary of CLIP's size, so that the tokenizer takes what one takes."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 289)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    pairs = [(a, b) for a in letters for b in letters][: 49408 - len(words) - 2]
    words += [a + b for a, b in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    table = {word: at for at, word in enumerate(dict.fromkeys(words))}
    (folder / "vocab.json").write_text(json.dumps(table))
    merges = "\n".join(f"{a} {b}" for a, b in pairs)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")


def _save_embedder(folder: Path) -> None:
    """Write a BERT of 1 GB in float32 with mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    from nbloader.localhub.demo import minilm

    torch.manual_seed(0)
    minilm.build(folder.with_name("minilm"))
    source = folder.with_name("bert")
    shutil.copytree(folder.with_name("minilm"), source)
    (source / "model.safetensors").unlink()
    BertModel(
        BertConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=17,
            num_attention_heads=16,
            vocab_size=30522,
        )
    ).save_pretrained(source)
    module = Transformer(str(source))
    SentenceTransformer(modules=[module, Pooling(1024)]).save(str(folder))
    shutil.rmtree(source)
    shutil.rmtree(folder.with_name("minilm"))


MODELS = {
    "minilm": Model(
        repo_id="sentence-transformers/all-MiniLM-L6-v2", kind="embedder", save=_save_minilm
    ),
    "pipeline": Model(repo_id="bench/pipeline", kind="pipeline", save=_save_pipeline),
    "embedder": Model(repo_id="bench/embedder", kind="embedder", save=_save_embedder),
}
