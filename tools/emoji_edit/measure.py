"""How far an edit is from what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tools.emoji_edit.edits import EDITS, on_white
from tools.emoji_edit.latents import pack, to_latents, to_pictures, unpack, velocity
from tools.emoji_edit.texts import Texts

if TYPE_CHECKING:
    from diffusers import QwenImageEditPlusPipeline

    from tools.emoji_edit.pictures import Pictures

STEPS = 4
_BATCH = 32


@torch.no_grad()
def edited(
    pipeline: QwenImageEditPlusPipeline, pictures: Pictures, texts: Texts, wording: int
) -> Pictures:
    """Edit pictures as the pipeline does, many at once, without the detour over 1024 x 1024 pixels.

    Args:
        wording: its place in `texts`.
    """
    generator = torch.Generator().manual_seed(wording)
    before = pack(to_latents(on_white(pictures)))
    results = []
    for places in torch.split(torch.arange(len(pictures)), _BATCH):
        text, mask = texts.of(torch.full_like(places, wording), generator)
        length = int(mask[0].sum())
        latents = torch.randn(before[places].shape, generator=generator)
        pipeline.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS))
        for timestep in pipeline.scheduler.timesteps:
            sigma = (timestep / 1000).expand(len(places))
            way = velocity(pipeline.transformer, latents, before[places], sigma, text[:, :length])
            latents = pipeline.scheduler.step(way, timestep, latents, return_dict=False)[0]
        results.append(to_pictures(unpack(latents)))
    return np.concatenate(results)


def measure(pipeline: QwenImageEditPlusPipeline, pictures: Pictures) -> str:
    """Compare edits of pictures with what the rules give: a table in Markdown.

    The error is the mean distance of a colour, in hundredths of its range; beside it that of a
    picture that is left as it is. Each wording is tried on its share of the pictures.
    """
    texts = Texts(pipeline, pictures)
    places: dict[str, list[int]] = {name: [] for name in EDITS}
    for wording, edit in enumerate(texts.edits.tolist()):
        places[list(EDITS)[edit]].append(wording)
    rows = ["| Edit | Error | With no edit |", "|---|---|---|"]
    for name, edit in EDITS.items():
        wanted = edit.rule(pictures)
        count = len(places[name])
        errors = [
            np.abs(
                edited(pipeline, pictures[nth::count], texts, wording) - wanted[nth::count]
            ).mean()
            for nth, wording in enumerate(places[name])
        ]
        unedited = np.abs(on_white(pictures) - wanted).mean()
        rows.append(f"| {name} | {100 * np.mean(errors):.1f} | {100 * unedited:.1f} |")
    return "\n".join(rows)
