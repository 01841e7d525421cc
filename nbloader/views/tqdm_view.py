"""A job as a tqdm bar: for a terminal, and for those who are used to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Never, TextIO

from nbloader.records import Stage
from nbloader.state import JobState, Status
from nbloader.units import format_speed
from nbloader.views.base import plain, write
from nbloader.views.checks import checks_lines
from nbloader.views.text import end_line, notice_line, retry_line
from nbloader.views.words import quiet, time_left

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["TqdmView"]

DRAW_EVERY_S = 0.1

_NO_BYTES_YET = "{desc}"
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}B of {total_fmt}B{postfix} [{elapsed}]"
"""What a narrow terminal can do without stands at the end, where tqdm cuts."""


class TqdmView:
    """Shows the stage and the bytes of a job as a bar, and above it what else happens.

    The name of the repository stands above it as well, so that a narrow terminal has room for the
    figures. tqdm draws; when, and what the figures are, is settled here, because its own speed does
    not fall in a stall.

    Args:
        stream: where to.
        speed, eta: whether the speed and the time left are shown.
        clock: seconds, steady.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        speed: bool = True,
        eta: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._speed = speed
        self._eta = eta
        self._clock = clock
        self._drawn_at = clock()
        self._bar: tqdm[Never] | None = None
        self._stages = self._notices = self._retries = 0
        self._checked = False

    def update(self, state: JobState) -> None:
        """Write what is new, and draw the bar ten times a second at most."""
        if self._bar is None:
            write(self._stream, plain(state.repo_id) + "\n")
            self._bar = self._open()
        news = self._news(state)
        now = self._clock()
        if news or len(state.stages) > self._stages or now - self._drawn_at >= DRAW_EVERY_S:
            self._drawn_at = now
            self._stages = len(state.stages)
            self._draw(self._bar, state, news)

    def close(self, state: JobState) -> None:
        """Leave the bar as it stands, if there were bytes to show, and write the end."""
        self.update(state)
        bar = self._bar
        assert bar is not None
        self._draw(bar, state, [])
        bar.leave = bar.total is not None
        bar.close()
        write(self._stream, end_line(state) + "\n")

    def _open(self) -> tqdm[Never]:
        from tqdm import tqdm

        return tqdm(
            file=self._stream,
            unit_scale=True,
            dynamic_ncols=True,
            bar_format=_NO_BYTES_YET,
        )

    def _draw(self, bar: tqdm[Never], state: JobState, news: list[str]) -> None:
        if state.plan is not None and bar.total is None:
            bar.bar_format = _BAR
            bar.reset(total=state.total)
        bar.n = min(state.there, state.total)
        bar.set_description_str(str(state.stage or ""), refresh=False)
        bar.set_postfix_str(", ".join(self._figures(state)), refresh=False)
        if news:
            with bar.external_write_mode(file=self._stream):
                write(self._stream, "".join(f"{line}\n" for line in news))
        else:
            bar.refresh()

    def _figures(self, state: JobState) -> list[str]:
        """Give the speed, and the time left; in a stall its length."""
        if state.stage is not Stage.DOWNLOAD or state.status is not Status.RUNNING:
            return []
        shown = self._speed and state.speed is not None
        figures = (
            quiet(state),
            format_speed(state.speed) if shown else "",
            time_left(state) if self._eta else "",
        )
        return [figure for figure in figures if figure]

    def _news(self, state: JobState) -> list[str]:
        checks = [] if self._checked else checks_lines(state.checks)
        notices = [notice_line(notice).strip() for notice in state.notices[self._notices :]]
        retries = [retry_line(retry).strip() for retry in state.retries[self._retries :]]
        self._checked = self._checked or bool(checks)
        self._notices, self._retries = len(state.notices), len(state.retries)
        return [*checks, *notices, *retries]
