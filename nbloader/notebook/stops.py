"""A stop in a notebook: no error, so it is not shown as one."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from nbloader.notebook.kernel import running_kernel, shell

__all__ = ["Stop"]


class Stop(KeyboardInterrupt):
    """What its user has stopped ends with this. IPython shows it as a line, not as an error.

    The cell ends, and so do those that were to run after it. Where nobody sits at the notebook it
    is an error as every other, so that whatever runs the notebook learns of it.

    Args:
        said: what was stopped, and how it goes on.
        shown: whether a view has said so already.
    """

    def __init__(self, said: str, *, shown: bool = False) -> None:
        super().__init__(said)
        self.shown = shown
        _show_quietly()

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show no traceback: there is nothing wrong."""
        return [f"KeyboardInterrupt: {self}"]


def _show_quietly() -> None:
    """Have IPython call `_show` for a stop; what others have asked it for stays as it is."""
    kernel, own_shell = running_kernel(), shell()
    if kernel is None or not kernel.asks or Stop in own_shell.custom_exceptions:
        return
    others, shown_by = own_shell.custom_exceptions, own_shell.CustomTB

    def show(
        _: Any,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
        tb_offset: int | None = None,
    ) -> list[str]:
        if not isinstance(error, Stop):
            found: list[str] = shown_by(kind, error, trace, tb_offset=tb_offset)
            return found
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # for `%tb`
        if not error.shown:
            sys.stdout.write(f"{error}\n")
        return error._render_traceback_()  # which a cell does not show

    own_shell.set_custom_exc((*others, Stop), show)
