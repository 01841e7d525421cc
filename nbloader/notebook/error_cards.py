"""An error in a notebook: a short card below the cell, the whole traceback for `%tb`.

What the notebook keeps for `%tb` holds the local variables of every function that the error left;
its frames are made to let go of them.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

from nbloader.notebook.kernel import shell
from nbloader.redaction import HIDDEN, Redactor, short_path
from nbloader.text import plain, printable

MAX_MESSAGE_LINES = 3
MAX_HINT_LINES = 4

_TEXT_LIMIT = 4_000
"""Room for a list of failed checks, and for a line of pip that names many packages."""

_LINE_LIMIT = 120

# In code: a name that stands for a secret, and what gives it a value: `token=`, `token: str =`,
# `"token": `, `environ["HF_TOKEN"] =`, `("token", `.
_NAME = r"\b\w{0,40}(?:token(?!iz)|secret|passw|api_?key)\w{0,20}"
_SECRET_IS = re.compile(rf"(?i)(?:{_NAME}[\"']?\]?\s*(?::=|=|:)|[\"']{_NAME}[\"']\s*,)\s*(?=\S)")
# A value that is certainly over where it seems to be: a name, or one literal on one line.
_VALUE = re.compile(
    r"(?:[\w.*]+|[rbuRBU]{0,2}(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"))(?=\s*(?:[,;)\]}]|$))"
)
# How the sentences of this package tell of a token; no value stands there.
_TOLD_OF = re.compile(r"(?<=\btoken=)(?= is not a token\b)|(?<=\ba token:)(?= without one\b)")


def render_error(error: BaseException, *, message: str, hint: str, reference: str) -> list[str]:
    """Return the lines for IPython's hook `_render_traceback_`. It never raises.

    IPython calls the hook both for a cell that fails and for `%tb` later. Only the first of them is
    on the way while the error is handled, so that no error has to note that it was shown.
    """
    try:
        if sys.exc_info()[1] is not error:
            return _whole(error)
        return error_card(error, message=message, hint=hint, reference=reference)
    except Exception:
        redact = Redactor()
        said, to_do = (printable(_redacted(str(text), redact)) for text in (message, hint))
        return [f"{type(error).__name__}: {said}", f"  Hint: {to_do}"]


def error_card(error: BaseException, *, message: str, hint: str, reference: str) -> list[str]:
    """Return the kind of the error, what happened, what to do, and where: at most 12 lines.

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


def source_shown(source: str, redact: Redactor) -> str:
    """Return a line of a user's code as it can be shown to others.

    What is given for a token or a password goes, whatever it looks like. Where it is more than a
    name or a plain literal (an f-string, a call, several lines), the rest of the line goes with it.
    A long line is cut, and ends with `…` then.
    """
    text = redact(source.strip())
    shown, at = "", 0
    while found := _SECRET_IS.search(text, at):
        value = _VALUE.match(text, found.end())
        shown += f"{text[at : found.end()]}{HIDDEN}"
        if value is None:
            at = len(text)
            break
        at = value.end()
    shown = printable(shown + text[at:])
    return shown if len(shown) <= _LINE_LIMIT else f"{shown[: _LINE_LIMIT - 1]}…"


def _redacted(text: str, redact: Redactor) -> str:
    return "".join(map(redact, _TOLD_OF.split(text)))


def _bounded(text: str, limit: int) -> list[str]:
    """Return the lines of a text, without secrets; where there are many, the first and the last."""
    text = _redacted(text, Redactor.here())
    if len(text) > _TEXT_LIMIT:
        text = f"{text[:_TEXT_LIMIT]}…"
    lines = [line.rstrip() for line in printable(text).split("\n")]
    lines = [line for line in lines if line] or [""]
    return lines if len(lines) <= limit else [lines[0], "…", *lines[2 - limit :]]


def _place(trace: TracebackType | None) -> list[str]:
    """Return the user's line that led to the error, and where it stands."""
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
    shown = source_shown(source, Redactor.here())
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


def clear_frames(error: BaseException, *, handled: BaseException | None = None) -> None:
    """Empty the finished frames of an error and of all errors that it came from or contains.

    A notebook keeps the last error for `%tb`, and with it the local variables of every function
    that it left: a model, and the memory it takes. The traceback stays, lines and names included.
    Frames that still run keep their variables, so call this after the functions that hold a model
    were left. An empty frame still keeps its function, and with it what that closes over: hand a
    model to a function as an argument (`functools.partial`), not by a closure.
    """
    seen = {id(handled)}
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
