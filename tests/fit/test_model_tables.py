"""The models that placements are tested with are the real ones."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import pytest

from benchmarks.architectures import ARCHITECTURES, Architecture
from nbloader.records import ComponentWeights
from tests.fit.make_models import describe
from tests.fit.models import MODELS, Model, component_weights, expand, read

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_size_is_the_published_one(model: Model) -> None:
    total = sum(part.total for part in model.weights)

    assert total == pytest.approx(model.published, rel=0.005)


def test_known_counts_of_parameters() -> None:
    # As the cards of the models give them, in billions.
    known = {
        ("Qwen-Image-Edit-2509", "transformer"): 20.43,
        ("Qwen-Image-Edit-2509", "text_encoder"): 8.29,
        ("FLUX.1-dev", "transformer"): 11.90,
        ("FLUX.1-dev", "text_encoder_2"): 4.76,
        ("SDXL, fp16", "unet"): 2.57,
        ("SD 1.5, fp16", "unet"): 0.86,
        ("Qwen2.5-7B", "model"): 7.62,
        ("Qwen3-Embedding-0.6B", "model"): 0.596,
        ("multilingual MiniLM", "model"): 0.118,
        ("MiniLM", "model"): 0.0227,
    }
    counted = {
        (model.name, name): sum(prod(shape) for kind, shape in header.values() if kind != "I64")
        for model in MODELS
        for name, header in model.headers.items()
    }

    assert {key: counted[key] / 1e9 for key in known} == pytest.approx(known, rel=0.005)


@pytest.mark.parametrize(
    "architecture", ARCHITECTURES, ids=lambda architecture: architecture.repo_id
)
def test_tensors_are_those_of_the_classes(architecture: Architecture) -> None:
    kept, true = read(architecture.repo_id), describe(architecture)

    # The names may differ between versions of the libraries, the shapes may not.
    assert _shapes(kept) == _shapes(true)


def _shapes(described: Mapping[str, object]) -> dict[str, list[tuple[int, ...]]]:
    components = described["components"]
    assert isinstance(components, list)
    return {
        part["name"]: sorted(shape for _, shape in expand(part["tensors"])) for part in components
    }


def test_blocks_and_largest_tensors() -> None:
    header = {
        "embed.weight": ("BF16", (100, 8)),
        "blocks.0.attn.weight": ("BF16", (8, 8)),
        "blocks.0.inner.3.weight": ("F32", (8, 8)),
        "blocks.1.attn.weight": ("BF16", (8, 8)),
        "ids": ("I64", (1, 16)),
    }

    assert component_weights("model", header) == ComponentWeights(
        name="model",
        bytes_by_dtype={"BF16": 1600 + 128 + 128, "F32": 256, "I64": 128},
        largest_tensor=1600,
        largest_block=128 + 256,
    )
