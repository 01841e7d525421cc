"""What the transformer sees of the sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from tools.emoji_edit.edits import EDITS, on_white

if TYPE_CHECKING:
    from diffusers import QwenImageEditPlusPipeline
    from torch import Tensor

    from tools.emoji_edit.pictures import Pictures

VARIANTS = 96
_BATCH = 128
_PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"


def as_image(picture: Pictures) -> Image.Image:
    """Make an image of one picture, shape (side, side, 3)."""
    return Image.fromarray((picture * 255).round().astype(np.uint8))


class Texts:
    """Each wording of each edit together with some pictures, as the pipeline encodes them.

    What the text encoder sees of a picture says nothing about the edit, so a wording may be learnt
    with another picture than the one that is edited.

    Args:
        pictures: with opacity, shape (pictures, side, side, 4); `VARIANTS` of them are used.

    Attributes:
        edits: the edit that each wording asks for, by its place.
    """

    def __init__(self, pipeline: QwenImageEditPlusPipeline, pictures: Pictures) -> None:
        wordings = [
            (place, wording)
            for place, edit in enumerate(EDITS.values())
            for wording in edit.wordings
        ]
        self.edits = torch.tensor([place for place, _ in wordings])
        images = [
            pipeline.image_processor.resize(as_image(picture), 384, 384)
            for picture in on_white(pictures[:: max(1, len(pictures) // VARIANTS)])
        ]
        seen = pipeline.processor.image_processor(images, return_tensors="pt")
        patches = seen["pixel_values"].reshape(len(images), -1, seen["pixel_values"].shape[-1])
        encoded = [
            self._encode(pipeline, wording, images[0], patches, seen["image_grid_thw"])
            for _, wording in wordings
        ]
        lengths = [each.shape[1] for each in encoded]
        self._texts = torch.zeros(
            len(wordings), len(images), max(lengths), encoded[0].shape[2], dtype=torch.float16
        )
        self._masks = torch.zeros(len(wordings), max(lengths), dtype=torch.bool)
        for place, (each, length) in enumerate(zip(encoded, lengths, strict=True)):
            self._texts[place, :, :length] = each
            self._masks[place, :length] = True

    @staticmethod
    @torch.no_grad()
    def _encode(
        pipeline: QwenImageEditPlusPipeline,
        wording: str,
        image: Image.Image,
        patches: Tensor,
        grids: Tensor,
    ) -> Tensor:
        text = pipeline.prompt_template_encode.format(_PICTURE + wording)
        ids = pipeline.processor(text=[text], images=[image], return_tensors="pt")["input_ids"]
        parts = []
        for some, grid in zip(
            torch.split(patches, _BATCH), torch.split(grids, _BATCH), strict=True
        ):
            rows = ids.expand(len(some), -1)
            hidden = pipeline.text_encoder(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                pixel_values=some.flatten(0, 1),
                image_grid_thw=grid,
                output_hidden_states=True,
            ).hidden_states[-1]
            parts.append(hidden[:, pipeline.prompt_template_encode_start_idx :].half())
        return torch.cat(parts)

    def of(self, wordings: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return some wordings, by their places, each with any picture, and their masks."""
        pictures = torch.randint(self._texts.shape[1], wordings.shape, generator=generator)
        return self._texts[wordings, pictures].float(), self._masks[wordings]
