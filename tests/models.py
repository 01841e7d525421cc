"""Tiny models with random weights, saved as their libraries save them, and their selections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from nbloader import loaders
from nbloader.records import (
    ComponentWeights,
    Listing,
    Placement,
    RepoFile,
    Selection,
    SelectionRequest,
)
from nbloader.selection import needed, select
from nbloader.selection.sizes import (
    FIRST_READ_BYTES,
    Header,
    component_weights,
    header_end,
    header_reads,
    parse_header,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "good", "bad"]


def selection_of(folder: Path) -> Selection:
    """The selection of a folder as if it were a repository."""
    return selected(folder)[0]


def selected(folder: Path) -> tuple[Selection, tuple[ComponentWeights, ...]]:
    """The selection of a folder as if it were a repository, and what its weights take."""
    listing = Listing(
        repo_id="org/name",
        revision="main",
        commit_hash="0" * 40,
        files=tuple(
            RepoFile(
                path=path.relative_to(folder).as_posix(), size=path.stat().st_size, etag="0" * 40
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ),
    )
    known: dict[str, bytes] = {}
    while wanted := needed(listing, SelectionRequest(), known).reads:
        known |= {path: (folder / path).read_bytes() for path in wanted}
    selection = select(listing, SelectionRequest(), known)
    files = {file.path: file for file in selection.files}
    headers: dict[str, Header | None] = {}
    while wanted := header_reads(selection, known, headers):
        for path in wanted:
            with (folder / path).open("rb") as file:
                start = file.read(FIRST_READ_BYTES)
                rest = header_end(start, files[path]) - len(start)
                headers[path] = parse_header(start + file.read(max(0, rest)), files[path])
    return selection, component_weights(selection, known, headers)


def built(
    selection: Selection, folder: Path, placement: Placement, loader_kwargs: Mapping[str, Any]
) -> Any:
    """The model of a selection, built of its folder to the end."""
    with closing(loaders.Building(selection, folder, placement, loader_kwargs)) as building:
        while building.step():
            pass
        return building.model()


def seeded(make: Callable[[], Any]) -> Any:
    """Make a model with the same random numbers each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def save_pipeline(folder: Path) -> None:
    """Write a Stable Diffusion of some 100 thousand parameters."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    text = CLIPTextConfig(
        vocab_size=4,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    pipeline = seeded(
        lambda: StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=[4, 8],
                down_block_types=["DownEncoderBlock2D"] * 2,
                up_block_types=["UpDecoderBlock2D"] * 2,
                norm_num_groups=2,
            ),
            text_encoder=CLIPTextModel(text),
            tokenizer=CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77),
            unet=UNet2DConditionModel(
                block_out_channels=(8, 16),
                layers_per_block=1,
                sample_size=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=64,
                norm_num_groups=2,
                attention_head_dim=2,
            ),
            scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )
    pipeline.save_pretrained(folder)


def picture(pipeline: Any) -> Any:
    """Run one step of such a pipeline, from noise that is the same on every device."""
    import torch

    # Pipelines take latents as they are, and move them only.
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    latents = noise.to(pipeline.unet.dtype)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        "a",
        height=16,
        width=16,
        num_inference_steps=1,
        guidance_scale=1.0,
        latents=latents,
        output_type="np",
    )
    return made.images[0]


def save_classifier(folder: Path, **config_of: int) -> None:
    """Write a text classifier of some 20 thousand parameters with its tokenizer.

    Args:
        config_of: what is to be other than in this small one.
    """
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    small = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_labels": 32,  # bitsandbytes computes in 4-bit on a CPU with multiples of 32
    }
    config = BertConfig(**{**small, **config_of})
    seeded(lambda: BertForSequenceClassification(config)).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)


def save_embedder(folder: Path) -> None:
    """Write an embedding model whose last module, a Dense layer, is no model of transformers."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    try:
        from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    except ModuleNotFoundError:  # as they were called before
        from sentence_transformers.models import Dense, Pooling, Transformer

    inner = folder.with_name(f"{folder.name}-transformer")
    inner.mkdir(parents=True)
    (inner / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    seeded(lambda: BertModel(config)).save_pretrained(inner)
    BertTokenizerFast(vocab=str(inner / "vocab.txt")).save_pretrained(inner)
    transformer = Transformer(str(inner))
    model = seeded(
        lambda: SentenceTransformer(
            modules=[transformer, Pooling(64), Dense(in_features=64, out_features=64)],
            device="cpu",
        )
    )
    model.save(str(folder))
