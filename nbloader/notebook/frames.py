"""The frames of errors let go of what they hold."""

from __future__ import annotations

import traceback

__all__ = ["clear_frames"]


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
