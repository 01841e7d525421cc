"""Whether Xet storage answers from here, found out beside other work. Only the worker imports this.

Networks that let the Hub through may still block the hosts of Xet storage.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from nbloader.limits import XET_PROBE_TIMEOUT_S, XET_PROBE_WAIT_S
from nbloader.records import XetFacts


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

    def result(self, wait_s: float = XET_PROBE_WAIT_S) -> XetFacts | None:
        """Give what came of it; None if no host was asked.

        A host that has refused, or said nothing until then, has no answer.

        Args:
            wait_s: for an answer that is still to come, but no longer than `XET_PROBE_TIMEOUT_S` in
                all.
        """
        thread = self._thread
        if thread is None:
            return None
        left_s = self._asked_at + XET_PROBE_TIMEOUT_S - time.monotonic()
        thread.join(max(0.0, min(wait_s, left_s)))
        return XetFacts(host=self._host, answer_s=self._answer_s)

    def _ask(self) -> None:
        from huggingface_hub import get_session

        session: Any = get_session()
        try:
            request = session.build_request("GET", f"{self._host}/", timeout=XET_PROBE_TIMEOUT_S)
            session.send(request, stream=True, follow_redirects=False).close()
        except Exception:  # Whatever it is, there was no answer.
            return
        self._answer_s = time.monotonic() - self._asked_at
