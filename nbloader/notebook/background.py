"""Work on a thread of its own; imports one after the other.

Two rules, both measured: importing diffusers or transformers in two threads at once breaks them,
and an interrupt in the middle of an import on the main thread can ruin the module for the life of
the process. So imports go through one lock on daemon threads, and whoever needs them waits in
short steps, so that an interrupt reaches a waiting main thread at once.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable

from nbloader.limits import WAIT_STEP_S

IMPORTING = threading.Lock()
"""Held by whoever imports heavy libraries."""


class BackgroundError(RuntimeError):
    """The work raised what is no `Exception`, such as SystemExit: that is its cause.

    Raised as it is, it would end the process of the waiter, or look like an interrupt by its user.
    """


class Background:
    """Work that runs on its own thread from the moment it is made.

    Args:
        imports: whether it imports heavy libraries, and so waits for the import lock and holds it.
    """

    def __init__(self, work: Callable[[], object], *, imports: bool = True) -> None:
        self._work = work
        self._lock = IMPORTING if imports else contextlib.nullcontext()
        self._error: Exception | None = None
        self._done = threading.Event()
        # A daemon: the end of the process must not wait for torch.
        name = "nbloader-import" if imports else "nbloader-work"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            with self._lock:
                self._work()
        except Exception as error:
            self._error = error
        except BaseException as error:
            self._error = BackgroundError(f"{type(error).__name__} in the background: {error}")
            self._error.__cause__ = error
        finally:
            self._done.set()

    def check(self) -> bool:
        """Say whether the work is done.

        Raises:
            Exception: what the work failed with; BackgroundError for what is none.
        """
        if not self._done.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def wait(
        self,
        cancelled: threading.Event | None = None,
        tick: Callable[[], object] = lambda: None,
    ) -> bool:
        """Wait for the end; False if `cancelled` was set before it. Raises as `check` does.

        The work itself cannot be ended; it goes on in the background.

        Args:
            tick: called while it is waited for.
        """
        while not self._done.wait(WAIT_STEP_S):
            if cancelled is not None and cancelled.is_set():
                return False
            tick()
        return self.check()


def import_modules(*names: str) -> None:
    """Import modules in the background and wait for them."""
    if not all(name in sys.modules for name in names):
        Background(lambda: [importlib.import_module(name) for name in names]).wait()
