"""The attempts that the Hub's library makes by itself, made visible.

`hf_hub_download` retries in two ways of its own. Where the server asks to come back, it waits and
says nothing; that is cut short here, so that our own policy waits, and tells. Where the body of a
file breaks off, it goes on from the last byte, which is worth keeping; then what it writes to its
log is turned into a record.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import get_session

from nbloader.records import Retry
from nbloader.transfer.retry import TRANSIENT_STATUS, TransientError

__all__ = ["ShownRetries", "show_retries"]

_RESUMES = 5
"""How often the library goes on from the last byte before it gives up; more if bytes arrive."""

_RESUMED = re.compile(
    r"Error while downloading .*(?:trying to resume|resume download)", re.IGNORECASE | re.DOTALL
)
_RETRYING = re.compile(r"Retrying in ([\d.]+)s \[Retry (\d+)/(\d+)\]")


def show_retries(publish: Callable[[Retry], object]) -> ShownRetries:
    """Watch the library of this process: its HTTP client and its log."""
    session: Any = get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _ask_us]}
    shown = ShownRetries(publish)
    log = logging.getLogger("huggingface_hub")
    log.setLevel(logging.WARNING)
    log.propagate = False
    log.handlers = [shown]
    return shown


def _ask_us(response: Any) -> None:
    """Leave the library's own loop where the server asks to come back."""
    status = response.status_code
    if status in TRANSIENT_STATUS:
        raise TransientError(f"the server answered {status}", response)


class ShownRetries(logging.Handler):
    """Turns what the library logs about its own attempts into records."""

    def __init__(self, publish: Callable[[Retry], object]) -> None:
        super().__init__()
        self._publish = publish
        self._paths: dict[int, str] = {}
        self._counts: dict[int, int] = {}

    @contextmanager
    def of(self, path: str) -> Iterator[None]:
        """Say that this thread downloads `path`."""
        thread = threading.get_ident()
        self._paths[thread], self._counts[thread] = path, 0
        try:
            yield
        finally:
            del self._paths[thread], self._counts[thread]

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a record for each line about another attempt; the rest is not shown."""
        path = self._paths.get(record.thread or 0)
        if path is None:
            return
        text = record.getMessage()
        if _RESUMED.search(text):
            # The address in the line may be signed, so only its meaning is passed on.
            reason = "timed out" if "timed out" in text.lower() else "connection lost"
            self._tell(path, f"{reason}; going on from the last byte", 1.0, _RESUMES)
        elif found := _RETRYING.search(text):
            self._tell(path, "no answer", float(found[1]), int(found[3]))

    def _tell(self, path: str, reason: str, wait_s: float, most: int) -> None:
        thread = threading.get_ident()
        self._counts[thread] += 1
        attempt = self._counts[thread]
        self._publish(
            Retry(
                time=time.time(),
                path=path,
                reason=reason,
                wait_s=wait_s,
                attempt=attempt,
                max_attempts=max(most, attempt) + 1,
            )
        )
