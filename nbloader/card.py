"""An error as IPython shows it: a short card below the cell, the whole traceback for `%tb`."""

from __future__ import annotations

import linecache
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

from nbloader.kernel import shell
from nbloader.quoting import plain, printable
from nbloader.redaction import short_path

__all__ = ["card", "cleaned", "render"]

MAX_MESSAGE_LINES = 3
MAX_HINT_LINES = 4

_TEXT_LIMIT = 4_000
"""Room for a list of failed checks, and for a line of pip that names many packages."""

_LINE_LIMIT = 120


def render(error: BaseException, *, message: str, hint: str, reference: str) -> list[str]:
    """Give the lines for IPython's hook `_render_traceback_`. It never raises.

    IPython calls the hook both for a cell that fails and for `%tb` later. Only the first of them is
    on the way while the error is handled, so that no error has to note that it was shown.
    """
    try:
        if sys.exc_info()[1] is not error:
            return _whole(error)
        return card(error, message=message, hint=hint, reference=reference)
    except Exception:
        return [f"{type(error).__name__}: {cleaned(message)}", f"  Hint: {cleaned(hint)}"]


def card(error: BaseException, *, message: str, hint: str, reference: str) -> list[str]:
    """Give the kind of the error, what happened, what to do, and where: at most 12 lines.

    The kind is the first line of the documentation of its class. A hint keeps its line breaks and
    is not indented, because it may hold lines to paste.
    """
    kind = plain((type(error).__doc__ or "").partition("\n")[0])
    to_do, *more = _bounded(hint, MAX_HINT_LINES)
    return [
        f"{type(error).__name__}: {kind}" if kind else type(error).__name__,
        *(f"  {line}" for line in _bounded(message, MAX_MESSAGE_LINES)),
        f"  Hint: {to_do}",
        *more,
        f"  [{reference}]",
        *_place(error.__traceback__),
        "The whole traceback: %tb",
    ]


def cleaned(text: str) -> str:
    """Give foreign text with its line breaks and without what steers a terminal."""
    return "\n".join(map(printable, text.splitlines()))


def _bounded(text: str, limit: int) -> list[str]:
    """Give the lines of a text, the first and the last ones where there are too many."""
    if len(text) > _TEXT_LIMIT:
        text = f"{text[:_TEXT_LIMIT]}…"
    lines = [line.rstrip() for line in cleaned(text).split("\n")]
    lines = [line for line in lines if line] or [""]
    return lines if len(lines) <= limit else [lines[0], "…", *lines[2 - limit :]]


def _place(trace: TracebackType | None) -> list[str]:
    """Give the user's line that led to the error, and where it stands."""
    own_shell = shell()
    theirs = getattr(own_shell, "user_global_ns", None)
    steps = []
    for frame, line in traceback.walk_tb(trace):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "nbloader":
            break
        if package != "IPython":
            steps.append((frame, line))
    cells = [step for step in steps if step[0].f_globals is theirs]
    if not steps:
        return []
    frame, line = (cells or steps)[-1]
    if cells:
        where = _cell(own_shell, frame, running=cells[0][0])
    else:
        where = plain(short_path(frame.f_code.co_filename))
    source = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
    shown = printable(source.strip()[:_LINE_LIMIT])
    return [f"{where}, line {line}", *([f"    {shown}"] if shown else [])]


def _cell(own_shell: Any, frame: FrameType, running: FrameType) -> str:
    """Name the cell that a frame belongs to.

    Args:
        running: the outermost frame of the cell that runs.
    """
    named = getattr(own_shell.compile, "format_code_name", None)  # IPython 8 has it.
    if named is not None and (found := named(frame.f_code.co_filename)):
        return " ".join(found)
    if frame.f_code.co_filename == running.f_code.co_filename:
        return f"Cell In[{own_shell.execution_count}]"
    return "Cell"


def _whole(error: BaseException) -> list[str]:
    own_shell = shell()
    if own_shell is None:
        return traceback.format_exception(error)
    lines: list[str] = own_shell.InteractiveTB.structured_traceback(
        type(error), error, error.__traceback__
    )
    return lines
