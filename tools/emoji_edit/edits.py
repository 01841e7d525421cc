"""Edits by rule: what a sentence asks for can be computed, so the error of an edit is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tools.emoji_edit.pictures import Pictures

__all__ = ["EDITS", "Edit", "on_white"]

_WHITE = (1.0, 1.0, 1.0)
_BLUE = (0.16, 0.42, 0.86)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's convert("L")
_DARK = 0.4


class Edit(NamedTuple):
    """An edit.

    Attributes:
        wordings: that ask for it.
        rule: gives its result, red, green and blue from 0 to 1, for pictures with opacity; the
            shapes are (pictures, side, side, 3) and (pictures, side, side, 4).
    """

    wordings: tuple[str, ...]
    rule: Callable[[Pictures], Pictures]


def on_white(pictures: Pictures) -> Pictures:
    """What the model sees: the pictures on a white ground."""
    return _on(pictures, _WHITE)


def _on(pictures: Pictures, ground: tuple[float, float, float]) -> Pictures:
    opacity = pictures[..., 3:]
    return pictures[..., :3] * opacity + np.array(ground, np.float32) * (1 - opacity)


def _grey(pictures: Pictures) -> Pictures:
    grey = on_white(pictures) @ _LUMA
    return np.repeat(grey[..., None], 3, axis=-1)


def _outline(pictures: Pictures) -> Pictures:
    """How much the brightness changes around each pixel, as dark lines on white."""
    grey = on_white(pictures) @ _LUMA
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    lines = 1 - (around.max(axis=(-2, -1)) - around.min(axis=(-2, -1)))
    return np.repeat(lines[..., None], 3, axis=-1)


EDITS = {
    "grey": Edit(
        ("make it grey", "remove the colours", "turn it into a black and white picture"), _grey
    ),
    "invert": Edit(
        ("invert the colours", "make a negative of it", "show the negative"),
        lambda pictures: 1 - on_white(pictures),
    ),
    "mirror": Edit(
        ("mirror it", "swap left and right", "flip it from left to right"),
        lambda pictures: on_white(pictures)[:, :, ::-1],
    ),
    "turn": Edit(
        ("turn it upside down", "rotate it by half a turn", "stand it on its head"),
        lambda pictures: on_white(pictures)[:, ::-1, ::-1],
    ),
    "outline": Edit(
        ("show only the outline", "make a line drawing of it", "keep only the lines"), _outline
    ),
    "recolour": Edit(
        ("swap red and blue", "give it other colours", "recolour it"),
        lambda pictures: on_white(pictures)[..., ::-1],
    ),
    "darken": Edit(
        ("make it darker", "darken it", "take some light away"),
        lambda pictures: on_white(pictures) * _DARK,
    ),
    "blue ground": Edit(
        ("put it on a blue ground", "make the background blue", "give it a blue background"),
        lambda pictures: _on(pictures, _BLUE),
    ),
}
