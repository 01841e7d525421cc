"""One case of each library and a first fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.harness import Case
from tests.models import picture, save_classifier, save_embedder, save_pipeline


def _classifier(folder: Path) -> Any:
    import transformers

    return transformers.pipeline("text-classification", model=str(folder), device="cpu")


def _embedder(folder: Path) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def _pipeline(folder: Path) -> Any:
    import diffusers

    return diffusers.DiffusionPipeline.from_pretrained(str(folder))


CASES = (
    Case(
        name="bert-text-classification",
        oldest=True,
        kind=Kind.TRANSFORMERS,
        save=save_classifier,
        plain=_classifier,
        call=lambda made: made(["a good b", "bad"]),
    ),
    Case(
        name="transformer-pooling-dense",
        oldest=True,
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=save_embedder,
        plain=_embedder,
        call=lambda made: made.encode(["a good b", "bad"]),
    ),
    Case(
        name="stable-diffusion",
        oldest=True,
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        plain=_pipeline,
        call=picture,
    ),
)
