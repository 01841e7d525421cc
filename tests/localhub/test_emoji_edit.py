"""The small model that was trained: its edits are measured against what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import nbloader
from nbloader.localhub import LocalHub, demo
from tools.emoji_edit.edits import EDITS, on_white
from tools.emoji_edit.pictures import SIDE, Pictures
from tools.emoji_edit.texts import as_image

STEPS = 4


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("emoji")
    demo.publish(root, [demo.EMOJI_EDIT])
    with LocalHub.start(root) as hub:
        yield nbloader.load(
            demo.EMOJI_EDIT,
            endpoint=hub.endpoint,
            cache_dir=root / "cache",
            device="cpu",
            view="none",
        )


def drawn() -> Pictures:
    """A flag in OpenMoji's manner, which is not one of its own; with opacity."""
    large = Image.new("RGBA", (32 * SIDE, 32 * SIDE))
    draw = ImageDraw.Draw(large)
    draw.rectangle((200, 120, 280, 920), fill="#a57939", outline="black", width=32)
    draw.rectangle((264, 150, 860, 330), fill="#ea5a47", outline="black", width=32)
    draw.rectangle((264, 310, 760, 520), fill="#92d3f5", outline="black", width=32)
    small = large.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32)[None] / np.float32(255)


def edited(pipeline: Any, prompt: str) -> Pictures:
    """Edit the drawing as a person does, and return the colours of its 32 x 32 squares."""
    after = pipeline(
        image=[as_image(on_white(drawn())[0])],
        prompt=prompt,
        true_cfg_scale=1.0,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(0),
    ).images[0]
    assert after.size == (1024, 1024)
    squares = after.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(squares, np.float32)[None] / np.float32(255)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_nearer_to_what_was_asked_for_than_none(pipeline: Any, name: str) -> None:
    edit = EDITS[name]
    wanted = edit.rule(drawn())
    unedited = np.abs(on_white(drawn()) - wanted).mean()
    assert np.abs(edited(pipeline, edit.wordings[0]) - wanted).mean() < unedited


def test_the_autoencoder_gives_back_what_it_was_given(pipeline: Any) -> None:
    image = as_image(on_white(drawn())[0]).resize((1024, 1024), Image.Resampling.NEAREST)
    given = pipeline.image_processor.preprocess(image).unsqueeze(2)
    with torch.no_grad():
        back = pipeline.vae.decode(pipeline.vae.encode(given).latent_dist.mode()).sample
    assert (back - given).abs().max() < 0.01


def test_it_is_small_and_says_whose_pictures_it_has_learnt_from(tmp_path: Path) -> None:
    demo.publish(tmp_path, [demo.EMOJI_EDIT])
    folder = demo.repo_folder(tmp_path, demo.EMOJI_EDIT)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 8_000_000
    readme = (folder / "README.md").read_text("utf-8")
    assert "license: cc-by-sa-4.0" in readme
    assert "https://openmoji.org" in readme
