"""A job as a tqdm bar, for those who are used to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Never, TextIO

from nbloader.state import JobState
from nbloader.views.base import plain, write
from nbloader.views.checks import checks_lines
from nbloader.views.text import end_line, notice_line, retry_line

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["TqdmView"]


class TqdmView:
    """Shows the bytes of a job as a bar, with the stage behind it and what happens above it.

    Args:
        stream: where to.
        speed, eta: whether the speed and the time left are shown.
    """

    def __init__(self, stream: TextIO, *, speed: bool = True, eta: bool = True) -> None:
        details = [
            "{elapsed}",
            *(["{rate_fmt}"] if speed else []),
            *(["{remaining} left"] if eta else []),
        ]
        self._format = (
            "{l_bar}{bar}| {n_fmt}B of {total_fmt}B [" + ", ".join(details) + "]{postfix}"
        )
        self._stream = stream
        self._bar: tqdm[Never] | None = None
        self._checks = self._notices = self._retries = 0

    def update(self, state: JobState) -> None:
        """Move the bar on; tqdm decides how often it is drawn."""
        if self._bar is None:
            self._bar = self._open(state)
        bar = self._bar
        self._write_news(bar, state)
        if state.plan is not None and bar.total is None:
            # The rate counts from here on, and without what the cache held.
            bar.bar_format = self._format
            bar.reset(total=state.total)
            bar.initial = bar.n = bar.last_print_n = state.cached_bytes
        if bar.postfix != str(state.stage):
            bar.set_postfix_str(str(state.stage))
        if arrived := state.cached_bytes + state.fetched - bar.n:
            bar.update(arrived)

    def close(self, state: JobState) -> None:
        """Leave the bar as it stands, and write the end."""
        self.update(state)
        assert self._bar is not None
        self._bar.close()
        write(self._stream, end_line(state) + "\n")

    def _open(self, state: JobState) -> tqdm[Never]:
        from tqdm import tqdm

        return tqdm(
            desc=plain(state.repo_id),
            file=self._stream,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            bar_format="{desc}{postfix}",
        )

    def _write_news(self, bar: tqdm[Never], state: JobState) -> None:
        lines = [
            *([] if self._checks else checks_lines(state.checks)),
            *(notice_line(notice).strip() for notice in state.notices[self._notices :]),
            *(retry_line(retry).strip() for retry in state.retries[self._retries :]),
        ]
        self._checks, self._notices, self._retries = (
            len(state.checks),
            len(state.notices),
            len(state.retries),
        )
        for line in lines:
            bar.write(line, file=self._stream)
