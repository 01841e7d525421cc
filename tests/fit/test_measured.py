"""Peaks that were measured on one H200 (141 GB), against what is predicted for it.

With torch 2.11, diffusers 0.42.1 and transformers 5.17, in bfloat16, at the workload of each
family. A GB has 1,000,000,000 bytes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbloader.fit import fit
from nbloader.fit.question import CUDA_BYTES
from nbloader.records import Method, Placement
from tests.fit.machines import TORCH_128, gpu, machine, with_bitsandbytes
from tests.fit.models import MODELS, Model, component_weights

GB = 1_000_000_000

H200 = with_bitsandbytes(
    machine(216 * GB, 210 * GB, gpu("NVIDIA H200", 143_771, 143_000, (9, 0)), torch=TORCH_128)
)


def half_of_flux() -> Model:
    """FLUX.1-dev with 10 and 20 of its blocks: 22.5 GB, of which the transformer has 12.6."""
    flux = named("FLUX.1-dev")
    kept = {"transformer_blocks": 10, "single_transformer_blocks": 20}
    header = {
        name: tensor
        for name, tensor in flux.headers["transformer"].items()
        if (path := name.split("."))[0] not in kept or int(path[1]) < kept[path[0]]
    }
    weights = tuple(
        component_weights("transformer", header) if part.name == "transformer" else part
        for part in flux.weights
    )
    return replace(
        flux, name="half of FLUX.1-dev", weights=weights, headers={"transformer": header}
    )


def named(name: str) -> Model:
    (found,) = [model for model in MODELS if model.name == name]
    return found


def predicted(model: Model, method: Method = Method.GPU) -> Placement:
    found = fit(model.selection, model.weights, H200, dtype="bfloat16", method=method).chosen
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("MiniLM", 0.91),
        ("SD 1.5, fp16", 4.11),
        ("SDXL, fp16", 10.2),
        ("SDXL, fp32", 10.2),
        ("FLUX.1-dev", 37.0),
        ("Qwen3-Embedding-0.6B", 4.24),
        ("Qwen-Image-Edit-2509", 62.9),
        ("Qwen2.5-7B", 16.8),
    ],
)
def test_all_on_the_gpu(name: str, measured: float) -> None:
    assert 1.0 <= predicted(named(name)).vram[0] / GB / measured <= 1.1


def test_half_of_flux_in_4_bits() -> None:
    model = half_of_flux()

    assert sum(part.total for part in model.weights) / GB == pytest.approx(22.5, abs=0.05)
    assert 1.0 <= predicted(model, Method.FOUR_BIT).vram[0] / GB / 12.4 <= 1.1


@pytest.mark.parametrize(
    ("method", "measured"), [(Method.MODEL_OFFLOAD, 13.7), (Method.GROUP_OFFLOAD, 2.6)]
)
def test_half_of_flux_out_of_memory(method: Method, measured: float) -> None:
    """These are of tensors alone: a decode by itself takes 2.55 GB."""
    tensors = predicted(half_of_flux(), method).vram[0] - CUDA_BYTES

    assert 1.0 <= tensors / GB / measured <= 1.1


@pytest.mark.parametrize(
    ("name", "measured"), [("FLUX.1-dev", 2.55), ("SDXL, fp16", 2.55), ("SD 1.5, fp16", 0.64)]
)
def test_a_decode(name: str, measured: float) -> None:
    placed = predicted(named(name))
    decode = placed.vram[0] - sum(part.bytes for part in placed.components) - CUDA_BYTES

    assert 1.0 <= decode / GB / measured <= 1.1
