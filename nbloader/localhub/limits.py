"""How many requests an address may make, as the Hub counts them and says it in its answers.

https://huggingface.co/docs/hub/rate-limits, and the draft of the headers that it names:
https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from nbloader.localhub.answers import Answer, json_answer
from nbloader.localhub.records import RequestClass

__all__ = ["RateLimits", "kind_of"]

_KINDS = {
    RequestClass.MODEL_INFO: "api",
    RequestClass.TREE: "api",
    RequestClass.PATHS_INFO: "api",
    RequestClass.REFS: "api",
    RequestClass.WHOAMI: "api",
    RequestClass.XET_TOKEN: "api",
    RequestClass.RESOLVE_HEAD: "resolvers",
    RequestClass.RESOLVE_GET: "resolvers",
}


def kind_of(request_class: RequestClass, path: str) -> str | None:
    """Return the kind that the Hub counts a request among; None if it does not count it."""
    return None if path.startswith("/api/resolve-cache/") else _KINDS.get(request_class)


class RateLimits:
    """Quotas in force, and what was taken of them in the present window.

    Args:
        quotas: requests in a window, by kind; other kinds are not limited, and nothing is said.
        window_s: length of a window, seconds.
    """

    def __init__(
        self,
        quotas: Mapping[str, int] | None = None,
        window_s: int = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quotas = dict(quotas or {})
        self._window_s = window_s
        self._clock = clock
        self._began = clock()
        self._taken = dict.fromkeys(self._quotas, 0)

    def applied(self, kind: str | None, answer: Answer) -> Answer:
        """Count a request; return its answer with the headers, or the refusal in its place."""
        if kind is None or kind not in self._quotas:
            return answer
        now = self._clock()
        if now - self._began >= self._window_s:
            self._began, self._taken = now, dict.fromkeys(self._quotas, 0)
        quota = self._quotas[kind]
        refused = self._taken[kind] >= quota
        self._taken[kind] = min(quota, self._taken[kind] + 1)
        reset_s = math.ceil(self._began + self._window_s - now)
        headers = {
            "RateLimit": f'"{kind}";r={quota - self._taken[kind]};t={reset_s}',
            "RateLimit-Policy": f'"fixed window";"{kind}";q={quota};w={self._window_s}',
        }
        if refused:
            answer.close()
            return json_answer({"error": "Too Many Requests"}, status=429, headers=headers)
        return replace(answer, headers={**answer.headers, **headers})
