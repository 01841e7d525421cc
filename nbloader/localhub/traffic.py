"""What the server counts: totals and a log of the latest requests, and what an address may make.

https://huggingface.co/docs/hub/rate-limits, and the draft of the headers that it names:
https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nbloader.localhub.answers import Answer, json_answer
from nbloader.localhub.records import Counters, LoggedRequest, RequestClass, Traffic

LOG_LENGTH = 10_000
"""Requests that the log keeps; the oldest go first. The totals are not bounded by it."""

_SIGNED = frozenset({RequestClass.CDN_HEAD, RequestClass.CDN_GET, RequestClass.XET_XORB})
"""Requests by signed URL, which no token belongs to."""

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


@dataclass(slots=True, kw_only=True)
class Entry:
    """A request under way; the fields are those of `LoggedRequest`."""

    request_class: RequestClass
    method: str
    path: str
    range: str | None
    had_authorization: bool
    status: int | None = None
    body_bytes: int = 0


class TrafficLog:
    """Counts requests when they arrive, and bytes just before they are written.

    So a client that has got its answer finds it counted.
    """

    def __init__(self) -> None:
        self._log: deque[Entry] = deque(maxlen=LOG_LENGTH)
        self._requests: Counter[RequestClass] = Counter()
        self._bytes: Counter[RequestClass] = Counter()
        self._path_bytes: Counter[str] = Counter()
        self._cdn_authorizations = 0

    def start(self, entry: Entry) -> None:
        """Count a request."""
        self._log.append(entry)
        self._requests[entry.request_class] += 1
        if entry.had_authorization and entry.request_class in _SIGNED:
            self._cdn_authorizations += 1

    def add_bytes(self, entry: Entry, count: int) -> None:
        """Count bytes of body; a negative number takes back what could not be written."""
        entry.body_bytes += count
        self._bytes[entry.request_class] += count
        self._path_bytes[entry.path] += count

    def counters(self) -> Counters:
        """Return the totals."""
        return Counters(
            by_class={
                name: Traffic(self._requests[name], self._bytes[name])
                for name in RequestClass
                if self._requests[name] or self._bytes[name]
            },
            body_bytes_by_path={path: count for path, count in self._path_bytes.items() if count},
            cdn_authorizations=self._cdn_authorizations,
        )

    def requests(self) -> list[LoggedRequest]:
        """Return the log, in the order of arrival."""
        return [
            LoggedRequest(
                request_class=entry.request_class,
                method=entry.method,
                path=entry.path,
                status=entry.status,
                body_bytes=entry.body_bytes,
                range=entry.range,
                had_authorization=entry.had_authorization,
            )
            for entry in self._log
        ]


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
