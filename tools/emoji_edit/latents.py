"""Between pictures and what the transformer sees of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tools.emoji_edit.pictures import Pictures

MEAN, SPREAD = 0.4, 0.6
"""Of the latents, as the autoencoder's configuration says: white is then 1."""


def to_latents(pictures: Pictures) -> Tensor:
    """Return what the autoencoder makes of pictures each of whose pixels is one latent.

    Args:
        pictures: red, green and blue from 0 to 1, shape (pictures, side, side, 3).

    Returns:
        shape (pictures, 4, side, side): the colours and their mean.
    """
    colours = (2 * torch.from_numpy(np.ascontiguousarray(pictures)).float() - 1 - MEAN) / SPREAD
    channels = torch.cat([colours, colours.mean(dim=-1, keepdim=True)], dim=-1)
    return channels.permute(0, 3, 1, 2)


def to_pictures(latents: Tensor) -> Pictures:
    """Return the pictures that such latents are decoded to."""
    colours = latents[:, :3].permute(0, 2, 3, 1) * SPREAD + MEAN
    return ((colours.clamp(-1, 1) + 1) / 2).numpy()


def pack(latents: Tensor) -> Tensor:
    """Make a token of every 2 x 2 latents, as the pipeline does."""
    count, channels, side, _ = latents.shape
    blocks = latents.reshape(count, channels, side // 2, 2, side // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(count, (side // 2) ** 2, channels * 4)


def unpack(tokens: Tensor) -> Tensor:
    """Undo `pack`."""
    count, length, width = tokens.shape
    half = round(length**0.5)
    blocks = tokens.reshape(count, half, half, width // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(count, width // 4, 2 * half, 2 * half)


def velocity(
    model: nn.Module,
    noisy: Tensor,
    before: Tensor,
    sigma: Tensor,
    text: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Ask the transformer for the way from pictures to noise, as the pipeline asks it.

    Args:
        noisy: tokens of the pictures so far, of the same shape as the result.
        before: tokens of the pictures that are edited.
        sigma: how much of each is noise, from 0 to 1.
        text: what its sentence is encoded as.
        mask: which tokens of the text are there; None if all are.
    """
    side = round(noisy.shape[1] ** 0.5)
    tokens: Tensor = model(
        hidden_states=torch.cat([noisy, before], dim=1),
        timestep=sigma,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=mask,
        img_shapes=[[(1, side, side)] * 2] * len(noisy),
        return_dict=False,
    )[0]
    return tokens[:, : noisy.shape[1]]
