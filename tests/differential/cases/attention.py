"""Ways to compute attention that are asked for: for each library, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from nbloader.records import Kind
from tests.differential.cases.transformers_models import save
from tests.differential.harness import Case
from tests.differential.pipeline_parts import parts_of
from tests.models import save_classifier, save_embedder, save_pipeline

_EAGER = {"attn_implementation": "eager"}


def _classifier(folder: Path) -> Any:
    import transformers

    return transformers.pipeline(
        "text-classification", model=str(folder), device="cpu", model_kwargs=dict(_EAGER)
    )


def _embedder(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs=dict(_EAGER))


def _class(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        str(folder), dtype=torch.float32, **_EAGER
    )


def _used(model: Any) -> Any:
    """What the modules of a model compute with."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return sorted({str(getattr(config, "_attn_implementation", None)) for config in configs})


def _save_flux(folder: Path) -> None:
    import diffusers

    diffusers.FluxPipeline(**parts_of(diffusers.FluxPipeline)).save_pretrained(folder)


def _flux(folder: Path) -> Any:
    import diffusers
    import torch
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.transformer.set_attention_backend("_native_math")
    _AttentionBackendRegistry.set_active_backend("native")  # the library sets it for all models
    return pipeline


def _backends(pipeline: Any) -> Any:
    """What the processors of a pipeline's transformer were told."""
    processors = pipeline.transformer.attn_processors
    return {name: str(each._attention_backend) for name, each in processors.items()}


CASES = (
    Case(
        name="attention-of-a-task",
        kind=Kind.TRANSFORMERS,
        save=save_classifier,
        plain=_classifier,
        call=lambda pipe: [_used(pipe.model), pipe("a good b")],
        arguments={"attention": "eager"},
        group="attention=",
    ),
    Case(
        name="attention-by-the-librarys-name",
        kind=Kind.TRANSFORMERS,
        save=save_classifier,
        plain=_classifier,
        call=lambda pipe: [_used(pipe.model), pipe("a good b")],
        arguments={"loader_kwargs": {"model_kwargs": _EAGER}},
        group="attention=",
    ),
    Case(
        name="attention-of-an-embedder",
        kind=Kind.SENTENCE_TRANSFORMERS,
        save=save_embedder,
        plain=_embedder,
        call=lambda model: [_used(model), model.encode("a good b")],
        arguments={"attention": "eager"},
        group="attention=",
    ),
    Case(
        name="attention-of-a-class",
        kind=Kind.CLASSES,
        save=save_classifier,
        plain=_class,
        call=_used,
        arguments={"cls": "AutoModelForSequenceClassification", "attention": "eager"},
        group="attention=",
    ),
    Case(
        name="attention-of-a-denoiser",
        kind=Kind.DIFFUSERS,
        save=_save_flux,
        plain=_flux,
        call=_backends,
        arguments={"attention": "_native_math"},
        group="attention=",
    ),
    Case(
        name="attention-without-a-gpu",
        kind=Kind.DIFFUSERS,
        save=_save_flux,
        arguments={"attention": "flash_attention_2"},
        refused="does-not-fit",
    ),
    Case(
        name="attention-of-a-unet",
        kind=Kind.DIFFUSERS,
        save=save_pipeline,
        arguments={"attention": "flex_attention"},
        refused="unsupported-class",
    ),
    Case(
        name="attention-that-the-class-has-not",
        kind=Kind.TRANSFORMERS,
        save=partial(save, "DebertaV2Model", {}, "text"),
        arguments={"attention": "sdpa"},
        refused="unsupported-class",
    ),
    Case(
        name="attention-of-the-other-library",
        kind=Kind.TRANSFORMERS,
        save=save_classifier,
        arguments={"attention": "sage"},
        refused="invalid-argument",
    ),
)
