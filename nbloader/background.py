"""Imports on a thread of their own, one after the other.

Two rules, both measured: importing diffusers or transformers in two threads at once breaks them,
and an interrupt in the middle of an import on the main thread can ruin the module for the life of
the process. So imports go through one lock on daemon threads, and whoever needs them waits in
short steps, so that an interrupt reaches a waiting main thread at once.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable

__all__ = ["Background", "import_modules"]

WAIT_STEP_S = 0.05

_LOCK = threading.Lock()


class Background:
    """Work that holds the import lock, running on its own thread from the moment it is made."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: Exception | None = None
        self._done = threading.Event()
        # A daemon: the end of the process must not wait for torch.
        threading.Thread(target=self._run, name="nbloader-import", daemon=True).start()

    def _run(self) -> None:
        try:
            with _LOCK:
                self._work()
        except Exception as error:
            self._error = error
        finally:
            self._done.set()

    def check(self) -> bool:
        """Tell whether the work is done. Raises what it failed with."""
        if not self._done.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def wait(self, cancelled: threading.Event | None = None) -> bool:
        """Wait for the end; False if `cancelled` was set before it. Raises as `check` does.

        The work itself cannot be ended; it goes on in the background.
        """
        while not self._done.wait(WAIT_STEP_S):
            if cancelled is not None and cancelled.is_set():
                return False
        return self.check()


def import_modules(*names: str) -> None:
    """Import modules in the background and wait for them."""
    if not all(name in sys.modules for name in names):
        Background(lambda: [importlib.import_module(name) for name in names]).wait()
