"""A job as a chart: its bytes over time, and under them what ran when.

matplotlib is loaded only where a chart is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from nbloader.errors import MissingPackageError
from nbloader.state import STALL_S, JobState
from nbloader.text import format_bytes, format_duration
from nbloader.views import timeline
from nbloader.views.timeline import MAX_LISTED, Bar, Lane, Mark, RouteChange

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_job"]

_TIME_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200, 86_400),
)
_MAX_TIMES = 8

# Inches.
_LEFT, _RIGHT = 1.75, 0.95
_HEAD, _PLOT, _GAP, _AXIS, _FOOT = 0.82, 2.1, 0.4, 0.5, 0.15
_ROW = 0.19
_TEXT = 8.0
"""Points."""

_APART = 0.1
"""Changes of the route within this share of the chart's width are told of once."""

_LANE_GAP = 0.35
_OPEN = "/////"
_MIDDLE = "center_baseline"


def need_matplotlib() -> None:
    """Import what draws the charts.

    Raises:
        MissingPackageError: matplotlib is not installed, or cannot be imported.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"a chart needs matplotlib ({str(error)[:200]})",
            hint="Install it with: pip install matplotlib",
        ) from error


def time_ticks(seconds: float) -> list[float]:
    """Return the times to write on an axis so many seconds long: at steps that clocks have."""
    step = _TIME_STEPS[0]
    for step in _TIME_STEPS:
        if step * _MAX_TIMES >= seconds:
            break
    while step * _MAX_TIMES < seconds:
        step *= 2
    return [step * number for number in range(int(seconds / step) + 1)]


def plot_job(state: JobState) -> Figure:
    """Draw the bytes of a job over time, and under them what ran when.

    Retries are numbered and told of below, times without a byte are shaded, and changes of the
    route are marked. It shows itself in a notebook; `savefig` writes it to a file.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need_matplotlib()
    from nbloader.views.figure import WIDTH_IN, blank_axes, drawn, write_head

    rows = timeline.bars(state)
    found = timeline.marks(state)
    lines = list(timeline.told(found))
    width, notes = WIDTH_IN - _LEFT - _RIGHT, _ROW * len(lines)
    gantt = _ROW * ((_places(rows) or [0])[-1] + 1)
    below = _HEAD + _PLOT + _GAP
    with drawn(below + gantt + _AXIS + notes + _FOOT) as figure:
        write_head(figure, state.repo_id, timeline.headline(state))
        upper = blank_axes(figure, _LEFT, _HEAD, width, _PLOT)
        lower = blank_axes(figure, _LEFT, below, width, gantt)
        for axes in (upper, lower):
            _draw_times(axes, timeline.extent(state), labels=axes is lower)
        _draw_bytes(upper, state, found)
        _draw_bars(lower, rows)
        if lines:
            _write_list(blank_axes(figure, 0, below + gantt + _AXIS, WIDTH_IN, notes), lines)
    return figure


def _draw_times(axes: Any, extent: float, *, labels: bool) -> None:
    """Draw the axis of time, the same for both parts; only the lower one has its labels."""
    from nbloader.views.figure import FAINT, label_ticks

    axes.set_xlim(0, extent)
    ticks = time_ticks(extent)
    texts, unit = time_texts(ticks, extent)
    label_ticks(axes, "x", dict(zip(ticks, texts if labels else [""] * len(ticks), strict=True)))
    if labels:
        axes.set_xlabel(f"time since the start ({unit})", fontsize=_TEXT, color=FAINT)


def time_texts(ticks: Sequence[float], extent: float) -> tuple[list[str], str]:
    """Return what stands at each tick of an axis so many seconds long, and the unit of them all."""
    if extent < 60:
        return [f"{tick:.3g}" for tick in ticks], "s"
    parts = [(*divmod(round(tick) // 60, 60), round(tick) % 60) for tick in ticks]
    if extent >= 3600:
        return [f"{hours}:{minutes:02d}:{rest:02d}" for hours, minutes, rest in parts], "h:min:s"
    return [f"{minutes}:{rest:02d}" for _, minutes, rest in parts], "min:s"


def took(seconds: float) -> str:
    """Write how long something took that is drawn."""
    return format_duration(seconds) if seconds >= 0.05 else "< 0.1 s"


def _draw_bytes(axes: Any, state: JobState, found: Sequence[Mark]) -> None:
    from nbloader.views import figure as look

    points = timeline.series(state)
    _draw_scale(axes, state, points)
    handles: dict[str, Any] = {}
    if points:
        (handles["bytes downloaded"],) = axes.plot(
            *zip(*points, strict=True), color=look.BLUE, linewidth=1.8, zorder=3, gid="bytes"
        )
    else:
        text, place = "nothing was downloaded", axes.transAxes
        look.write(axes, 0.5, 0.5, text, transform=place, color=look.FAINT, ha="center")
    for began, ended in timeline.stalls(state):
        handles[f"no byte for {STALL_S:.0f} s or more"] = axes.axvspan(
            began, ended, facecolor="#FBE3B0", edgecolor=look.ORANGE, linewidth=0.6, gid="stall"
        )
    for number, mark in enumerate(found, start=1):
        y = timeline.bytes_at(points, mark.at)
        (handle,) = axes.plot(
            [mark.at],
            [y],
            marker="o",
            markersize=11 if number <= MAX_LISTED else 5,
            markerfacecolor="white",
            markeredgecolor=look.RED,
            markeredgewidth=1.3,
            linestyle="none",
            clip_on=False,
            zorder=4,
            gid="retry",
        )
        handles.setdefault("retry", handle)
        if number <= MAX_LISTED:
            middle = {"ha": "center", "va": _MIDDLE, "zorder": 5}
            look.write(axes, mark.at, y, str(number), size=7, color=look.DARK_RED, **middle)
    for change in _spread(timeline.route_changes(state), timeline.extent(state)):
        handles["another route"] = axes.axvline(
            change.at, color=look.PURPLE, linewidth=1.4, linestyle=(0, (4, 2)), gid="route"
        )
        text = f" to {timeline.route_name(change.route)}"
        place = axes.get_xaxis_transform()
        look.write(axes, change.at, 0.04, text, color="#8E3B70", transform=place)
    look.legend(axes, handles, above_in=0.05)


def _draw_scale(axes: Any, state: JobState, points: Sequence[tuple[float, int]]) -> None:
    """Draw the axis of bytes, up to what was to be downloaded."""
    from nbloader.views import figure as look

    fetched = [count for _, count in points]
    low, high = min([0, *fetched]), max([1, state.to_fetch, *fetched])
    axes.set_ylim(low, high + 0.06 * (high - low))
    step = max(1, look.nice_step(high - low, 4))
    ticks = [step * number for number in range(math.ceil(low / step), int(high / step) + 1)]
    look.label_ticks(axes, "y", {tick: format_bytes(tick) for tick in ticks})
    if state.to_fetch > 0:
        axes.axhline(state.to_fetch, color=look.FAINT, linewidth=0.8, linestyle=(0, (1, 2)))
        text = f" {format_bytes(state.to_fetch)}\n to download"
        place = axes.get_yaxis_transform()
        look.write(axes, 1, state.to_fetch, text, transform=place, va="center", color=look.FAINT)


def _spread(changes: Sequence[RouteChange], extent: float) -> list[RouteChange]:
    """Leave out the changes that come too soon after another to be read beside it."""
    found: list[RouteChange] = []
    for change in changes:
        if not found or change.at - found[-1].at >= _APART * extent:
            found.append(change)
    return found


def _places(rows: Sequence[Bar]) -> list[float]:
    """Return the places of the rows from the top, in heights of a row: a gap before a new lane."""
    gaps = accumulate(
        _LANE_GAP if number and row.lane is not rows[number - 1].lane else 0.0
        for number, row in enumerate(rows)
    )
    return [number + gap for number, gap in enumerate(gaps)]


def _draw_bars(axes: Any, rows: Sequence[Bar]) -> None:
    """Draw a row a bar: its name on the left, its seconds on the right."""
    from matplotlib.patches import Patch

    from nbloader.views import figure as look

    colors = {Lane.STAGE: look.BLUE, Lane.IMPORT: look.ORANGE, Lane.DOWNLOAD: look.GREEN}
    places = _places(rows)
    axes.set_ylim((places or [0])[-1] + 0.5, -0.5)
    across = axes.get_yaxis_transform()
    for place, row in zip(places, rows, strict=True):
        axes.barh(
            place,
            row.end - row.start,
            left=row.start,
            height=0.66,
            facecolor=colors[row.lane] if row.ended else "white",
            edgecolor=colors[row.lane],
            hatch=None if row.ended else _OPEN,
            linewidth=0.8,  # What took no time is seen, too.
            clip_on=False,
            gid="bar",
            zorder=2,
        )
        name = look.fitted(row.name, _LEFT - look.MARGIN_IN - 0.1, _TEXT)
        look.write(axes, -0.012, place, name, transform=across, ha="right", va=_MIDDLE)
        text = took(row.end - row.start)
        look.write(axes, 1.012, place, text, transform=across, color=look.FAINT, va=_MIDDLE)
    handles = {str(row.lane): Patch(color=colors[row.lane]) for row in rows}
    if not all(row.ended for row in rows):
        handles["not ended"] = Patch(facecolor="white", edgecolor=look.FAINT, hatch=_OPEN)
    look.legend(axes, handles, above_in=0.04)


def _write_list(axes: Any, lines: Sequence[tuple[str, str]]) -> None:
    """Write a line for each numbered retry."""
    from nbloader.views import figure as look

    axes.set(xlim=(0, look.WIDTH_IN), ylim=(len(lines) - 0.5, -0.5))
    room = look.WIDTH_IN - 0.95 - look.MARGIN_IN
    for place, (time, text) in enumerate(lines):
        if place < MAX_LISTED:
            number = str(place + 1)
            look.write(axes, 0.32, place, number, color=look.DARK_RED, ha="right", va=_MIDDLE)
        look.write(axes, 0.85, place, time, color=look.FAINT, ha="right", va=_MIDDLE)
        look.write(axes, 0.95, place, look.fitted(text, room, _TEXT), va=_MIDDLE)
