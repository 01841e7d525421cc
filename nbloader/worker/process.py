"""What each child process does first and last: it takes its streams, minds its parent, and ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, NoReturn

from nbloader.limits import PARENT_CHECK_EVERY_S
from nbloader.transfer import START_MARK


def take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Move the protocol to private descriptors, so that no print can break it.

    What was printed until now is told from it by a mark on a line of its own.
    """
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    reports.write(b"\n" + START_MARK)
    reports.flush()
    return commands, reports


def end_with_parent(parent_pid: int) -> None:
    """End this process when its parent is gone.

    The end of stdin is not enough: another child of the parent may hold the pipe open.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_CHECK_EVERY_S)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def run(main: Callable[[], object]) -> NoReturn:
    """Do the work of this process, and end it at once; the status is 1 after an error."""
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # Threads that still download must not delay the end.
    os._exit(0)
