"""A job as lines of text: for a terminal, a log file, or a batch run; for a terminal as a bar, too.

On a terminal the newest line rewrites itself while bytes arrive; elsewhere lines are sparse, so
that a log stays readable. tqdm is loaded only where its bar is drawn.
"""

from __future__ import annotations

import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Never, TextIO

from nbloader.records import Notice, Retry, Stage
from nbloader.state import JobState, StageState, Status
from nbloader.text import format_bytes, format_duration, format_share, format_speed, plain
from nbloader.views.checks import checks_lines
from nbloader.views.words import (
    counted,
    ended,
    kept,
    placement_words,
    ready_in,
    retried,
    time_left,
    waiting,
)

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["render", "write"]

REWRITE_EVERY_S = 0.1
LINE_EVERY_S = 10.0
RETRIES_EVERY_S = 1.0
MAX_NOTICES = 20

_INDENT = "  "

_NO_BYTES_YET = "{desc}"
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}B of {total_fmt}B{postfix} [{elapsed}]"
"""What a narrow terminal can do without stands at the end, where tqdm cuts."""


def write(stream: TextIO, text: str) -> None:
    """Write text with the characters that the stream can hold, `?` for the others, and flush."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def stage_line(state: JobState, stage: Stage) -> str:
    """Write the line that announces a stage; what happens in it stands below, indented."""
    text = str(stage)
    selection = state.selection
    if stage is Stage.CONNECT or (stage is Stage.SET_UP and not state.has_begun(Stage.CONNECT)):
        text += f": {plain(state.repo_id)}"
    elif stage is Stage.DOWNLOAD and selection is not None:
        where = "cached" if selection.folder is None else "there already"
        files = counted(len(selection.files), "file", "files")
        text += f": {files}, {format_bytes(selection.total)}"
        if state.to_fetch <= 0:
            text += f", all {where}"
        elif state.cached_bytes:
            text += f", {format_bytes(state.cached_bytes)} of it {where}"
    return text


def progress_line(state: JobState, *, speed: bool = True, eta: bool = True) -> str:
    """Write how far the download is."""
    parts = [format_share(state.there, state.total), *_figures(state, speed=speed, eta=eta)]
    return f"{_INDENT}[{state.percent:3.0f} %] " + ", ".join(parts)


def _figures(state: JobState, *, speed: bool, eta: bool) -> list[str]:
    """Return the speed and the time left; while nothing comes, how long and what comes next."""
    if warned := waiting(state):
        return [warned]
    figures = [format_speed(state.speed) if speed and state.speed is not None else ""]
    figures += [time_left(state), ready_in(state)] if eta else []
    return [figure for figure in figures if figure]


def download_line(state: JobState) -> str:
    """Write what the download came to."""
    seconds = next((s.seconds for s in state.stages if s.stage is Stage.DOWNLOAD), None)
    return (
        f"{_INDENT}downloaded {format_bytes(state.fetched)} in {format_duration(seconds)}, "
        f"{format_speed(state.average_speed)}"
    )


def retries_line(retries: Sequence[Retry]) -> str:
    """Write in one line what was asked again: of one attempt which file, and what follows."""
    if len(retries) == 1:
        return retry_line(retries[0])
    last = retries[-1]
    return f"{_INDENT}retry: {retried(retries)}{f'; {what_follows(last)}' if last.attempt else ''}"


def retry_line(retry: Retry) -> str:
    """Write that an attempt failed and when the next one comes."""
    what = plain(retry.path) if retry.path else "the Hub"
    return f"{_INDENT}retry: {what}: {plain(retry.reason)}; {what_follows(retry)}"


def what_follows(retry: Retry) -> str:
    """Write what comes after a failed attempt."""
    over = f" over {retry.route}" if retry.route else ""
    if not retry.attempt:
        return f"going on{over}"
    when = f"in {format_duration(retry.wait_s)}" if retry.wait_s else "at once"
    return f"attempt {retry.attempt} of {retry.max_attempts} failed, the next{over} {when}"


def notice_line(notice: Notice) -> str:
    """Write a notice with its hint."""
    return f"{_INDENT}note: {plain(notice.message)}. {plain(notice.hint)}"


def end_line(state: JobState, *, raised: bool = False) -> str:
    """Write how the job ended.

    Args:
        raised: whether its error is raised where this is read, and so told there.
    """
    if state.status is Status.READY:
        return f"{ended(state)}: {plain(state.summary)}"
    failure = state.failure
    if failure is None or state.ended_by_user:
        return "; ".join(filter(None, (ended(state), kept(state, "it"))))
    why = "" if raised else f": {plain(failure.message)}"
    return f"{ended(state)}{why} [{plain(failure.reference)}]"


def render(state: JobState, *, speed: bool = True, eta: bool = True) -> str:
    """Write a whole state as lines, the same as a log would hold, with bounded numbers of each."""
    lines = []
    checks = [f"{_INDENT}{line}" for line in checks_lines(state.checks, state.fit)]
    if state.fit is not None and state.fit.chosen is not None:
        checks.append(f"{_INDENT}plan: {placement_words(state.fit.chosen)}")
    told = 0
    for number, begun in enumerate(state.stages):
        if number:
            before, told = told, bisect_right(state.retried_at, begun.started_at)
            lines += _retries(state.retries[before:told])
            lines += _downloaded(state, state.stages[number - 1])
        if begun.stage not in (Stage.CONNECT, Stage.SET_UP):
            lines += checks
            checks = []
        lines.append(stage_line(state, begun.stage))
    lines += checks
    lines += _newest_notices(state)
    lines += _retries(state.retries[told:])
    lines += _downloaded(state, *state.stages[-1:])
    if state.status is not Status.RUNNING:
        lines.append(end_line(state))
    elif state.selection is not None:
        lines.append(progress_line(state, speed=speed, eta=eta))
    if state.failure is not None and not state.ended_by_user:
        lines.append(f"{_INDENT}{plain(state.failure.hint)}")
    return "\n".join(lines)


def _newest_notices(state: JobState) -> list[str]:
    earlier = len(state.notices) - MAX_NOTICES
    lines = [notice_line(notice) for notice in state.notices[-MAX_NOTICES:]]
    return lines if earlier <= 0 else [f"{_INDENT}{earlier} earlier notes", *lines]


def _retries(retries: Sequence[Retry]) -> list[str]:
    return [retries_line(retries)] if retries else []


def _downloaded(state: JobState, *begun: StageState) -> list[str]:
    """Write what came of the download, where it is that stage and has ended.

    Of a job that has failed, also what is there: no line of progress says so.
    """
    over = any(each.stage is Stage.DOWNLOAD and each.ended_at is not None for each in begun)
    lines = [download_line(state)] if over and state.fetched else []
    failed = state.status is Status.FAILED and not state.is_resumable
    if over and failed and state.there < state.total:
        lines.append(f"{_INDENT}{format_share(state.there, state.total)} are on the disk")
    return lines


class _News:
    """What a view of lines has not written yet: checks, notices and retries, each once.

    Attempts that fail soon after one another are told of together.

    Args:
        clock: seconds, steady.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._stages = self._notices = self._retries = 0
        self._checked = False
        self._retried_at = -float("inf")

    def lines(self, state: JobState) -> list[str]:
        """Return the lines that are to be written now."""
        if len(state.stages) < self._stages:  # The job was begun again.
            self._begin()
        self._stages = len(state.stages)
        checks = (
            []
            if self._checked
            else [f"{_INDENT}{each}" for each in checks_lines(state.checks, state.fit)]
        )
        self._checked = self._checked or bool(checks)
        notices = [notice_line(notice) for notice in state.notices[self._notices :]]
        self._notices = len(state.notices)
        return [*checks, *notices, *self.retries(state)]

    def retries(self, state: JobState, *, all_of_them: bool = False) -> list[str]:
        """Return the line for what was asked again, if its time has come or it waits for long."""
        held = state.retries[self._retries :]
        waits = any(retry.attempt for retry in held)
        apart = RETRIES_EVERY_S if waits else LINE_EVERY_S
        now = self._clock()
        if not held or not (all_of_them or now - self._retried_at >= apart):
            return []
        self._retries, self._retried_at = len(state.retries), now
        return [retries_line(held)]


class TextView:
    """Writes a job to a text stream.

    Args:
        stream: where to.
        interactive: whether the stream is a terminal whose last line can be rewritten.
        speed, eta: whether the speed and the time left are shown.
        raised: as for `end_line`.
        clock: seconds, steady.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        interactive: bool,
        speed: bool = True,
        eta: bool = True,
        raised: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._interactive = interactive
        self._speed = speed
        self._eta = eta
        self._raised = raised
        self._clock = clock
        self._stages = 0
        self._news = _News(clock)
        self._shown_at = clock()
        self._open_line = False

    def update(self, state: JobState) -> None:
        """Write what is new since the last call."""
        self._write_news(state)
        if state.stage is not Stage.DOWNLOAD or state.status is not Status.RUNNING:
            return
        if state.fetched >= state.to_fetch:
            return
        now = self._clock()
        if now - self._shown_at < (REWRITE_EVERY_S if self._interactive else LINE_EVERY_S):
            return
        self._shown_at = now
        line = progress_line(state, speed=self._speed, eta=self._eta)
        if self._interactive:
            width = shutil.get_terminal_size().columns
            write(self._stream, "\r" + line[: width - 1] + "\x1b[K")
            self._open_line = True
        else:
            write(self._stream, line + "\n")

    def close(self, state: JobState) -> None:
        """Write the end."""
        self._write_news(state)
        self._line(end_line(state, raised=self._raised))

    def _write_news(self, state: JobState) -> None:
        if len(state.stages) < self._stages:  # The job was begun again.
            self._stages = 0
        begun = state.stages[self._stages :]
        over = bool(begun) or state.status is not Status.RUNNING
        for line in self._news.retries(state, all_of_them=True) if over and self._stages else []:
            self._line(line)
        for number, each in enumerate(begun, self._stages):
            if number and state.stages[number - 1].stage is Stage.DOWNLOAD and state.fetched:
                self._line(download_line(state))
            self._line(stage_line(state, each.stage))
        for line in self._news.lines(state):
            self._line(line)
        if begun:
            self._shown_at = self._clock()
        self._stages = len(state.stages)

    def _line(self, line: str) -> None:
        if self._open_line:
            write(self._stream, "\r\x1b[K")
            self._open_line = False
        write(self._stream, line + "\n")


class TqdmView:
    """Shows the stage and the bytes of a job as a bar, and above it what else happens.

    The name of the repository stands above it as well, so that a narrow terminal has room for the
    figures. tqdm draws; when, and what the figures are, is settled here, because its own speed does
    not fall in a stall.

    Args:
        stream: where to.
        speed, eta: whether the speed and the time left are shown.
        raised: as for `end_line`.
        clock: seconds, steady.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        speed: bool = True,
        eta: bool = True,
        raised: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._speed = speed
        self._eta = eta
        self._raised = raised
        self._clock = clock
        self._drawn_at = clock()
        self._bar: tqdm[Never] | None = None
        self._stages = 0
        self._news = _News(clock)

    def update(self, state: JobState) -> None:
        """Write what is new, and draw the bar ten times a second at most."""
        if self._bar is None:
            write(self._stream, plain(state.repo_id) + "\n")
            self._bar = self._open()
        news = [line.strip() for line in self._news.lines(state)]
        now = self._clock()
        if news or len(state.stages) > self._stages or now - self._drawn_at >= REWRITE_EVERY_S:
            self._drawn_at = now
            self._stages = len(state.stages)
            self._draw(self._bar, state, news)

    def close(self, state: JobState) -> None:
        """Leave the bar as it stands, if there were bytes to show, and write the end."""
        self.update(state)
        bar = self._bar
        assert bar is not None
        self._draw(bar, state, self._news.retries(state, all_of_them=True))
        bar.leave = bar.total is not None
        bar.close()
        write(self._stream, end_line(state, raised=self._raised) + "\n")

    def _open(self) -> tqdm[Never]:
        from tqdm import tqdm

        return tqdm(
            file=self._stream,
            unit_scale=True,
            dynamic_ncols=True,
            bar_format=_NO_BYTES_YET,
        )

    def _draw(self, bar: tqdm[Never], state: JobState, news: list[str]) -> None:
        if state.selection is not None and bar.total is None:
            bar.bar_format = _BAR
            bar.reset(total=state.total)
        bar.n = min(state.there, state.total)
        bar.set_description_str(str(state.stage or ""), refresh=False)
        figures = []
        if state.stage is Stage.DOWNLOAD and state.status is Status.RUNNING:
            figures = _figures(state, speed=self._speed, eta=self._eta)
        bar.set_postfix_str(", ".join(figures), refresh=False)
        if news:
            with bar.external_write_mode(file=self._stream):
                write(self._stream, "".join(f"{line}\n" for line in news))
        else:
            bar.refresh()
