"""Whether Xet storage answers from here, found out beside other work. Only the worker imports this.

Networks that let the Hub through may still block the hosts of Xet storage.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from nbloader.records import XetFacts

__all__ = ["TIMEOUT_S", "XetProbe"]

TIMEOUT_S = 3.0
"""For the answer; and what a call of `result` waits for at most, from the question on."""


class XetProbe:
    """Asks one host once. No token is sent: any answer of HTTP shows that the way is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._host = ""
        self._asked_at = 0.0
        self._answer_s: float | None = None

    def ask(self, host: str) -> None:
        """Ask a host, given without path, on a thread of its own; later calls do nothing."""
        with self._lock:
            if self._thread is not None:
                return
            self._host, self._asked_at = host, time.monotonic()
            self._thread = threading.Thread(target=self._ask, name="xet-probe", daemon=True)
            self._thread.start()

    def result(self) -> XetFacts | None:
        """Give what came of it; None if no host was asked."""
        thread = self._thread
        if thread is None:
            return None
        thread.join(max(0.0, self._asked_at + TIMEOUT_S - time.monotonic()))
        return XetFacts(host=self._host, answer_s=self._answer_s)

    def _ask(self) -> None:
        from huggingface_hub import get_session

        session: Any = get_session()
        try:
            request = session.build_request("GET", f"{self._host}/", timeout=TIMEOUT_S)
            session.send(request, stream=True, follow_redirects=False).close()
        except Exception:  # Whatever it is, there was no answer.
            return
        self._answer_s = time.monotonic() - self._asked_at
