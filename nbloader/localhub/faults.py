"""Which faults hit a request, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nbloader.localhub.records import Cut, Fault, RequestClass

WRONG_BYTE_STRIDE = 1024
"""Distance of the bytes that a wrong answer inverts, counted from the start of the file."""


class Pace:
    """A cap on speed: how long to wait so that all bytes together keep to it."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Take the next slot for `count` bytes; return how many seconds from `now` it is over."""
        self._free_at = max(self._free_at, now) + count / self.bytes_per_second
        return self._free_at - now


@dataclass(frozen=True, slots=True)
class Effect:
    """What the faults of one request add up to; the fields are those of `Fault`."""

    latency_s: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    cut: Cut | None = None
    after_bytes: int = 0
    wrong_bytes: bool = False
    expired: bool = False
    redirect: bool = False
    etag: str | None = None
    ignore_range: bool = False
    paces: tuple[Pace, ...] = ()

    @classmethod
    def of(cls, faults: Iterable[tuple[Fault, Pace | None]]) -> Effect:
        """Add faults up; beside each the pace that its responses share, if it has one."""
        pairs = list(faults)
        cut = min(
            (fault for fault, _ in pairs if fault.cut), key=lambda x: x.after_bytes, default=None
        )
        error = next((fault for fault, _ in pairs if fault.status is not None), None)
        paces = [Pace(fault.bytes_per_second) for fault, _ in pairs if fault.bytes_per_second]
        return cls(
            latency_s=sum(fault.latency_s for fault, _ in pairs),
            status=error.status if error else None,
            retry_after=error.retry_after if error else None,
            cut=cut.cut if cut else None,
            after_bytes=cut.after_bytes if cut else 0,
            wrong_bytes=any(fault.wrong_bytes for fault, _ in pairs),
            expired=any(fault.expired for fault, _ in pairs),
            redirect=any(fault.redirect for fault, _ in pairs),
            etag=next((fault.etag for fault, _ in pairs if fault.etag is not None), None),
            ignore_range=any(fault.ignore_range for fault, _ in pairs),
            paces=(*paces, *(shared for _, shared in pairs if shared)),
        )

    def headers_taken(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a request as its answer is to take them."""
        condition = headers.get("If-Range")
        ignored = set()
        if condition is not None and self.etag is not None:
            ignored.add("if-range")
        if self.ignore_range or ("if-range" in ignored and condition != f'"{self.etag}"'):
            ignored.add("range")
        return {name: value for name, value in headers.items() if name.lower() not in ignored}


class FaultBook:
    """The faults that are set, and how many requests each has concerned so far."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._concerned = [0] * len(faults)
        self._shared = [
            Pace(fault.total_bytes_per_second) if fault.total_bytes_per_second else None
            for fault in faults
        ]

    def take(self, request_class: RequestClass, path: str, *, has_body: bool) -> Effect:
        """Count a request, and return what is to be done to it."""
        active = []
        for index, fault in enumerate(self._faults):
            if fault.concerns(request_class, path, has_body=has_body):
                if fault.hits(self._concerned[index]):
                    active.append((fault, self._shared[index]))
                self._concerned[index] += 1
        return Effect.of(active)


def invert(data: bytes, offset: int) -> bytes:
    """Return `data`, which stands at `offset` of a file, with the wrong bytes put in."""
    wrong = bytearray(data)
    first = -offset % WRONG_BYTE_STRIDE
    wrong[first::WRONG_BYTE_STRIDE] = bytes(byte ^ 0xFF for byte in wrong[first::WRONG_BYTE_STRIDE])
    return bytes(wrong)
