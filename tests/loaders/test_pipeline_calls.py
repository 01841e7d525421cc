"""The parts of a pipeline are called once, and left as they were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nbloader.loaders.self_test.diffusers import check_pipeline
from nbloader.records import Method, Placement
from tests.differential.pipeline_parts import make

CPU = Placement(method=Method.CPU, device="cpu", dtype="float32")


def pipeline_of(**parts: Any) -> Any:
    return SimpleNamespace(components=parts, **parts)


def test_what_gives_no_numbers_or_cannot_be_called_is_told_and_not_refused() -> None:
    import torch

    text, vae = make("CLIPTextModel"), make("AutoencoderKL")
    pipeline = pipeline_of(text_encoder=text, vae=vae, tokenizer=None)
    state = torch.random.get_rng_state()
    before = [dict(vars(module)) for module in (*text.modules(), *vae.modules())]
    assert check_pipeline(pipeline, CPU) == []
    assert [dict(vars(module)) for module in (*text.modules(), *vae.modules())] == before
    assert torch.equal(torch.random.get_rng_state(), state)

    with torch.no_grad():
        text.final_layer_norm.weight.fill_(float("nan"))
    vae.decoder.conv_in = torch.nn.Conv2d(1, 1, 1)
    told = [notice.message for notice in check_pipeline(pipeline, CPU)]
    assert told[0] == "text_encoder gives numbers that are not finite, on a small input of ours"
    assert told[1].startswith("vae could not be called: RuntimeError")
    assert check_pipeline(pipeline, None) == []
