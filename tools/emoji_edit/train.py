"""Trains the transformer, and writes the repository.

    python -m tools.emoji_edit.train FOLDER

The loss is that of a rectified flow: the velocity from the picture to noise. What is asked for has
one answer, so the noisier end is drawn more often: there the model has to tell the answer from the
picture and the sentence alone.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from torch import Tensor, nn

from tools.emoji_edit import parts
from tools.emoji_edit.edits import EDITS, on_white
from tools.emoji_edit.latents import pack, to_latents, velocity
from tools.emoji_edit.measure import measure
from tools.emoji_edit.pictures import SIDE, Pictures, split
from tools.emoji_edit.texts import Texts

SEED = 32


class Phase(NamedTuple):
    """A part of the training.

    Attributes:
        side: of the pictures, in pixels. Where things go when a picture is mirrored or turned is
            learnt from small ones, in a fifth of the time, and kept.
        batch: pictures a step.
        rate: the highest learning rate; it rises over a hundred steps, and falls to the end.
    """

    side: int
    batch: int
    steps: int
    rate: float


PHASES = (Phase(8, 64, 1500, 2e-3), Phase(16, 48, 700, 2e-3), Phase(32, 24, 350, 1.5e-3))


def smaller(pictures: Pictures, side: int) -> Pictures:
    """Take means, of colours that are weighed by their opacity."""
    factor = SIDE // side
    count = len(pictures)
    blocks = pictures.reshape(count, side, factor, side, factor, 4)
    opacity = blocks[..., 3:].mean(axis=(2, 4))
    colours = (blocks[..., :3] * blocks[..., 3:]).mean(axis=(2, 4)) / np.maximum(opacity, 1e-6)
    return np.concatenate([colours, opacity], axis=-1)


class Task(NamedTuple):
    """All that a phase learns from.

    Attributes:
        before: latents of the pictures, shape (pictures, tokens, 16).
        after: latents by edit, shape (edits, pictures, tokens, 16).
    """

    before: Tensor
    after: Tensor


def task(pictures: Pictures, side: int) -> Task:
    small = smaller(pictures, side)
    return Task(
        pack(to_latents(on_white(small))),
        torch.stack([pack(to_latents(edit.rule(small))) for edit in EDITS.values()]),
    )


def loss_of(
    model: nn.Module,
    before: Tensor,
    after: Tensor,
    text: Tensor,
    mask: Tensor,
    generator: torch.Generator,
) -> Tensor:
    noise = torch.randn(after.shape, generator=generator)
    sigma = torch.rand(len(after), generator=generator).sqrt()
    weight = sigma[:, None, None]
    noisy = (1 - weight) * after + weight * noise
    predicted = velocity(model, noisy, before, sigma, text, mask)
    return nn.functional.mse_loss(predicted, noise - after)


def train(
    model: nn.Module, pictures: Pictures, texts: Texts, phases: tuple[Phase, ...]
) -> nn.Module:
    """Train, and return the mean of the weights of the last steps."""
    generator = torch.Generator().manual_seed(SEED)
    average = copy.deepcopy(model)
    began_at = time.monotonic()
    for phase in phases:
        data = task(pictures, phase.side)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        total, since = 0.0, 0
        for step in range(phase.steps):
            rate = (
                phase.rate
                * min(1, (step + 1) / 100)
                * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / phase.steps)))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            which = torch.randint(len(pictures), (phase.batch,), generator=generator)
            wording = torch.randint(len(texts.edits), (phase.batch,), generator=generator)
            text, mask = texts.of(wording, generator)
            loss = loss_of(
                model,
                data.before[which],
                data.after[texts.edits[wording], which],
                text,
                mask,
                generator,
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total, since = total + loss.item(), since + 1
            keep = min(0.998, (step + 1) / (step + 10))
            with torch.no_grad():
                for old, new in zip(average.parameters(), model.parameters(), strict=True):
                    old.lerp_(new, 1 - keep)
            if (step + 1) % 100 == 0:
                print(
                    f"{phase.side} pixels, step {step + 1}: loss {total / since:.4f}, "
                    f"{time.monotonic() - began_at:.0f} s",
                    flush=True,
                )
                total, since = 0.0, 0
    return average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the repository, which it is to be alone in")
    folder = parser.parse_args().folder
    pictures = split()
    print(f"{len(pictures.train)} pictures to learn from, {len(pictures.test)} for the test")
    torch.manual_seed(SEED)
    with TemporaryDirectory() as temporary:
        before = Path(temporary) / "before"
        parts.write(before, parts.transformer())
        # Its text encoder computes in bfloat16, as on a GPU.
        pipeline = QwenImageEditPlusPipeline.from_pretrained(before)
        texts = Texts(pipeline, pictures.train)
    trained = train(pipeline.transformer, pictures.train, texts, PHASES)
    parts.write(folder, trained)
    written = QwenImageEditPlusPipeline.from_pretrained(folder, dtype=torch.float32)
    print(measure(written, pictures.test))


if __name__ == "__main__":
    main()
