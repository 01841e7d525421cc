"""A picture to edit, drawn instead of shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["example_image"]


def example_image(size: tuple[int, int] = (256, 256)) -> Image.Image:
    """Draw a house under a sun: the same pixels for the same size.

    Args:
        size: width and height in pixels.
    """
    from PIL import Image, ImageDraw

    width, height = size

    def at(*points: tuple[float, float]) -> list[tuple[int, int]]:
        return [(round(x * (width - 1)), round(y * (height - 1))) for x, y in points]

    image = Image.new("RGB", size, "skyblue")
    draw = ImageDraw.Draw(image)
    draw.ellipse(at((0.68, 0.08), (0.88, 0.28)), fill="gold")
    draw.rectangle(at((0, 0.75), (1, 1)), fill="yellowgreen")
    draw.rectangle(at((0.25, 0.45), (0.7, 0.82)), fill="linen")
    draw.polygon(at((0.2, 0.45), (0.475, 0.2), (0.75, 0.45)), fill="firebrick")
    draw.rectangle(at((0.33, 0.6), (0.45, 0.82)), fill="saddlebrown")
    draw.rectangle(at((0.53, 0.55), (0.64, 0.68)), fill="steelblue")
    return image
