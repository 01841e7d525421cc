"""What the server counts: totals by class and path, and a log of the latest requests."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from nbloader.localhub.records import Counters, LoggedRequest, RequestClass, Traffic

__all__ = ["Entry", "TrafficLog"]

LOG_LENGTH = 10_000
"""Requests that the log keeps; the oldest go first. The totals are not bounded by it."""

_SIGNED = frozenset({RequestClass.CDN_HEAD, RequestClass.CDN_GET, RequestClass.XET_XORB})
"""Requests by signed URL, which no token belongs to."""


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
