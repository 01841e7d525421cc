"""What a model takes against what the machine has free, as a chart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbloader.records import ComponentWeights, DiskFacts, Fit, MachineFacts, Placement, Selection
from nbloader.text import format_bytes
from nbloader.views.chart import need_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_fit"]

MAX_GPUS = 8

_OTHER = "#57606A"
_ROOM, _THERE = "#EAEEF2", "#AFB8C1"
_HATCH = "/////"
_UNSEEN = 0.002
"""Less than this share of the chart's width is less than a dot."""

_FAR = 2.5
"""What is free beyond so many times the largest need does not stretch the axis."""

_BROKEN = "free, more than is drawn"
_BREAK_AT, _BREAK_WIDTH = 0.975, 0.025
"""Of the axis: behind all that is needed, which ends before."""

# Inches.
_LEFT, _RIGHT = 1.75, 2.55
_HEAD, _ROW, _AXIS, _LEGEND_ROW, _FOOT = 0.68, 0.42, 0.42, 0.22, 0.12
_COLUMNS = 3
_TEXT = 8.0
"""Points."""

_ROOM_HEIGHT, _PART_HEIGHT = 0.78, 0.42
"""Of a row."""

_MIDDLE = "center_baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A place for bytes: what goes there, and what is free.

    Attributes:
        where: may be foreign.
        parts: (name, bytes) of the components that rest there.
        more: bytes that the peak has beside them: results between layers, copies while loading.
        free: bytes; None if that is not known.
        word: what `free` is called there.
        there: bytes of `parts` that are there already, and so need no free ones.
    """

    where: str
    parts: tuple[tuple[str, int], ...]
    more: int = 0
    free: int | None
    word: str = "free"
    there: int = 0

    @property
    def end(self) -> int:
        """How long the bar of all this is."""
        return sum(size for _, size in self.parts) + self.more

    @property
    def needed(self) -> int:
        """Bytes that have to be free."""
        return max(0, self.end - self.there)

    @property
    def limit(self) -> int | None:
        """How long that bar may be."""
        return None if self.free is None else self.free + self.there

    @property
    def lacking(self) -> int:
        """Bytes that have to be free, and are not."""
        return 0 if self.free is None else max(0, self.needed - self.free)

    def __str__(self) -> str:
        if self.free is None:
            return format_bytes(self.needed)
        figures = f"{format_bytes(self.needed)} of {format_bytes(self.free)}"
        if self.lacking:
            return f"{figures}, lacks {format_bytes(self.lacking)}"
        cached = f", {format_bytes(self.there)} cached" if self.there else ""
        return f"{figures} {self.word}{cached}"


def needs(
    *,
    selection: Selection | None,
    fit: Fit | None,
    machine: MachineFacts | None,
    disk: DiskFacts | None,
    missing_bytes: int,
) -> list[Need]:
    """Return the places that a model goes to: each GPU, the memory, the disk.

    It goes where the chosen placement puts it; where none fits, where the nearest would.
    """
    found: list[Need] = []
    if machine is not None:
        placement = _placement(fit)
        found += _on_gpus(placement, machine)
        found.append(_in_memory(placement, machine))
    if disk is not None:
        found.append(_on_disk(selection, disk, missing_bytes))
    return found


def _placement(fit: Fit | None) -> Placement | None:
    return (fit.chosen or fit.nearest) if fit is not None else None


def _on_gpus(placement: Placement | None, machine: MachineFacts) -> Iterator[Need]:
    for number, gpu in enumerate(machine.gpus[:MAX_GPUS]):
        names = {"cuda", "cuda:0"} if number == 0 else {f"cuda:{number}"}
        parts = _resting(placement, names)
        peak = placement.vram[number] if placement and number < len(placement.vram) else 0
        where = f"{number}: {gpu.name}" if len(machine.gpus) > 1 else gpu.name
        yield Need(where=where, parts=parts, more=_more(peak, parts), free=gpu.free)


def _in_memory(placement: Placement | None, machine: MachineFacts) -> Need:
    peak = 0
    if placement is not None:
        peak = placement.ram_peak + placement.mapped
        if any(gpu.unified for gpu in machine.gpus):
            peak += sum(placement.vram)  # One memory for both.
    parts = _resting(placement, {"cpu", "mps"})
    memory = machine.memory
    return Need(
        where="RAM",
        parts=parts,
        more=_more(peak, parts),
        free=memory.available if memory.total else None,
        word="available",
    )


def _resting(placement: Placement | None, devices: set[str]) -> tuple[tuple[str, int], ...]:
    components = placement.components if placement else ()
    return tuple((part.name, part.bytes) for part in components if part.device in devices)


def _more(peak: int, parts: Sequence[tuple[str, int]]) -> int:
    return max(0, peak - sum(size for _, size in parts))


def _on_disk(selection: Selection | None, disk: DiskFacts, missing_bytes: int) -> Need:
    # Two files of one content take the disk once.
    files = {file.path: file for file in selection.files} if selection else {}
    counted: set[str] = set()
    parts: list[tuple[str, int]] = []
    for part in selection.components if selection else ():
        own = {files[path].etag or path: files[path].size for path in part.paths}
        parts.append((part.name, sum(size for key, size in own.items() if key not in counted)))
        counted |= own.keys()
    there = max(0, sum(size for _, size in parts) - missing_bytes)
    return Need(where="disk", parts=tuple(parts), free=disk.free, there=there)


def plot_fit(
    repo_id: str,
    *,
    selection: Selection | None,
    weights: Sequence[ComponentWeights],
    fit: Fit | None,
    machine: MachineFacts | None,
    disk: DiskFacts | None,
    missing_bytes: int,
) -> Figure:
    """Draw the bytes of the components against what each GPU, the memory and the disk have free.

    It shows itself in a notebook; `savefig` writes it to a file.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need_matplotlib()
    from nbloader.views.figure import WIDTH_IN, blank_axes, drawn, write_head

    rows = needs(
        selection=selection, fit=fit, machine=machine, disk=disk, missing_bytes=missing_bytes
    )
    colors = _colors(rows)
    legend = _legend(rows, colors, weights)
    notes = _LEGEND_ROW * math.ceil(len(legend) / _COLUMNS)
    height = _ROW * max(1, len(rows))
    with drawn(_HEAD + height + _AXIS + notes + _FOOT) as figure:
        write_head(figure, repo_id, _headline(fit))
        axes = blank_axes(figure, _LEFT, _HEAD, WIDTH_IN - _LEFT - _RIGHT, height)
        _draw_needs(axes, rows, colors)
        if legend:
            below = blank_axes(figure, 0, _HEAD + height + _AXIS, WIDTH_IN, notes)
            _draw_legend(below, legend)
    return figure


def _headline(fit: Fit | None) -> str:
    if fit is None:
        return "how it would be placed is not known"
    placement = _placement(fit)
    if placement is None:
        return fit.problem
    verdict = "plan" if fit.chosen else "no plan fits; the one that lacks the least is"
    purpose = f", for {fit.workload}" if fit.workload else ""
    return f"{verdict} {placement.method} in {placement.dtype}{purpose}"


def _colors(rows: Sequence[Need]) -> dict[str, str]:
    """Return a color for each of the largest components."""
    from nbloader.views.figure import PALETTE

    sizes: dict[str, int] = {}
    for name, size in (part for row in rows for part in row.parts):
        sizes[name] = max(size, sizes.get(name, 0))
    seen = [name for name in sizes if sizes[name] > _UNSEEN * _end(rows)]
    largest = sorted(seen, key=lambda name: -sizes[name])
    return dict(zip(largest, PALETTE, strict=False))


def _draw_needs(axes: Any, rows: Sequence[Need], colors: Mapping[str, str]) -> None:
    """Draw a row a place: what is free as a wide bar, what goes there on it."""
    from nbloader.views import figure as look

    end = _end(rows)
    step = max(1, look.nice_step(end, 6))
    ticks = [step * number for number in range(int(end / step) + 1)] if rows else []
    look.label_ticks(axes, "x", {tick: format_bytes(tick) for tick in ticks})
    axes.set(xlim=(0, end), ylim=(max(1, len(rows)) - 0.5, -0.5))
    across = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        _draw_room(axes, place, row, end)
        _draw_parts(axes, place, row, colors)
        name = look.fitted(row.where, _LEFT - look.MARGIN_IN - 0.1, _TEXT)
        look.write(axes, -0.015, place, name, transform=across, ha="right", va=_MIDDLE)
        color = look.DARK_RED if row.lacking else look.INK
        look.write(axes, 1.02, place, str(row), transform=across, color=color, va=_MIDDLE)
    if not rows:
        text = "the checks did not come so far that anything is known"
        look.write(axes, 0.5, 0, text, transform=across, color=look.FAINT, ha="center")


def _end(rows: Sequence[Need]) -> float:
    """Return the end of the axis: all that is needed fits on it, and what is free up to `_FAR`."""
    needed = max((row.end for row in rows), default=0)
    limits = [row.limit for row in rows if row.limit is not None]
    free = max(limits, default=0)
    return 1.05 * max(1, needed, min(free, _FAR * needed) if needed else free)


def _draw_room(axes: Any, place: int, row: Need, end: float) -> None:
    from nbloader.views.figure import INK

    if row.limit is None:
        return
    room = {"height": _ROOM_HEIGHT, "linewidth": 0, "zorder": 1}
    axes.barh(place, min(row.limit, end), color=_ROOM, gid="room", **room)
    axes.barh(place, min(row.there, end), color=_THERE, gid="there", **room)
    ends = (place - _ROOM_HEIGHT / 2, place + _ROOM_HEIGHT / 2)
    axes.vlines(min(row.limit, end), *ends, color=INK, linewidth=1.6, zorder=4, clip_on=False)
    if row.limit > end:
        _draw_break(axes, (_BREAK_AT * end, place), (_BREAK_WIDTH * end, _ROOM_HEIGHT))


def _draw_break(axes: Any, middle: tuple[float, float], size: tuple[float, float]) -> None:
    """Draw a slanting gap in a bar: it is longer than it is drawn."""
    from matplotlib.patches import Polygon

    from nbloader.views.figure import FAINT

    (x, y), (width, height) = middle, size
    slant, half, high = width / 4, width / 4, 0.55 * height  # It goes beyond the bar's edges.
    left, right = (
        [(x + side - slant, y + high), (x + side + slant, y - high)] for side in (-half, half)
    )
    gap = [*left, *reversed(right)]
    axes.add_patch(Polygon(gap, color="white", linewidth=0, zorder=2, gid="break"))
    for edge in (left, right):
        axes.plot(*zip(*edge, strict=True), color=FAINT, linewidth=0.8, zorder=2)


def _draw_parts(axes: Any, place: int, row: Need, colors: Mapping[str, str]) -> None:
    from nbloader.views.figure import FAINT

    shown = {"height": _PART_HEIGHT, "linewidth": 0.6, "zorder": 3}
    order = {name: number for number, name in enumerate(colors)}
    left = 0
    for name, size in sorted(row.parts, key=lambda part: order.get(part[0], len(order))):
        color = colors.get(name, _OTHER)
        axes.barh(place, size, left=left, facecolor=color, edgecolor="white", gid="part", **shown)
        left += size
    if row.more:
        more = {"facecolor": "white", "edgecolor": FAINT, "hatch": _HATCH}
        axes.barh(place, row.more, left=left, gid="more", **more, **shown)


def _legend(
    rows: Sequence[Need], colors: Mapping[str, str], weights: Sequence[ComponentWeights]
) -> list[tuple[str, dict[str, Any]]]:
    """Say what each color stands for: the text, and how its patch is drawn."""
    from nbloader.views.figure import FAINT

    stored = {part.name: part.total for part in weights}
    entries: list[tuple[str, dict[str, Any]]] = []
    for name, color in colors.items():
        size = f", {format_bytes(stored[name])} as stored" if name in stored else ""
        entries.append((f"{name}{size}", {"facecolor": color}))
    others = {name for row in rows for name, size in row.parts if size} - colors.keys()
    if others:
        text = "1 smaller one" if len(others) == 1 else f"{len(others)} smaller ones"
        entries.append((text, {"facecolor": _OTHER}))
    if any(row.more for row in rows):
        hatched = {"facecolor": "white", "edgecolor": FAINT, "hatch": _HATCH, "linewidth": 0.6}
        entries.append(("more at the peak", hatched))
    if any(row.there for row in rows):
        entries.append(("cached", {"facecolor": _THERE}))
    limits = [row.limit for row in rows if row.limit is not None]
    if limits:
        entries.append(("free", {"facecolor": _ROOM}))
    if limits and max(limits) > _end(rows):
        entries.append((_BROKEN, {"facecolor": _ROOM}))
    return entries


def _draw_legend(axes: Any, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    from matplotlib.patches import Rectangle

    from nbloader.views import figure as look

    width = (look.WIDTH_IN - 2 * look.MARGIN_IN) / _COLUMNS
    axes.set(xlim=(0, look.WIDTH_IN), ylim=(math.ceil(len(entries) / _COLUMNS) - 0.5, -0.5))
    for number, (text, drawn) in enumerate(entries):
        row, column = divmod(number, _COLUMNS)
        left = look.MARGIN_IN + column * width
        axes.add_patch(Rectangle((left, row - 0.3), 0.22, 0.6, **drawn))
        if text == _BROKEN:
            _draw_break(axes, (left + 0.11, row), (0.12, 0.6))
        fitted = look.fitted(text, width - 0.4, _TEXT)
        look.write(axes, left + 0.3, row, fitted, color=look.FAINT, va=_MIDDLE)
