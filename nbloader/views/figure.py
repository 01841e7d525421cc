"""What the charts share: a figure that shows itself, its colours, and foreign text in it.

Loaded only where a chart is drawn. Nothing here touches pyplot, so that no backend is chosen and
no figure is kept, or shown a second time, by it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from matplotlib import style  # noqa: TID253 - see above
from matplotlib.figure import Figure  # noqa: TID253 - see above
from matplotlib.font_manager import FontProperties, findfont, get_font  # noqa: TID253

from nbloader.text import plain

WIDTH_IN = 9.0
"""At 100 dots an inch, as wide as the page of a README."""

MARGIN_IN = 0.15
DPI = 100

# The palette of Okabe and Ito, which colour-blind people tell apart:
# https://jfly.uni-koeln.de/color/
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"

PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY)

DARK_RED = "#A84300"
"""For text: the palette's red is too pale to be read with ease."""

INK = "#24292F"
FAINT = "#57606A"
GREY = "#D0D7DE"

FONT = "DejaVu Sans"
"""It comes with matplotlib, so what it holds, and how wide that is, is the same everywhere."""

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class ChartFigure(Figure):
    """A figure that a notebook shows, whether or not pyplot was ever imported."""

    def savefig(self, *args: Any, **options: Any) -> None:
        """Write it to a file; on white, whatever style the user has set for his own figures."""
        super().savefig(*args, **{"facecolor": "white", "edgecolor": "white"} | options)

    def _repr_png_(self) -> tuple[bytes, Mapping[str, int]]:
        """Draw it with twice the dots, for screens that have them."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi)
        width, height = (round(self.dpi * inches) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


@contextmanager
def drawn(height: float) -> Iterator[ChartFigure]:
    """Yield a white figure to draw on, so many inches high, with matplotlib's own defaults.

    What the user has set for his own figures would make these ones unreadable: white text, or
    names read as TeX.
    """
    with style.context("default"):
        yield ChartFigure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor="white", edgecolor="white")


def blank_axes(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Add axes at a place in inches from the upper left corner, without frame and ticks."""
    whole_width, whole = figure.get_size_inches()
    bottom = whole - top - height
    axes = figure.add_axes(
        (left / whole_width, bottom / whole, width / whole_width, height / whole)
    )
    axes.set_facecolor("white")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def write_head(figure: Any, title: str, about: str) -> None:
    """Write what the chart is of, and a line about it; both may be foreign."""
    room = WIDTH_IN - 2 * MARGIN_IN
    height = figure.get_size_inches()[1]
    left = MARGIN_IN / WIDTH_IN
    title = fitted(title, 0.85 * room, 11)  # Bold letters are wider than those measured.
    write(figure, left, 1 - 0.27 / height, title, size=11, weight="bold")
    write(figure, left, 1 - 0.46 / height, fitted(about, room, 8.5), size=8.5, color=FAINT)


def label_ticks(axes: Any, which: str, labels: Mapping[float, str]) -> None:
    """Draw an axis with these ticks only, a faint line at each."""
    axis = getattr(axes, f"{which}axis")
    axis.set_ticks(list(labels), labels=list(labels.values()))
    axes.tick_params(axis=which, length=0, labelsize=8, labelcolor=FAINT)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis=which, color=GREY, linewidth=0.6)


def legend(axes: Any, handles: Mapping[str, Any], *, above_in: float) -> None:
    """Say above the axes what the colours stand for, in one row that begins at the left."""
    if not handles:
        return
    height = axes.get_position().height * axes.figure.get_size_inches()[1]
    axes.legend(
        list(handles.values()),
        list(handles),
        loc="lower left",
        bbox_to_anchor=(0, 1 + above_in / height),
        ncols=len(handles),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.6,
        columnspacing=1.6,
        prop=FontProperties(family=FONT, size=8),
        labelcolor=FAINT,
    )


def write(
    owner: Any, x: float, y: float, text: str, *, size: float = 8, color: str = INK, **options: Any
) -> Any:
    """Write text as it is, at a place of a figure or of axes: no `$` in it begins a formula.

    Args:
        text: ours, or foreign and made fit by `fitted`.
    """
    font = FontProperties(family=FONT, size=size, weight=options.pop("weight", "normal"))
    shown = owner.text(x, y, text, color=color, fontproperties=font, **options)
    shown.set_parse_math(False)
    return shown


def fitted(text: str, inches: float, size: float) -> str:
    """Make foreign text fit to be written so many inches wide: on one line, and in the font.

    Args:
        size: of the font, in points.
    """
    font: Any = get_font(findfont(FONT))
    text = plain(text)
    text = "".join(char if font.get_char_index(ord(char)) else _UNKNOWN for char in text)
    if _width(font, text, size) <= inches:
        return text
    low, high = 0, len(text)
    while low < high:  # The longest start that fits.
        middle = (low + high + 1) // 2
        fits = _width(font, f"{text[:middle]}…", size) <= inches
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"{text[:low]}…"


def _width(font: Any, text: str, size: float) -> float:
    font.set_size(size, 72)
    font.set_text(text)
    width: int = font.get_width_height()[0]
    return width / 64 / 72


def nice_step(extent: float, parts: int) -> float:
    """Return a step of 1, 2 or 5 times a power of ten that divides an extent in at most `parts`."""
    power = 10.0 ** math.floor(math.log10(extent / parts))
    # The last one is for a logarithm that was rounded down.
    return next(power * by for by in (1, 2, 5, 10, 20) if power * by * parts >= extent)
