"""The speed over time as a small line, drawn as SVG inside of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nbloader.state import JobState
from nbloader.units import format_speed

__all__ = ["MAX_POINTS", "sparkline", "speeds"]

MAX_POINTS = 60

HEIGHT = 24
"""Pixels. The place is kept from the start, so that nothing moves when the line appears."""

_STEP_S = 0.5
"""As close as the points of the history are."""

_COLOR = "var(--jp-brand-color1,#2f81f7)"


def sparkline(state: JobState, *, kept: bool = True) -> str:
    """Draw the speed from the begin of the download until now, and say how high it was.

    All that it says stands in text beside it, for places that show no SVG.

    Args:
        kept: whether its place is kept where there is nothing to draw.
    """
    points = speeds(state.history, _until(state))
    top = max(points, default=0.0)
    if not kept and (len(points) < 2 or not top):
        return ""
    label = f"fastest {format_speed(top)}" if top else ""
    return (
        f'<div style="display:flex;align-items:flex-end;gap:1em;height:{HEIGHT}px;margin:3px 0">'
        f"{_svg(points, top, label)}"
        f'<span style="flex:0 0 9em;text-align:right;opacity:0.7;line-height:1">{label}</span>'
        "</div>"
    )


def speeds(history: Sequence[tuple[float, int]], until: float) -> list[float]:
    """Give the mean speeds of up to `MAX_POINTS` equal stretches of time, in bytes per second.

    Args:
        history: (time, bytes so far), as in `JobState`. Where bytes fall, an attempt has started
            over; that counts as no speed, not as a negative one.
        until: where the last stretch ends; nothing has come since the last point.
    """
    points = list(dict(history).items())  # of points of the same time the last one counts
    if len(points) < 2:
        return []
    begin, end = points[0][0], max(until, points[-1][0])
    count = min(MAX_POINTS, int((end - begin) / _STEP_S))
    if count < 1:
        return []
    step = (end - begin) / count
    totals = [0.0] * count
    for (since, before), (to, after) in pairwise(points):
        if after <= before:
            continue
        first = min(count - 1, int((since - begin) / step))
        last = min(count - 1, int((to - begin) / step))
        for number in range(first, last + 1):
            low = max(since, begin + number * step)
            high = min(to, begin + (number + 1) * step)
            totals[number] += (after - before) * (max(0.0, high - low) / (to - since))
    return [total / step for total in totals]


def _until(state: JobState) -> float:
    if state.quiet_s is not None:
        return state.updated_at
    return state.history[-1][0] if state.history else state.updated_at


def _svg(points: Sequence[float], top: float, label: str) -> str:
    if len(points) < 2 or not top:
        path = ""
    else:
        # A pixel of room above and below, so that the line is not cut in half.
        line = " ".join(
            f"{number},{HEIGHT - 1 - (HEIGHT - 2) * speed / top:.1f}"
            for number, speed in enumerate(points)
        )
        edge = f"M{line.replace(' ', ' L')}"
        path = (
            f'<path d="{edge} L{len(points) - 1},{HEIGHT} L0,{HEIGHT} Z" '
            f'style="fill:{_COLOR};fill-opacity:0.15;stroke:none"></path>'
            f'<path d="{edge}" vector-effect="non-scaling-stroke" '
            f'style="fill:none;stroke:{_COLOR};stroke-width:1.5px"></path>'
        )
    return (
        f'<svg role="img" aria-label="speed over time{", " + label if label else ""}" '
        f'viewBox="0 0 {max(1, len(points) - 1)} {HEIGHT}" preserveAspectRatio="none" '
        f'style="flex:1 1 6em;min-width:0;height:{HEIGHT}px;display:block">{path}</svg>'
    )
